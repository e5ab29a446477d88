"""One device: a thread that tokenises, a thread that computes, one batch handed over."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from itertools import count
from queue import SimpleQueue
from threading import Semaphore, Thread
from time import monotonic

import numpy as np

from ta_fast.engine.batch import Batch, Part, cut, divide
from ta_fast.engine.job import Job, fail
from ta_fast.engine.metrics import Metrics
from ta_fast.engine.queue import FairQueue, Limits
from ta_fast.engine.router import Rows
from ta_fast.errors import BackendUnavailable, TaFastError

logger = logging.getLogger("ta_fast.engine")

LIVES = 2
"""Times that a device's threads may begin: once, and once more after one broke."""
FIRST_BUDGET = 2048
"""Tokens of a batch before the device's speed is known."""


class Device:
    """Takes batches from the queue while it lives, and answers their jobs.

    There is no timer: while the device works, turns queue; when it is free, it gets what is
    there. Only a full batch is made before, so that its tokens are ready when the device is:
    at most one is handed over and not picked up.

    Args:
        number: Its place among the engine's devices, and of its router in an epoch.
        queue: Where jobs wait.
        metrics: Where batches are counted.
        limits: Of a batch.
        died: Called with the reason when it has broken for good.
    """

    def __init__(
        self,
        number: int,
        queue: FairQueue,
        metrics: Metrics,
        limits: Limits,
        died: Callable[[TaFastError], None],
    ) -> None:
        self.number = number
        self.dead = False
        self.finished = monotonic()
        self._queue = queue
        self._metrics = metrics
        self._limits = limits
        self._budget = min(FIRST_BUDGET, limits.tokens)
        self._died = died
        self._deaths = count(1)
        self._room = Semaphore(1)
        self._batches_made = self._batches_done = 0  # each written by one thread
        self._handed: SimpleQueue[list[Part] | None] = SimpleQueue()
        self._making: list[Job] = []
        self._computing: list[Job] = []
        self._threads = [
            Thread(target=self._tokenising, name=f"ta-fast-tokenise-{number}", daemon=True),
            Thread(target=self._device, name=f"ta-fast-device-{number}", daemon=True),
        ]

    def start(self) -> None:
        """Begin to take jobs."""
        for thread in self._threads:
            thread.start()

    def join(self, timeout: float) -> None:
        """Wait until a closed queue is worked off, or the device is dead."""
        until = monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - monotonic()))

    def jobs(self) -> list[Job]:
        """What was taken from the queue and may lack an answer; the handed batch left out."""
        return [*self._computing, *self._making]

    def abandon(self, error: TaFastError) -> None:
        """Answer everything that was taken from the queue; the threads may hang."""
        fail(self.jobs(), error)
        while not self._handed.empty():
            fail(_jobs(self._handed.get() or []), error)
        self._handed.put(None)

    # The tokenising thread.

    def _tokenising(self) -> None:
        self._live(self._make_batches, lambda: self._making)
        self._handed.put(None)

    def _make_batches(self) -> None:
        while True:
            self._room.acquire()
            self._making = self._queue.take(self._next_budget, self._idle, lambda: self.dead)
            if not self._making:
                return
            parts: list[Part] = []
            try:
                parts = self._prepare(Batch(self._making))
            finally:
                self._batches_made += 1
                self._handed.put(parts)
            self._making = []

    def _next_budget(self) -> int:
        return self._budget

    def _idle(self) -> bool:
        return self._batches_made == self._batches_done

    def _prepare(self, batch: Batch) -> list[Part]:
        parts: list[Part] = []
        router = batch.epoch.routers[self.number]
        self._metrics.queued(batch.waited())

        def prepare(rows: Rows) -> None:
            prepared = router.prepare([batch.texts[row] for row in rows])
            parts.extend(cut(batch, rows, prepared, self._limits.tokens))

        divide(np.arange(len(batch.texts)), prepare, partial(self._give_up, batch))
        batch.prepare_seconds = monotonic() - batch.made
        return parts

    # The device's thread.

    def _device(self) -> None:
        if self._live(self._compute, lambda: self._computing):
            return
        while (parts := self._handed.get()) is not None:
            fail(_jobs(parts), _broken(self.number))
            self._room.release()

    def _compute(self) -> None:
        while (parts := self._handed.get()) is not None:
            self._computing = _jobs(parts)
            self._room.release()
            try:
                self._work_off(parts)
            finally:
                parts.clear()  # an idle thread must not keep an old epoch
                self._batches_done += 1
                self._queue.wake()
            self._computing = []

    def _work_off(self, parts: list[Part]) -> None:
        for part in parts:
            run, give_up = partial(self._run, part), partial(self._give_up, part.batch)
            divide(np.arange(len(part.rows)), run, give_up)

    def _run(self, part: Part, places: Rows) -> None:
        batch = part.batch
        places = places[batch.wanted(part.rows[places])]
        if not len(places):
            return
        rows = part.rows[places]
        prepared = part.prepared if len(rows) == len(part.rows) else part.prepared.take(places)
        router = batch.epoch.routers[self.number]
        started = monotonic()
        top = router.run(prepared, batch.allowed[rows], batch.k, batch.threshold[rows])
        self.finished = monotonic()
        seconds = self.finished - started
        batch.run_seconds += seconds
        self._learn(batch.cost * len(rows) / len(batch.texts), seconds)
        tokens = int(np.sum(prepared.lengths))
        self._metrics.ran(len(rows), tokens, batch.prepare_seconds, seconds)
        batch.finish(rows, top)

    def _learn(self, cost: float, seconds: float) -> None:
        """Set the budget to what takes as long as a batch should: down at once, up halfway."""
        wanted = min(cost * self._limits.seconds / max(seconds, 1e-9), self._limits.tokens)
        self._budget = max(1, int(min(wanted, (self._budget + wanted) / 2)))

    # Both.

    def _give_up(self, batch: Batch, rows: Rows, error: TaFastError) -> None:
        self._metrics.reject("failed", len(rows))
        batch.fail(rows, error)

    def _live(self, work: Callable[[], None], in_hand: Callable[[], list[Job]]) -> bool:
        """Work; broken, begin again, and the last time, die. Whether the work came to its end."""
        while not self.dead:
            try:
                work()
            except BaseException as error:
                logger.critical("a thread of device %d broke", self.number, exc_info=error)
                last = next(self._deaths) >= LIVES
                why = _broken(self.number, error)
                fail(in_hand(), why)
                if last:
                    self.dead = True
                    self._queue.wake()
                    self._died(why)
                else:
                    self._metrics.restart()
            else:
                return True
        return False


def _jobs(parts: list[Part]) -> list[Job]:
    return parts[0].batch.jobs if parts else []


def _broken(number: int, error: BaseException | None = None) -> TaFastError:
    if isinstance(error, BackendUnavailable):
        return error
    what = f": {type(error).__name__}" if error else ""
    told = BackendUnavailable(f"device {number} failed{what}")
    told.__cause__ = error
    return told
