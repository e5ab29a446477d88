"""Thousands of sessions on an engine in this process: closed loop, open loop, and in bulk."""

from __future__ import annotations

import asyncio
import gc
import re
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from bench.cpu import seconds_by_thread
from ta_fast.engine import Engine, Epoch, Request, Stats
from ta_fast.errors import TaFastError
from ta_fast.types import U32, Tool, TopK

T = TypeVar("T")

K = 5
LEAST = -1.0
"""The threshold: every tool may be an answer."""
TICK = 0.001
"""Seconds between looks at what is due in the open loop; part of a turn's time."""
SAMPLED = 97
"""One of so many turns of a session's is kept, to be compared with its answer alone."""
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*[,;:.?]?")


def intents(count: int, seed: int, least: int = 6, most: int = 24) -> list[str]:
    """Running words of this repository's documents, ``least`` to ``most`` of them each."""
    root = Path(__file__).parents[1]
    pages = sorted([*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("kernels/*.md")])
    said = " ".join(page.read_text(encoding="utf-8") for page in pages).split()
    words = [word for word in said if _WORD.fullmatch(word)]
    rng = np.random.default_rng(seed)
    first = rng.integers(0, len(words) - most, count).tolist()
    long = rng.integers(least, most + 1, count).tolist()
    return [" ".join(words[a : a + n]) for a, n in zip(first, long, strict=True)]


def tools(count: int) -> list[Tool]:
    """Made-up tools whose words are real."""
    about, parts = intents(count, 1, 12, 40), intents(2 * count, 2, 6, 12)
    made = []
    for i, text in enumerate(about):
        first, second, *_ = (word.strip(".,;:?").lower() for word in text.split())
        name, server = f"{first}_{second}_{i}", f"server{i % 20}"
        named = {"target": parts[2 * i], "options": parts[2 * i + 1]}
        properties = {key: {"type": "string", "description": said} for key, said in named.items()}
        schema = {"type": "object", "properties": properties}
        made.append(Tool(f"{server}__{name}", name, text, schema, server))
    return made


@dataclass(frozen=True, slots=True)
class Turns:
    """What sessions ask: texts, and the allowed classes ``[64, W]`` of their roles."""

    texts: Sequence[str]
    roles: U32

    def role(self, session: int) -> int:
        """Thousands of sessions share a few states."""
        return session % len(self.roles)


@dataclass(slots=True)
class Seen:
    """What happened: seconds of turns, errors by kind, and (text, role, answer) of a sample."""

    times: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    sample: list[tuple[int, int, TopK]] = field(default_factory=list)

    def keep(self, text: int, role: int, top: TopK) -> None:
        """An answer to be compared; a copy, as it may be a view of its batch."""
        self.sample.append((text, role, TopK(top.scores.copy(), top.rows.copy())))


class Sessions:
    """Sessions with one turn at a time each, on the present event loop.

    Args:
        engine: Whom they ask.
        epoch: Gives what they ask about, now.
        turns: What they ask.
        count: How many they are.
        tenant: Whose they are.
    """

    def __init__(
        self,
        engine: Engine,
        epoch: Callable[[], Epoch],
        turns: Turns,
        count: int,
        tenant: str = "",
    ) -> None:
        self._engine, self._epoch, self._turns = engine, epoch, turns
        self._tenant = tenant
        self._count = count
        self._least = np.full(1, LEAST, np.float32)
        self._allowed = [turns.roles[role : role + 1] for role in range(len(turns.roles))]
        self._idle: deque[asyncio.Future[float]] = deque()
        self._ended = False
        self.seen = Seen()

    async def closed(self, warm: float, seconds: float) -> Report:
        """Every session asks again as soon as it has its answer."""
        asking = [asyncio.ensure_future(self._session(i, None)) for i in range(self._count)]
        return await self._measured(warm, seconds, asking)

    async def open(self, rate: float, warm: float, seconds: float) -> Report:
        """Turns come at random times, ``rate`` a second; their time counts from when due."""
        asking = [asyncio.ensure_future(self._session(i, self._due)) for i in range(self._count)]
        asking.append(asyncio.ensure_future(self._wake(rate)))
        return await self._measured(warm, seconds, asking)

    async def _measured(
        self, warm: float, seconds: float, asking: Sequence[asyncio.Future[None]]
    ) -> Report:
        await asyncio.sleep(warm / 2)
        quiet_collector()  # a pause, whose turns are worked off before anything counts
        await asyncio.sleep(warm / 2)
        self.seen = Seen()
        before, cpu, began = self._engine.stats, seconds_by_thread(), perf_counter()
        await asyncio.sleep(seconds)
        wall, seen = perf_counter() - began, self.seen
        report = Report.of(seen, wall, before, self._engine.stats, cpu)
        self._ended = True
        for future in self._idle:
            future.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        gc.unfreeze()
        return report

    async def _session(self, session: int, due: Callable[[], Awaitable[float]] | None) -> None:
        """One turn after the other: each when it is due, or at once."""
        texts, at = self._turns.texts, session * 7 % len(self._turns.texts)
        role = self._turns.role(session)
        allowed, least, tenant = self._allowed[role], self._least, self._tenant
        while not self._ended:
            began = perf_counter() if due is None else await due()
            asked = Request(self._epoch(), (texts[at],), allowed, K, least, tenant)
            try:
                answer = await self._engine.route(asked)
            except TaFastError as error:
                self.seen.errors[type(error).__name__] += 1
                await asyncio.sleep(0.01)
            else:
                self.seen.times.append(perf_counter() - began)
                if (at + session) % SAMPLED == 0:
                    self.seen.keep(at, role, answer.top)
            at = (at + 1) % len(texts)

    def _due(self) -> asyncio.Future[float]:
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._idle.append(future)
        return future

    async def _wake(self, rate: float) -> None:
        due = due_times(rate)
        at = next(due)
        while not self._ended:
            now = perf_counter()
            while at <= now and self._idle:
                self._idle.popleft().set_result(at)
                at = next(due)
            await asyncio.sleep(TICK)


def due_times(rate: float) -> Iterator[float]:
    """Times at which turns are due from now on: ``rate`` a second, at random."""
    rng, at = np.random.default_rng(1), perf_counter()
    while True:
        times = at + np.cumsum(rng.exponential(1 / rate, 4096))
        yield from times.tolist()
        at = float(times[-1])


@dataclass(slots=True)
class Report:
    """Of the time after the warm-up.

    ``turns`` a second; ``p50`` and so on in milliseconds; ``cpu`` microseconds a turn by thread;
    ``stages`` the shares of wall time in ``prepare`` and ``run``, summed over devices.
    """

    turns: float
    p50: float
    p99: float
    p999: float
    rows_of_batch: float
    stages: dict[str, float]
    cpu: dict[str, float]
    errors: dict[str, int]
    seen: Seen

    @classmethod
    def of(
        cls, seen: Seen, wall: float, before: Stats, after: Stats, cpu: dict[str, float]
    ) -> Report:
        """What was seen in ``wall`` seconds."""
        times = 1e3 * np.array(seen.times or [0.0])
        spent = {name: s - cpu.get(name, 0.0) for name, s in seconds_by_thread().items()}
        done = max(1, len(seen.times))
        batches = sum(after.run.counts) - sum(before.run.counts)
        return cls(
            len(seen.times) / wall,
            float(np.quantile(times, 0.5)),
            float(np.quantile(times, 0.99)),
            float(np.quantile(times, 0.999)),
            (after.turns - before.turns) / max(1, batches),
            {
                "prepare": (after.prepare.total - before.prepare.total) / wall,
                "run": (after.run.total - before.run.total) / wall,
            },
            {name: 1e6 * seconds / done for name, seconds in spent.items()},
            dict(seen.errors),
            seen,
        )

    def plain(self) -> dict[str, Any]:
        """For JSON: rounded, without what was seen."""
        return {
            "turns_per_s": round(self.turns),
            "ms": {
                "p50": round(self.p50, 3),
                "p99": round(self.p99, 3),
                "p99.9": round(self.p999, 3),
            },
            "rows_of_batch": round(self.rows_of_batch, 1),
            "share_of_wall_in_stage": {name: round(x, 4) for name, x in self.stages.items()},
            "cpu_us_per_turn": {
                name: round(x, 2) for name, x in sorted(self.cpu.items()) if x >= 0.05
            },
            "cpu_us_per_turn_in_all": round(sum(self.cpu.values()), 2),
            "errors": self.errors,
        }


async def bulk(
    engine: Engine, epoch: Epoch, turns: Turns, size: int, seconds: float
) -> tuple[float, Seen]:
    """Turns a second in requests of ``size`` turns, two under way for each device."""
    until, done, seen = perf_counter() + seconds, 0, Seen()
    roles = np.arange(size) % len(turns.roles)
    allowed, least = turns.roles[roles], np.full(size, LEAST, np.float32)

    async def ask(at: int) -> None:
        nonlocal done
        while perf_counter() < until:
            texts = turns.texts[at : at + size]
            answer = await engine.route(Request(epoch, texts, allowed, K, least))
            assert not answer.errors
            one = slice(done % size, done % size + 1)
            top = TopK(answer.top.scores[one].copy(), answer.top.rows[one].copy())
            seen.sample.append((at + one.start, int(roles[one.start]), top))
            done, at = done + size - 1, (at + size) % (len(turns.texts) - size + 1)

    began = perf_counter()
    await asyncio.gather(*(ask(i * size) for i in range(2 * engine.devices)))
    return (done + len(seen.sample)) / (perf_counter() - began), seen


def quiet_collector() -> None:
    """As the service does: what lives long is not looked at by every collection of garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 1_000_000)


def run(work: Coroutine[Any, Any, T]) -> T:
    """On uvloop where it is installed, else on asyncio's own loop."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if find_spec("uvloop") is not None:
        factory = import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)
