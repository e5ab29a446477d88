"""A gateway's turn: facts out of a store, facts into it, and one growing list of tools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ta_fast import Catalog, Tool, ToolAttention, ToolCall, Turn
from ta_fast.sessions import History, SessionKey, SessionStore
from ta_fast.testing import HashingEncoder
from ta_fast.types import Promotion, Source
from tests.sessions.conftest import delivered

KEY = SessionKey("acme", "s1")
TOOLS = [
    Tool("fs__read", "read", "read a text file"),
    Tool("fs__erase", "erase", "erase a text file", precondition={"all_of": ["seen:fs__read"]}),
    Tool("fs__stop", "stop", "stop it", precondition={"all_of": ["role:oncall"]}),
]


def permitted_now(attention: ToolAttention, facts: frozenset[str]) -> Callable[[str], bool]:
    index = attention.index
    allowed = index.gate.allowed(facts)

    def permitted(tool: str) -> bool:
        return tool in index.rows and index.permits(allowed, index.rows[tool])

    return permitted


def test_facts_and_list_follow_the_turns(use: Callable[..., None]) -> None:
    """A tool's success opens the next; a revocation closes at once, in the list and for calls."""
    catalog = Catalog()
    catalog.replace([Source("file", TOOLS)])
    attention = ToolAttention(catalog, HashingEncoder(256))

    async def turn(store: SessionStore, intent: str) -> tuple[Promotion, History]:
        state = await store.read(KEY)
        promotion = attention.before_model(Turn(intent, state.facts, threshold=0.1))
        permitted = permitted_now(attention, state.facts)
        return promotion, await delivered(store, KEY, state.history, promotion.ids, permitted)

    async def scenario(store: SessionStore) -> None:
        await store.update(KEY, grant=["role:oncall"])
        promotion, history = await turn(store, "read a text file")
        assert history == History(("fs__read",))
        await store.update(KEY, grant=attention.after_tool(promotion, "fs__read"))
        _, history = await turn(store, "erase")
        assert history == History(("fs__read", "fs__erase"))
        promotion, history = await turn(store, "stop it")
        assert history == History(("fs__read", "fs__erase", "fs__stop"))

        facts = await store.update(KEY, revoke=["seen:fs__read", "role:oncall"])
        checked = replace(promotion, turn=replace(promotion.turn, facts=facts))
        verdict = attention.after_model(checked, [ToolCall("1", "fs__stop", {})])
        assert [rejection.reason for rejection in verdict.rejected] == ["unknown_tool"]
        _, history = await turn(store, "read a text file")
        assert history == History(("fs__read",), 1)

    use(scenario)
    catalog.close()
