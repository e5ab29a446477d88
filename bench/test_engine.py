"""The engine with a router that costs nothing, against bare futures resolved in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from statistics import median
from time import process_time
from typing import Any

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from ta_fast.engine import Answer, Columns, Engine, Epoch, Request, Rows
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
"""CPU time of a turn over that of a bare future, at most; 4 to 5 is usual."""
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
