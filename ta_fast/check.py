"""The gate after the model: which of its calls may be executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jsonschema_rs

from ta_fast.catalog import ToolIndex
from ta_fast.types import (
    AcceptedCall,
    Json,
    JsonObject,
    PromotedTool,
    Promotion,
    Rejection,
    RejectionReason,
    ToolCall,
    Verdict,
)

MAX_PROBLEMS = 5
"""Schema violations that one rejection tells of."""
MAX_MESSAGE = 300
"""Characters of one violation's message."""


def check_calls(promotion: Promotion, calls: Sequence[ToolCall], index: ToolIndex) -> Verdict:
    """Accept or reject calls; see ``ToolAttention.after_model``.

    Args:
        promotion: What the turn was promoted.
        calls: The model's calls; each is judged on its own.
        index: The catalog as it is now, which may be a later epoch.
    """
    allowed = index.gate.allowed(promotion.turn.current_facts())
    callable_now = {
        tool.schema.wire_name: tool
        for tool in promotion.tools
        if (row := index.rows.get(tool.id)) is not None and index.permits(allowed, row)
    }
    accepted: list[AcceptedCall] = []
    rejected: list[Rejection] = []
    for call in calls:
        tool = callable_now.get(call.name)
        row = index.row_of_wire(call.name)
        exists = row is not None and index.permits(allowed, row)
        fault = _fault(call, tool, exists)
        if fault is not None:
            rejected.append(Rejection(call.id, *fault, tuple(callable_now)))
        elif tool is not None:
            schema = tool.schema
            accepted.append(AcceptedCall(call, tool.id, schema.server, schema.name, call.arguments))
    return Verdict(tuple(accepted), tuple(rejected))


def _fault(
    call: ToolCall, tool: PromotedTool | None, exists: bool
) -> tuple[RejectionReason, str] | None:
    """Why a call is rejected, or None. Forbidden and unknown tools get the same words."""
    if not exists:
        return "unknown_tool", "There is no such tool. Call one that is available."
    if tool is None:
        return "tool_not_promoted", f"{call.name} cannot be called in this turn."
    problems = argument_problems(tool.schema.input_schema, call.arguments)
    if problems:
        return "invalid_arguments", f"{call.name}: {'; '.join(problems)}"
    return None


def argument_problems(schema: JsonObject, arguments: Json) -> list[str]:
    """Why arguments do not fit a tool's input schema; empty when they fit.

    References to other documents are never fetched. A schema that is itself broken
    fits nothing: what cannot be checked is not let through.
    """
    if not isinstance(arguments, Mapping):
        return [f"arguments must be a JSON object, not {type(arguments).__name__}"]
    try:
        validator = jsonschema_rs.validator_for(dict(schema), offline=True)
        errors = validator.iter_errors(dict(arguments))
        return [_problem(error) for error, _ in zip(errors, range(MAX_PROBLEMS), strict=False)]
    except (ValueError, TypeError) as error:
        return [f"the tool's own schema cannot be used: {str(error).splitlines()[0]}"]


def _problem(error: jsonschema_rs.ValidationError) -> str:
    path = "/".join(str(part) for part in error.instance_path)
    # The message quotes the argument's value, which may be of any size.
    message = error.message
    if len(message) > MAX_MESSAGE:
        message = message[:MAX_MESSAGE] + "..."
    return f"{path}: {message}" if path else message
