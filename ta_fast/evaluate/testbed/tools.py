"""The testbed's 120 tools on six servers, made from the tables in this folder's TOML files.

Counts of tools and mean tokens of a schema are those of the Tool Attention paper's testbed;
every name, text and parameter is ours. A tool's own parameters come first; then details and
the parameters that services share are added until it has its share of its server's tokens.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Literal, TypeAlias

from ta_fast.tokens import count_tokens
from ta_fast.types import Tool
from ta_fast.wire import compact_json, mcp_definition

# Mean tokens of a schema by server, and of all schemas together, as the paper states them. Its
# means add up to 48,600: the TOML files ask for 1.4 % less than each, which is within 2 % of both.
PAPER_MEANS = {
    "github": 520,
    "filesystem": 180,
    "database": 410,
    "slack": 290,
    "web": 220,
    "jira": 470,
}
PAPER_TOTAL = 47_312
SERVERS = tuple(PAPER_MEANS)
SEED = 42
_SPREAD = 0.25  # a tool's share of tokens is its server's mean, give or take so much

Register: TypeAlias = Literal["plain", "terse"]
"""How people ask. "plain" says what is wanted of what; "terse" leaves that to be guessed."""


@cache
def table(name: str) -> Mapping[str, Any]:
    """One of the folder's TOML files, by its name without the ending."""
    text = files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def make_tools(seed: int = SEED) -> list[Tool]:
    """The 120 tools, server by server; the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    return [tool for server in SERVERS for tool in _server_tools(server, rng)]


def schema_tokens(tool: Tool) -> int:
    """cl100k_base tokens of a tool's compact MCP JSON."""
    return count_tokens(compact_json(mcp_definition(tool.id, tool.description, tool.input_schema)))


@cache
def intents(register: Register) -> dict[str, tuple[str, ...]]:
    """Ways to ask for each tool, by tool id; with slots in braces."""
    return {
        f"{server}__{name}": tuple(row[register])
        for server in SERVERS
        for name, row in table(server)["tools"].items()
    }


def _server_tools(server: str, rng: random.Random) -> Iterator[Tool]:
    """One server's tools; what one misses of its tokens, the next makes up for."""
    rows = table(server)["tools"]
    mean = table(server)["schema_tokens"]
    shares = [rng.uniform(1 - _SPREAD, 1 + _SPREAD) for _ in rows]
    wanted = 0.0
    for place, ((name, row), share) in enumerate(zip(rows.items(), shares, strict=True)):
        wanted += mean * share * len(rows) / sum(shares)
        versions = list(_versions(f"{server}__{name}", row, place))
        tool = _nearest(versions, wanted)
        wanted -= schema_tokens(tool)
        yield tool


def _nearest(versions: Sequence[Tool], wanted: float) -> Tool:
    """The version with the number of tokens nearest to ``wanted``; they grow."""
    low, high = 0, len(versions) - 1
    while low < high:
        middle = (low + high) // 2
        if schema_tokens(versions[middle]) < wanted:
            low = middle + 1
        else:
            high = middle
    candidates = versions[max(0, low - 1) : low + 1]
    return min(candidates, key=lambda tool: abs(schema_tokens(tool) - wanted))


def _versions(tool_id: str, row: Mapping[str, Any], place: int) -> Iterator[Tool]:
    """A tool with more and more detail: the details of its parameters, then shared ones."""
    parameters = table("parameters")
    own = [word.removesuffix("?") for word in row["takes"].split()]
    required = [word for word in row["takes"].split() if not word.endswith("?")]
    properties = {name: _property(parameters["own"][name], detailed=False) for name in own}
    shared = {
        name: value
        for name, value in parameters["read" if row.get("read") else "write"].items()
        if name not in own
    }
    # Each tool starts elsewhere in the shared table, so that not all of them share the same.
    names = list(shared)
    names = names[place % len(names) :] + names[: place % len(names)]
    yield _tool(tool_id, row, properties, required)
    for name in own:
        properties = {**properties, name: _property(parameters["own"][name], detailed=True)}
        yield _tool(tool_id, row, properties, required)
    for name in names:
        for detailed in (False, True):
            properties = {**properties, name: _property(shared[name], detailed=detailed)}
            yield _tool(tool_id, row, properties, required)


def _property(row: Sequence[str], *, detailed: bool) -> dict[str, Any]:
    kind, text, detail = row
    described = {"description": f"{text} {detail}" if detailed else text}
    if "|" in kind:
        return {"type": "string", "enum": kind.split("|"), **described}
    if kind.endswith("[]"):
        return {"type": "array", "items": {"type": kind.removesuffix("[]")}, **described}
    return {"type": kind, **described}


def _tool(
    tool_id: str, row: Mapping[str, Any], properties: Mapping[str, Any], required: Sequence[str]
) -> Tool:
    server, _, name = tool_id.partition("__")
    schema = {"type": "object", "properties": dict(properties), "required": list(required)}
    return Tool(
        id=tool_id,
        name=name,
        description=row["text"],
        input_schema=schema,
        server=server,
        annotations={"readOnlyHint": bool(row.get("read"))},
        precondition={"all_of": row["needs"]} if "needs" in row else None,
        provides=tuple(row.get("provides", ())),
    )
