"""Admission and order: how many may wait, and who comes next.

Order is self-clocked fair queueing (Golestani, 1994). A job gets a tag when it arrives: where
it would end if all tenants were served at once, each at the speed of its weight. That is its
cost over the weight, after its tenant's last job, or after the virtual time if that is later;
the virtual time is the tag last served. The least tag comes next. So a tenant with few turns
never stands behind the many of another; and as later tags are greater, nothing waits for ever.

Room is shared by dynamic thresholds (Choudhury and Hahne, 1998): a tenant may hold a few
times what is still free. One alone gets most of the room, and some is always left for one
that comes later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from heapq import heappop, heappush, heapreplace
from itertools import count
from threading import Condition, Lock
from time import monotonic
from typing import TypeAlias

from ta_fast.engine.job import Job
from ta_fast.engine.metrics import Metrics
from ta_fast.engine.router import Epoch
from ta_fast.errors import InvalidConfig, InvalidTurn, Overloaded, TaFastError

SHARE = 8
"""Turns that a tenant may have waiting for each one that still fits."""
SOONEST = 0.01
"""Seconds after which a refused turn may come again, at least."""

Kind: TypeAlias = tuple[Epoch, int]
Line: TypeAlias = "deque[Job]"
"""One tenant's jobs of one kind; their tags ascend."""
Head: TypeAlias = tuple[float, int, Line]
"""A line by its first job: its tag, then when it came."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the engine takes.

    Attributes:
        rows: Turns of one batch.
        tokens: Tokens of one batch; a turn that is estimated longer is refused.
        seconds: What a batch of a busy device should take. A device's batches shrink until
            they do: nobody waits long for the batch before, also where the device is slow.
            More is a little more throughput there.
        waiting: Turns that may wait; one tenant alone gets eight ninths of it.
        timeout: Seconds a turn may take; a request may ask for less. There is no "never": a
            device can hang, and its callers must not.

    Raises:
        InvalidConfig: one of them is not above zero.
    """

    rows: int = 4096
    tokens: int = 65_536
    seconds: float = 0.1
    waiting: int = 32_768
    timeout: float = 30.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise InvalidConfig(f"{name} is {value!r}; expected a number above 0")

    @property
    def most(self) -> int:
        """Turns that one tenant can have waiting, and so of one request."""
        return self.waiting * SHARE // (SHARE + 1)


@dataclass(slots=True)
class _Tenant:
    """Of a tenant with waiting turns: its weight, where its last job ends, and the jobs."""

    weight: float
    ends: float
    waiting: int
    lines: dict[Kind, Line] = field(default_factory=dict)


class FairQueue:
    """Jobs that wait for a device; thread-safe, for any number of callers and devices."""

    def __init__(self, limits: Limits, weights: Mapping[str, float], metrics: Metrics) -> None:
        self._limits = limits
        self._weights = weights
        self._metrics = metrics
        self._lock = Lock()
        self._changed = Condition(self._lock)
        self._needs: list[float] = []  # of devices that wait: the tokens that wake them
        self._heaps: dict[Kind, list[Head]] = {}  # of the lines that hold a job
        self._tenants: dict[str, _Tenant] = {}
        self._order = count()
        self._now = 0.0  # virtual
        self._closed: TaFastError | None = None
        self._taken, self._waited = monotonic(), 0.0
        self._tokens = 0
        self.waiting = 0

    def offer(self, jobs: Sequence[Job]) -> None:
        """Let one caller's jobs wait, all or none. They are of one tenant.

        Raises:
            InvalidTurn: they would not even fit into an empty queue.
            Overloaded: they do not fit now; ``retry_after`` says when they might.
            TaFastError: the error that the queue was closed with.
        """
        turns = 0
        for job in jobs:
            turns += len(job.texts)
        name = jobs[0].tenant
        with self._lock:
            if self._closed is not None:
                raise type(self._closed)(*self._closed.args)
            tenant = self._tenants.get(name)
            if tenant is None:
                tenant = _Tenant(self._weights.get(name, 1.0), self._now, 0)
            if tenant.waiting + turns > SHARE * (self._limits.waiting - self.waiting - turns):
                self._refuse(turns)
            self._tenants[name] = tenant
            tenant.waiting += turns
            self.waiting += turns
            for job in jobs:
                begins = tenant.ends if tenant.ends > self._now else self._now
                tenant.ends = job.tag = begins + job.cost / tenant.weight
                job.order = next(self._order)
                self._tokens += job.cost
                kind = job.kind
                line = tenant.lines.get(kind)
                if line is None:
                    line = tenant.lines[kind] = deque((job,))
                    heappush(self._heaps.setdefault(kind, []), (job.tag, job.order, line))
                else:
                    line.append(job)
            if self._needs and self._enough(min(self._needs)):
                self._changed.notify_all()

    def _enough(self, tokens: float) -> bool:
        return self._tokens >= tokens or self.waiting >= self._limits.rows

    def _refuse(self, turns: int) -> None:
        if turns > self._limits.most:
            raise InvalidTurn(f"{turns} turns at once; expected at most {self._limits.most}")
        seconds = max(SOONEST, self._waited, monotonic() - self._taken)
        error = Overloaded(f"{self.waiting} turns are waiting; come again in {seconds:.2f} s")
        error.retry_after = seconds
        raise error

    def take(
        self, budget: Callable[[], int], idle: Callable[[], bool], gone: Callable[[], bool]
    ) -> list[Job]:
        """The jobs of a device's next batch; waits until it is time for it.

        That is when the device is idle and something waits, or else when a full batch
        does: the tokens of a full batch are made while the device works on the one before,
        but one that is not full yet waits for company as long as the device is busy.

        They are of one kind, and wanted: neither cancelled nor past their deadline. They
        cost at most ``budget()`` tokens together, or are one.

        Returns:
            Nothing when the device is ``gone``, or the queue is closed and empty.
        """
        with self._lock:
            while not gone():
                need = 1 if idle() else budget()
                if self._heaps and self._enough(need):
                    if jobs := self._next_batch(budget()):
                        return jobs
                elif self._closed and not self._heaps:
                    break
                else:
                    self._needs.append(need)
                    self._changed.wait()
                    self._needs.remove(need)
            return []

    def _next_batch(self, tokens: int) -> list[Job]:
        kind = min(self._heaps, key=lambda kind: self._heaps[kind][0])
        heap = self._heaps[kind]
        jobs: list[Job] = []
        rows, now = self._limits.rows, monotonic()
        while heap:
            line = heap[0][2]
            job = line[0]
            if jobs and (len(job.texts) > rows or job.cost > tokens):
                break
            line.popleft()
            if line:
                heapreplace(heap, (line[0].tag, line[0].order, line))
            else:
                heappop(heap)
                del self._tenants[job.tenant].lines[kind]
            self._leave(job)
            if job.future.done() or job.deadline <= now:
                self._metrics.reject("cancelled", job.future.cancelled())
                continue
            self._now = max(self._now, job.tag)
            jobs.append(job)
            rows -= len(job.texts)
            tokens -= job.cost
        if not heap:
            del self._heaps[kind]
        if jobs:
            self._taken, self._waited = now, now - jobs[0].arrived
        return jobs

    def _leave(self, job: Job) -> None:
        tenant = self._tenants[job.tenant]
        tenant.waiting -= len(job.texts)
        self.waiting -= len(job.texts)
        self._tokens -= job.cost
        if not tenant.waiting:
            # Its tags are all served, and so not beyond the virtual time.
            del self._tenants[job.tenant]

    def close(self, error: TaFastError) -> None:
        """Refuse what comes from now on; what waits can still be taken."""
        with self._lock:
            self._closed = error
            self._changed.notify_all()

    def wake(self) -> None:
        """Let those that wait in ``take`` look again: a device is idle, or gone."""
        with self._lock:
            self._changed.notify_all()

    def clear(self) -> list[Job]:
        """Take everything that waits."""
        with self._lock:
            jobs = self._jobs()
            for job in jobs:
                self._leave(job)
            self._heaps.clear()
        return jobs

    def oldest(self) -> float:
        """When the turn that has waited longest came; infinity if none waits."""
        with self._lock:
            jobs = self._jobs()
        return min((job.arrived for job in jobs if not job.future.done()), default=float("inf"))

    def _jobs(self) -> list[Job]:
        return [job for heap in self._heaps.values() for _, _, line in heap for job in line]
