"""Load on a running service: ``python -m bench.load http://127.0.0.1:8000``.

Thousands of sessions make turns by rule and change their facts now and then. Closed loop by
default: every connection asks again as soon as it has its answer. With ``--rate`` open loop:
turns arrive at random times, whatever the service does, and a turn's time counts from when it
should have been sent. A sample of the answers is compared with ``ToolAttention`` in this
process, which promotes turn by turn, without engine, gateway and HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from os import urandom
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psutil
import uvloop

from bench.common import OBJECTS, SYSTEMS, VERBS
from bench.load_connection import Connection
from bench.load_server import ROLES, made_up_attention
from ta_fast import Catalog, ToolAttention, make_encoder
from ta_fast.types import Turn

TOP_K = 5
THRESHOLD = 0.1
HTTP_OK = 200
WARM = 0.2
"""Of the time, before anything counts."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to do.

    Attributes:
        seconds: How long.
        sessions: Whose turns they are; a session does one thing at a time.
        connections: At most so many requests are under way.
        turns: Of one request; of one session each.
        rate: Requests a second of the open loop; 0 for the closed one.
        churn: Requests that change a session's facts, as a share.
        sample: Turns that are checked, as a share.
    """

    seconds: float = 10.0
    sessions: int = 2000
    connections: int = 32
    turns: int = 1
    rate: float = 0.0
    churn: float = 0.02
    sample: float = 0.01


@dataclass(slots=True)
class Report:
    """What came of it after the warm-up.

    ``requests`` and ``turns`` are per second, ``cpu`` is the server's microseconds for each
    request, the other times are milliseconds.
    """

    requests: float = 0.0
    turns: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    cpu: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    checked: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Agent:
    """A session as its host knows it."""

    id: str
    facts: frozenset[str]


class Generator:
    """Makes the load on one service."""

    def __init__(
        self,
        url: str,
        load: Load,
        reference: ToolAttention | None,
        key: str,
        cpu: Callable[[], float],
    ) -> None:
        self._url, self._load, self._reference = urlsplit(url), load, reference
        self._key, self._cpu = key, cpu
        self._random = random.Random(1)  # noqa: S311 - the same load every time
        run = urandom(4).hex()  # sessions of an earlier run still hold their facts
        self._idle = deque(Agent(f"{run}-{i}", frozenset()) for i in range(load.sessions))
        self._random.shuffle(self._idle)
        self._times: list[float] = []
        self._statuses: Counter[str] = Counter()
        self._to_check: list[tuple[Turn, Any]] = []

    async def run(self) -> Report:
        """Load it; then compare the sample."""
        connections: asyncio.Queue[Connection] = asyncio.Queue()
        for _ in range(self._load.connections):
            connections.put_nowait(await self._connect())
        agents = iter(list(self._idle))
        await asyncio.gather(*(self._begin_sessions(connections, agents) for _ in range(8)))
        counts = asyncio.get_running_loop().call_later(self._load.seconds * WARM, self._begin)
        self._started, self._spent = perf_counter(), self._cpu()
        until = self._started + self._load.seconds
        if self._load.rate:
            await self._open_loop(connections, until)
        else:
            await asyncio.gather(
                *(self._closed_loop(connections, until) for _ in range(self._load.connections))
            )
        counts.cancel()
        report = self._report(perf_counter() - self._started)
        while not connections.empty():
            connections.get_nowait().transport.close()
        return report

    async def _begin_sessions(
        self, connections: asyncio.Queue[Connection], agents: Iterator[Agent]
    ) -> None:
        for agent in agents:
            async with self._one(connections) as connection:
                await self._change(connection, agent)

    def _begin(self) -> None:
        self._started, self._spent = perf_counter(), self._cpu()
        self._times.clear()
        self._statuses.clear()

    async def _connect(self) -> Connection:
        host, port = self._url.hostname or "", self._url.port or 80
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, host, port))[1]

    async def _closed_loop(self, connections: asyncio.Queue[Connection], until: float) -> None:
        while (now := perf_counter()) < until:
            async with self._one(connections) as connection:
                await self._do(connection, now)

    async def _open_loop(self, connections: asyncio.Queue[Connection], until: float) -> None:
        due = perf_counter()
        async with asyncio.TaskGroup() as arrivals:
            while due < until:
                due += self._random.expovariate(self._load.rate)
                await asyncio.sleep(max(0.0, due - perf_counter()))
                arrivals.create_task(self._arrive(connections, due))

    async def _arrive(self, connections: asyncio.Queue[Connection], due: float) -> None:
        async with self._one(connections) as connection:
            await self._do(connection, due)

    @asynccontextmanager
    async def _one(self, connections: asyncio.Queue[Connection]) -> AsyncIterator[Connection]:
        connection = await connections.get()
        try:
            yield connection
        except ConnectionError:
            self._statuses["broken"] += 1
            connection = await self._connect()
        finally:
            connections.put_nowait(connection)

    async def _do(self, connection: Connection, due: float) -> None:
        """A change of one session's facts, or a turn of each of some sessions."""
        agents = [self._idle.popleft() for _ in range(self._load.turns)]
        try:
            if self._random.random() < self._load.churn:
                await self._change(connection, agents[0])
            else:
                await self._route(connection, agents)
            self._times.append(perf_counter() - due)
        finally:
            self._idle.extend(agents)

    async def _change(self, connection: Connection, agent: Agent) -> None:
        role = self._random.choice(ROLES)
        body = {"grant": sorted(role - agent.facts), "revoke": sorted(agent.facts - role)}
        status, _ = await self._post(connection, f"/v1/sessions/{agent.id}", body)
        if status == HTTP_OK:
            agent.facts = role

    async def _route(self, connection: Connection, agents: list[Agent]) -> None:
        intents = [self._intent() for _ in agents]
        turns = [
            {"intent": intent, "session": agent.id, "top_k": TOP_K, "threshold": THRESHOLD}
            for intent, agent in zip(intents, agents, strict=True)
        ]
        status, answer = await self._post(connection, "/v1/route", {"turns": turns})
        if status != HTTP_OK or self._reference is None:
            return
        sampled = [i for i in range(len(agents)) if self._random.random() < self._load.sample]
        if sampled:
            results = msgspec.json.decode(answer)["results"]
            for i in sampled:
                turn = Turn(intents[i], agents[i].facts, top_k=TOP_K, threshold=THRESHOLD)
                self._to_check.append((turn, results[i]))

    def _intent(self) -> str:
        pick = self._random.choice
        verb, thing, system = pick(VERBS), pick(OBJECTS), pick(SYSTEMS)
        return (
            f"{verb} the {thing} that {pick(OBJECTS)} {self._random.randrange(9)} needs in {system}"
        )

    async def _post(self, connection: Connection, path: str, body: object) -> tuple[int, bytes]:
        key = f"authorization: Bearer {self._key}\r\n" if self._key else ""
        head = f"POST {path} HTTP/1.1\r\nhost: {self._url.netloc}\r\n{key}"
        status, answer = await connection.request(head.encode(), msgspec.json.encode(body))
        self._statuses[str(status)] += 1
        return status, answer

    def _report(self, seconds: float) -> Report:
        times = sorted(self._times) or [0.0]
        report = Report(
            len(self._times) / seconds,
            len(self._times) / seconds * self._load.turns,
            *(1e3 * times[int((len(times) - 1) * share)] for share in (0.5, 0.99, 0.999)),
            1e6 * (self._cpu() - self._spent) / len(times),
            dict(self._statuses),
            len(self._to_check),
        )
        report.wrong.extend(self._wrong())
        return report

    def _wrong(self) -> Iterator[str]:
        for turn, result in self._to_check:
            assert self._reference is not None
            tools = result["promotion"]["tools"]
            expected = {t.id: t.score for t in self._reference.before_model(turn).tools}
            found = {t["id"]: t["score"] for t in tools if "score" in t}
            # Those without a score are kept from the session's earlier turns.
            index = self._reference.index
            permitted = index.allowed_rows(index.gate.allowed(turn.facts))
            forbidden = [t["id"] for t in tools if not permitted[index.rows[t["id"]]]]
            if found != expected or forbidden:
                facts = sorted(turn.facts)
                yield f"{turn.intent!r} {facts}: {found}, {forbidden}; expected {expected}"


def run(
    url: str,
    load: Load,
    reference: ToolAttention | None = None,
    key: str = "",
    cpu: Callable[[], float] = lambda: 0.0,
) -> Report:
    """Load a service from this process; ``cpu`` gives the CPU seconds that it has used."""
    gc.collect()
    gc.freeze()  # a pause of this process would be taken for one of the service
    generator = Generator(url, load, reference, key, cpu)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(generator.run())


def cpu_of(pid: int) -> Callable[[], float]:
    """Reads the CPU seconds of a process."""
    process = psutil.Process(pid)
    return lambda: sum(process.cpu_times()[:2])


def main() -> int:
    """Run from the command line; 1 if an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--key", default="")
    parser.add_argument("--pid", type=int, help="of the service, to report its CPU time")
    for name, value in asdict(Load()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--tools", type=int, default=200, help="of bench.load_server")
    parser.add_argument("--catalog", help="instead: a copy of the served catalog's file")
    parser.add_argument("--encoder", default="minilm", help="and its encoder")
    args = parser.parse_args()
    load = Load(**{name: getattr(args, name) for name in asdict(Load())})
    if args.catalog:
        reference = ToolAttention(Catalog(args.catalog), make_encoder(args.encoder))
    else:
        reference = made_up_attention(args.tools)
    cpu = cpu_of(args.pid) if args.pid else lambda: 0.0
    report = run(args.url, load, reference, args.key, cpu)
    print(json.dumps(asdict(report), indent=2))
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
