"""Turns in, answers out: batching, epochs, loops, threads, devices."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ta_fast.engine import Engine, Epoch, Limits, Request
from ta_fast.errors import BackendUnavailable, DeadlineExceeded, InvalidConfig
from tests.engine.routers import (
    LIMIT,
    FakeRouter,
    answers,
    epoch,
    found,
    occupied,
    raise_on,
    request,
    row_of,
    until,
    within,
)


def test_what_waits_is_the_next_batch() -> None:
    """While the device works turns gather; free again, it takes what was there, at once."""
    router = FakeRouter()
    on = epoch(router)

    async def story() -> None:
        async with Engine(limits=Limits(tokens=600, seconds=1000)) as engine:
            await engine.route(request(on, *["before"] * 1000))
            router.prepared.clear()
            router.batches.clear()
            router.busy.clear()
            router.free.clear()
            texts = [f"turn {i}" for i in range(200)]
            turns = [asyncio.ensure_future(engine.route(request(on, "first")))]
            await until(router.busy.is_set)
            turns += [asyncio.ensure_future(engine.route(request(on, text))) for text in texts]
            await asyncio.sleep(0.01)
            assert router.prepared == [["first"]]
            router.free.set()
            await asyncio.gather(*turns)
            assert router.batches == [["first"], texts]

    within(LIMIT, story())


@pytest.mark.parametrize("full", [{"rows": 10}, {"tokens": 10}])
def test_a_full_batch_is_made_ahead(full: dict[str, int]) -> None:
    """Its tokens are ready when the device is; and no more than one batch is ready."""
    router = FakeRouter()
    on = epoch(router)

    async def story() -> None:
        async with Engine(limits=Limits(**full, seconds=1000)) as engine:
            router.free.clear()
            texts = [f"{i}" for i in range(45)]
            turns = [asyncio.ensure_future(engine.route(request(on, "first")))]
            await until(router.busy.is_set)
            turns += [asyncio.ensure_future(engine.route(request(on, text))) for text in texts]
            await until(lambda: len(router.prepared) == 2)
            await asyncio.sleep(0.01)
            assert router.prepared == [["first"], texts[:10]]
            router.free.set()
            await asyncio.gather(*turns)
            assert [len(batch) for batch in router.batches] == [1, 10, 10, 10, 10, 5]

    within(LIMIT, story())


def test_batches_shrink_to_what_a_slow_device_can_do() -> None:
    """Where a turn takes a millisecond, a batch that should take ten holds about ten turns."""
    router = FakeRouter(before_run=lambda texts: time.sleep(0.001 * len(texts)))

    async def story() -> None:
        async with Engine(limits=Limits(seconds=0.01)) as engine:
            on = epoch(router)
            for _ in range(2):
                texts = [f"{i}" for i in range(300)]
                turns = [engine.route(request(on, text)) for text in texts]
                got = await asyncio.gather(*turns)
                assert [found(answer)[0] for answer in got] == answers(texts)

    within(LIMIT, story())
    sizes = [len(batch) for batch in router.batches]
    assert max(sizes[len(sizes) // 2 :]) <= 25
    assert max(sizes[len(sizes) // 2 :]) >= 2


def test_each_gets_as_many_rows_as_it_wants() -> None:
    """Turns with different k share a batch; a request's rows are its own, in its order."""
    on = epoch(FakeRouter())

    async def story() -> None:
        async with Engine() as engine:
            wants = [(k, [f"{k} {i}" for i in range(k % 5 + 1)]) for k in range(1, 40)]
            got = await asyncio.gather(*(engine.route(request(on, *t, k=k)) for k, t in wants))
            for (k, texts), answer in zip(wants, got, strict=True):
                assert answer.top.rows.shape == answer.top.scores.shape == (len(texts), k)
                assert found(answer) == answers(texts)
                assert answer.errors == {}
                assert set(answer.seconds) == {"prepare", "run"}
                assert min(answer.waited, *answer.seconds.values()) >= 0

    within(LIMIT, story())


def test_long_requests() -> None:
    """Many thousand turns at once are answered in order, in batches within the limits."""
    router = FakeRouter()
    texts = [f"turn {i}" for i in range(5000)]

    async def story() -> None:
        async with Engine(limits=Limits(rows=700, seconds=1000)) as engine:
            answer = await engine.route(request(epoch(router), *texts))
            assert found(answer) == answers(texts)
            stats = engine.stats
            assert stats.turns == stats.batch_rows.total == 5000
            assert stats.batch_tokens.total == 10_000
            assert sum(stats.run.counts) == sum(stats.batch_rows.counts) == len(router.batches)
        assert max(map(len, router.batches)) <= 700

    within(LIMIT, story())


def test_bad_turns_of_long_requests() -> None:
    """Errors are told by the turn's place in the request."""
    on = epoch(FakeRouter(before_run=raise_on("poison")))
    texts = [f"turn {i}" for i in range(500)]
    for place in (0, 150, 499):
        texts[place] = "poison"

    async def story() -> None:
        async with Engine() as engine:
            answer = await engine.route(request(on, *texts))
            assert sorted(answer.errors) == [0, 150, 499]
            for place, (row, text) in enumerate(zip(found(answer), texts, strict=True)):
                assert row == (-1 if place in answer.errors else row_of(text))

    within(LIMIT, story())


def test_tokens_are_counted_before_the_device() -> None:
    """Where texts have more tokens than their characters tell, the device still gets its budget.

    Short texts go first, and texts of like length together.
    """
    router = FakeRouter()
    texts = [" ".join("a" * (1 + i % 10)) for i in range(60)]  # 1 to 10 tokens

    async def story() -> None:
        async with Engine(limits=Limits(tokens=120, seconds=1000)) as engine:
            first = await occupied(engine, epoch(router), router)
            rest = asyncio.ensure_future(engine.route(request(epoch(router), *texts)))
            await asyncio.sleep(0)
            router.free.set()
            await first
            assert found(await rest) == answers(texts)

    within(LIMIT, story())
    sums = [sum(len(text.split()) for text in batch) for batch in router.batches]
    assert max(sums) <= 120
    longest = [max(len(text.split()) for text in batch) for batch in router.batches[1:]]
    assert longest == sorted(longest)
    assert len(longest) <= 2 * sum(sums) / 120


def test_turns_cancelled_after_their_tokens_were_made() -> None:
    """They are left out of the batch that waits for the device, and the others are not."""
    steps = threading.Semaphore(0)
    router = FakeRouter(before_run=lambda _: steps.acquire())
    on = epoch(router)

    async def story() -> None:
        async with Engine(limits=Limits(rows=4)) as engine:
            turns = [asyncio.ensure_future(engine.route(request(on, "1")))]
            await until(router.busy.is_set)
            turns += [asyncio.ensure_future(engine.route(request(on, text))) for text in "abcd"]
            await until(lambda: len(router.prepared) == 2)
            turns[2].cancel()
            turns[4].cancel()
            await asyncio.sleep(0)
            steps.release(2)
            for turn, text in zip(turns, "1abcd", strict=True):
                if text in "bd":
                    assert turn.cancelled()
                else:
                    assert found(await turn) == answers([text])
        assert router.batches == [["1"], ["a", "c"]]

    within(LIMIT, story())


def test_several_catalogs() -> None:
    """Turns of different catalogs never meet in a batch."""
    routers = [FakeRouter(shift=shift << 24) for shift in range(3)]
    epochs = [Epoch((router,), words=words + 1) for words, router in enumerate(routers)]

    async def story() -> None:
        async with Engine() as engine:
            turns = [engine.route(request(epochs[i % 3], f"{i}")) for i in range(300)]
            for i, answer in enumerate(await asyncio.gather(*turns)):
                assert found(answer) == [row_of(f"{i}", (i % 3) << 24)]

    within(LIMIT, story())
    for i, router in enumerate(routers):
        assert all(int(text) % 3 == i for batch in router.batches for text in batch)


def test_two_devices_share_the_turns() -> None:
    """Each device has its own router and both work; answers do not tell which."""
    routers = FakeRouter(), FakeRouter()
    on = epoch(*routers)

    async def story() -> None:
        async with Engine(2, Limits(rows=10)) as engine:
            for router in routers:
                router.free.clear()
            texts = [f"turn {i}" for i in range(400)]
            turns = [asyncio.ensure_future(engine.route(request(on, text))) for text in texts]
            await until(lambda: all(router.busy.is_set() for router in routers))
            for router in routers:
                router.free.set()
            got = await asyncio.gather(*turns)
            assert [found(answer)[0] for answer in got] == answers(texts)

    within(LIMIT, story())


def test_loops_and_threads_side_by_side() -> None:
    """Any event loop and any thread may ask the same engine; answers come where they wait."""
    on = epoch(FakeRouter())

    async def loop(engine: Engine, name: int) -> None:
        for turn in range(20):
            texts = [f"{name} {turn} {i}" for i in range(20)]
            got = await asyncio.gather(*(engine.route(request(on, text)) for text in texts))
            assert [found(answer)[0] for answer in got] == answers(texts)

    def thread(engine: Engine, name: int) -> None:
        for turn in range(50):
            texts = [f"{name} {turn} {i}" for i in range(turn * 10 + 1)]
            assert found(engine.route_blocking(request(on, *texts))) == answers(texts)

    with Engine() as engine, ThreadPoolExecutor(8) as workers:
        jobs = [workers.submit(within, LIMIT, loop(engine, name)) for name in range(4)]
        jobs += [workers.submit(thread, engine, name) for name in range(4, 8)]
        for job in jobs:
            job.result(LIMIT)


def test_blocking_callers_get_errors() -> None:
    """Errors reach a thread as they reach a task."""
    on = epoch(FakeRouter(before_run=raise_on("poison")))
    with Engine() as engine:
        answer = engine.route_blocking(request(on, "good", "poison"))
        assert list(answer.errors) == [1]
        with pytest.raises(BackendUnavailable, match="RuntimeError"):
            engine.route_blocking(request(on, "poison"))
    with pytest.raises(BackendUnavailable, match="closing"):
        engine.route_blocking(request(on, "late"))


@pytest.mark.parametrize("turns", [1, 200])
def test_a_caller_changes_its_texts_while_they_wait(turns: int) -> None:
    """What was asked is answered, and nobody else notices."""
    router = FakeRouter()
    on = epoch(router)

    async def story() -> None:
        async with Engine() as engine:
            first = await occupied(engine, on, router)
            texts = [f"turn {i}" for i in range(turns)]
            allowed, least = np.ones((turns, 1), np.uint32), np.zeros(turns, np.float32)
            asked = Request(on, texts, allowed, 1, least)
            mine = asyncio.ensure_future(engine.route(asked))
            other = asyncio.ensure_future(engine.route(request(on, "other")))
            await asyncio.sleep(0)
            expected = answers(texts)
            texts[0] = "changed"
            texts += ["more"] * 50
            asked.k, asked.tenant = 7, "another"
            router.free.set()
            assert found(await first) == answers(["first"])
            assert found(await mine) == expected
            assert found(await other) == answers(["other"])
            assert engine.stats.waiting == 0

    within(LIMIT, story())


def test_requests_that_do_not_fit_together() -> None:
    """Shapes, dtypes and routers are checked before anybody else's batch can suffer."""
    on = epoch(FakeRouter())
    allowed, least = np.ones((1, 1), np.uint32), np.zeros(1, np.float32)
    wrong = [
        Request(on, ["a"], allowed.astype(np.int64), 1, least),
        Request(on, ["a"], np.ones((1, 2), np.uint32), 1, least),
        Request(on, ["a", "b"], allowed, 1, least),
        Request(on, ["a"], allowed, 1, np.zeros(2, np.float32)),
        Request(on, ["a"], allowed, 0, least),
        Request(on, [], allowed[:0], 1, least[:0]),
        Request(epoch(FakeRouter(), FakeRouter()), ["a"], allowed, 1, least),
    ]
    with Engine() as engine:
        for one in wrong:
            with pytest.raises(ValueError, match="expected"):
                engine.route_blocking(one)


@pytest.mark.parametrize("bad", [{"rows": 0}, {"timeout": float("nan")}, {"seconds": -1.0}])
def test_limits_are_numbers_above_zero(bad: dict[str, float]) -> None:
    """Nothing could pass an engine with such limits, or everything for ever."""
    with pytest.raises(InvalidConfig, match=f"{next(iter(bad))} is .*; expected"):
        Limits(**bad)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_weights_are_numbers_above_zero(weight: float) -> None:
    """A tenant's share is some share; and an engine has a device."""
    with pytest.raises(InvalidConfig, match="weight of 'a'"):
        Engine(weights={"a": weight})
    with pytest.raises(InvalidConfig, match="devices is 0"):
        Engine(0)


def test_an_idle_engine_keeps_no_old_epoch() -> None:
    """Once its turns are answered, an epoch that nobody else holds is gone: its index is large."""
    on = epoch(FakeRouter())
    seen = weakref.ref(on.routers[0])
    with Engine() as engine:
        assert found(engine.route_blocking(request(on, "any"))) == answers(["any"])
        del on
        until_gone = time.monotonic() + LIMIT
        while seen() is not None and time.monotonic() < until_gone:
            time.sleep(0.001)
        assert seen() is None


def test_threads_end() -> None:
    """Closing ends the engine's threads, two for a device."""
    before = set(threading.enumerate())
    with Engine(2):
        assert len(set(threading.enumerate()) - before) == 4
    assert not set(threading.enumerate()) - before


def test_a_large_batch_leaves_the_loop_to_others() -> None:
    """Its callers are answered in groups, and what else waits in the loop comes between."""
    router = FakeRouter()
    on = epoch(router)
    steps, answered = [0], []

    async def ask(engine: Engine, text: str) -> None:
        assert found(await engine.route(request(on, text))) == answers([text])
        answered.append(steps[0])

    async def other() -> None:
        while True:
            steps[0] += 1
            await asyncio.sleep(0)

    async def story() -> None:
        async with Engine() as engine:
            router.free.clear()
            turns = [asyncio.ensure_future(ask(engine, "first"))]
            await until(router.busy.is_set)
            turns += [asyncio.ensure_future(ask(engine, f"{i}")) for i in range(1500)]
            await asyncio.sleep(0.01)
            beside = asyncio.ensure_future(other())
            router.free.set()
            await asyncio.gather(*turns)
            beside.cancel()

    within(LIMIT, story())
    assert max(map(len, router.batches)) > 1000
    assert len(set(answered)) >= 4


def test_deadlines_pass_in_their_own_order() -> None:
    """However they came: each caller hears of its own deadline soon after it."""
    router = FakeRouter()
    on = epoch(router)
    late: list[float] = []

    async def ask(engine: Engine, seconds: float) -> None:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await engine.route(request(on, "late", timeout=seconds))
        late.append(time.monotonic() - began - seconds)

    async def story() -> None:
        async with Engine() as engine:
            router.free.clear()
            rng = np.random.default_rng(1)
            await asyncio.gather(*(ask(engine, s) for s in rng.uniform(0.02, 0.2, 300).tolist()))
            assert engine.stats.rejections["deadline"] == 300
            router.free.set()

    within(LIMIT, story())
    assert len(late) == 300
    assert min(late) >= 0
    assert max(late) < 1.0
