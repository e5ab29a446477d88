"""What the operator says about tools: summaries, preconditions, provided facts, annotations.

::

    {
      "facts": ["milestone:plan_confirmed"],
      "tools": {
        "github__*":           {"precondition": {"all_of": ["scope:github:read"]}},
        "github__delete_repo": {"summary": "Delete a repository for good.",
                                "annotations": {"destructiveHint": true}}
      }
    }
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from ta_fast.catalog.sources import parse_json, read_text
from ta_fast.catalog.summaries import MAX_SUMMARY_TOKENS
from ta_fast.errors import InvalidCatalog
from ta_fast.tokens import count_tokens
from ta_fast.types import Json, JsonObject, Tool

_FILE_KEYS = ("facts", "tools")
_TOOL_KEYS = ("summary", "precondition", "provides", "annotations")


@dataclass(frozen=True, slots=True)
class Overrides:
    """The operator's file.

    ``facts`` are names that exist although no tool provides them. ``tools`` maps an id,
    or a pattern with ``*`` for any characters, to the fields that it sets.
    """

    facts: tuple[str, ...] = ()
    tools: Mapping[str, JsonObject] | None = None


def read_overrides(path: Path) -> Overrides:
    """Read the operator's file. Preconditions are checked where they are compiled.

    Raises:
        InvalidCatalog: the file cannot be read, or a key or value is not known.
    """
    document = parse_json(read_text(path), path)
    if not isinstance(document, dict):
        _fail(str(path), document, "a JSON object")
    _check_keys(document, _FILE_KEYS, str(path))
    facts = _texts(document.get("facts", []), f"{path}: facts")
    tools = document.get("tools", {})
    if not isinstance(tools, dict):
        _fail(f"{path}: tools", tools, "an object from tool ids to their fields")
    return Overrides(
        facts, {key: _fields(value, f"{path}: {key!r}") for key, value in tools.items()}
    )


def apply_overrides(
    tools: Iterable[Tool], overrides: Overrides
) -> tuple[list[Tool], dict[str, str | None]]:
    """Set the operator's fields on tools.

    An exact id beats a pattern, a later pattern an earlier one, field by field;
    annotations are merged, key by key, over the tool's own.

    Returns:
        The tools in their order, and the ids and patterns that fit no tool, each with the
        nearest tool id (None if nothing is near), for a warning.
    """
    tools = list(tools)
    given = overrides.tools or {}
    patterns = [(key, _pattern(key)) for key in given if "*" in key]
    unused = dict.fromkeys(given)
    result = []
    for tool in tools:
        keys = [key for key, pattern in patterns if pattern.fullmatch(tool.id)]
        if tool.id in given:
            keys.append(tool.id)
        for key in keys:
            unused.pop(key, None)
        result.append(_applied(tool, [given[key] for key in keys]))
    ids = [tool.id for tool in tools]
    return result, {key: _nearest(key, ids) for key in unused}


def _applied(tool: Tool, layers: Sequence[JsonObject]) -> Tool:
    """``tool`` with the fields of every layer, later layers over earlier ones."""
    if not layers:
        return tool
    fields: dict[str, Any] = {}
    annotations = dict(tool.annotations)
    for layer in layers:
        fields.update(layer)
        annotations.update(layer.get("annotations", {}))
    fields["annotations"] = annotations
    return replace(tool, **fields)


def _fields(value: Json, where: str) -> JsonObject:
    """The checked fields of one entry, as ``Tool`` has them."""
    if not isinstance(value, dict):
        _fail(where, value, "a JSON object")
    _check_keys(value, _TOOL_KEYS, where)
    fields = dict(value)
    for key in ("precondition", "annotations"):
        if key in fields and not isinstance(fields[key], dict):
            _fail(f"{where}: {key}", fields[key], "a JSON object")
    if "provides" in fields:
        fields["provides"] = _texts(fields["provides"], f"{where}: provides")
    if "summary" in fields:
        _check_summary(fields["summary"], f"{where}: summary")
    return fields


def _check_summary(value: Json, where: str) -> None:
    if not isinstance(value, str) or not value.strip():
        _fail(where, value, "a text that is not empty")
    if (count := count_tokens(value)) > MAX_SUMMARY_TOKENS:
        message = f"{where} has {count} cl100k tokens; expected at most {MAX_SUMMARY_TOKENS}"
        raise InvalidCatalog(message)


def _check_keys(value: Mapping[str, Json], known: Sequence[str], where: str) -> None:
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
            raise InvalidCatalog(f"{where}: unknown key {key!r}; {hint}")


def _texts(value: Json, where: str) -> tuple[str, ...]:
    good = isinstance(value, list) and all(isinstance(item, str) and item for item in value)
    if not good:
        _fail(where, value, "an array of texts that are not empty")
    return tuple(value)


def _pattern(key: str) -> re.Pattern[str]:
    # Only "*" is special: ids may hold "[" and "?", which fnmatch would read as patterns.
    return re.compile(".*".join(map(re.escape, re.split(r"\*+", key))), re.DOTALL)


def _nearest(key: str, ids: Sequence[str]) -> str | None:
    return next(iter(difflib.get_close_matches(key, ids, 1, cutoff=0.5)), None)


def _fail(where: str, value: Json, expected: str) -> NoReturn:
    found = json.dumps(value)
    raise InvalidCatalog(f"{where} is {found[:80]}; expected {expected}")
