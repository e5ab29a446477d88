"""The engine: turns arrive one by one, batches go to the devices, everyone gets an answer."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf
from time import monotonic
from types import MappingProxyType, TracebackType
from typing import TypeVar

import numpy as np

from ta_fast.engine.deadlines import MESSAGE, Deadlines
from ta_fast.engine.device import Device
from ta_fast.engine.job import Answer, Computed, Job, Request, estimated_tokens, fail
from ta_fast.engine.metrics import Metrics, Progress, Reason, Stats
from ta_fast.engine.queue import FairQueue, Limits
from ta_fast.engine.router import unanswered
from ta_fast.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    InvalidConfig,
    InvalidTurn,
    TaFastError,
)

PIECE = 64
"""Turns of a long request that stay together; between pieces others may come."""
REASONS: dict[int, Reason] = {422: "invalid", 429: "overloaded", 503: "unavailable"}
"""Why a request was refused, by its error's status."""

F = TypeVar("F", "asyncio.Future[Answer]", "concurrent.futures.Future[Answer]")


class Engine:
    """Batches the turns of any number of callers, event loops and threads.

    A request names its epoch and its tenant. It waits in one queue for all devices, so that
    it goes to the one that is free first. Whatever happens, it is answered, by its deadline
    at the latest. A request that is cancelled is not computed, unless its batch is already.

    The engine works from its construction until it is closed.

    Args:
        devices: Devices, and so routers of an epoch; two threads each.
        limits: Of a batch, of the queue, of a turn's time.
        weights: Tenants' shares of a busy engine; 1 where nothing is said.

    Raises:
        InvalidConfig: no device, or a weight that is not above zero.
    """

    def __init__(
        self,
        devices: int = 1,
        limits: Limits | None = None,
        weights: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        if devices < 1:
            raise InvalidConfig(f"devices is {devices}; expected 1 or more")
        for tenant, weight in weights.items():
            if not 0 < weight < inf:
                raise InvalidConfig(f"weight of {tenant!r} is {weight}; expected a number above 0")
        self._limits = limits or Limits()
        self._piece = min(PIECE, self._limits.rows)
        self._metrics = Metrics()
        self._queue = FairQueue(self._limits, weights, self._metrics)
        self._deadlines: dict[asyncio.AbstractEventLoop, Deadlines] = {}
        self._closing = False
        self._devices = [
            Device(number, self._queue, self._metrics, self._limits, self._lost)
            for number in range(devices)
        ]
        for device in self._devices:
            device.start()

    async def route(self, request: Request) -> Answer:
        """The best allowed rows of each of the request's turns.

        Returns:
            A row for each turn. Of several turns some may lack an answer: see ``errors``.

        Raises:
            InvalidTurn: the request can never fit.
            Overloaded: too many turns are waiting; ``retry_after`` hints at the seconds.
            DeadlineExceeded: the timeout has passed for all of its turns.
            BackendUnavailable: the engine is closing, its devices are broken, or computing
                failed for all of its turns.
            ValueError: shapes, dtypes or routers that do not fit together.
        """
        loop, deadline = asyncio.get_running_loop(), self._deadline(request)
        futures = self._offer(request, deadline, loop.create_future, loop)
        deadlines = self._deadlines.get(loop) or self._watch(loop)
        deadlines.add(deadline, futures)
        try:
            if len(futures) == 1:
                return await futures[0]
            pieces = await asyncio.gather(*futures, return_exceptions=True)
        finally:
            deadlines.drop(futures)
        return _join(request, self._piece, pieces)

    def route_blocking(self, request: Request) -> Answer:
        """`route` for a thread without an event loop, which waits."""
        deadline = self._deadline(request)
        futures = self._offer(request, deadline, concurrent.futures.Future[Answer], None)
        late = concurrent.futures.wait(futures, max(0.0, deadline - monotonic())).not_done
        self._metrics.reject("deadline", sum(future.cancel() for future in late))
        return _join(request, self._piece, [_outcome(future) for future in futures])

    def _deadline(self, request: Request) -> float:
        seconds = self._limits.timeout
        if request.timeout is not None:
            seconds = min(seconds, request.timeout)
        return monotonic() + seconds

    def _offer(
        self,
        request: Request,
        deadline: float,
        new_future: Callable[[], F],
        loop: asyncio.AbstractEventLoop | None,
    ) -> list[F]:
        """Queue a request in pieces; the futures that they are answered through."""
        self._check(request)
        futures, jobs, now = [], [], monotonic()
        for first in range(0, len(request.texts), self._piece):
            rows = slice(first, first + self._piece)
            texts = request.texts[rows]
            cost = estimated_tokens(texts, request.k)
            if cost > self._limits.tokens:
                self._check_longest(texts, request.k)
            futures.append(future := new_future())
            jobs.append(
                Job(
                    request.epoch,
                    texts,
                    request.allowed[rows],
                    request.k,
                    request.threshold[rows],
                    request.tenant,
                    cost,
                    now,
                    deadline,
                    future,
                    loop,
                )
            )
        try:
            self._queue.offer(jobs)
        except TaFastError as error:
            self._metrics.reject(REASONS[error.status], len(request.texts))
            raise
        return futures

    def _check(self, request: Request) -> None:
        n, epoch = len(request.texts), request.epoch
        if request.allowed.shape != (n, epoch.words) or request.allowed.dtype != np.uint32:
            found = f"{request.allowed.dtype} {request.allowed.shape}"
            raise ValueError(f"allowed is {found}; expected uint32 {(n, epoch.words)}")
        if request.threshold.shape != (n,) or n == 0 or request.k < 1:
            found = f"threshold {request.threshold.shape}, k {request.k}"
            raise ValueError(f"{found} for {n} turns; expected ({n},), 1 or more, and a turn")
        if len(epoch.routers) != len(self._devices):
            found = f"{len(epoch.routers)} routers"
            raise ValueError(f"the epoch has {found}; expected {len(self._devices)}")

    def _check_longest(self, texts: Sequence[str], k: int) -> None:
        longest = max(texts, key=len)
        tokens = estimated_tokens((longest,), k)
        if tokens > self._limits.tokens:
            self._metrics.reject("invalid", len(texts))
            raise InvalidTurn(
                f"a turn's text of {len(longest)} characters and k of {k} take about "
                f"{tokens} tokens; expected at most {self._limits.tokens}"
            )

    def _watch(self, loop: asyncio.AbstractEventLoop) -> Deadlines:
        for other in list(self._deadlines):
            if other.is_closed():
                self._deadlines.pop(other, None)
        return self._deadlines.setdefault(
            loop, Deadlines(loop, partial(self._metrics.reject, "deadline"))
        )

    def _lost(self, error: TaFastError) -> None:
        """A device is dead; without any, nobody would answer."""
        if all(device.dead for device in self._devices):
            self._queue.close(error)
            fail(self._queue.clear(), error)

    @property
    def devices(self) -> int:
        """Devices, and so routers of an epoch."""
        return len(self._devices)

    @property
    def progress(self) -> Progress:
        """For readiness and liveness."""
        now = monotonic()
        taken = [job for device in self._devices for job in device.jobs() if not job.future.done()]
        oldest = min((job.arrived for job in taken), default=now)
        ready = not self._closing and not all(device.dead for device in self._devices)
        finished = max(device.finished for device in self._devices)
        return Progress(ready, now - min(oldest, self._queue.oldest()), now - finished)

    @property
    def stats(self) -> Stats:
        """For metrics."""
        working = sum(not device.dead for device in self._devices)
        return self._metrics.read(self._queue.waiting, working)

    def close(self, timeout: float = 30.0) -> None:
        """Refuse new turns, finish those that were accepted, and end the threads.

        Blocks for up to ``timeout`` seconds; what has no answer then gets
        ``BackendUnavailable``. In an event loop, use ``async with`` or `aclose`.
        """
        self._closing = True
        self._queue.close(BackendUnavailable("the engine is closing; it takes no new turns"))
        until = monotonic() + timeout
        for device in self._devices:
            device.join(max(0.0, until - monotonic()))
        late = BackendUnavailable(f"the engine was closed; no answer within {timeout:g} s")
        fail(self._queue.clear(), late)
        for device in self._devices:
            device.abandon(late)

    async def aclose(self, timeout: float = 30.0) -> None:
        """`close` without blocking the event loop, which has answers to hand out."""
        await asyncio.to_thread(self.close, timeout)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.aclose()


def _outcome(future: concurrent.futures.Future[Answer]) -> Answer | BaseException:
    if future.cancelled():
        return DeadlineExceeded(MESSAGE)
    return future.exception() or future.result()


def _join(request: Request, size: int, pieces: Sequence[Answer | BaseException]) -> Answer:
    """One answer from those of a request's pieces; raises if there is none."""
    answers = [piece for piece in pieces if isinstance(piece, Answer)]
    if not answers:
        raise next(piece for piece in pieces if isinstance(piece, BaseException))
    if len(pieces) == 1:
        return answers[0]
    n = len(request.texts)
    columns = unanswered(answers[0].columns, n)
    errors: dict[int, TaFastError] = {}
    for first, piece in zip(range(0, n, size), pieces, strict=True):
        last = min(first + size, n)
        if isinstance(piece, Answer):
            for name, values in columns.items():
                values[first:last] = piece.columns[name]
            errors |= {first + place: error for place, error in piece.errors.items()}
        elif isinstance(piece, TaFastError):
            errors |= dict.fromkeys(range(first, last), piece)
        else:
            raise piece
    waited = max(answer.waited for answer in answers)
    stages = answers[0].seconds
    seconds = {stage: max(answer.seconds[stage] for answer in answers) for stage in stages}
    return Answer(Computed(columns, errors, seconds), 0, n, request.k, waited)
