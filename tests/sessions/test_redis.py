"""What only a store in another process can do wrong."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ta_fast.errors import BackendUnavailable, InvalidConfig, InvalidTurn
from ta_fast.sessions import (
    History,
    RedisStore,
    SessionKey,
    SessionState,
    SessionStore,
)
from tests.sessions.conftest import replaced, with_redis, with_store
from tests.sessions.redis_server import RedisServer, find_server

KEY = SessionKey("acme", "s1")
TIMEOUT = 0.5
LATE = 5.0
"""Seconds after which a call hangs, however busy the machine is."""


@pytest.fixture
def own_server(redis_server: RedisServer, tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that a test may break."""
    binary = find_server()
    assert binary is not None
    assert redis_server.url
    server = RedisServer(binary, tmp_path)
    server.start()
    yield server
    server.kill()


async def fails(store: SessionStore, calls: int = 50) -> set[str]:
    """Messages of many calls at once, all of which fail, and in time."""
    started = time.monotonic()
    keys = [SessionKey("acme", f"s{i}") for i in range(calls)]
    changes = (store.update(key, grant=["lost"]) for key in keys)
    results = await asyncio.gather(*map(store.read, keys), *changes, return_exceptions=True)
    assert time.monotonic() - started < LATE
    assert {type(result) for result in results} == {BackendUnavailable}
    return {str(result) for result in results}


def test_redis_goes_away_and_comes_back(own_server: RedisServer) -> None:
    """Calls fail in time while it is gone; then they work, scripts and all."""

    async def scenario(store: SessionStore) -> None:
        for _ in range(3):
            assert await store.update(KEY, grant=["a"]) == {"a"}
            own_server.kill()
            messages = await fails(store)
            assert all(f"127.0.0.1:{own_server.port}" in message for message in messages)
            own_server.start()
            assert await store.read(KEY) == SessionState()

    with_redis(own_server, scenario, timeout=TIMEOUT)


def test_frozen_redis_never_answers_a_later_question(own_server: RedisServer) -> None:
    """Calls to a Redis that is stuck fail in time; what it says later is not read."""

    async def scenario(store: SessionStore) -> None:
        keys = [SessionKey("acme", f"k{i}") for i in range(300)]
        for key in keys:
            await store.update(key, grant=[f"of:{key.id}"])
        for _ in range(3):
            own_server.freeze()
            messages = await fails(store, calls=2000)
            assert any("no reply within 0.5 s" in message for message in messages)
            own_server.thaw()
            states = await asyncio.gather(*map(store.read, keys))
            assert [state.facts for state in states] == [{f"of:{key.id}"} for key in keys]

    with_redis(own_server, scenario, timeout=TIMEOUT)


def test_callers_that_give_up_disturb_nobody(own_server: RedisServer) -> None:
    """Cancelled calls, before and after they were sent, mix up no replies."""

    async def scenario(store: SessionStore) -> None:
        keys = [SessionKey("acme", f"k{i}") for i in range(200)]
        await asyncio.gather(*(store.update(key, grant=[f"of:{key.id}"]) for key in keys))
        drawn = random.Random(7)  # noqa: S311
        for _ in range(10):
            tasks = [asyncio.ensure_future(store.read(key)) for key in keys]
            for _ in range(drawn.randrange(4)):
                await asyncio.sleep(0)
            for task in drawn.sample(tasks, 100):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for key, result in zip(keys, results, strict=True):
                if isinstance(result, SessionState):
                    assert result.facts == {f"of:{key.id}"}
                else:
                    assert isinstance(result, asyncio.CancelledError)
            assert sum(isinstance(result, SessionState) for result in results) >= 100

    with_redis(own_server, scenario)


def test_change_that_is_given_up_before_it_is_sent_is_not_made(redis_server: RedisServer) -> None:
    """Who cancels while waiting has changed nothing."""

    async def scenario(store: SessionStore) -> None:
        tasks = [asyncio.ensure_future(store.update(KEY, grant=[f"f:{i}"])) for i in range(10)]
        await asyncio.sleep(0)
        for task in tasks[:9]:
            task.cancel()
        assert await tasks[9] == {"f:9"}

    with_redis(redis_server, scenario)


def test_processes_share_sessions(redis_server: RedisServer) -> None:
    """Stores of several event loops change one session; no change is lost."""

    def work(worker: int) -> None:
        async def scenario(store: SessionStore) -> None:
            changes = (store.update(KEY, grant=[f"f:{worker}:{i}"]) for i in range(50))
            await asyncio.gather(*changes)

        with_redis(redis_server, scenario, prefix="shared")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))

    async def check(store: SessionStore) -> None:
        assert (await store.read(KEY)).facts == {f"f:{w}:{i}" for w in range(4) for i in range(50)}
        await store.forget(KEY)

    with_redis(redis_server, check, prefix="shared")


SESSION = "p:session:acme:s1"


@pytest.mark.parametrize(
    "commands",
    [
        [("SET", SESSION, "x")],
        [("SADD", SESSION, "a")],
        [("HSET", SESSION, b"\xff\xfe", "")],
        [("HSET", SESSION, "bad\n", "")],
        [("HSET", SESSION, "x" * 300, "")],
        [("HSET", SESSION, *(p for i in range(1026) for p in (f"f{i}", "")))],
        [("HSET", SESSION, "", b"\xff")],
        [("HSET", SESSION, "", "{}")],
        [("HSET", SESSION, "", '["a"]')],
        [("HSET", SESSION, "", "[0, 1]")],
        [("HSET", SESSION, "", '[0,"a"]')],
        [("HSET", SESSION, "", "[" * 100_000)],
        [("HSET", SESSION, "", "[" + "1" * 5000 + "]")],
        [("HSET", SESSION, "", '[0, "' + "x" * (1 << 20) + '"]')],
        [("HSET", SESSION, "a", ""), ("SET", "p:sessions:acme", "x")],
    ],
    ids=lambda commands: str(commands)[:40],
)
def test_malformed_values_are_refused(
    redis_server: RedisServer, commands: list[tuple[str, ...]]
) -> None:
    """What others wrote is an error, not a state; others' sessions go on."""
    from redis import Redis

    with Redis.from_url(redis_server.url) as client:
        client.delete(SESSION, "p:sessions:acme")
        for command in commands:
            client.execute_command(*command)

    async def scenario(store: SessionStore) -> None:
        other = SessionKey("other", "s1")
        results = await asyncio.gather(
            store.read(KEY), store.update(other, grant=["a"]), return_exceptions=True
        )
        assert isinstance(results[0], BackendUnavailable)
        assert results[1] == {"a"}

    with_redis(redis_server, scenario, prefix="p")


def test_forgetting_mends_a_malformed_session(redis_server: RedisServer) -> None:
    """The way out that the error names."""
    from redis import Redis

    with Redis.from_url(redis_server.url) as client:
        client.delete("q:session:acme:s1")
        client.set("q:session:acme:s1", "x")

    async def scenario(store: SessionStore) -> None:
        await store.forget(KEY)
        assert await store.update(KEY, grant=["a"]) == {"a"}

    with_redis(redis_server, scenario, prefix="q")


@pytest.mark.parametrize("seed", range(8))
def test_server_that_is_no_redis(redis_server: RedisServer, seed: int) -> None:
    """Bytes of any kind instead of replies are an error in time."""
    drawn = random.Random(seed)  # noqa: S311
    noise = [
        b"+OK\r\n",
        b"$5\r\nab",
        b"*3\r\n",
        b":x\r\n",
        b"-ERR\r\n",
        b"%2\r\n",
        b"\0\xff",
        b"\r\n",
    ]
    assert redis_server.url

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000) and not writer.is_closing():
            writer.write(b"".join(drawn.choices(noise, k=drawn.randrange(8))))
            if drawn.random() < 0.1:
                break
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        store = RedisStore(f"redis://127.0.0.1:{port}", timeout=0.2)
        for _ in range(3):
            await fails(store, calls=5)
        await store.aclose()
        server.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_client_that_does_not_let_go(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that swallows its cancellation holds up its own calls, and no later ones."""
    from redis.asyncio.client import Pipeline

    async def stuck(*_: object, **__: object) -> list[object]:
        for _attempt in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
        return []

    async def scenario(store: SessionStore) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Pipeline, "execute", stuck)
            await fails(store)
        assert await store.update(KEY, grant=["a"]) == {"a"}

    with_redis(redis_server, scenario, timeout=TIMEOUT)


def test_unused_sessions_expire(redis_server: RedisServer) -> None:
    """The ttl runs from the last use, and reading is a use."""

    async def scenario(store: SessionStore) -> None:
        idle = SessionKey("acme", "idle")
        await store.update(KEY, grant=["a"])
        await store.update(idle, grant=["a"])
        for _ in range(6):
            await asyncio.sleep(0.4)
            assert (await store.read(KEY)).facts == {"a"}
        assert await store.read(idle) == SessionState()
        await asyncio.sleep(2.4)
        assert await store.read(KEY) == SessionState()

    with_redis(redis_server, scenario, ttl=2.0)


def test_everything_in_redis_expires(redis_server: RedisServer) -> None:
    """No key is left without a time to live, and the index knows no dead sessions."""
    from redis import Redis

    async def scenario(store: SessionStore) -> None:
        for i in range(5):
            await store.update(SessionKey("acme", f"s{i}"), grant=["a"])
        await store.forget(SessionKey("acme", "s4"))
        assert await replaced(store, KEY, History(), History(("t",), 0))
        with Redis.from_url(redis_server.url) as client:
            keys = list(client.scan_iter("expiring:*"))
            assert len(keys) == 4
            assert all(0 < client.pttl(key) <= 600_000 for key in keys)
            index = client.zrange("expiring:sessions:acme", 0, -1)
            assert {*index, b"expiring:sessions:acme"} == set(keys)

    with_redis(redis_server, scenario, prefix="expiring", limit=3, ttl=600.0)


def test_history_that_is_too_large_is_refused(redis_server: RedisServer) -> None:
    """What could not be read again is not written."""

    async def scenario(store: SessionStore) -> None:
        with pytest.raises(InvalidTurn, match="bytes"):
            await replaced(store, KEY, History(), History(("x" * (1 << 20),), 0))

    with_redis(redis_server, scenario)


def test_closed_store_answers_with_an_error(own_server: RedisServer) -> None:
    """Calls under way, waiting and later ones all get one."""

    async def scenario(store: SessionStore) -> None:
        await store.read(KEY)
        own_server.freeze()
        calls = [asyncio.ensure_future(store.read(KEY)) for _ in range(600)]
        await asyncio.sleep(0.05)
        calls += [asyncio.ensure_future(store.read(KEY)) for _ in range(10)]
        await asyncio.sleep(0)
        await store.aclose()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {str(result).partition(": ")[2] for result in results} == {"it is closed"}
        with pytest.raises(BackendUnavailable, match="closed"):
            await store.read(KEY)
        own_server.thaw()

    with_redis(own_server, scenario, timeout=20.0)


def test_another_event_loop_is_told_so(redis_server: RedisServer) -> None:
    """A store belongs to one event loop; using it from a second is a plain mistake."""
    store = RedisStore(redis_server.url)

    async def use_and_close(store: SessionStore) -> None:
        await store.read(KEY)

    async def use(store: SessionStore) -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await store.read(KEY)

    with_store(lambda: store, use_and_close)
    asyncio.run(use(store))


def test_messages_hold_no_password(redis_server: RedisServer) -> None:
    """Neither an unreachable Redis nor a wrong URL tells the password."""
    assert redis_server.url
    store = RedisStore("redis://user:geheim@127.0.0.1:1/0?password=geheim")

    async def scenario(store: SessionStore) -> None:
        for message in await fails(store, calls=1):
            assert "redis://127.0.0.1:1/0" in message
            assert "geheim" not in message

    with_store(lambda: store, scenario)


@pytest.mark.parametrize("url", ["http://x", "", "redis://h?decode_responses=yes", "redis://h:x"])
def test_urls_that_cannot_be_used(redis_server: RedisServer, url: str) -> None:
    """A mistake in the configuration is told when the store is made."""
    assert redis_server.url
    with pytest.raises(InvalidConfig):
        RedisStore(url)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without redis-py the error says how to install it."""
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'ta-fast\[redis\]'"):
        RedisStore("redis://127.0.0.1")
