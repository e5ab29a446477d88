import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ta_fast import Catalog, Promotion, Tool, ToolAttention, Turn
from ta_fast.calls import read_calls
from ta_fast.errors import InvalidConfig
from ta_fast.prompt import CALL_TOOL, LOAD_TOOLS, Form, Prompt
from ta_fast.testing import HashingEncoder
from ta_fast.tokens import count_tokens
from ta_fast.types import Source, ToolCall
from ta_fast.wire import compact_json, pool_line, wire_name

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [
    Tool("w__today", "today", "weather of a city today", SCHEMA, "w"),
    Tool("w__week", "week", "weather of a city this week", SCHEMA, "w"),
    Tool("odd name/ü", "odd", "weather maps of a city", SCHEMA),
    Tool("w__hidden", "hidden", "weather secrets", SCHEMA, precondition={"all_of": ["role:x"]}),
]
FORMS: tuple[Form, ...] = get_args(Form)


def promoted(intent: str = "weather of a city", top_k: int = 2) -> tuple[ToolAttention, Promotion]:
    catalog = Catalog()
    catalog.replace([Source("file", TOOLS)])
    attention = ToolAttention(catalog, HashingEncoder(256))
    return attention, attention.before_model(Turn(intent, top_k=top_k, threshold=0.0))


def prompt(form: Form, delivery: Any, top_k: int = 2) -> Prompt:
    attention, promotion = promoted(top_k=top_k)
    return attention.prompt(promotion, form, delivery)


def names(tools: list[dict[str, Any]]) -> list[str]:
    return [tool.get("function", tool)["name"] for tool in tools]


@pytest.mark.parametrize("form", FORMS)
def test_filter_sends_the_promoted_definitions(form: Form) -> None:
    """The tools array holds exactly the promotion, under names a provider accepts."""
    _, promotion = promoted()
    rendered = prompt(form, "filter")
    assert names(rendered.tools) == [wire_name(tool_id) for tool_id in promotion.ids]
    body = rendered.tools[0].get("function", rendered.tools[0])
    key = {"anthropic": "input_schema", "mcp": "inputSchema"}.get(form, "parameters")
    assert body[key] == SCHEMA
    assert rendered.messages == []
    assert rendered.tokens == count_tokens(rendered.pool) + count_tokens(
        compact_json(rendered.tools)
    )


@pytest.mark.parametrize("form", FORMS)
def test_frozen_keeps_the_tools_array(form: Form) -> None:
    """The array is the same for every promotion; definitions travel in a tool result."""
    one, three = prompt(form, "frozen", 1), prompt(form, "frozen", 3)
    assert one.tools == three.tools
    assert names(one.tools) == [LOAD_TOOLS, CALL_TOOL]
    assert "w__today" in json.dumps(three.messages)
    assert "hidden" not in json.dumps(three.messages)
    assert one.tokens < three.tokens


def test_reference_defers_every_allowed_tool_for_anthropic() -> None:
    """Declared once with defer_loading; only references name the promoted ones."""
    attention, promotion = promoted()
    rendered = attention.prompt(promotion, "anthropic", "reference")
    deferred = [tool["name"] for tool in rendered.tools if tool.get("defer_loading")]
    assert deferred == ["w__today", "w__week", wire_name("odd name/ü")]
    assert rendered.tools[0]["name"] == LOAD_TOOLS
    result = rendered.messages[1]["content"][0]
    assert result["type"] == "tool_result"
    assert [block["tool_name"] for block in result["content"]] == [
        tool.schema.wire_name for tool in promotion.tools
    ]
    assert result["tool_use_id"] == rendered.messages[0]["content"][0]["id"]


def test_reference_for_openai_responses_is_a_client_tool_search() -> None:
    """The call and its output share an id; the output has the definitions."""
    rendered = prompt("openai-responses", "reference")
    call, output = rendered.messages
    assert (call["type"], output["type"]) == ("tool_search_call", "tool_search_output")
    assert call["call_id"] == output["call_id"]
    assert len(output["tools"]) == 2


@pytest.mark.parametrize(
    ("form", "delivery", "says"),
    [
        ("openai", "reference", "does not exist"),
        ("mcp", "reference", "does not exist"),
        ("gemini", "filter", "unknown form 'gemini'"),
        ("openai", "thawed", "unknown delivery 'thawed'"),
    ],
)
def test_unknown_pairs_are_refused(form: Any, delivery: Any, says: str) -> None:
    """The message lists what there is."""
    with pytest.raises(InvalidConfig, match=says):
        prompt(form, delivery)


ANSWERS: dict[Form, Any] = {
    "openai": {
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
            {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{broken"}},
        ]
    },
    "openai-responses": [
        {"type": "message", "content": []},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{broken"},
    ],
    "anthropic": {
        "content": [
            {"type": "text", "text": "hm"},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
            {"type": "tool_use", "id": "c2", "name": "g", "input": "{broken"},
        ]
    },
    "mcp": [
        {
            "jsonrpc": "2.0",
            "id": "c1",
            "method": "tools/call",
            "params": {"name": "f", "arguments": {"a": 1}},
        },
        {"id": "c2", "params": {"name": "g", "arguments": "{broken"}},
    ],
}


@pytest.mark.parametrize("form", FORMS)
def test_reads_calls_of_every_form(form: Form) -> None:
    """Ids, names and arguments come through; broken JSON stays text."""
    assert read_calls(ANSWERS[form], form) == [
        ToolCall("c1", "f", {"a": 1}),
        ToolCall("c2", "g", "{broken"),
    ]


def test_answers_without_calls_have_none() -> None:
    """Plain text answers are no error."""
    assert read_calls({"role": "assistant", "content": "hi"}, "openai") == []
    assert read_calls({"tool_calls": None}, "openai") == []
    assert read_calls({"content": "hi"}, "anthropic") == []
    assert read_calls([], "mcp") == []


def test_frozen_calls_are_unwrapped() -> None:
    """The model calls call_tool; what counts is the tool inside."""
    block = {
        "type": "tool_use",
        "id": "1",
        "name": CALL_TOOL,
        "input": {"name": "w__today", "arguments": {"city": "Rome"}},
    }
    assert read_calls([block], "anthropic", "frozen") == [
        ToolCall("1", "w__today", {"city": "Rome"})
    ]
    assert read_calls([block], "anthropic") == [ToolCall("1", CALL_TOOL, block["input"])]


@given(st.text(min_size=1), st.text(min_size=1))
def test_wire_names_fit_and_differ(one: str, two: str) -> None:
    """Any id becomes a name that providers accept, and two ids two names."""
    try:
        a, b = wire_name(one), wire_name(two)
    except UnicodeEncodeError:
        return
    for name in (a, b):
        assert 1 <= len(name) <= 64
        assert all(c.isascii() and (c.isalnum() or c in "_-") for c in name)
    assert (a == b) == (one == two)


@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=60)), max_size=8))
def test_pool_tokens_are_additive(parts: list[tuple[str, str]]) -> None:
    """The count of a pool is the sum of its lines' counts, whatever the summaries hold."""
    lines = []
    for name, text in parts:
        summary = " ".join(f"{name}: {text}".split())
        if summary.encode(errors="ignore").decode() == summary:
            lines.append(
                pool_line(Tool(f"id{name}".encode(errors="ignore").decode(), name), summary)
            )
    assert count_tokens("".join(lines)) == sum(count_tokens(line) for line in lines)
