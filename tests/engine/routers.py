"""A router without a model, whose answers tell which text they are for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any, TypeVar
from zlib import crc32

import numpy as np

from ta_fast.engine import Answer, Columns, Engine, Epoch, Request, Rows
from ta_fast.types import F32, U32

T = TypeVar("T")

LIMIT = 20.0
"""Seconds after which a test counts as hanging."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts as they are; a word is a token."""

    texts: list[str]

    @property
    def lengths(self) -> list[int]:
        return [len(text.split()) for text in self.texts]

    def take(self, rows: Rows) -> Texts:
        return Texts([self.texts[row] for row in rows])


def nothing(texts: Sequence[str]) -> None:
    """Lets every text pass."""


@dataclass
class FakeRouter:
    """Row 0 of a turn is the hash of its text, plus ``shift``; its scores are all ``shift``.

    ``prepared`` and ``batches`` are the texts of every call, finished or not. While ``free``
    is cleared the device hangs; ``before_prepare`` and ``before_run`` may raise or wait.
    """

    shift: int = 0
    before_prepare: Callable[[Sequence[str]], None] = nothing
    before_run: Callable[[Sequence[str]], None] = nothing
    prepared: list[list[str]] = field(default_factory=list)
    batches: list[list[str]] = field(default_factory=list)
    busy: Event = field(default_factory=Event)
    free: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.free.set()

    def prepare(self, texts: Sequence[str]) -> Texts:
        self.prepared.append(list(texts))
        self.before_prepare(texts)
        return Texts(list(texts))

    def run(self, prepared: Texts, allowed: U32, k: int, threshold: F32) -> Columns:
        texts = prepared.texts
        assert allowed.shape[0] == len(texts) == len(threshold)
        self.batches.append(texts)
        self.busy.set()
        assert self.free.wait(60)
        self.before_run(texts)
        rows = np.full((len(texts), k), -1, np.int32)
        rows[:, 0] = [row_of(text, self.shift) for text in texts]
        return {"scores": np.full((len(texts), k), self.shift, np.float32), "rows": rows}


def row_of(text: str, shift: int = 0) -> int:
    """The row that `FakeRouter` answers a text with."""
    return (crc32(text.encode()) & 0xFFFFFF) + shift


def raise_on(word: str, error: type[BaseException] = RuntimeError) -> Callable[..., None]:
    """Raises if a text has this word."""

    def check(texts: Sequence[str]) -> None:
        if any(word in text for text in texts):
            raise error(f"met {word}")

    return check


def answers(texts: Iterable[str], shift: int = 0) -> list[int]:
    """What `found` must be for these texts."""
    return [row_of(text, shift) for text in texts]


def within(seconds: float, waiting: Coroutine[Any, Any, T]) -> T:
    """Run an event loop for it, with a hard limit."""

    async def limited() -> T:
        return await asyncio.wait_for(waiting, seconds)

    return asyncio.run(limited())


async def until(holds: Callable[[], object]) -> None:
    """Wait for something that another thread does."""
    while not holds():
        await asyncio.sleep(0.001)


async def occupied(engine: Engine, on: Epoch, router: FakeRouter) -> asyncio.Future[Answer]:
    """A turn, "first", that keeps the device busy until its router is free again."""
    router.free.clear()
    first = asyncio.ensure_future(engine.route(request(on, "first")))
    await until(router.busy.is_set)
    return first


def epoch(*routers: FakeRouter) -> Epoch:
    """An epoch of these routers, one word of classes."""
    return Epoch(routers, words=1)


def request(
    on: Epoch, *texts: str, k: int = 3, tenant: str = "", timeout: float | None = None
) -> Request:
    """Turns that may use everything."""
    allowed = np.ones((len(texts), on.words), np.uint32)
    return Request(on, texts, allowed, k, np.zeros(len(texts), np.float32), tenant, timeout)


def found(answer: Answer) -> list[int]:
    """The best row of each turn of an answer."""
    return [int(row) for row in answer.top.rows[:, 0]]


Outcome = Answer | BaseException


async def outcomes(engine: Engine, on: Epoch, texts: Sequence[str]) -> list[Outcome]:
    """What each text got, sent one by one at once."""
    turns = [engine.route(request(on, text)) for text in texts]
    return await asyncio.gather(*turns, return_exceptions=True)


async def check_healthy(engine: Engine, on: Epoch) -> None:
    """Turns are taken, and answered right."""
    texts = [f"healthy {i}" for i in range(50)]
    for text, outcome in zip(texts, await outcomes(engine, on, texts), strict=True):
        assert isinstance(outcome, Answer), outcome
        assert found(outcome) == answers([text])
    assert engine.progress.ready


def kinds(results: Sequence[Outcome]) -> dict[type, int]:
    """How often each kind of outcome came."""
    return dict(Counter(type(result) for result in results))
