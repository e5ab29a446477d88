"""What the model asked for, and how a rejection is told to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ta_fast.prompt import CALL_TOOL, Delivery, Form, Message
from ta_fast.types import Json, Rejection, ToolCall
from ta_fast.wire import compact_json


def read_calls(answer: Any, form: Form = "openai", delivery: Delivery = "filter") -> list[ToolCall]:
    """The tool calls of a model's answer, as plain JSON objects in a provider's form.

    Args:
        answer: OpenAI: the assistant message. OpenAI Responses: the list of output items.
            Anthropic: the message or its content blocks. MCP: a ``tools/call`` request or
            its params, or a list of them.
        form: Whose JSON it is.
        delivery: With ``frozen``, calls that went through ``call_tool`` are unwrapped.

    Returns:
        The calls in order. Arguments that are no JSON stay text, and will be rejected.
    """
    if form == "openai":
        raw = [
            (call.get("id"), call.get("function") or {}, "arguments")
            for call in _items(answer, "tool_calls")
        ]
    elif form == "openai-responses":
        items = _items(answer, "output")
        raw = [
            (item.get("call_id"), item, "arguments")
            for item in items
            if item.get("type") == "function_call"
        ]
    elif form == "anthropic":
        blocks = _items(answer, "content")
        raw = [(b.get("id"), b, "input") for b in blocks if b.get("type") == "tool_use"]
    else:
        requests = [answer] if isinstance(answer, Mapping) else list(answer)
        raw = [(r.get("id"), r.get("params", r), "arguments") for r in requests]
    calls = [
        ToolCall(str(call_id or ""), str(body.get("name", "")), _json(body.get(key, {})))
        for call_id, body, key in raw
    ]
    return [_unwrap(call) for call in calls] if delivery == "frozen" else calls


def rejection_message(rejection: Rejection, form: Form = "openai") -> Message:
    """A rejection as the tool result that the model gets, so that it can recover."""
    body = {
        "error": rejection.reason,
        "message": rejection.message,
        "available": list(rejection.available),
    }
    text = compact_json(body)
    if form == "anthropic":
        return {
            "type": "tool_result",
            "tool_use_id": rejection.call_id,
            "is_error": True,
            "content": text,
        }
    if form == "openai-responses":
        return {"type": "function_call_output", "call_id": rejection.call_id, "output": text}
    if form == "mcp":
        content = [{"type": "text", "text": text}]
        return {"isError": True, "content": content, "structuredContent": body}
    return {"role": "tool", "tool_call_id": rejection.call_id, "content": text}


def _items(answer: Any, key: str) -> Sequence[Mapping[str, Any]]:
    items = answer.get(key) if isinstance(answer, Mapping) else answer
    return [item for item in items or () if isinstance(item, Mapping)]


def _json(value: Any) -> Json:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value or "{}")
    except ValueError:
        return value


def _unwrap(call: ToolCall) -> ToolCall:
    if call.name != CALL_TOOL or not isinstance(call.arguments, Mapping):
        return call
    name, arguments = call.arguments.get("name", ""), call.arguments.get("arguments", {})
    return ToolCall(call.id, str(name), _json(arguments))
