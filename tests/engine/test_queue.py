"""Who may wait, and who comes next; without threads."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from time import monotonic

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ta_fast.engine.job import Job
from ta_fast.engine.metrics import Metrics
from ta_fast.engine.queue import FairQueue, Limits
from ta_fast.engine.router import Epoch
from ta_fast.errors import BackendUnavailable, InvalidTurn, Overloaded

ON = Epoch((), words=1)
LOOP = asyncio.new_event_loop()
LOOP.close()  # futures need one; nothing here runs it


def job(
    tenant: str = "",
    *,
    turns: int = 1,
    cost: int = 1,
    k: int = 1,
    on: Epoch = ON,
    late: bool = False,
) -> Job:
    """A job of ``turns`` texts that cost ``cost`` together."""
    allowed, threshold = np.ones((turns, 1), np.uint32), np.zeros(turns, np.float32)
    now = monotonic()
    deadline = now - 1 if late else now + 100
    future: asyncio.Future[object] = asyncio.Future(loop=LOOP)
    return Job(
        on, ["text"] * turns, allowed, k, threshold, tenant, cost, now, deadline, future, LOOP
    )


def queue(weights: dict[str, float] | None = None, **limits: int) -> FairQueue:
    """An empty queue."""
    return FairQueue(Limits(**limits), weights or {}, Metrics())


def take(waiting: FairQueue, tokens: int = 60) -> list[Job]:
    """The next batch, or nothing if none waits."""
    return waiting.take(lambda: tokens, lambda: True, lambda: waiting.waiting == 0)


def test_one_tenant_is_served_in_order() -> None:
    """First come, first served, in batches as full as the limits allow."""
    waiting, jobs = queue(rows=4), [job() for _ in range(10)]
    for one in jobs:
        waiting.offer([one])
    batches = [take(waiting) for _ in range(3)]
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert [one for batch in batches for one in batch] == jobs


@pytest.mark.parametrize(("rows", "tokens", "sizes"), [(5, 999, [1, 3, 1]), (99, 50, [2, 1, 2])])
def test_batches_keep_to_rows_and_tokens(rows: int, tokens: int, sizes: list[int]) -> None:
    """A job that does not fit any more begins the next batch; one too big is alone."""
    waiting = queue(rows=rows)
    shapes = [(4, 10), (2, 40), (2, 60), (1, 30), (9, 20)]
    for turns, cost in shapes:
        waiting.offer([job(turns=turns, cost=cost)])
    assert [len(take(waiting, tokens)) for _ in sizes] == sizes
    assert waiting.waiting == 0


def test_a_batch_is_of_one_epoch_and_of_like_k() -> None:
    """Epochs never mix; a turn that wants a thousand tools does not widen the others' answers."""
    waiting, other = queue(), Epoch((), words=1)
    for one in [job(), job(on=other), job(k=16), job(k=1000), job(on=other, k=2)]:
        waiting.offer([one])
    batches = [take(waiting) for _ in range(3)]
    assert [[(one.on_other, one.k) for one in map(_Seen, batch)] for batch in batches] == [
        [(False, 1), (False, 16)],
        [(True, 1), (True, 2)],
        [(False, 1000)],
    ]


class _Seen:
    def __init__(self, one: Job) -> None:
        self.on_other, self.k = one.epoch is not ON, one.k


def test_a_light_tenant_never_stands_behind_a_heavy_one() -> None:
    """Its turn is in the next batch, however many of another tenant came before."""
    waiting = queue(rows=10)
    for _ in range(1000):
        waiting.offer([job("heavy")])
    take(waiting)
    waiting.offer([job("light")])
    assert [one.tenant for one in take(waiting)].count("light") == 1


def test_a_light_tenant_of_another_catalog_is_next() -> None:
    """The same where its turn cannot share the heavy tenant's batch."""
    waiting, other = queue(rows=10), Epoch((), words=1)
    for _ in range(1000):
        waiting.offer([job("heavy")])
    take(waiting)
    waiting.offer([job("light", on=other)])
    tenants = [take(waiting)[0].tenant for _ in range(2)]
    assert "light" in tenants


def test_newcomers_do_not_starve_who_waits() -> None:
    """As many new tenants come as turns are served, one turn each: the old one's turns go on.

    Each round of all who wait serves one of its turns, and the rounds grow by one turn.
    """
    waiting, turns = queue(rows=1), 30
    waiting.offer([job("old") for _ in range(turns)])
    served = 0
    for step in range(turns * turns):
        waiting.offer([job(f"new {step}")])
        served += take(waiting)[0].tenant == "old"
    assert served == turns


@settings(max_examples=60)
@given(
    weights=st.tuples(*[st.sampled_from([0.25, 1.0, 2.0, 7.0])] * 2),
    costs=st.tuples(*[st.lists(st.integers(1, 40), min_size=60, max_size=60)] * 2),
    apart=st.booleans(),
    rows=st.integers(1, 8),
)
def test_busy_tenants_share_by_weight(
    weights: tuple[float, float],
    costs: tuple[list[int], list[int]],
    apart: bool,
    rows: int,
) -> None:
    """While both have turns waiting, their served cost over weight differs by two jobs' at most.

    That is the bound of self-clocked fair queueing; batches of one kind add a batch to it
    where the two cannot share one.
    """
    names = ("a", "b")
    waiting = queue(dict(zip(names, weights, strict=True)), rows=rows)
    epochs = (ON, Epoch((), words=1) if apart else ON)
    for name, on, mine in zip(names, epochs, costs, strict=True):
        waiting.offer([job(name, cost=cost, on=on) for cost in mine])
    served: Counter[str] = Counter()
    left = Counter(dict.fromkeys(names, 60))
    bound = sum(max(mine) / weight for mine, weight in zip(costs, weights, strict=True))
    if apart:
        bound *= rows
    while True:
        for one in take(waiting, 10_000):
            served[one.tenant] += one.cost
            left[one.tenant] -= 1
        if min(left.values()) == 0:
            return
        shares = [served[name] / weight for name, weight in zip(names, weights, strict=True)]
        assert abs(shares[0] - shares[1]) <= bound * (1 + 1e-9)


def test_one_tenant_leaves_room_for_the_next() -> None:
    """A flood fills eight ninths; a newcomer gets in, and the flood stays out."""
    waiting = queue(waiting=900)
    for _ in range(800):
        waiting.offer([job("flood")])
    with pytest.raises(Overloaded, match="800 turns are waiting"):
        waiting.offer([job("flood")])
    waiting.offer([job("newcomer") for _ in range(20)])
    with pytest.raises(Overloaded):
        waiting.offer([job("flood")])
    assert waiting.waiting == 820


def test_a_request_is_admitted_whole_or_not() -> None:
    """What does not fit leaves nothing behind; what could never fit says so."""
    waiting = queue(waiting=90)
    waiting.offer([job(turns=40), job(turns=20)])
    with pytest.raises(Overloaded):
        waiting.offer([job(turns=10), job(turns=20)])
    with pytest.raises(InvalidTurn, match="81 turns at once; expected at most 80"):
        waiting.offer([job(turns=81)])
    assert waiting.waiting == 60
    assert sum(len(one.texts) for one in take(waiting)) == 60


def test_unwanted_jobs_are_left_out() -> None:
    """Cancelled and late turns go when the batch is made, and take no place in it."""
    waiting, jobs = queue(rows=2), [job(late=i == 1) for i in range(5)]
    waiting.offer(jobs)
    jobs[0].future.cancel()
    jobs[3].future.cancel()
    assert take(waiting) == [jobs[2], jobs[4]]
    assert waiting.waiting == 0


def test_a_closed_queue_is_worked_off() -> None:
    """It takes nothing more, gives what it has, and then says that it is done."""
    waiting, one = queue(), job()
    waiting.offer([one])
    waiting.close(BackendUnavailable("gone"))
    with pytest.raises(BackendUnavailable, match="gone"):
        waiting.offer([job()])
    assert waiting.take(lambda: 60, lambda: True, lambda: False) == [one]
    assert waiting.take(lambda: 60, lambda: True, lambda: False) == []


class Waiting(RuleBasedStateMachine):
    """Whatever comes in leaves once, in any order of events, and the counts hold."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = queue({"b": 3.0}, rows=6, waiting=45)
        self.open: list[Job] = []
        self.epochs = (ON, Epoch((), words=1))

    @rule(
        tenant=st.sampled_from("abc"),
        turns=st.lists(st.integers(1, 8), min_size=1, max_size=3),
        cost=st.integers(1, 80),
        k=st.sampled_from([1, 16, 17]),
        other=st.booleans(),
    )
    def offer(self, tenant: str, turns: list[int], cost: int, k: int, other: bool) -> None:
        """A request of some pieces; accepted or refused whole."""
        jobs = [job(tenant, turns=n, cost=cost, k=k, on=self.epochs[other]) for n in turns]
        mine = [one for one in self.open if one.tenant == tenant]
        room = 8 * (45 - self.queue.waiting - sum(turns)) - sum(turns)
        try:
            self.queue.offer(jobs)
        except Overloaded:
            assert sum(len(one.texts) for one in mine) > room
        else:
            assert sum(len(one.texts) for one in mine if not one.future.done()) <= room
            self.open += jobs

    @precondition(lambda self: self.open)
    @rule(place=st.integers(0, 100))
    def cancel(self, place: int) -> None:
        """Somebody leaves; the queue learns of it later."""
        self.open[place % len(self.open)].future.cancel()

    @precondition(lambda self: self.open)
    @rule()
    def take(self) -> None:
        """A batch of one kind within the limits, of wanted jobs."""
        jobs = take(self.queue)
        assert len({one.kind for one in jobs}) <= 1
        assert not any(one.future.done() for one in jobs)
        if len(jobs) > 1:
            assert sum(len(one.texts) for one in jobs) <= 6
            assert sum(one.cost for one in jobs) <= 60
        if not jobs:
            assert all(one.future.done() for one in self.open)
            self.open.clear()
        for one in jobs:
            self.open.remove(one)

    @invariant()
    def counts(self) -> None:
        """What waits is what came, less what was taken; cancelled ones may have gone."""
        wanted = sum(len(one.texts) for one in self.open if not one.future.done())
        assert wanted <= self.queue.waiting <= sum(len(one.texts) for one in self.open)

    def teardown(self) -> None:
        """In the end nothing is left over."""
        left = [one for one in self.open if not one.future.done()]
        taken: list[Job] = []
        while batch := take(self.queue):
            taken += batch
        assert sorted(map(id, taken)) == sorted(map(id, left))
        assert self.queue.waiting == 0
        assert not self.queue.clear()


TestWaiting: Callable[[], None] = Waiting.TestCase
