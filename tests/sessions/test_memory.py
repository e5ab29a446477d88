from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from ta_fast.sessions import History, MemoryStore, SessionKey, SessionState
from tests.sessions.conftest import delivered, replaced

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["read", "update", "forget", "wait"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["1", "2", "3", "4"]),
    ),
    max_size=60,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(operations=OPERATIONS)
def test_store_keeps_what_a_simple_list_would(operations: list[tuple[str, str, str]]) -> None:
    """Whatever is done: the last used sessions of each tenant, no older than the ttl."""
    clock = Clock()
    store = MemoryStore(ttl=10.0, limit=2, clock=clock)
    used: dict[SessionKey, float] = {}  # in the order of last use

    async def scenario() -> None:
        for operation, *names in operations:
            key = SessionKey(*names)
            clock.now += 4.0 if operation == "wait" else 0.5
            for old in [k for k, at in used.items() if at + 10.0 < clock.now]:
                del used[old]
            if operation == "read":
                assert bool((await store.read(key)).facts) == (key in used)
            elif operation == "update":
                await store.update(key, grant=["f"])
            elif operation == "forget":
                await store.forget(key)
                used.pop(key, None)
            if operation == "update" or (operation == "read" and key in used):
                used.pop(key, None)
                used[key] = clock.now
            mine = [k for k in used if k.tenant == key.tenant]
            if len(mine) > 2:
                del used[mine[0]]
            assert len(store) >= len(used)
        for key in [SessionKey(t, s) for t in "ab" for s in "1234"]:
            assert bool((await store.read(key)).facts) == (key in used)

    asyncio.run(scenario())


def test_expired_sessions_of_quiet_tenants_give_their_memory_back() -> None:
    """Changes of one tenant free what another's expired sessions take."""
    clock = Clock()
    store = MemoryStore(ttl=10.0, clock=clock)

    async def scenario() -> None:
        for i in range(100):
            await store.update(SessionKey("quiet", f"s{i}"), grant=["f"])
        clock.now = 11.0
        await store.update(SessionKey("busy", "s"), grant=["f"])

    asyncio.run(scenario())
    assert len(store) == 1


def test_threads_lose_nothing() -> None:
    """Event loops in many threads change one session, and all changes are there."""
    store, key, threads = MemoryStore(), SessionKey("acme", "s"), 8
    together = threading.Barrier(threads)

    async def change(thread: int) -> None:
        for i in range(50):
            await store.update(key, grant=[f"f:{thread}:{i}"])
            history = (await store.read(key)).history
            await delivered(store, key, history, [f"t:{thread}:{i % 4}"])

    def work(thread: int) -> None:
        together.wait()
        asyncio.run(change(thread))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
    finally:
        sys.setswitchinterval(interval)
    state = asyncio.run(store.read(key))
    assert state.facts == {f"f:{t}:{i}" for t in range(threads) for i in range(50)}
    assert set(state.history.tools) == {f"t:{t}:{i}" for t in range(threads) for i in range(4)}
    assert state.history.cuts == 0


def test_unknown_sessions_take_no_memory() -> None:
    """Reading, failing to replace and forgetting leave nothing behind."""
    store, key = MemoryStore(), SessionKey("acme", "s")

    async def scenario() -> None:
        assert await store.read(key) == SessionState()
        assert not await replaced(store, key, History(("a",), 0), History())
        assert await replaced(store, key, History(), History())
        await store.update(key)
        await store.forget(key)

    asyncio.run(scenario())
    assert len(store) == 0
