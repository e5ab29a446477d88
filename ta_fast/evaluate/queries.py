"""Labelled queries: an intent and the tools that are right for it."""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from ta_fast.errors import InvalidCatalog


@dataclass(frozen=True, slots=True)
class Query:
    """An intent with its gold tools.

    ``gold`` has a group of equivalent tool ids for each tool that is needed; a group is
    found when any of its ids is. No group: no tool is right.
    """

    id: str
    text: str
    gold: tuple[frozenset[str], ...]


def read_queries(path: Path, tools: Container[str]) -> list[Query]:
    """Read JSONL rows ``{"id", "text", "gold": [ids], "gold_any"?: [[ids], ...]}``.

    Args:
        path: The file.
        tools: The catalog's tool ids.

    Raises:
        InvalidCatalog: a broken row, or a gold tool that the catalog lacks; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidCatalog(f"cannot read {path}: {error}") from error
    queries = [
        _query(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not queries:
        raise InvalidCatalog(f"{path} holds no query")
    for query in queries:
        for group in query.gold:
            if not any(tool in tools for tool in group):
                raise InvalidCatalog(
                    f"{path}: gold {sorted(group)} of query {query.id!r} is no tool of the catalog"
                )
    return queries


def _query(line: str, where: str) -> Query:
    try:
        row = json.loads(line)
        groups = row.get("gold_any") or [[tool] for tool in row["gold"]]
        gold = tuple(frozenset(map(str, group)) for group in groups)
        text = row["text"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidCatalog(
            f'{where}: expected {{"id", "text", "gold": [tool ids]}}, found {line[:80]!r}'
        ) from error
    if not isinstance(text, str) or not text.strip():
        raise InvalidCatalog(f"{where}: text is {text!r}; expected text that is not empty")
    return Query(str(row.get("id", where)), text, gold)
