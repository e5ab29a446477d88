"""Deadlines of one event loop's futures: one timer, whatever their number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from ta_fast.engine.job import Answer
from ta_fast.errors import DeadlineExceeded

MESSAGE = "the turn's deadline has passed; it got no answer in time"
PAUSE = 0.005
"""Seconds between looks at all open futures, at least; one look is some 40 ns for each."""


class Deadlines:
    """Answers futures when their deadline passes, also while a device hangs.

    Almost none ever does, so a future costs an entry in a dictionary and no place in an order:
    when the next deadline may have passed, all open ones are looked at. Every method belongs to
    the loop's own thread.

    Args:
        loop: The event loop.
        expired: Told how many turns' deadlines passed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[int], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._open: dict[asyncio.Future[Answer], float] = {}
        self._next = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    def add(self, when: float, future: asyncio.Future[Answer]) -> None:
        """Watch a future; ``when`` is in seconds of ``time.monotonic``."""
        self._open[future] = when
        if when < self._next:
            self._wake_at(when)

    def drop(self, future: asyncio.Future[Answer]) -> None:
        """Watch it no longer: nobody waits for it any more."""
        self._open.pop(future, None)

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = when
        self._timer = self._loop.call_later(max(0.0, when - monotonic()), self._expire)

    def _expire(self) -> None:
        now, late, following = monotonic(), 0, float("inf")
        for future, when in self._open.items():
            if when > now:
                following = min(following, when)
            elif not future.done():
                future.set_exception(DeadlineExceeded(MESSAGE))
                late += 1
        self._next, self._timer = float("inf"), None
        if following < self._next:
            self._wake_at(max(following, now + PAUSE))
        if late:
            self._expired(late)
