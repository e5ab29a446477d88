"""Turns that are computed together: arrays, whose rows they are, and their answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ta_fast.encoder.batching import by_length
from ta_fast.engine.job import Answer, Computed, Job, deliver, settle_one
from ta_fast.engine.router import Columns, Prepared, Rows, unanswered
from ta_fast.errors import BackendUnavailable, TaFastError

logger = logging.getLogger("ta_fast.engine")

MOST_FAILURES = 256
"""Failed calls for one batch, before what is left of it is not divided any more."""


class Batch:
    """Jobs of one kind as arrays of B rows. One thread at a time works on it.

    A job is answered as soon as its last row is; the others do not keep it.

    Attributes:
        texts, allowed, threshold: ``[B]``, ``[B, W]``, ``[B]``.
        k: The most that a turn wants.
        cost: An estimate of its tokens.
        made: When, in seconds of ``time.monotonic``.
        prepare_seconds, run_seconds: Spent on it so far.
    """

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = jobs
        self.epoch = jobs[0].epoch
        self.k = max([job.k for job in jobs])
        self.cost = sum([job.cost for job in jobs])
        self.texts = [text for job in jobs for text in job.texts]
        self.allowed = np.concatenate([job.allowed for job in jobs])
        self.threshold = np.concatenate([job.threshold for job in jobs])
        sizes = [len(job.texts) for job in jobs]
        self._owner = np.repeat(np.arange(len(jobs)), sizes)
        self._left = np.array(sizes)
        for job, place in zip(jobs, (np.cumsum(sizes) - sizes).tolist(), strict=True):
            job.place = place
        self._columns: dict[str, NDArray[Any]] = {}
        self._errors: dict[int, TaFastError] = {}
        self.made = monotonic()
        self.prepare_seconds = self.run_seconds = 0.0

    def waited(self) -> NDArray[np.float64]:
        """Seconds that each job waited for this batch."""
        return self.made - np.array([job.arrived for job in self.jobs])

    def wanted(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows somebody still waits for."""
        waits = np.array([not job.future.done() for job in self.jobs])
        return waits[self._owner[rows]]

    def finish(self, rows: Rows, columns: Columns) -> None:
        """These rows are computed."""
        self._columns = self._columns or unanswered(columns, len(self.texts))
        for name, values in columns.items():
            self._columns[name][rows] = values
        self._done(rows)

    def fail(self, rows: Rows, error: TaFastError) -> None:
        """These rows get no answer but this error."""
        # A new one: answers may hold the old.
        self._errors = self._errors | dict.fromkeys(rows.tolist(), error)
        self._done(rows)

    def _done(self, rows: Rows) -> None:
        done = np.bincount(self._owner[rows], minlength=len(self.jobs))
        self._left -= done
        complete = np.flatnonzero((self._left == 0) & (done > 0))
        deliver([self.jobs[i] for i in complete], self._settle)

    def _settle(self, jobs: Sequence[Job]) -> None:
        seconds = {"prepare": self.prepare_seconds, "run": self.run_seconds}
        computed = Computed(self._columns, self._errors, seconds)
        for job in jobs:
            first, last = job.place, job.place + len(job.texts)
            answer = Answer(computed, first, last, job.k, self.made - job.arrived)
            failed = answer.errors if computed.errors else computed.errors
            settle_one(job, failed[0] if len(failed) == last - first else answer)


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a batch, ready for the device."""

    batch: Batch
    rows: Rows
    prepared: Prepared


def cut(batch: Batch, rows: Rows, prepared: Prepared, tokens: int) -> list[Part]:
    """One part, or several of at most ``tokens`` tokens and of like lengths, short ones first.

    A batch is filled by an estimate; here the tokens are known. All of them are computed
    before the next batch, so that a long text is not put off for ever.
    """
    if len(rows) == 1 or np.sum(prepared.lengths) <= tokens:
        return [Part(batch, rows, prepared)]
    pieces = list(by_length(list(prepared.lengths), tokens, padded=False))
    return [
        Part(batch, rows[places], prepared.take(np.array(places))) for places in reversed(pieces)
    ]


def divide(
    rows: Rows, work: Callable[[Rows], None], give_up: Callable[[Rows, TaFastError], None]
) -> None:
    """Work on rows; where that fails, on each half, until what fails is one row.

    So one bad turn fails alone, and a batch in which everything fails comes to an end.

    Raises:
        BackendUnavailable: by ``work``; it is no row's fault.
    """
    open_, failures, failed = [rows], 0, 0
    while open_:
        part = open_.pop()
        try:
            work(part)
        except BackendUnavailable:
            raise
        except Exception as error:
            failures += 1
            if len(part) > 1 and failures <= MOST_FAILURES:
                middle = len(part) // 2
                open_ += [part[middle:], part[:middle]]
                continue
            failed, last = failed + len(part), error
            give_up(part, _told(error))
    if failed:
        logger.warning("%d of %d turns failed, the last with %r", failed, len(rows), last)


def _told(error: Exception) -> TaFastError:
    if isinstance(error, TaFastError):
        return error
    # Only the type: the text of the error may hold another tenant's words.
    told = BackendUnavailable(f"the turn could not be computed: {type(error).__name__}")
    told.__cause__ = error
    return told
