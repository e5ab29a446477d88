"""The engine with a router that costs nothing, against bare futures resolved in batches.

And how long a tenant waits beside another that asks fifty times as often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from statistics import median
from time import process_time, sleep
from typing import Any

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from bench.engine_load import Report, Sessions, Turns, intents
from ta_fast.engine import Answer, Columns, Engine, Epoch, Limits, Request, Rows
from ta_fast.types import F32, U32, TopK

SESSIONS = 10_000
TURNS = 3
BATCH = 500
"""Futures that the bare loop resolves together: about what the engine's batches hold."""
MANY = 1000
CALLS = 30
WORDS = 4
K = 10
INTENT = "close the stale issues in my repository and tell the channel about it"
ROUNDS = 5
LIMIT = 10.0
"""CPU time of a turn over that of a bare future, at most; 2.5 to 3.5 is usual."""
FAIR_LIMIT = 2.0
"""The p99 of a tenant beside one of fifty times its rate over its p99 alone, at most."""
RATE = 150.0
"""Turns a second of the tenant with few; fifty times as many are more than the device can do."""
BUSY, ROOM = 0.02, 128
"""Seconds and turns of a batch, so that the device does 6,400 turns a second."""
MANY_LIMIT = 0.5
"""CPU time of a turn of a long request over that of a bare future, at most."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Only how many texts there were."""

    texts: int

    @property
    def lengths(self) -> Sequence[int]:
        """One token each."""
        return [1] * self.texts

    def take(self, rows: Rows) -> Counted:
        """Some of them."""
        return Counted(len(rows))


class Trivial:
    """A router whose answer is there already: turn b gets rows b, b + 1, ..."""

    def __init__(self) -> None:
        rows = np.arange(4096, dtype=np.int32)[:, None] + np.arange(K, dtype=np.int32)
        self._top = TopK(np.ones((4096, K), np.float32), rows)

    def prepare(self, texts: Sequence[str]) -> Counted:
        """Nothing to tokenise."""
        return Counted(len(texts))

    def run(self, prepared: Counted, allowed: U32, k: int, threshold: F32) -> Columns:  # noqa: ARG002
        """Nothing to compute."""
        turns = slice(prepared.texts)
        return {"scores": self._top.scores[turns, :k], "rows": self._top.rows[turns, :k]}


ON = Epoch((Trivial(),), WORDS)


def request(turns: int) -> Request:
    """That many turns that may use everything."""
    allowed, threshold = np.ones((turns, WORDS), np.uint32), np.zeros(turns, np.float32)
    return Request(ON, [INTENT] * turns, allowed, K, threshold)


def check(answer: Answer, turns: int) -> None:
    """The answer is of this many turns, whole, and rows are in order."""
    assert answer.top.rows.shape == (turns, K)
    assert not answer.errors
    assert (np.diff(answer.top.rows, axis=1) == 1).all()


async def singles(engine: Engine) -> None:
    """Ten thousand sessions, each asking for one turn after the other."""
    one = request(1)

    async def session() -> None:
        for _ in range(TURNS):
            answer = await engine.route(
                Request(ON, one.texts, one.allowed, K, one.threshold, "tenant")
            )
        check(answer, 1)

    await asyncio.gather(*(session() for _ in range(SESSIONS)))


async def bare() -> None:
    """The same number of sessions and turns with futures alone."""
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[int]] = []

    def resolve(futures: list[asyncio.Future[int]]) -> None:
        for future in futures:
            future.set_result(1)

    async def session() -> None:
        for _ in range(TURNS):
            future = loop.create_future()
            waiting.append(future)
            if len(waiting) == BATCH:
                loop.call_soon(resolve, waiting.copy())
                waiting.clear()
            await future

    await asyncio.gather(*(session() for _ in range(SESSIONS)))


async def many(engine: Engine) -> None:
    """Requests of a thousand turns, one after the other."""
    asked = request(MANY)
    for _ in range(CALLS):
        check(await engine.route(asked), MANY)


def seconds(work: Coroutine[Any, Any, object]) -> float:
    """CPU seconds of all threads."""

    async def measured() -> float:
        started = process_time()
        await work
        return process_time() - started

    return asyncio.run(measured())


def measure(benchmark: BenchmarkFixture, work: Callable[[Engine], Any], turns: int) -> float:
    """Run it; the CPU time of a turn over that of a bare future, as a median of pairs."""
    with Engine() as engine:
        benchmark.pedantic(lambda: asyncio.run(work(engine)), rounds=1, warmup_rounds=0)
        if not benchmark.enabled:
            return 0.0
        times = []
        for _ in range(ROUNDS):
            ours, theirs = seconds(work(engine)) / turns, seconds(bare()) / SESSIONS / TURNS
            times.append((ours, theirs))
    ratio = median(ours / theirs for ours, theirs in times)
    benchmark.extra_info["turns a CPU second"] = round(1 / median(ours for ours, _ in times))
    benchmark.extra_info["bare futures a CPU second"] = round(1 / median(t for _, t in times))
    benchmark.extra_info["ratio to a bare future"] = ratio
    return ratio


def test_turns_one_by_one(benchmark: BenchmarkFixture) -> None:
    """One turn of ten thousand sessions costs at most 10 bare futures of CPU."""
    assert measure(benchmark, singles, SESSIONS * TURNS) <= LIMIT


def test_turns_by_the_thousand(benchmark: BenchmarkFixture) -> None:
    """A turn among a thousand of one request costs at most half a bare future."""
    assert measure(benchmark, many, MANY * CALLS) <= MANY_LIMIT


class Busy(Trivial):
    """Takes as long for every batch."""

    def run(self, prepared: Counted, allowed: U32, k: int, threshold: F32) -> Columns:
        """Nothing to compute, slowly."""
        sleep(BUSY)
        return super().run(prepared, allowed, k, threshold)


async def light(seconds: float, times: float) -> list[Report]:
    """Report of a tenant with few turns, and of another with ``times`` as many if that is not 0."""
    on = Epoch((Busy(),), WORDS)
    turns = Turns(intents(1000, 1), np.ones((1, WORDS), np.uint32))
    async with Engine(limits=Limits(rows=ROOM, waiting=50 * ROOM)) as engine:
        load = Sessions(engine, lambda: on, turns, 200, "light").open(RATE, 0.5, seconds)
        if not times:
            return [await load]
        crowd = Sessions(engine, lambda: on, turns, 8000, "heavy")
        return await asyncio.gather(load, crowd.open(times * RATE, 0.5, seconds))


def test_a_tenant_beside_a_crowd(benchmark: BenchmarkFixture) -> None:
    """One tenant at 50 times the rate of another raises the other's p99 by at most 2 times."""
    benchmark.pedantic(lambda: asyncio.run(light(0.2, 50)), rounds=1, warmup_rounds=0)
    if not benchmark.enabled:
        return
    rounds = [[asyncio.run(light(5.0, times)) for times in (0, 50)] for _ in range(3)]
    ratio = median(beside[0].p99 / alone[0].p99 for alone, beside in rounds)
    for (alone,), (beside, crowd) in rounds:
        assert not alone.errors
        assert not beside.errors
        assert crowd.turns > 0.5 * ROOM / BUSY
    benchmark.extra_info["p99 alone, ms"] = [alone.p99 for (alone,), _ in rounds]
    benchmark.extra_info["p99 beside 50 times as many, ms"] = [b.p99 for _, (b, _) in rounds]
    benchmark.extra_info["ratio"] = ratio
    assert ratio <= FAIR_LIMIT
