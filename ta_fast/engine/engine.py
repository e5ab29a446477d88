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
from ta_fast.engine.job import Answer, Job, Request, Waiter, estimated_tokens, fail
from ta_fast.engine.metrics import Metrics, Progress, Reason, Stats
from ta_fast.engine.pieces import join, split
from ta_fast.engine.queue import FairQueue, Limits
from ta_fast.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    InvalidConfig,
    InvalidTurn,
    TaFastError,
)

PIECE = 64
"""Turns of a long request that stay together; between pieces others may come."""
UINT32 = np.dtype(np.uint32)
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
        self._check(request)
        loop, deadline = asyncio.get_running_loop(), self._deadline(request)
        deadlines = self._deadlines.get(loop) or self._watch(loop)
        if len(request.texts) > self._piece:
            return await self._route_pieces(split(request, self._piece), deadline, loop, deadlines)
        # One piece, as most requests are, goes without lists and a gathering of futures.
        future: asyncio.Future[Answer] = loop.create_future()
        self._offer((self._job(request, deadline, future, loop),))
        deadlines.add(deadline, future)
        try:
            return await future
        finally:
            deadlines.drop(future)

    async def _route_pieces(
        self,
        pieces: Sequence[Request],
        deadline: float,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
    ) -> Answer:
        futures = self._offer_pieces(pieces, deadline, loop.create_future, loop)
        for future in futures:
            deadlines.add(deadline, future)
        try:
            answers = await asyncio.gather(*futures, return_exceptions=True)
        finally:
            for future in futures:
                deadlines.drop(future)
        return join(pieces, answers)

    def route_blocking(self, request: Request) -> Answer:
        """`route` for a thread without an event loop, which waits."""
        self._check(request)
        deadline, pieces = self._deadline(request), split(request, self._piece)
        futures = self._offer_pieces(pieces, deadline, concurrent.futures.Future[Answer], None)
        late = concurrent.futures.wait(futures, max(0.0, deadline - monotonic())).not_done
        self._metrics.reject("deadline", sum(future.cancel() for future in late))
        return join(pieces, [_outcome(future) for future in futures])

    def _deadline(self, request: Request) -> float:
        seconds = self._limits.timeout
        if request.timeout is not None:
            seconds = min(seconds, request.timeout)
        return monotonic() + seconds

    def _offer_pieces(
        self,
        pieces: Sequence[Request],
        deadline: float,
        new_future: Callable[[], F],
        loop: asyncio.AbstractEventLoop | None,
    ) -> list[F]:
        """Queue a request's pieces; the futures that they are answered through."""
        futures = [new_future() for _ in pieces]
        self._offer(
            [
                self._job(piece, deadline, future, loop)
                for piece, future in zip(pieces, futures, strict=True)
            ]
        )
        return futures

    def _offer(self, jobs: Sequence[Job]) -> None:
        try:
            self._queue.offer(jobs)
        except TaFastError as error:
            self._metrics.reject(REASONS[error.status], sum(len(job.texts) for job in jobs))
            raise

    def _job(
        self,
        piece: Request,
        deadline: float,
        future: Waiter,
        loop: asyncio.AbstractEventLoop | None,
    ) -> Job:
        cost = estimated_tokens(piece.texts, piece.k)
        if cost > self._limits.tokens:
            self._check_longest(piece.texts, piece.k)
        return Job(
            piece.epoch,
            tuple(piece.texts),  # a list of the caller's could change while it waits
            piece.allowed,
            piece.k,
            piece.threshold,
            piece.tenant,
            cost,
            monotonic(),
            deadline,
            future,
            loop,
        )

    def _check(self, request: Request) -> None:
        n, epoch = len(request.texts), request.epoch
        if request.allowed.shape != (n, epoch.words) or request.allowed.dtype != UINT32:
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
