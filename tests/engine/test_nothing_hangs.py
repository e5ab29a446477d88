"""After whatever callers do, every waiter has an answer and healthy traffic goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from threading import Event
from time import monotonic

import pytest

from ta_fast.engine import Answer, Engine, Limits
from ta_fast.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    InvalidTurn,
    Overloaded,
)
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


def test_queue_overflow() -> None:
    """What does not fit is refused at once, with a hint; what was accepted is answered."""
    router = FakeRouter()
    on = epoch(router)

    async def story() -> None:
        async with Engine(limits=Limits(rows=8, waiting=90)) as engine:
            router.free.clear()
            turns = [asyncio.ensure_future(engine.route(request(on, f"{i}"))) for i in range(300)]
            await until(lambda: sum(turn.done() for turn in turns) >= 300 - 80 - 16)
            refused = [turn.exception() for turn in turns if turn.done()]
            assert all(isinstance(error, Overloaded) for error in refused)
            assert all(error.retry_after > 0 for error in refused)  # type: ignore[union-attr]
            assert engine.stats.rejections == {"overloaded": len(refused)}
            router.free.set()
            results = await asyncio.gather(*turns, return_exceptions=True)
            assert kinds(results) == {Overloaded: len(refused), Answer: 300 - len(refused)}
            await check_healthy(engine, on)

    within(LIMIT, story())


def test_a_turn_bigger_than_the_budget() -> None:
    """It is refused at admission, also in the middle of a list, and so is too long a list."""
    on = epoch(FakeRouter())

    async def story() -> None:
        async with Engine(limits=Limits(tokens=100, waiting=900)) as engine:
            for texts in (["word " * 1000], ["short", "word " * 1000], ["short"] * 801):
                with pytest.raises(InvalidTurn, match="expected at most"):
                    await engine.route(request(on, *texts))
            with pytest.raises(InvalidTurn, match="k of 9999"):
                await engine.route(request(on, "short", k=9999))
            assert len((await engine.route(request(on, *["short"] * 800))).top.rows) == 800
            await check_healthy(engine, on)

    within(LIMIT, story())


@pytest.mark.parametrize("stuck", [True, False])
def test_cancel_storm(stuck: bool) -> None:
    """Half of all callers leave: they cost nothing once a batch is made; the others stay."""
    router = FakeRouter()
    on = epoch(router)

    async def story() -> None:
        async with Engine(limits=Limits(rows=16)) as engine:
            router.free.clear()
            turns = [asyncio.ensure_future(engine.route(request(on, f"{i}"))) for i in range(400)]
            await until(router.busy.is_set)
            if not stuck:
                router.free.set()
            for turn in turns[::2]:
                turn.cancel()
            router.free.set()
            results = await asyncio.gather(*turns, return_exceptions=True)
            assert all(isinstance(result, Answer) for result in results[1::2])
            if stuck:
                assert all(isinstance(r, asyncio.CancelledError) for r in results[::2])
                # The batch on the device was computed whole, and perhaps nothing else.
                computed = [text for batch in router.batches for text in batch]
                assert len(computed) <= 200 + 16
            await check_healthy(engine, on)

    within(LIMIT, story())


def test_deadline_storm_while_the_device_hangs() -> None:
    """Everybody is answered on time; the late ones are not computed when it comes back."""
    router = FakeRouter()
    on = epoch(router)

    async def story() -> None:
        async with Engine(limits=Limits(rows=16, timeout=0.05)) as engine:
            router.free.clear()
            started = monotonic()
            turns = [engine.route(request(on, f"{i}", timeout=0.05)) for i in range(2000)]
            results = await asyncio.gather(*turns, return_exceptions=True)
            assert kinds(results) == {DeadlineExceeded: 2000}
            assert monotonic() - started < 5
            assert engine.stats.rejections["deadline"] == 2000
            router.free.set()
            await check_healthy(engine, on)
            computed = [text for batch in router.batches for text in batch if "healthy" not in text]
            assert len(computed) <= 16

    within(LIMIT, story())


@pytest.mark.parametrize("timeout", [None, 1e9, float("inf"), float("nan")])
def test_no_turn_waits_for_ever(timeout: float | None) -> None:
    """A turn that brings no timeout, or a longer one, gets the engine's."""
    router = FakeRouter()
    on = epoch(router)

    async def story() -> None:
        async with Engine(limits=Limits(timeout=0.05)) as engine:
            router.free.clear()
            with pytest.raises(DeadlineExceeded):
                await engine.route(request(on, "any", timeout=timeout))
            router.free.set()

    within(LIMIT, story())


@pytest.mark.parametrize("stage", ["before_prepare", "before_run"])
def test_one_poison_turn_fails_alone(stage: str) -> None:
    """Tokeniser or device raise for one turn of a batch: the other turns have their answers."""
    router = FakeRouter(**{stage: raise_on("poison")})
    on = epoch(router)

    async def story() -> None:
        async with Engine() as engine:
            first = await occupied(engine, on, router)
            texts = [f"turn {i}" for i in range(200)]
            texts[77] = "poison 1"
            rest = asyncio.ensure_future(outcomes(engine, on, texts))
            mixed = asyncio.ensure_future(engine.route(request(on, "good", "poison 2", "fine")))
            await asyncio.sleep(0)
            router.free.set()
            results, some = await rest, await mixed
            assert isinstance(results[77], BackendUnavailable)
            assert str(results[77]).endswith("RuntimeError")
            del results[77], texts[77]
            for text, result in zip(texts, results, strict=True):
                assert isinstance(result, Answer)
                assert found(result) == answers([text])
                assert result.errors == {}
            assert found(some) == [*answers(["good"]), -1, *answers(["fine"])]
            assert list(some.errors) == [1]
            assert engine.stats.rejections == {"failed": 2}
            await first
            await check_healthy(engine, on)

    within(LIMIT, story())


def test_nobody_waits_for_another_s_poison() -> None:
    """A turn is answered when its own row is, while the bad one is still looked for."""
    found_it = Event()

    def slow(texts: Sequence[str]) -> None:
        if texts == ["poison"]:
            assert found_it.wait(LIMIT)
        raise_on("poison")(texts)

    router = FakeRouter(before_run=slow)
    on = epoch(router)

    async def story() -> None:
        async with Engine() as engine:
            first = await occupied(engine, on, router)
            good, bad = (
                asyncio.ensure_future(engine.route(request(on, t))) for t in ("good", "poison")
            )
            await asyncio.sleep(0)
            router.free.set()
            answer = await good
            assert not bad.done()
            found_it.set()
            with pytest.raises(BackendUnavailable):
                await bad
            assert answer.errors == {}
            assert router.batches[1] == ["good", "poison"]
            await first

    within(LIMIT, story())


@pytest.mark.parametrize("stage", ["before_prepare", "before_run"])
def test_everything_fails(stage: str) -> None:
    """A router that always raises fails every turn, in a bounded number of calls."""
    calls = []

    def broken(texts: Sequence[str]) -> None:
        calls.append(len(texts))
        raise InvalidTurn("never")

    router = FakeRouter(**{stage: broken})
    on = epoch(router)

    async def story() -> None:
        async with Engine() as engine:
            results = await outcomes(engine, on, ["any"] * 4000)
            assert kinds(results) == {InvalidTurn: 4000}
            assert len(calls) < 4000
            with pytest.raises(InvalidTurn):
                await engine.route(request(on, "one", "two"))
            await check_healthy(engine, epoch(FakeRouter()))

    within(LIMIT, story())
