"""After a thread broke, hung or was closed: everyone has an answer, healthy traffic goes on."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import pytest

from ta_fast.engine import Answer, Engine, Limits
from ta_fast.errors import BackendUnavailable, DeadlineExceeded, TaFastError
from tests.engine.routers import (
    LIMIT,
    FakeRouter,
    answers,
    check_healthy,
    epoch,
    found,
    kinds,
    occupied,
    outcomes,
    raise_on,
    request,
    until,
    within,
)


@pytest.mark.parametrize("stage", ["before_prepare", "before_run"])
@pytest.mark.parametrize("error", [SystemExit, BackendUnavailable])
def test_a_thread_dies_once(stage: str, error: type[BaseException]) -> None:
    """It begins again: its batch gets 503, what waits is answered, and traffic goes on."""
    router = FakeRouter(**{stage: raise_on("fatal", error)})
    on = epoch(router)

    async def story() -> None:
        async with Engine(limits=Limits(rows=1)) as engine:
            first = await occupied(engine, on, router)
            fatal = asyncio.ensure_future(engine.route(request(on, "fatal")))
            await asyncio.sleep(0.02)
            rest = asyncio.ensure_future(outcomes(engine, on, ["a", "b", "c"]))
            await asyncio.sleep(0)
            router.free.set()
            with pytest.raises(BackendUnavailable):
                await fatal
            assert kinds(await rest) == {Answer: 3}
            await first
            assert engine.stats.restarts == 1
            await check_healthy(engine, on)

    within(LIMIT, story())


@pytest.mark.parametrize("stage", ["before_prepare", "before_run"])
def test_a_thread_dies_twice(stage: str) -> None:
    """The only device is given up: not ready, and everybody gets 503, now and later."""
    router = FakeRouter(**{stage: raise_on("fatal", SystemExit)})
    on = epoch(router)

    async def story() -> None:
        async with Engine(limits=Limits(rows=4)) as engine:
            first = await occupied(engine, on, router)
            rest = asyncio.ensure_future(outcomes(engine, on, ["fatal"] * 40))
            await asyncio.sleep(0.02)
            router.free.set()
            results = await rest
            assert kinds(results) == {BackendUnavailable: 40}
            assert len(set(map(id, results))) == 40, "each raises its own error"
            await asyncio.gather(first, return_exceptions=True)
            assert not engine.progress.ready
            assert engine.stats.devices == 0
            with pytest.raises(BackendUnavailable, match="device 0 failed: SystemExit"):
                await engine.route(request(on, "later"))

    within(LIMIT, story())


def test_one_of_two_devices_dies() -> None:
    """The other one takes all turns; the engine stays ready."""
    broken, sound = FakeRouter(before_run=raise_on("", SystemExit)), FakeRouter()
    on = epoch(broken, sound)

    async def story() -> None:
        async with Engine(2, Limits(rows=4)) as engine:
            while engine.stats.devices == 2:
                results = await outcomes(engine, on, [f"{i}" for i in range(20)])
                assert set(kinds(results)) <= {Answer, BackendUnavailable}
            await check_healthy(engine, on)

    within(LIMIT, story())


def test_one_of_two_devices_hangs() -> None:
    """It holds up the batch that it has and the one that is ready for it; nothing else."""
    stuck, sound = FakeRouter(), FakeRouter()
    on = epoch(stuck, sound)

    async def story() -> None:
        async with Engine(2, Limits(rows=4)) as engine:
            stuck.free.clear()
            results = []
            while not stuck.busy.is_set():
                results.append(asyncio.ensure_future(engine.route(request(on, "x"))))
                await asyncio.sleep(0)
            results += [asyncio.ensure_future(engine.route(request(on, "y"))) for _ in range(400)]
            await until(lambda: sum(not turn.done() for turn in results) <= 8)
            stuck.free.set()
            assert kinds(await asyncio.gather(*results)) == {Answer: len(results)}

    within(LIMIT, story())


def test_epochs_change_under_load() -> None:
    """A turn is answered by the epoch that it named, whatever else is under way."""
    routers = [FakeRouter(shift=shift << 24) for shift in range(6)]
    epochs = [epoch(router) for router in routers]

    async def one(engine: Engine, on: int, text: str) -> None:
        answer = await engine.route(request(epochs[on], text))
        assert found(answer) == answers([text], on << 24)

    async def story() -> None:
        async with Engine(limits=Limits(rows=32)) as engine:
            turns = []
            for i in range(1200):
                turns.append(asyncio.ensure_future(one(engine, i // 200, f"turn {i}")))
                if i % 40 == 0:
                    await asyncio.sleep(0)
            await asyncio.gather(*turns)
            await check_healthy(engine, epoch(FakeRouter()))
        for number, router in enumerate(routers):
            mine = {f"turn {i}" for i in range(200 * number, 200 * number + 200)}
            assert {text for batch in router.batches for text in batch} == mine

    within(LIMIT, story())


def test_closing_finishes_what_was_accepted() -> None:
    """Readiness goes first, new turns get 503, accepted ones their answers."""
    router = FakeRouter()
    on = epoch(router)

    async def story() -> None:
        engine = Engine(limits=Limits(rows=8))
        router.free.clear()
        accepted = [asyncio.ensure_future(engine.route(request(on, f"{i}"))) for i in range(100)]
        await until(router.busy.is_set)
        closing = asyncio.ensure_future(engine.aclose())
        await until(lambda: not engine.progress.ready)
        with pytest.raises(BackendUnavailable, match="closing"):
            await engine.route(request(on, "late"))
        assert not closing.done()
        router.free.set()
        assert kinds(await asyncio.gather(*accepted)) == {Answer: 100}
        await closing

    within(LIMIT, story())


def test_closing_while_the_device_hangs() -> None:
    """Closing takes its timeout and no longer; everybody who waits gets 503."""
    router = FakeRouter()
    on = epoch(router)

    async def story() -> None:
        engine = Engine(limits=Limits(rows=8))
        router.free.clear()
        accepted = [asyncio.ensure_future(engine.route(request(on, f"{i}"))) for i in range(100)]
        await until(router.busy.is_set)
        await engine.aclose(timeout=0.05)
        results = await asyncio.gather(*accepted, return_exceptions=True)
        assert kinds(results) == {BackendUnavailable: 100}
        router.free.set()

    within(LIMIT, story())


def test_a_loop_ends_with_waiters() -> None:
    """Turns whose event loop is gone disturb nobody."""
    router = FakeRouter()
    on = epoch(router)
    with Engine() as engine:
        router.free.clear()

        async def leave() -> None:
            engine_turns = [engine.route(request(on, f"{i}")) for i in range(20)]
            tasks = [asyncio.ensure_future(turn) for turn in engine_turns]
            await until(router.busy.is_set)
            assert not any(task.done() for task in tasks)

        within(LIMIT, leave())
        router.free.set()
        within(LIMIT, check_healthy(engine, on))
        assert "failed" not in engine.stats.rejections


def test_a_loop_is_closed_under_its_waiters() -> None:
    """Those of other loops and threads in the same batch have their answers."""
    router = FakeRouter()
    on = epoch(router)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it would tell of tasks that never ended
    limits = Limits(seconds=1000)
    with Engine(limits=limits) as engine, ThreadPoolExecutor(2) as workers:
        router.free.clear()
        first = workers.submit(engine.route_blocking, request(on, "first"))
        assert router.busy.wait(LIMIT)
        turns = [loop.create_task(engine.route(request(on, f"{i}"))) for i in range(20)]
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        other = workers.submit(engine.route_blocking, request(on, "other", timeout=LIMIT / 4))
        within(LIMIT, until(lambda: engine.stats.waiting == 21))
        router.free.set()
        assert found(other.result(LIMIT)) == answers(["other"])
        assert found(first.result(LIMIT)) == answers(["first"])
        assert len(router.batches) == 2
        assert not any(turn.done() for turn in turns)


def test_threads_that_block_are_answered() -> None:
    """The blocking call, too, keeps to its deadline while the device hangs."""
    router = FakeRouter()
    on = epoch(router)
    caught: list[TaFastError] = []
    with Engine() as engine:
        router.free.clear()

        def call(number: int) -> None:
            with pytest.raises(DeadlineExceeded) as error:
                engine.route_blocking(request(on, *[f"{number}"] * 300, timeout=0.05))
            caught.append(error.value)

        threads = [Thread(target=call, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        assert len(caught) == 8
        router.free.set()
        assert found(engine.route_blocking(request(on, "now"))) == answers(["now"])


def test_a_hanging_device_is_seen() -> None:
    """Progress tells an engine that hangs from one that has nothing to do."""
    router = FakeRouter()
    on = epoch(router)

    async def story() -> None:
        async with Engine() as engine:
            await asyncio.sleep(0.03)
            assert engine.progress.idle >= 0.03
            assert engine.progress.stalled == 0
            router.free.clear()
            turn = asyncio.ensure_future(engine.route(request(on, "any")))
            await asyncio.sleep(0.03)
            assert engine.progress.stalled >= 0.02
            router.free.set()
            await turn
            await until(lambda: engine.progress.stalled == 0)

    within(LIMIT, story())
