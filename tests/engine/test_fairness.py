"""A tenant that asks for little waits little, whatever others ask for; in batches, not seconds."""

from __future__ import annotations

import asyncio
from threading import Semaphore

import numpy as np

from ta_fast.engine import Engine, Limits
from ta_fast.errors import Overloaded
from tests.engine.routers import LIMIT, FakeRouter, epoch, request, until, within

STEPS = 150
ROWS = 16


def batches_waited(crowd: int) -> list[int]:
    """Batches that end from when a light tenant's turn comes until it is answered.

    The device is never idle: with each of its batches comes one light turn, and a ``crowd``
    of another tenant's.
    """
    permits = Semaphore(0)
    router = FakeRouter(before_run=lambda _: permits.acquire())
    on = epoch(router)
    waited, refused = [], []

    async def light(engine: Engine, name: str) -> None:
        running = len(router.batches) - 1
        await engine.route(request(on, name, tenant="light"))
        waited.append(1 + next(i for i, b in enumerate(router.batches) if name in b) - running)

    async def heavy(engine: Engine) -> None:
        try:
            await engine.route(request(on, "heavy", tenant="heavy"))
        except Overloaded as error:
            refused.append(error)

    async def story() -> None:
        async with Engine(limits=Limits(rows=ROWS, seconds=1000, waiting=50 * ROWS)) as engine:
            tasks = [asyncio.ensure_future(engine.route(request(on, "first")))]
            await until(router.busy.is_set)
            for step in range(STEPS):
                tasks += [asyncio.ensure_future(heavy(engine)) for _ in range(crowd)]
                tasks.append(asyncio.ensure_future(light(engine, f"light {step}")))
                await asyncio.sleep(0.001)
                permits.release()
                await until(lambda begun=step: len(router.batches) > begun + 1)
            permits.release(1000)
            await asyncio.gather(*tasks)

    within(LIMIT, story())
    assert len(waited) == STEPS
    assert bool(refused) == (crowd > ROWS)
    return waited


def test_fifty_times_the_rate_at_most_doubles_the_other_s_wait() -> None:
    """One tenant overloads the engine: the other's p99 is at most twice that without it."""
    alone, beside = batches_waited(0), batches_waited(50)
    assert np.percentile(beside, 99) <= 2 * np.percentile(alone, 99)
