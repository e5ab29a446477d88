"""The gateway answers as ToolAttention does, for many callers at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ta_fast import Catalog, Tool, ToolAttention, ToolCall, Turn
from ta_fast.engine import Engine
from ta_fast.errors import BackendUnavailable, InvalidConfig, InvalidTurn, UnknownTool
from ta_fast.gateway import Gateway
from ta_fast.sessions import SessionKey
from ta_fast.testing import HashingEncoder
from ta_fast.types import Promotion, Source

CAN_WRITE = {"all_of": ["scope:write"]}
AFTER_READ = {"all_of": ["seen:f__read_file"]}
TOOLS = [
    Tool("f__read_file", "read_file", "Reads a file."),
    Tool("f__write_file", "write_file", "Writes a file.", precondition=CAN_WRITE),
    Tool("f__close_file", "close_file", "Closes a file.", precondition=AFTER_READ),
    *(Tool(f"f__tool_{i}", f"tool_{i}", f"Does thing number {i}.") for i in range(40)),
]
LIMIT = 20.0


def run(story: Callable[[Gateway, ToolAttention], Awaitable[None]], devices: int = 1) -> None:
    """Play a story on a fresh gateway, within a time limit, and close it."""

    async def play() -> None:
        attention = make_attention()
        encoders = [HashingEncoder() for _ in range(devices)]
        gateway = Gateway({"": attention}, Engine(devices), encoders)
        try:
            await asyncio.wait_for(story(gateway, attention), LIMIT)
        finally:
            await gateway.aclose(5.0)

    asyncio.run(play())


def make_attention(**options: Any) -> ToolAttention:
    catalog = Catalog()
    catalog.replace([Source("f", TOOLS)])
    return ToolAttention(catalog, HashingEncoder(), **options)


def anything(intent: str, *facts: str, top_k: int = 3) -> Turn:
    return Turn(intent, frozenset(facts), top_k=top_k, threshold=-1.0)


def chosen(results: Sequence[object]) -> list[list[tuple[str, float | None]]]:
    """Ids and scores of promotions."""
    assert all(isinstance(result, Promotion) for result in results), results
    return [[(t.id, t.score) for t in p.tools] for p in results if isinstance(p, Promotion)]


@pytest.mark.parametrize("devices", [1, 2])
def test_answers_are_those_of_tool_attention(devices: int) -> None:
    """Hundreds of concurrent callers, of one or several turns, each get what a turn alone gets."""
    turns = [
        anything(f"write file thing {i % 60}", *(["scope:write"] * (i % 2)), top_k=1 + i % 5)
        for i in range(300)
    ]

    async def story(gateway: Gateway, attention: ToolAttention) -> None:
        singles = [gateway.route([turn], tenant=f"t{i % 7}") for i, turn in enumerate(turns)]
        many = gateway.route(turns)
        *found, together = await asyncio.gather(*singles, many)
        expected = chosen([attention.before_model(turn) for turn in turns])
        assert [chosen(result)[0] for result in found] == expected
        assert chosen(together) == expected

    run(story, devices)


def test_a_bad_turn_fails_alone() -> None:
    """An empty intent among good ones is told so; a batch of bad ones computes nothing."""

    async def story(gateway: Gateway, _: ToolAttention) -> None:
        results = await gateway.route([anything("read"), anything(" "), anything("write")])
        assert isinstance(results[1], InvalidTurn)
        assert len(chosen([results[0], results[2]])) == 2
        assert [type(r) for r in await gateway.route([anything("")])] == [InvalidTurn]
        with pytest.raises(InvalidTurn, match="0 turns"):
            await gateway.route([])
        with pytest.raises(InvalidTurn, match="2 sessions for 1 turns"):
            await gateway.route([anything("read")], sessions=["a", "b"])
        with pytest.raises(UnknownTool, match="no catalog 'x'"):
            await gateway.route([anything("read")], catalog="x")

    run(story)


def test_facts_of_a_session_open_and_close_tools() -> None:
    """A session's facts count for its turns, its tenant's only, and as they are at the check."""
    key = SessionKey("acme", "s1")
    call = [ToolCall("1", "f__write_file", {})]

    async def story(gateway: Gateway, _: ToolAttention) -> None:
        turn = anything("write file", top_k=50)
        await gateway.catalog().sessions.update(key, grant=["scope:write"])
        (mine,) = await gateway.route([turn], sessions=["s1"], tenant="acme")
        (other,) = await gateway.route([turn], sessions=["s1"], tenant="else")
        assert isinstance(mine, Promotion)
        assert isinstance(other, Promotion)
        assert "f__write_file" in mine.ids
        assert "f__write_file" not in other.ids
        assert (await gateway.check(mine.handle, call, tenant="acme")).accepted
        await gateway.catalog().sessions.update(key, revoke=["scope:write"])
        verdict = await gateway.check(mine.handle, call, tenant="acme")
        assert [r.reason for r in verdict.rejected] == ["unknown_tool"]

    run(story)


def test_success_provides_facts_to_the_session() -> None:
    """What a tool's success provides opens another tool for the session's next turn."""

    async def story(gateway: Gateway, _: ToolAttention) -> None:
        turn = anything("close file", top_k=50)
        (first,) = await gateway.route([turn], sessions=["s"])
        assert isinstance(first, Promotion)
        assert "f__close_file" not in first.ids
        assert await gateway.after_tool(first.handle, "f__read_file") == {"seen:f__read_file"}
        (second,) = await gateway.route([turn], sessions=["s"])
        assert isinstance(second, Promotion)
        assert "f__close_file" in second.ids
        with pytest.raises(UnknownTool, match="has no tool 'f__write_file'"):
            await gateway.after_tool(first.handle, "f__write_file")

    run(story)


def test_a_session_keeps_its_tools_in_order() -> None:
    """The list grows at its end, is callable whole, and loses at once what is forbidden."""
    call = [ToolCall("1", "f__tool_1", {})]

    async def story(gateway: Gateway, attention: ToolAttention) -> None:
        async def ask(intent: str) -> Promotion:
            (found,) = await gateway.route([anything(intent, top_k=2)], sessions=["s"])
            assert isinstance(found, Promotion)
            return found

        await gateway.catalog().sessions.update(SessionKey("", "s"), grant=["scope:write"])
        first, second = await ask("write file"), await ask("tool 1 number 1")
        assert "f__write_file" in first.ids
        assert second.ids[: len(first.ids)] == first.ids
        assert [tool.delivered for tool in second.tools] == [True, True, False, False]
        assert [tool.score is None for tool in second.tools] == [True, True, False, False]
        assert (await gateway.check(second.handle, call)).accepted
        third = await ask("tool 1 number 1")
        assert third.ids == second.ids
        assert all(tool.delivered for tool in third.tools)
        assert attention.prompt(third, "openai", "frozen").messages == []
        shown = attention.prompt(second, "openai", "frozen").messages[-1]["content"]
        assert "f__tool_1" in shown
        assert "f__write_file" not in shown
        assert len(attention.prompt(third, "openai", "filter").tools) == 4
        await gateway.catalog().sessions.update(SessionKey("", "s"), revoke=["scope:write"])
        assert "f__write_file" not in (await ask("tool 1 number 1")).ids

    run(story)


def test_turns_of_one_session_in_one_request() -> None:
    """They follow each other, however many; what the session had before them is delivered."""

    async def story(gateway: Gateway, _: ToolAttention) -> None:
        await gateway.route([anything("read file", top_k=1)], sessions=["s"])
        turns = [anything(f"tool {i % 20} number {i % 20}", top_k=1) for i in range(100)]
        found = await gateway.route(turns, sessions=["s"] * 100)
        lists = [p.ids for p in found if isinstance(p, Promotion)]
        assert len(lists) == 100
        assert all(b[: len(a)] == a for a, b in pairwise(lists))
        for promotion in found:
            assert isinstance(promotion, Promotion)
            assert promotion.ids[0] == "f__read_file"
            assert promotion.tools[0].delivered
        assert (await gateway.catalog().sessions.read(SessionKey("", "s"))).history.tools == lists[
            -1
        ]

    run(story)


def test_a_bad_session_fails_its_turn_alone() -> None:
    """An id that can name no session is told so, whatever the turn would be promoted."""

    async def story(gateway: Gateway, _: ToolAttention) -> None:
        turns = [anything("read"), anything("write"), Turn("nothing", threshold=1.0)]
        results = await gateway.route(turns, sessions=["s", "a\nb", "\0"])
        assert [type(result) for result in results] == [Promotion, InvalidTurn, InvalidTurn]

    run(story)


def test_a_session_keeps_so_many_tools_at_most() -> None:
    """Beyond the bound the list is cut back to the turn's own tools; 0 keeps none."""

    async def sizes(kept: int) -> list[int]:
        gateway = Gateway({"": make_attention()}, Engine(), [HashingEncoder()], kept=kept)
        turns = [anything(f"tool {i} number {i}", top_k=3) for i in range(12)]
        found = [(await gateway.route([turn], sessions=["s"]))[0] for turn in turns]
        await gateway.aclose(5.0)
        return [len(p.tools) for p in found if isinstance(p, Promotion)]

    bounded = asyncio.run(asyncio.wait_for(sizes(8), LIMIT))
    assert max(bounded) <= 8
    assert sorted(set(bounded)) != [3]
    assert asyncio.run(asyncio.wait_for(sizes(0), LIMIT)) == [3] * 12


def test_a_handle_is_its_tenants() -> None:
    """Another tenant's handle is answered like one that never was."""

    async def story(gateway: Gateway, _: ToolAttention) -> None:
        (promotion,) = await gateway.route([anything("read")], tenant="a")
        assert isinstance(promotion, Promotion)
        for handle, tenant in ((promotion.handle, "b"), ("x-1", "a")):
            with pytest.raises(UnknownTool, match="no promotion"):
                await gateway.check(handle, [], tenant=tenant)

    run(story)


def test_handles_are_forgotten_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many promotions are remembered, and no more."""
    monkeypatch.setattr("ta_fast.sessions.promotions.REMEMBERED", 2)

    async def story(gateway: Gateway, _: ToolAttention) -> None:
        made = [(await gateway.route([anything("read")]))[0] for _ in range(3)]
        handles = [p.handle for p in made if isinstance(p, Promotion)]
        for handle in handles[1:]:
            assert (await gateway.check(handle, [])).rejected == ()
        with pytest.raises(UnknownTool):
            await gateway.check(handles[0], [])

    run(story)


def test_a_catalog_changes_while_turns_go_on() -> None:
    """An answer has the tools of its own epoch only, and after the reload those of the new."""

    async def story(gateway: Gateway, attention: ToolAttention) -> None:
        async def ask() -> list[object]:
            return [*await gateway.route([anything("brand new thing", top_k=50)])]

        under_way = [asyncio.create_task(ask()) for _ in range(50)]
        new = [*TOOLS[1:], Tool("f__brand_new", "brand_new", "A brand new thing.")]
        attention._catalog.replace([Source("f", new)])
        assert await gateway.reload() == 2
        for (promotion,) in await asyncio.gather(*under_way):
            assert isinstance(promotion, Promotion)
            assert ("f__brand_new" in promotion.ids) == (promotion.epoch == 2)
        (after,) = await ask()
        assert isinstance(after, Promotion)
        assert after.ids[0] == "f__brand_new"

    run(story)


def test_events_hold_the_embeddings_hash() -> None:
    """A listener hears the same record as without an engine."""
    events: list[Any] = []
    attention = make_attention(on_event=events.append)

    async def play() -> None:
        gateway = Gateway({"": attention}, Engine(), [HashingEncoder()])
        await gateway.route([anything("read file")])
        await gateway.aclose(5.0)

    attention.before_model(anything("read file"))
    asyncio.run(asyncio.wait_for(play(), LIMIT))
    direct, batched = events
    assert direct.query_hash == batched.query_hash
    assert direct.active == batched.active


def test_a_closed_gateway_says_so() -> None:
    """After draining nothing is taken, and readiness is gone."""

    async def story(gateway: Gateway, _: ToolAttention) -> None:
        assert gateway.ready
        waiting = asyncio.create_task(gateway.route([anything("read")]))
        await asyncio.sleep(0)
        await gateway.aclose(5.0)
        assert len(chosen(await waiting)) == 1
        assert not gateway.ready
        with pytest.raises(BackendUnavailable):
            await gateway.route([anything("read")])

    run(story)


def test_encoders_and_devices_must_match() -> None:
    """One encoder a device, all of the catalogs' kind, and a catalog at least."""
    with Engine(2) as engine:
        with pytest.raises(InvalidConfig, match="1 encoders for 2 devices"):
            Gateway({"": make_attention()}, engine, [HashingEncoder()])
        with pytest.raises(InvalidConfig, match="catalogs is empty"):
            Gateway({}, engine, [HashingEncoder()] * 2)
        with pytest.raises(InvalidConfig, match="encoders hashing-32, hashing-64; expected one"):
            Gateway({"": make_attention()}, engine, [HashingEncoder(), HashingEncoder(32)])


def test_a_failing_encoder_fails_its_turn_alone() -> None:
    """A turn that the encoder cannot take gets an error; its neighbours get answers."""

    class Picky(HashingEncoder):
        def encode(self, texts: Sequence[str], **options: Any) -> np.ndarray:
            if any("poison" in text for text in texts):
                raise RuntimeError("cannot read this")
            return super().encode(texts, **options)

    async def play() -> None:
        catalog = Catalog()
        catalog.replace([Source("f", TOOLS)])
        attention = ToolAttention(catalog, Picky())
        gateway = Gateway({"": attention}, Engine(), [Picky()])
        turns = [anything("poison" if i == 5 else f"read {i}") for i in range(12)]
        results = await gateway.route(turns)
        assert isinstance(results.pop(5), BackendUnavailable)
        assert len(chosen(results)) == 11
        with pytest.raises(BackendUnavailable):
            await gateway.route([turns[5]])
        await gateway.aclose(5.0)

    asyncio.run(asyncio.wait_for(play(), LIMIT))
