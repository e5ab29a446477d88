"""A tool's name and summary line as the model sees them."""

from __future__ import annotations

import json
import re
from hashlib import blake2b
from typing import Any

from ta_fast.types import JsonObject, Tool

_WIRE = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_UNFIT = re.compile(r"[^a-zA-Z0-9_-]+")


def wire_name(tool_id: str) -> str:
    """The name under which the model calls a tool.

    Providers accept ``[a-zA-Z0-9_-]{1,64}``; an id that fits is its own wire name, any
    other is made to fit and told apart by eight hexadecimal digits of its hash.
    """
    if _WIRE.fullmatch(tool_id):
        return tool_id
    digest = blake2b(tool_id.encode(), digest_size=4).hexdigest()
    return f"{_UNFIT.sub('_', tool_id)[:55]}_{digest}"


def pool_line(tool: Tool, summary: str) -> str:
    """The tool's line in the summary pool, newline included.

    Starts with "-" and ends with a newline, so the token count of a pool is the sum of
    the counts of its lines (cl100k_base never merges across that boundary).
    """
    text = " ".join(summary.removeprefix(f"{tool.name}: ").split())
    return f"- {wire_name(tool.id)}: {text}\n"


def compact_json(value: Any) -> str:
    """Compact JSON, as it is sent and as its tokens are counted."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=dict)


def mcp_definition(name: str, description: str, input_schema: JsonObject) -> dict[str, Any]:
    """A tool's full definition in MCP's form."""
    return {"name": name, "description": description, "inputSchema": input_schema}
