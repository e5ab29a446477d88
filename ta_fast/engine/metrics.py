"""What the engine counts, as a plain value that a transport can publish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

Reason: TypeAlias = Literal[
    "overloaded", "invalid", "unavailable", "deadline", "cancelled", "failed"
]

SECONDS = tuple(1e-6 * 2**i for i in range(26))
"""Upper bounds: 1 us to 34 s."""
COUNTS = tuple(float(2**i) for i in range(21))
"""Upper bounds: 1 to a million."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram: ``counts[i]`` values up to ``bounds[i]`` and above the bound before.

    The last count, one more than there are bounds, is of all greater values. ``total`` is
    the sum of the values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True)
class Stats:
    """What happened since the engine started, and what waits now.

    Attributes:
        waiting: Turns in the queue.
        devices: Devices that work.
        restarts: Times that a device's threads began again after they broke.
        turns: Turns that were computed.
        rejections: Turns without an answer, by reason; of ``deadline`` and ``cancelled``
            requests, a long one in pieces.
        batch_rows: Of batches, in turns.
        batch_tokens: Of batches.
        queue: Seconds from a request's arrival until its batch was made; of requests.
        prepare: Seconds on the tokenising thread; of batches.
        run: Seconds on the device's thread; of batches.
    """

    waiting: int
    devices: int
    restarts: int
    turns: int
    rejections: Mapping[Reason, int]
    batch_rows: Distribution
    batch_tokens: Distribution
    queue: Distribution
    prepare: Distribution
    run: Distribution


@dataclass(frozen=True, slots=True)
class Progress:
    """Whether turns come and go: what readiness and liveness are made of.

    Attributes:
        ready: New turns are taken: some device works, and the engine is not closing.
        waiting: Seconds that the oldest turn without an answer has been waiting; 0 for none.
        idle: Seconds since a batch was last finished, or since the engine started.
    """

    ready: bool
    waiting: float
    idle: float

    @property
    def stalled(self) -> float:
        """Seconds that turns have waited while no batch was finished; small in a live engine."""
        return min(self.waiting, self.idle)


class _Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._total = 0.0

    def add(self, values: ArrayLike) -> None:
        values = np.atleast_1d(np.asarray(values, np.float64))
        places = np.searchsorted(self._bounds, values)
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._total += float(values.sum())

    def read(self) -> Distribution:
        return Distribution(self._bounds, tuple(self._counts.tolist()), self._total)


class Metrics:
    """The counters; thread-safe. Every method but ``reject`` is called once a batch."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._turns = 0
        self._restarts = 0
        self._rejections: Counter[Reason] = Counter()
        self._rows, self._tokens = _Histogram(COUNTS), _Histogram(COUNTS)
        self._queue, self._prepare, self._run = (_Histogram(SECONDS) for _ in range(3))

    def reject(self, reason: Reason, many: int = 1) -> None:
        """Turns, or requests, that got no answer."""
        if many:
            with self._lock:
                self._rejections[reason] += many

    def restart(self) -> None:
        """A device's thread broke and began again."""
        with self._lock:
            self._restarts += 1

    def queued(self, seconds: ArrayLike) -> None:
        """How long each request of a new batch had waited."""
        with self._lock:
            self._queue.add(seconds)

    def ran(self, turns: int, tokens: int, prepare: float, run: float) -> None:
        """A batch that was computed."""
        with self._lock:
            self._turns += turns
            self._rows.add(turns)
            self._tokens.add(tokens)
            self._prepare.add(prepare)
            self._run.add(run)

    def read(self, waiting: int, devices: int) -> Stats:
        """Everything at this moment."""
        with self._lock:
            return Stats(
                waiting,
                devices,
                self._restarts,
                self._turns,
                dict(self._rejections),
                self._rows.read(),
                self._tokens.read(),
                self._queue.read(),
                self._prepare.read(),
                self._run.read(),
            )
