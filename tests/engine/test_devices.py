"""Several devices and several catalogs behind one engine: turns go where there is room."""

from __future__ import annotations

import asyncio
import time

import numpy as np

from ta_fast import Catalog, Tool, ToolAttention, Turn
from ta_fast.engine import Engine, Epoch, Limits
from ta_fast.gateway import Gateway
from ta_fast.testing import HashingEncoder
from ta_fast.types import Promotion, Source
from tests.engine.routers import LIMIT, FakeRouter, found, request, row_of, until, within

SHIFTS = (0, 1 << 24)


def catalogs(*seconds: float) -> list[Epoch]:
    """Two catalogs on as many devices as there are seconds, which their batches take."""
    return [
        Epoch(
            tuple(FakeRouter(shift, before_run=lambda _, s=s: time.sleep(s)) for s in seconds),
            words=words + 1,
        )
        for words, shift in enumerate(SHIFTS)
    ]


def turns_of(epochs: list[Epoch], device: int) -> int:
    """How many turns of all catalogs a device computed."""
    return sum(len(b) for on in epochs for b in on.routers[device].batches)  # type: ignore[attr-defined]


async def ask(engine: Engine, on: list[Epoch], turn: int) -> None:
    """One turn of one of the catalogs, and its right answer."""
    catalog, text = turn % 2, f"turn {turn}"
    answer = await engine.route(request(on[catalog], text))
    assert found(answer) == [row_of(text, SHIFTS[catalog])]


def test_a_slow_device_gets_fewer_turns() -> None:
    """Turns of two catalogs go to whichever of two devices is free; each answers with its own."""
    on = catalogs(0.02, 0.002)

    async def story() -> None:
        async with Engine(2, Limits(rows=8)) as engine:
            await asyncio.gather(*(ask(engine, on, turn) for turn in range(400)))

    within(LIMIT, story())
    slow, fast = turns_of(on, 0), turns_of(on, 1)
    assert slow + fast == 400
    assert slow > 0
    assert fast > 3 * slow


def test_a_hanging_device_keeps_only_what_it_took() -> None:
    """The other device answers everything else, of both catalogs."""
    on = catalogs(0.0, 0.0)
    stuck = on[0].routers[0], on[1].routers[0]

    async def story() -> None:
        async with Engine(2, Limits(rows=8)) as engine:
            for router in stuck:
                router.free.clear()  # type: ignore[attr-defined]
            turns = []
            while not any(router.busy.is_set() for router in stuck):  # type: ignore[attr-defined]
                turns.append(asyncio.ensure_future(ask(engine, on, len(turns))))
                await asyncio.sleep(0)
            turns += [asyncio.ensure_future(ask(engine, on, i)) for i in range(len(turns), 500)]
            await until(lambda: sum(not turn.done() for turn in turns) <= 2 * 8)
            for router in stuck:
                router.free.set()  # type: ignore[attr-defined]
            await asyncio.gather(*turns)

    within(LIMIT, story())


def test_a_gateway_of_two_devices_and_two_catalogs() -> None:
    """Promotions are those of each catalog's own ToolAttention, whichever device computed them."""
    attentions = {}
    for name, verb in (("", "close"), ("other", "open")):
        catalog = Catalog(":memory:")
        tools = [Tool(f"s__{verb}_{i}", f"{verb}_{i}", f"{verb} the door {i}") for i in range(40)]
        catalog.replace([Source("made up", tools)])
        attentions[name] = ToolAttention(catalog, HashingEncoder(), scorer="numpy")

    async def story() -> None:
        encoders = [attentions[""].encoder, HashingEncoder()]
        gateway = Gateway(attentions, Engine(2, Limits(rows=4)), encoders)
        turns = [Turn(f"the door {i}", top_k=3, threshold=-1.0) for i in range(40)]
        for name, attention in attentions.items():
            asked = (gateway.route([turn], catalog=name) for turn in turns)
            for turn, (got,) in zip(turns, await asyncio.gather(*asked), strict=True):
                assert isinstance(got, Promotion)
                assert got.tools == attention.before_model(turn).tools
        assert gateway.stats.devices == 2
        await gateway.aclose()

    within(LIMIT, story())


def test_equal_devices_share() -> None:
    """Neither of two equal devices is left idle, over many short batches."""
    on = catalogs(0.003, 0.003)

    async def story() -> None:
        async with Engine(2, Limits(rows=8)) as engine:
            await asyncio.gather(*(ask(engine, on, turn) for turn in range(600)))

    within(LIMIT, story())
    shares = np.array([turns_of(on, 0), turns_of(on, 1)]) / 600
    assert shares.min() > 0.25
