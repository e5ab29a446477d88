"""What readers of training sets share: rows of tools, and titles as orders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

Rows: TypeAlias = dict[str, dict[str, Any]]
Asked: TypeAlias = Iterable[tuple[str, Iterable[str]]]
ReadSet: TypeAlias = tuple[Rows, Asked]


_NO_VERBS = frozenset({"Always", "Analytics", "Kubernetes", "Metrics", "This", "Vnets"})


def tool_row(name: str, text: str, parameters: Any, server: str = "") -> dict[str, Any]:
    """A row of ``tools.jsonl``."""
    schema = {"type": "object", "properties": parameters or {}}
    row = {"id": name, "name": name, "description": text[:1500].strip(), "inputSchema": schema}
    return row | ({"server": server} if server else {})


def read_lines(path: Path) -> list[Any]:
    """The objects of a file that has one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def as_order(title: str) -> str:
    """A title as an order: without its full stop, "Gets" as "Get"."""
    title = re.sub(r"(?<!\w)[*_`]+(\S[^*_`]*)[*_`]+(?!\w)", r"\1", title).strip().rstrip(".:")
    first, space, rest = title.partition(" ")
    if re.fullmatch(r"[A-Z][a-z]+[^s]s", first) and first not in _NO_VERBS:
        first = re.sub(r"ies$", "ys", first)
        first = re.sub(r"(?<=ss|ch|sh)es$|s$", "", first)
    return first[:1].upper() + first[1:] + space + rest
