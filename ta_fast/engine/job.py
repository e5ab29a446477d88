"""What is asked, what waits, and what is answered."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ta_fast.engine.router import Columns, Epoch
from ta_fast.errors import TaFastError
from ta_fast.types import F32, U32, TopK

CHARACTERS_PER_TOKEN = 4
"""For a text's cost before it is tokenised; English has 4 to 5."""
AT_ONCE = 256
"""Jobs whose futures are set before their callers run."""
SMALL_K = 16
"""Turns that want up to this many tools share batches; above it, those of a power of two."""


# Not frozen, nor are the answer and the job: one of each is made for every turn, and a frozen
# dataclass takes five times as long, as it sets each field by a call.
@dataclass(slots=True, eq=False)
class Request:
    """n turns of one caller: one most often, at least one. All are admitted, or none.

    Not to be changed once it is asked.

    Attributes:
        epoch: What they are routed against.
        texts: The intents, ``[n]``.
        allowed: Allowed gate classes of that epoch, uint32 ``[n, W]``.
        k: Rows that each of them wants, at least 1.
        threshold: Least scores, float32 ``[n]``.
        tenant: Whose share of the engine they take.
        timeout: Seconds until the answer must be there, up to the engine's limit, which is
            what None means.
    """

    epoch: Epoch
    texts: Sequence[str]
    allowed: U32
    k: int
    threshold: F32
    tenant: str = ""
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Computed:
    """What the turns of one batch share.

    Attributes:
        columns: What the router gave, a row for each turn of the batch.
        errors: Why a turn has no answer, by its row.
        seconds: ``prepare`` and ``run``.
    """

    columns: Columns
    errors: Mapping[int, TaFastError]
    seconds: Mapping[str, float]


@dataclass(slots=True, eq=False)
class Answer:
    """The best rows of a request's n turns.

    Attributes:
        batch: What they were computed with.
        first, last: Their rows there; n is the difference.
        k: Rows that each of them wanted.
        waited: Seconds until the batch was made.
    """

    # Cut out when they are read: thousands of answers are made at once, for callers who look
    # at one column each.
    batch: Computed
    first: int
    last: int
    k: int
    waited: float

    @property
    def columns(self) -> Columns:
        """What the router gave, n rows each; unfilled where a turn has an error.

        They may be views of the batch's arrays, so copy what is kept for long.
        """
        columns = {name: of[self.first : self.last] for name, of in self.batch.columns.items()}
        return columns | {name: columns[name][:, : self.k] for name in ("scores", "rows")}

    @property
    def top(self) -> TopK:
        """The best tools, ``[n, k]``; a view."""
        columns, rows = self.batch.columns, slice(self.first, self.last)
        return TopK(columns["scores"][rows, : self.k], columns["rows"][rows, : self.k])

    @property
    def errors(self) -> Mapping[int, TaFastError]:
        """Why a turn has no answer, by its place in the request; its row is unfilled."""
        of = self.batch.errors
        return {row - self.first: of[row] for row in of if self.first <= row < self.last}

    @property
    def seconds(self) -> Mapping[str, float]:
        """``prepare`` and ``run``, of the batch."""
        return self.batch.seconds


Waiter: TypeAlias = "asyncio.Future[Answer] | concurrent.futures.Future[Answer]"


@dataclass(slots=True, eq=False)
class Job:
    """A request, or a piece of a long one, that waits for its future.

    Attributes:
        epoch, texts, allowed, k, threshold, tenant: As in the request.
        cost: What the turns take of a batch's budget, in tokens; an estimate.
        arrived, deadline: In seconds of ``time.monotonic``.
        future: Where the answer goes.
        loop: The event loop that the future belongs to; None for a waiting thread's.
        place: Its first row in its batch.
        tag, order: What the queue sorts it by.
    """

    epoch: Epoch
    texts: Sequence[str]
    allowed: U32
    k: int
    threshold: F32
    tenant: str
    cost: int
    arrived: float
    deadline: float
    future: Waiter
    loop: asyncio.AbstractEventLoop | None
    place: int = 0
    tag: float = 0.0
    order: int = 0

    @property
    def kind(self) -> tuple[Epoch, int]:
        """What jobs of one batch have in common: the epoch, and about how many tools.

        One turn that wants a thousand tools would widen the answers of all others.
        """
        return self.epoch, SMALL_K if self.k <= SMALL_K else 1 << (self.k - 1).bit_length()


def estimated_tokens(texts: Sequence[str], k: int) -> int:
    """What turns take of a batch's budget; wanted tools count too, as answers take memory."""
    return sum(map(len, texts)) // CHARACTERS_PER_TOKEN + len(texts) * (1 + k // SMALL_K)


def deliver(jobs: Iterable[Job], settle: Callable[[Sequence[Job]], None]) -> None:
    """Call ``settle`` where the futures live: one wake-up for each event loop, for all its jobs."""
    groups: dict[asyncio.AbstractEventLoop | None, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.loop, []).append(job)
    for loop, group in groups.items():
        if loop is None:
            settle(group)
            continue
        try:
            loop.call_soon_threadsafe(_settle_some, loop, group, settle)
        except RuntimeError:
            # The loop is closed, and nobody waits there any more.
            continue


def _settle_some(
    loop: asyncio.AbstractEventLoop,
    jobs: list[Job],
    settle: Callable[[Sequence[Job]], None],
    first: int = 0,
) -> None:
    settle(jobs[first : first + AT_ONCE])
    # The rest comes after the callers just answered: their answers are still in the CPU's
    # cache, and a batch of thousands does not keep the loop from everything else.
    if first + AT_ONCE < len(jobs):
        loop.call_soon(_settle_some, loop, jobs, settle, first + AT_ONCE)


def fail(jobs: Iterable[Job], error: TaFastError) -> None:
    """Answer jobs that have no answer yet with an error."""

    def settle(group: Sequence[Job]) -> None:
        for job in group:
            settle_one(job, error)

    deliver(jobs, settle)


def settle_one(job: Job, answer: Answer | TaFastError) -> None:
    """Answer a job, unless it is cancelled or answered. Called where its future lives."""
    if job.future.done():
        return
    try:
        if isinstance(answer, Answer):
            job.future.set_result(answer)
        else:
            job.future.set_exception(_again(answer))
    except concurrent.futures.InvalidStateError:
        # A waiting thread gave up just now.
        return


def _again(error: TaFastError) -> TaFastError:
    # Each waiter raises its own: one object raised by thousands gathers all their tracebacks.
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy
