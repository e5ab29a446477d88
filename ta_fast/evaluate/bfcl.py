"""The live sets of the Berkeley Function-Calling Leaderboard as tools and labelled queries.

Read from the PyPI package ``bfcl-eval`` (Apache-2.0), whose ``data`` folder holds them. Its code
is neither imported nor needed: ``pip install --no-deps bfcl-eval``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from ta_fast.errors import BackendUnavailable, InvalidCatalog
from ta_fast.evaluate.queries import Query
from ta_fast.types import Tool

_Key: TypeAlias = tuple[str, frozenset[str]]

CATEGORIES = ("live_simple", "live_multiple")
_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": None}
"""BFCL's names of types that JSON Schema calls otherwise; it has none for "any"."""


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Tools and the queries that need them."""

    tools: tuple[Tool, ...]
    queries: tuple[Query, ...]


def bfcl_folder() -> Path:
    """The ``data`` folder of the installed package.

    Raises:
        BackendUnavailable: it is not installed; says how to install it.
    """
    spec = find_spec("bfcl_eval")
    if spec is None or not spec.submodule_search_locations:
        raise BackendUnavailable("the BFCL sets are not installed; pip install --no-deps bfcl-eval")
    return Path(spec.submodule_search_locations[0]) / "data"


def read_bfcl(folder: Path, categories: Sequence[str] = CATEGORIES) -> LabelledSet:
    """Read categories of a folder laid out like the package's ``data``.

    BFCL offers many a function in several wordings. Functions that agree in their name and in
    the names of their parameters are one tool, with the first one's words. Others of the same
    name are ``name#2`` and so on, and any of them is right for a query that needs the name.
    Queries are the user's words; those without a function that is right are left out.

    Raises:
        InvalidCatalog: a file is absent or is not in the expected form; names it.
    """
    tools: dict[_Key, Tool] = {}
    asked: list[tuple[str, str, list[str]]] = []
    for category in categories:
        right = dict(_answers(folder / "possible_answer" / f"BFCL_v4_{category}.json"))
        for where, row in _rows(folder / f"BFCL_v4_{category}.json"):
            try:
                for function in row["function"]:
                    _add(function, tools)
                text = " ".join(m["content"] for m in row["question"][0] if m["role"] == "user")
                asked.append((row["id"], text, right.get(row["id"], [])))
            except (KeyError, TypeError, IndexError, AttributeError) as error:
                raise InvalidCatalog(f"{where}: no BFCL question: {error!r}") from error
    named: dict[str, list[str]] = {}
    for tool in tools.values():
        named.setdefault(tool.name, []).append(tool.id)
    queries = tuple(
        Query(name, text, tuple(frozenset(named[function]) for function in dict.fromkeys(right)))
        for name, text, right in asked
        if right and text.strip() and named.keys() >= set(right)
    )
    return LabelledSet(tuple(tools.values()), queries)


def _add(function: Any, tools: dict[_Key, Tool]) -> None:
    """Add a function's tool when it is new."""
    name, parameters = function["name"], function["parameters"]
    key = (name, frozenset(parameters.get("properties", {})))
    if key not in tools:
        same = sum(other == name for other, _ in tools)
        tool_id = f"{name}#{same + 1}" if same else name
        tools[key] = Tool(tool_id, name, function["description"], _json_schema(parameters))


def _json_schema(node: Any) -> Any:
    """The schema with JSON Schema's names of types."""
    if isinstance(node, list):
        return [_json_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    schema = {key: _json_schema(value) for key, value in node.items()}
    kind = node.get("type")
    if isinstance(kind, str) and kind in _TYPES:
        schema["type"] = _TYPES[kind]
        if _TYPES[kind] is None:
            del schema["type"]
    return schema


def _answers(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(id of the question, names of the functions that are right)."""
    for where, row in _rows(path):
        try:
            yield row["id"], [name for call in row["ground_truth"] for name in call]
        except (KeyError, TypeError) as error:
            raise InvalidCatalog(f"{where}: no BFCL answer: {error!r}") from error


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(where it stands, object) of each line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidCatalog(f"cannot read {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except ValueError as error:
                raise InvalidCatalog(f"{path}:{number} is not JSON: {error}") from error
