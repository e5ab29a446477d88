"""What every session store does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ta_fast.errors import InvalidCatalog, InvalidConfig, InvalidTurn
from ta_fast.gate import build_gate, compile_precondition
from ta_fast.session import Session
from ta_fast.sessions import (
    MAX_FACTS,
    Addition,
    History,
    HistoryChange,
    SessionKey,
    SessionState,
    SessionStore,
    deliver,
)
from ta_fast.types import Turn
from tests.sessions.conftest import delivered, replaced

Use = Callable[..., None]
KEY = SessionKey("acme", "s1")


def test_facts_are_granted_revoked_and_reached(use: Use) -> None:
    """Facts hold from their grant to their revocation; the answer is what holds now."""

    async def scenario(store: SessionStore) -> None:
        assert await store.read(KEY) == SessionState()
        facts = await store.update(KEY, grant=["scope:a", "scope:b"], reach=["planned"])
        assert facts == {"scope:a", "scope:b", "milestone:planned"}
        assert await store.update(KEY, revoke=["scope:a", "never"]) == facts - {"scope:a"}
        assert (await store.read(KEY)).facts == {"scope:b", "milestone:planned"}

    use(scenario)


def test_revocation_wins(use: Use) -> None:
    """A fact both granted and revoked in one change does not hold."""

    async def scenario(store: SessionStore) -> None:
        assert await store.update(KEY, grant=["a", "b"], revoke=["a"]) == {"b"}
        assert await store.update(KEY, grant=["b"], revoke=["b"]) == frozenset()

    use(scenario)


def test_any_printable_name_comes_back(use: Use) -> None:
    """Names are told apart and come back as they were, whatever they are written with."""
    facts = {"scope:ä b", "日本", "x" * 256, 'a"b\\c{d}', "*"}
    keys = [SessionKey(*pair) for pair in (("a:b", "c"), ("a", "b:c"), ("a%3Ab", "c"), ("", "ü{}"))]

    async def scenario(store: SessionStore) -> None:
        for number, key in enumerate(keys):
            await store.update(key, grant=[*facts, f"n:{number}"])
        for number, key in enumerate(keys):
            assert (await store.read(key)).facts == {*facts, f"n:{number}"}

    use(scenario)


def test_forgotten_session_has_nothing(use: Use) -> None:
    """Facts and history go together; others stay."""

    async def scenario(store: SessionStore) -> None:
        other = SessionKey("other", "s1")
        for key in (KEY, other):
            await store.update(key, grant=["a"])
            assert await replaced(store, key, History(), History(("t",), 0))
        await store.forget(KEY)
        await store.forget(SessionKey("acme", "never"))
        assert await store.read(KEY) == SessionState()
        assert await store.read(other) == SessionState(frozenset({"a"}), History(("t",), 0))

    use(scenario)


def test_full_tenant_loses_its_oldest_and_no_others(use: Use) -> None:
    """Above the limit goes what was not used for longest, of the same tenant."""

    async def scenario(store: SessionStore) -> None:
        quiet = SessionKey("quiet", "s")
        await store.update(quiet, grant=["a"])
        keys = [SessionKey("loud", f"s{i}") for i in range(5)]
        for key in keys[:3]:
            await store.update(key, grant=["a"])
        await store.read(keys[0])
        for key in keys[3:]:
            await store.update(key, grant=["a"])
        known = [bool((await store.read(key)).facts) for key in keys]
        assert known == [True, False, False, True, True]
        assert (await store.read(quiet)).facts == {"a"}

    use(scenario, limit=3)


def test_session_without_anything_takes_no_place(use: Use) -> None:
    """A session whose facts are all revoked makes room."""

    async def scenario(store: SessionStore) -> None:
        await store.update(KEY, grant=["a"])
        other = SessionKey("acme", "other")
        await store.update(other, grant=["a"])
        assert await replaced(store, other, History(), History(("t",), 0))
        assert await replaced(store, other, History(("t",), 0), History())
        await store.update(other, revoke=["a"])
        await store.update(SessionKey("acme", "third"), grant=["a"])
        assert (await store.read(KEY)).facts == {"a"}

    use(scenario, limit=2)


def test_too_many_facts_change_nothing(use: Use) -> None:
    """The bound counts what would hold; what replaces or repeats facts is not counted twice."""

    async def scenario(store: SessionStore) -> None:
        facts = [f"f:{i}" for i in range(MAX_FACTS)]
        await replaced(store, KEY, History(), History(("t",), 0))
        await store.update(KEY, grant=facts)
        with pytest.raises(InvalidTurn, match=f"{MAX_FACTS + 1} facts"):
            await store.update(KEY, grant=["new"])
        assert await store.update(KEY, grant=facts[:9]) == set(facts)
        assert await store.update(KEY, grant=["new"], revoke=facts[:1]) == {"new", *facts[1:]}

    use(scenario)


@pytest.mark.parametrize("change", [{"grant": ["ok", ""]}, {"reach": ["a\n"]}, {"revoke": [" x"]}])
def test_bad_fact_names_are_refused(use: Use, change: dict[str, list[str]]) -> None:
    """Names are checked before anything is changed."""

    async def scenario(store: SessionStore) -> None:
        with pytest.raises(InvalidCatalog):
            await store.update(KEY, **change)
        assert await store.read(KEY) == SessionState()

    use(scenario)


@pytest.mark.parametrize("key", [("t", ""), ("t", "x" * 257), ("t", "a\nb"), ("\ud800", "s")])
def test_bad_keys_are_refused(use: Use, key: tuple[str, str]) -> None:
    """Ids come from clients: they are bounded and printable."""

    async def scenario(store: SessionStore) -> None:
        with pytest.raises(InvalidTurn, match="expected"):
            await store.update(SessionKey(*key), grant=["a"])

    use(scenario)


@pytest.mark.parametrize("bounds", [{"ttl": 0.0}, {"ttl": float("inf")}, {"limit": 0}])
def test_bounds_that_make_no_sense_are_refused(use: Use, bounds: dict[str, float]) -> None:
    """A store that keeps nothing, or everything for ever, is a mistake."""

    async def scenario(_: SessionStore) -> None:
        raise AssertionError("the store was made")

    with pytest.raises(InvalidConfig, match="expected seconds"):
        use(scenario, **bounds)


def test_equal_facts_are_one_object(use: Use) -> None:
    """Sessions in one state share its value, so the gate's memory of it is hit at once."""
    gate, _ = build_gate([compile_precondition({"all_of": ["a", "b"]})])

    async def scenario(store: SessionStore) -> None:
        keys = [SessionKey("acme", f"s{i}") for i in range(3)]
        await store.update(keys[0], grant=["a", "b"])
        await store.update(keys[1], grant=["b"])
        await store.update(keys[1], grant=["a"])
        await store.update(keys[2], grant=["a", "b", "c"], revoke=["c"])
        states = [await store.read(key) for key in keys]
        assert len({id(state.facts) for state in states}) == 1
        assert [int(gate.allowed(state.facts)[0]) for state in states] == [1, 1, 1]
        assert gate.allowed.cache_info().misses == 1

    use(scenario)


def test_no_update_is_lost(use: Use) -> None:
    """Many coroutines change one session at once, and all changes are there."""

    async def scenario(store: SessionStore) -> None:
        await store.update(KEY, grant=[f"old:{i}" for i in range(200)])
        changes = (store.update(KEY, grant=[f"new:{i}"], revoke=[f"old:{i}"]) for i in range(200))
        await asyncio.gather(*changes)
        assert (await store.read(KEY)).facts == {f"new:{i}" for i in range(200)}

    use(scenario)


def test_history_is_replaced_only_if_it_is_the_old_one(use: Use) -> None:
    """Two who read the same history do not both write."""
    first, second = History(("a", "ü:{}"), 3), History(("b",), 4)

    async def scenario(store: SessionStore) -> None:
        assert await replaced(store, KEY, History(), first)
        assert not await replaced(store, KEY, History(), second)
        assert (await store.read(KEY)).history == first
        assert await replaced(store, KEY, first, second)
        assert await replaced(store, KEY, second, History())
        assert await store.read(KEY) == SessionState()

    use(scenario)


def test_turns_of_one_session_deliver_one_list(use: Use) -> None:
    """Turns at once append to one list; each gets what it was promoted."""

    async def scenario(store: SessionStore) -> None:
        async def turn(number: int) -> History:
            history = (await store.read(KEY)).history
            return await delivered(store, KEY, history, [f"t{number}"])

        lists = await asyncio.gather(*(turn(i) for i in range(20)))
        assert all(f"t{i}" in history.tools for i, history in enumerate(lists))
        final = (await store.read(KEY)).history
        assert sorted(final.tools) == sorted(f"t{i}" for i in range(20))
        assert all(h.tools == final.tools[: len(h.tools)] for h in lists)
        assert final.cuts == 0

    use(scenario)


def test_turns_of_many_sessions_are_delivered_at_once(use: Use) -> None:
    """Each session gets a list of its own; two turns of one session follow each other."""
    keys = [SessionKey("acme", f"s{i % 150}") for i in range(300)]

    async def scenario(store: SessionStore) -> None:
        await delivered(store, keys[7], History(), ["x"])
        turns = [Addition(key, History(), [f"t{i}"], lambda _: True) for i, key in enumerate(keys)]
        lists = await deliver(store, turns)
        for i, key in enumerate(keys[:150]):
            front = ("x",) if i == 7 else ()
            assert lists[i] == History((*front, f"t{i}"))
            assert lists[i + 150] == History((*front, f"t{i}", f"t{i + 150}"))
            assert (await store.read(key)).history == lists[i + 150]

    use(scenario)


def test_many_are_read_and_replaced_in_order(use: Use) -> None:
    """Known and unknown, right and wrong: each answer stands where its question did."""
    keys = [SessionKey("acme", f"s{i}") for i in range(20)]

    async def scenario(store: SessionStore) -> None:
        for key in keys[::2]:
            await store.update(key, grant=[f"of:{key.id}"])
        states = await store.read_many(keys)
        assert [state.facts for state in states[::2]] == [{f"of:{key.id}"} for key in keys[::2]]
        assert states[1::2] == [SessionState()] * 10
        old = [History() if i % 3 else History(("else",)) for i in range(20)]
        changes = [HistoryChange(*each, History(("t",))) for each in zip(keys, old, strict=True)]
        assert await store.replace_histories(changes) == [bool(i % 3) for i in range(20)]
        assert await store.read_many([]) == await store.replace_histories([]) == []

    use(scenario)


def test_revoked_tool_leaves_the_list_at_once(use: Use) -> None:
    """What the state allows no more is delivered no more, wherever it stood."""

    async def scenario(store: SessionStore) -> None:
        history = await delivered(store, KEY, History(), ["a", "b", "c"])
        history = await delivered(store, KEY, history, ["c"], lambda tool: tool != "b")
        assert history == History(("a", "c"), 1)

    use(scenario)


def test_predicates_join_in_through_the_turn(use: Use) -> None:
    """A turn's state is the stored facts together with those of a session in this process."""

    async def scenario(store: SessionStore) -> None:
        await store.update(KEY, grant=["role:oncall"])
        predicates: dict[str, Any] = {"budget:left": lambda state: state["balance"] > 10}
        session = Session("s1", state={"balance": 5}, predicates=predicates)
        turn = Turn("x", (await store.read(KEY)).facts, session)
        assert turn.current_facts() == {"role:oncall"}
        session.update(balance=50)
        assert turn.current_facts() == {"role:oncall", "budget:left"}

    use(scenario)
