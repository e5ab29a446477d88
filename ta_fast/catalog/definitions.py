"""A tool as the catalog writes it down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from ta_fast.catalog.facts import compile_tool
from ta_fast.errors import InvalidCatalog
from ta_fast.types import Source, Tool

SUMMARY_VERSION = 2
"""Part of every tool's content hash: raise it when summaries or views are made differently."""


def strict_json(value: Any) -> str:
    """Compact JSON; ValueError or TypeError for what JSON does not have, NaN among it."""
    # default=dict writes read-only mappings; anything else that JSON lacks is refused by it.
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=dict
    )


def definition(tool: Tool) -> str:
    """A tool, whole, as JSON."""
    return strict_json({name: getattr(tool, name) for name in Tool.__slots__})


def read_definition(text: str) -> Tool:
    """The tool that ``definition`` wrote."""
    fields = json.loads(text)
    return Tool(**{**fields, "provides": tuple(fields["provides"])})


def content_hash(tool: Tool) -> bytes:
    """Hash of everything about a tool; InvalidCatalog if it cannot be written down."""
    compile_tool(tool)  # refuses what could not be written down, a cycle among it
    try:
        content = f"{SUMMARY_VERSION}{definition(tool)}".encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidCatalog(f"tool {tool.id!r} cannot be written as JSON: {error}") from error
    return blake2b(content, digest_size=16).digest()


def by_id(sources: Sequence[Source]) -> dict[str, tuple[str, Tool]]:
    """(source, tool) by id; InvalidCatalog if two have one id."""
    tools: dict[str, tuple[str, Tool]] = {}
    for source in sources:
        for tool in source.tools:
            if tool.id in tools:
                owner = tools[tool.id][0]
                raise InvalidCatalog(
                    f"tool id {tool.id!r} is defined by {owner} and again by {source.name}"
                )
            tools[tool.id] = (source.name, tool)
    return tools
