"""Deadlines of one event loop's futures: one heap and one timer, whatever their number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from time import monotonic
from weakref import ref

from ta_fast.engine.job import Answer
from ta_fast.errors import DeadlineExceeded

MESSAGE = "the turn's deadline has passed; it got no answer in time"
_KEPT = 1024
"""Entries before finished ones are looked for."""


class Deadlines:
    """Answers futures when their deadline passes, also while a device hangs.

    Every method belongs to the loop's own thread.

    Args:
        loop: The event loop.
        expired: Told how many turns' deadlines passed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[int], None]) -> None:
        self._loop = loop
        self._expired = expired
        # Weak, as an answered future would keep its answer until the deadline.
        self._heap: list[tuple[float, int, ref[asyncio.Future[Answer]]]] = []
        self._order = count()
        self._kept = _KEPT
        self._next = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    def add(self, when: float, future: asyncio.Future[Answer]) -> None:
        """Watch a future; ``when`` is in seconds of ``time.monotonic``."""
        heappush(self._heap, (when, next(self._order), ref(future)))
        if len(self._heap) > self._kept:
            self._heap = [entry for entry in self._heap if _open(entry[2]())]
            heapify(self._heap)
            self._kept = max(_KEPT, 2 * len(self._heap))
        if when < self._next:
            self._wake_at(when)

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = when
        self._timer = self._loop.call_later(max(0.0, when - monotonic()), self._expire)

    def _expire(self) -> None:
        now, late = monotonic(), 0
        while self._heap:
            when, _, found = self._heap[0]
            future = found()
            if future is not None and not future.done():
                if when > now:
                    break
                future.set_exception(DeadlineExceeded(MESSAGE))
                late += 1
            heappop(self._heap)
        self._next, self._timer = float("inf"), None
        if self._heap:
            self._wake_at(self._heap[0][0])
        if late:
            self._expired(late)


def _open(future: asyncio.Future[Answer] | None) -> bool:
    return future is not None and not future.done()
