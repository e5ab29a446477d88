import json
import logging
import threading
from typing import Any

import pytest

from ta_fast import Catalog, Session, Tool, ToolAttention, ToolCall, Turn
from ta_fast.calls import rejection_message
from ta_fast.errors import InvalidConfig, InvalidTurn, SchemaUnavailable, UnknownTool
from ta_fast.events import CheckEvent, Event, ResultEvent, RouteEvent
from ta_fast.schemas import SchemaLoader
from ta_fast.testing import HashingEncoder
from ta_fast.tokens import count_tokens
from ta_fast.types import Source

SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["path"],
}


def tool(name: str, description: str, **more: Any) -> Tool:
    return Tool(f"fs__{name}", name, description, SCHEMA, "fs", **more)


TOOLS = [
    tool("read", "read a text file from disk", annotations={"readOnlyHint": True}),
    tool("write", "write a text file to disk", precondition={"all_of": ["scope:fs:write"]}),
    tool("erase", "erase a text file from disk", precondition={"all_of": ["seen:fs__read"]}),
    tool("secret", "read a secret text file from disk", precondition={"all_of": ["role:admin"]}),
    tool("weather", "weather report for a city", provides=("milestone:weather_known",)),
]


def build(tools: list[Tool] = TOOLS, **options: Any) -> tuple[Catalog, ToolAttention]:
    catalog = Catalog()
    catalog.replace([Source("file", tools)])
    return catalog, ToolAttention(catalog, HashingEncoder(256), **options)


def turn(intent: str = "read a text file from disk", **more: Any) -> Turn:
    return Turn(intent, **{"threshold": 0.1, **more})


def test_promotes_best_first_and_only_what_the_state_allows() -> None:
    """Scores descend, forbidden tools are absent, tokens and stage times are told."""
    _, attention = build()
    promotion = attention.before_model(turn())
    assert promotion.ids[0] == "fs__read"
    assert not {"fs__write", "fs__erase", "fs__secret"} & set(promotion.ids)
    scores = [t.score for t in promotion.tools if t.score is not None]
    assert scores == sorted(scores, reverse=True)
    assert (promotion.allowed, promotion.gated) == (2, 3)
    assert promotion.schema_tokens == sum(t.schema.tokens for t in promotion.tools) > 0
    assert set(promotion.seconds) == {"prepare", "encode", "score", "load"}
    more = attention.before_model(turn(facts=frozenset({"scope:fs:write"})))
    assert "fs__write" in more.ids


def test_facts_may_be_a_plain_set() -> None:
    """What is accepted as a set of facts is used as one, before the model and after it."""
    _, attention = build()
    promotion = attention.before_model(turn(facts={"scope:fs:write"}))
    assert "fs__write" in promotion.ids
    assert attention.after_model(promotion, [ToolCall("1", "fs__write", {"path": "/x"})]).accepted


def test_threshold_and_k_bound_the_promotion() -> None:
    """No tool below the threshold, no more than k, and k beyond the catalog is fine."""
    _, attention = build()
    everything = frozenset({"scope:fs:write", "seen:fs__read", "role:admin"})
    assert len(attention.before_model(turn(facts=everything, top_k=1)).tools) == 1
    assert len(attention.before_model(turn(facts=everything, top_k=10**6, threshold=-1)).tools) == 5
    assert attention.before_model(turn("zebra quantum", threshold=0.9)).tools == ()


def test_a_batch_answers_like_single_turns() -> None:
    """Each turn of a batch gets what it would get alone, with its own k, threshold and facts."""
    _, attention = build()
    turns = [
        turn(),
        turn("weather in a city", top_k=1),
        turn(facts=frozenset({"scope:fs:write"}), threshold=0.5),
        turn("erase a file", facts=frozenset({"seen:fs__read"}), top_k=3),
    ]
    batch = attention.before_models(turns)
    single = [attention.before_model(t) for t in turns]
    for a, b in zip(batch, single, strict=True):
        assert [(t.id, t.score) for t in a.tools] == [(t.id, t.score) for t in b.tools]
    assert attention.before_models([]) == []


def test_starvation_case() -> None:
    """A thousand nearer tools that the state forbids do not hide the one that it allows."""
    near = [
        Tool(f"x__{i}", f"n{i}", "read a text file from disk", precondition={"all_of": ["role:no"]})
        for i in range(1000)
    ]
    _, attention = build([*near, tool("weather", "weather report of a text city")])
    assert attention.before_model(turn(threshold=-1)).ids == ("fs__weather",)


def test_pinned_tools_come_on_top_but_never_past_the_gate() -> None:
    """A pinned tool is promoted whatever its score, unless the state forbids it."""
    _, attention = build(always_include=["fs__weather", "fs__secret", "fs__weather"])
    promotion = attention.before_model(turn(top_k=1, threshold=0.5))
    assert promotion.ids == ("fs__read", "fs__weather")
    assert [(t.pinned, t.score is None) for t in promotion.tools] == [(False, False), (True, True)]
    scored = attention.before_model(turn("weather report for a city", top_k=1))
    assert scored.ids == ("fs__weather",)
    assert scored.tools[0].pinned
    assert scored.tools[0].score is not None
    with pytest.raises(InvalidConfig, match="did you mean 'fs__weather'"):
        build(always_include=["fs__wether"])


def test_accepts_good_calls_and_rejects_each_bad_one_with_its_reason() -> None:
    """Parallel calls are judged one by one; nothing forbidden is named."""
    _, attention = build()
    promotion = attention.before_model(turn(top_k=1))
    calls = [
        ToolCall("1", "fs__read", {"path": "/x"}),
        ToolCall("2", "fs__read", {"path": "/y", "count": 3}),
        ToolCall("3", "fs__read", {"count": "three"}),
        ToolCall("4", "fs__weather", {"path": "/x"}),
        ToolCall("5", "fs__secret", {"path": "/x"}),
        ToolCall("6", "fs__no_such_tool", {"path": "/x"}),
        ToolCall("7", "fs__read", "not json"),
    ]
    verdict = attention.after_model(promotion, calls)
    assert [(c.call.id, c.tool_id, c.server, c.name) for c in verdict.accepted] == [
        ("1", "fs__read", "fs", "read"),
        ("2", "fs__read", "fs", "read"),
    ]
    reasons = {r.call_id: r.reason for r in verdict.rejected}
    assert reasons == {
        "3": "invalid_arguments",
        "4": "tool_not_promoted",
        "5": "unknown_tool",
        "6": "unknown_tool",
        "7": "invalid_arguments",
    }
    forbidden, unknown = (r for r in verdict.rejected if r.reason == "unknown_tool")
    assert forbidden.message == unknown.message
    assert all(r.available == ("fs__read",) for r in verdict.rejected)
    for rejection in verdict.rejected:
        for form in ("openai", "openai-responses", "anthropic", "mcp"):
            text = json.dumps(rejection_message(rejection, form))  # type: ignore[arg-type]
            assert "secret" not in text
            assert "erase" not in text


def test_state_is_read_again_when_calls_are_checked() -> None:
    """A scope revoked between promotion and call closes the gate."""
    _, attention = build()
    session = Session("s", ["scope:fs:write"])
    promotion = attention.before_model(turn("write a text file", session=session))
    call = ToolCall("1", "fs__write", {"path": "/x"})
    assert attention.after_model(promotion, [call]).accepted
    session.revoke("scope:fs:write")
    verdict = attention.after_model(promotion, [call])
    assert verdict.rejected[0].reason == "unknown_tool"
    assert "fs__write" not in verdict.rejected[0].available


def test_results_provide_facts() -> None:
    """A successful read opens what needs a read; explicit facts are set too."""
    _, attention = build()
    session = Session()
    before = attention.before_model(turn("erase a text file", session=session))
    assert "fs__erase" not in before.ids
    attention.after_tool(before, "fs__read")
    assert "fs__erase" in attention.before_model(turn("erase a text file", session=session)).ids
    assert attention.after_tool(before, "fs__weather") == {
        "seen:fs__weather",
        "milestone:weather_known",
    }
    assert "milestone:weather_known" in session.facts
    stateless = attention.before_model(turn())
    assert attention.after_tool(stateless, "fs__read") == {"seen:fs__read"}
    with pytest.raises(UnknownTool):
        attention.after_tool(before, "fs__none")


def test_several_turns_of_one_session_do_not_mix() -> None:
    """Each promotion answers for itself, in whatever order calls come back."""
    _, attention = build()
    session = Session()
    one = attention.before_model(turn("weather report for a city", session=session, top_k=1))
    two = attention.before_model(turn(session=session, top_k=1))
    call = ToolCall("1", "fs__weather", {"path": ""})
    assert attention.after_model(two, [call]).rejected[0].reason == "tool_not_promoted"
    assert attention.after_model(one, [call]).accepted
    assert one.handle != two.handle


def test_tool_removed_after_its_promotion_is_unknown() -> None:
    """The catalog as it is now decides; the schema is the one the model was shown."""
    catalog, attention = build()
    promotion = attention.before_model(turn())
    call = ToolCall("1", "fs__read", {"path": "/x"})
    changed = [tool("read", "reads"), *TOOLS[1:]]
    catalog.replace([Source("file", changed)])
    assert attention.refresh()
    assert attention.after_model(promotion, [call]).accepted
    catalog.replace([Source("file", TOOLS[1:])])
    assert attention.refresh()
    assert not attention.refresh()
    verdict = attention.after_model(promotion, [call])
    assert verdict.rejected[0].reason == "unknown_tool"
    assert "fs__read" not in attention.before_model(turn()).ids


def test_tool_removed_before_its_schema_was_loaded_is_left_out() -> None:
    """A promotion holds only tools whose definition could be had."""
    catalog, attention = build()
    catalog.replace([Source("file", TOOLS[1:])])
    assert attention.before_model(turn(threshold=-1)).ids == ("fs__weather",)


def test_live_source_that_fails_costs_only_its_tools() -> None:
    """A dead server's tool is left out; the turn goes on."""

    class Half:
        def tool(self, tool_id: str) -> Tool:
            if tool_id == "fs__read":
                raise SchemaUnavailable("fs is down")
            return next(t for t in TOOLS if t.id == tool_id)

    _, attention = build(loader=SchemaLoader(Half()))
    assert attention.before_model(turn(threshold=-1)).ids == ("fs__weather",)


def test_read_only_session_sees_no_tool_that_may_write() -> None:
    """Only tools that declare themselves read-only pass, whatever else is granted."""
    _, attention = build()
    facts = frozenset({"mode:read_only", "scope:fs:write", "seen:fs__read", "role:admin"})
    assert attention.before_model(turn(facts=facts, threshold=-1)).ids == ("fs__read",)


def test_empty_catalog_promotes_nothing() -> None:
    """No tools, no error."""
    _, attention = build([])
    promotion = attention.before_model(turn())
    assert (promotion.tools, promotion.allowed, promotion.gated) == ((), 0, 0)
    verdict = attention.after_model(promotion, [ToolCall("1", "x", {})])
    assert verdict.rejected[0].reason == "unknown_tool"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"intent": ""}, "intent is ''"),
        ({"intent": " \n"}, "not empty"),
        ({"intent": "x\ud800"}, "Unicode"),
        ({"intent": b"bytes"}, "expected text"),
        ({"intent": "x", "context": "\udfff"}, "Unicode"),
        ({"intent": "x", "top_k": 0}, "top_k is 0"),
        ({"intent": "x", "top_k": -3}, "top_k is -3"),
        ({"intent": "x", "top_k": 2.5}, "top_k is 2.5"),
        ({"intent": "x", "threshold": 1.01}, "threshold is 1.01"),
        ({"intent": "x", "threshold": float("nan")}, "threshold is nan"),
        ({"intent": "x", "facts": "scope:x"}, "facts is a str"),
    ],
)
def test_bad_turns_are_refused(bad: dict[str, Any], says: str) -> None:
    """Each names the value found and what was expected."""
    _, attention = build()
    with pytest.raises(InvalidTurn, match=says):
        attention.before_model(Turn(**bad))


def test_explain_tells_the_operator() -> None:
    """Missing facts, score, rank: for a forbidden tool, a promoted one and a far one."""
    _, attention = build()
    forbidden = attention.explain(turn(), "fs__secret")
    assert forbidden.gate.missing == ("role:admin",)
    assert (forbidden.promoted, forbidden.rank) == (False, None)
    assert forbidden.score > 0.5
    best = attention.explain(turn(), "fs__read")
    assert (best.promoted, best.rank, best.gate.allowed) == (True, 1, True)
    far = attention.explain(turn(threshold=0.9), "fs__weather")
    assert (far.promoted, far.rank) == (False, 2)
    with pytest.raises(UnknownTool, match="did you mean 'fs__read'"):
        attention.explain(turn(), "fs__raed")


def test_one_record_per_decision(caplog: pytest.LogCaptureFixture) -> None:
    """Hook and log get the same facts; the intent's text only when asked for."""
    seen: list[Event] = []
    _, attention = build(on_event=seen.append)
    with caplog.at_level(logging.INFO, logger="ta_fast.events"):
        promotion = attention.before_model(turn(session=Session("s1")))
        attention.after_model(promotion, [ToolCall("1", "fs__secret", {})])
    route, check = seen
    assert isinstance(route, RouteEvent)
    assert isinstance(check, CheckEvent)
    assert (route.turn, route.session, route.epoch) == (promotion.handle, "s1", 1)
    assert [tool_id for tool_id, _ in route.active] == list(promotion.ids)
    assert (route.candidates, route.gated, route.intent) == (2, 3, None)
    assert (check.accepted, check.rejected) == ((), ("unknown_tool",))
    logged = [json.loads(record.message) for record in caplog.records]
    assert [entry["event"] for entry in logged] == ["route", "check"]
    assert "text file" not in caplog.text
    again: list[Event] = []
    _, attention = build(on_event=again.append, log_intent=True)
    attention.before_model(turn())
    assert isinstance(again[0], RouteEvent)
    assert again[0].intent == "read a text file from disk"
    assert again[0].query_hash == route.query_hash


def test_a_success_is_recorded_as_training_reads_it() -> None:
    """`ta-fast train` counts what succeeded where the log says so."""
    seen: list[Event] = []
    _, attention = build(on_event=seen.append)
    promotion = attention.before_model(turn(session=Session("s1")))
    attention.after_tool(promotion, "fs__read")
    result = seen[-1]
    assert isinstance(result, ResultEvent)
    found = (result.event, result.turn, result.session, result.tool_id, result.ok)
    assert found == ("result", promotion.handle, "s1", "fs__read", True)


def test_hook_that_raises_does_not_fail_the_turn(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged."""

    def hook(_: Event) -> None:
        raise RuntimeError("observer down")

    _, attention = build(on_event=hook)
    assert attention.before_model(turn()).tools
    assert "observer down" in caplog.text


def test_pool_is_stable_counted_and_hides_what_is_forbidden() -> None:
    """Same bytes for a state, exact token count, one line an allowed tool."""
    _, attention = build()
    promotion = attention.before_model(turn())
    pool = attention.pool(turn())
    assert pool == attention.pool(turn("something else"))
    assert count_tokens(pool) == promotion.pool_tokens
    assert pool.count("\n- ") == promotion.allowed
    assert "secret" not in pool


def test_threads_route_while_the_catalog_changes() -> None:
    """Turns in flight during refreshes are answered from one whole epoch each."""
    catalog, attention = build()
    stop = threading.Event()
    faults: list[str] = []

    def work() -> None:
        while not stop.is_set():
            promotion = attention.before_model(turn(threshold=-1))
            if promotion.allowed + promotion.gated not in (4, 5) or not promotion.tools:
                faults.append(str(promotion))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(20):
        catalog.replace([Source("file", TOOLS if i % 2 else TOOLS[1:])])
        attention.refresh()
    stop.set()
    for thread in threads:
        thread.join(10)
    assert not faults
