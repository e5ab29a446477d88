"""What the model sees: the summary pool, and promoted schemas in one of three deliveries.

``filter``
    The request's tools array holds the promoted tools. Simplest; the array changes with
    every promotion, so a provider's prompt cache holds only what stands before it. In a
    session that keeps its tools (``Gateway``) the array grows at its end.
``frozen``
    The tools array never changes: two tools, one to call any other by name. Promoted
    schemas arrive in a tool result right before the user's message, each once in a session
    that keeps its tools: the result stays in the conversation.
``reference``
    Every allowed tool is declared once with ``defer_loading`` and is free until a
    ``tool_reference`` names it (Anthropic), or a client-run tool search returns the
    promoted definitions (OpenAI Responses). Other forms have no such thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from ta_fast.errors import InvalidConfig
from ta_fast.tokens import count_tokens
from ta_fast.types import JsonObject, Promotion, ToolSchema
from ta_fast.wire import compact_json, mcp_definition

Form: TypeAlias = Literal["openai", "openai-responses", "anthropic", "mcp"]
Delivery: TypeAlias = Literal["filter", "reference", "frozen"]
Message: TypeAlias = dict[str, Any]

POOL_HEADER = (
    "These tools exist here. A tool can be called only while its full definition is given.\n"
)
CALL_TOOL = "call_tool"
LOAD_TOOLS = "load_tools"

_CALL_TOOL_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
    "required": ["name", "arguments"],
}
_LOAD_TOOLS_SCHEMA: JsonObject = {"type": "object", "properties": {}}
_CALL_TOOL_TEXT = "Call a tool by name, with arguments that fit its definition in the last result."
_LOAD_TOOLS_TEXT = "Run by the host before each user message: defines the tools usable now."


@dataclass(frozen=True, slots=True)
class Prompt:
    """The parts of one request that tell a model about tools.

    Attributes:
        pool: Phase 1, for the stable prefix: one line a tool that the state allows.
        tools: The request's tools array.
        messages: Phase 2 where it does not travel in the tools array: put these right
            before the user's message.
        tokens: cl100k_base tokens of all three as compact JSON; deferred definitions,
            which the provider keeps out of the context, do not count.
    """

    pool: str
    tools: list[Message]
    messages: list[Message]
    tokens: int


def render(
    promotion: Promotion,
    pool: str,
    form: Form = "openai",
    delivery: Delivery = "filter",
    deferred: Sequence[ToolSchema] = (),
) -> Prompt:
    """Render a promotion for a provider.

    Args:
        promotion: What this turn may call.
        pool: The summary pool's text.
        form: Whose JSON to write.
        delivery: How promoted schemas reach the model.
        deferred: Every tool that the state allows; needed by Anthropic's ``reference``.

    Raises:
        InvalidConfig: an unknown form or delivery, or a pair of them that does not exist.
    """
    _known("form", form, get_args(Form))
    _known("delivery", delivery, get_args(Delivery))
    new = [tool.schema for tool in promotion.tools if not tool.delivered]
    if delivery == "filter":
        tools = counted = [definition(tool.schema, form) for tool in promotion.tools]
        messages = []
    elif delivery == "frozen":
        tools = counted = _frozen_tools(form)
        written = compact_json([definition(schema, form) for schema in new])
        messages = _exchange(form, promotion.handle, written)
    else:
        tools, messages, counted = _reference(promotion.handle, new, form, deferred)
    if promotion.tools and not new:  # all of it was given before
        messages = []
    tokens = sum(
        count_tokens(text)
        for text in (compact_json(counted), compact_json(messages))
        if text != "[]"
    )
    return Prompt(pool, tools, messages, promotion.pool_tokens + tokens)


def definition(schema: ToolSchema, form: Form) -> Message:
    """One tool's full definition in a provider's form."""
    return _define(schema.wire_name, schema.description, schema.input_schema, form)


def _define(name: str, description: str, schema: JsonObject, form: Form) -> Message:
    if form == "mcp":
        return mcp_definition(name, description, schema)
    if form == "anthropic":
        return {"name": name, "description": description, "input_schema": schema}
    function = {"name": name, "description": description, "parameters": schema}
    if form == "openai-responses":
        return {"type": "function", **function}
    return {"type": "function", "function": function}


def _frozen_tools(form: Form) -> list[Message]:
    return [
        _define(LOAD_TOOLS, _LOAD_TOOLS_TEXT, _LOAD_TOOLS_SCHEMA, form),
        _define(CALL_TOOL, _CALL_TOOL_TEXT, _CALL_TOOL_SCHEMA, form),
    ]


def _reference(
    handle: str, new: Sequence[ToolSchema], form: Form, deferred: Sequence[ToolSchema]
) -> tuple[list[Message], list[Message], list[Message]]:
    """(tools, messages, tools whose tokens count) of the ``reference`` delivery."""
    promoted = [definition(schema, form) for schema in new]
    if form == "anthropic":
        loader = _define(LOAD_TOOLS, _LOAD_TOOLS_TEXT, _LOAD_TOOLS_SCHEMA, form)
        declared = [{**definition(schema, form), "defer_loading": True} for schema in deferred]
        references = [{"type": "tool_reference", "tool_name": schema.wire_name} for schema in new]
        messages = _exchange(form, handle, references)
        return [loader, *declared], messages, [loader, *promoted]
    if form == "openai-responses":
        search = {
            "type": "tool_search",
            "execution": "client",
            "description": _LOAD_TOOLS_TEXT,
            "parameters": _LOAD_TOOLS_SCHEMA,
        }
        common = {"call_id": handle, "execution": "client", "status": "completed"}
        messages = [
            {"type": "tool_search_call", "arguments": {}, **common},
            {"type": "tool_search_output", "tools": promoted, **common},
        ]
        return [search], messages, [search]
    raise InvalidConfig(
        f"delivery 'reference' does not exist in the form {form!r}; "
        "use it with 'anthropic' or 'openai-responses', or choose 'filter' or 'frozen'"
    )


def _exchange(form: Form, call_id: str, result: Any) -> list[Message]:
    """A call of ``load_tools`` that the host made, and its result."""
    if form == "mcp":
        return [{"content": [{"type": "text", "text": result}], "isError": False}]
    if form == "anthropic":
        call = {"type": "tool_use", "id": call_id, "name": LOAD_TOOLS, "input": {}}
        answer = {"type": "tool_result", "tool_use_id": call_id, "content": result}
        return [
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [answer]},
        ]
    if form == "openai-responses":
        return [
            {"type": "function_call", "call_id": call_id, "name": LOAD_TOOLS, "arguments": "{}"},
            {"type": "function_call_output", "call_id": call_id, "output": result},
        ]
    function = {"name": LOAD_TOOLS, "arguments": "{}"}
    return [
        {
            "role": "assistant",
            "tool_calls": [{"id": call_id, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": call_id, "content": result},
    ]


def _known(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InvalidConfig(f"unknown {what} {value!r}; expected one of {', '.join(known)}")
