"""Tools from files: JSONL, a saved ``tools/list``, OpenAI and Anthropic tools arrays.

The form is told by the content, not by the file's name. Every error names the file,
the line or the index of the tool, the value found and what was expected; a file with
one bad tool gives none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ta_fast.errors import InvalidCatalog
from ta_fast.types import EMPTY, Json, JsonObject, Source, Tool

MAX_DESCRIPTION_BYTES = 64 * 1024
"""Longest description in UTF-8 bytes; more is a mistake or an attack on the prompt."""
MAX_ID_LENGTH = 512
"""Longest name or id in characters."""

_SCHEMA_KEYS = ("inputSchema", "input_schema", "parameters")
_NO_ARGUMENTS: JsonObject = {"type": "object", "properties": {}}
_SHOWN = 80  # characters of a wrong value that a message quotes


def read_file(path: Path) -> Source:
    """Read the tools of one file.

    A JSONL row may also carry ``id`` (default ``server__name``, or the name), ``server``,
    ``annotations``, ``summary``, ``precondition`` and ``provides``; other keys are ignored.

    Raises:
        InvalidCatalog: the file cannot be read or holds something else than tools.
    """
    text = read_text(path)
    lines: list[int] | None = None
    if _is_jsonl(text):
        rows = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        lines = [number for number, _ in rows]
        objects: Sequence[Json] = [parse_json(line, path, number) for number, line in rows]
    else:
        objects = _tools_of(parse_json(text, path), path)
    if not objects:
        raise InvalidCatalog(f"{path}: holds no tools; expected at least one")
    if "\\ud" in text or "\\uD" in text:
        _refuse_lone_surrogates(objects, str(path), lines)
    tools = parse_tools(objects, source=str(path), lines=lines)
    return Source(name=str(path.resolve()), tools=tools)


def parse_tools(
    objects: Iterable[Json],
    *,
    source: str,
    server: str = "",
    lines: Sequence[int] | None = None,
) -> list[Tool]:
    """Make tools of JSON objects in MCP, JSONL, OpenAI or Anthropic form.

    Args:
        objects: One JSON value a tool.
        source: Name of the source, for messages.
        server: Server of tools that name none themselves.
        lines: Line number of each object, for messages; without it they give the index.

    Raises:
        InvalidCatalog: an object is no tool, or two have the same id.
    """
    tools: list[Tool] = []
    places: dict[str, int] = {}
    for index, value in enumerate(objects):
        try:
            tool = _tool(value, server)
            if tool.id in places:
                first = _place(places[tool.id], lines)
                _fail("id", tool.id, f"an id that is not already at {first}")
        except InvalidCatalog as error:
            raise InvalidCatalog(f"{source}, {_place(index, lines)}: {error}") from None
        places[tool.id] = index
        tools.append(tool)
    return tools


def parse_json(text: str, path: Path, line: int | None = None) -> Json:
    """Parse strict JSON (no NaN, no Infinity); ``line`` is where ``text`` starts in the file.

    Raises:
        InvalidCatalog: names the file, the line and the column.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        number = error.lineno + (line or 1) - 1
        message = f"{path}, line {number}, column {error.colno}: not JSON: {error.msg}"
        raise InvalidCatalog(message) from None
    except (ValueError, RecursionError) as error:
        where = f"{path}, line {line}" if line else str(path)
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidCatalog(f"{where}: not usable JSON: {reason}") from None


def read_text(path: Path) -> str:
    """Read a UTF-8 file, with or without a byte order mark.

    Raises:
        InvalidCatalog: it cannot be read, or is not UTF-8 (the byte offset is named).
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InvalidCatalog(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        found = error.object[error.start]
        message = f"{path}: byte {found:#04x} at offset {error.start} is not UTF-8"
        raise InvalidCatalog(message) from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _is_jsonl(text: str) -> bool:
    """Whether the first line is one whole object that is a tool, not a list of tools."""
    first = text.lstrip().split("\n", 1)[0]
    if not first.startswith("{"):
        return False
    try:
        row = _DECODER.decode(first)
    except (ValueError, RecursionError):
        return first.rstrip() != "{" and "\n{" in text
    return "name" in row or "function" in row


def _tools_of(document: Json, path: Path) -> Sequence[Json]:
    """The list of tools in one JSON document."""
    if isinstance(document, dict):
        if "mcpServers" in document:
            raise InvalidCatalog(
                f"{path}: names MCP servers (mcpServers); expected tools. "
                "ta-fast ingest takes it with --mcp"
            )
        if "name" in document or "function" in document:
            return [document]
        result = document.get("result", document)
        document = result.get("tools") if isinstance(result, dict) else None
    if not isinstance(document, list):
        message = (
            f"{path}: found no list of tools; expected JSONL, a tools/list result "
            '({"tools": [...]}) or an array of tools'
        )
        raise InvalidCatalog(message)
    return document


def _tool(value: Json, server: str) -> Tool:
    if not isinstance(value, dict):
        _fail("a tool", value, "a JSON object")
    body = value.get("function", value) if value.get("type") == "function" else value
    if not isinstance(body, dict):
        _fail("function", body, "a JSON object")
    name = _identifier("name", body.get("name"))
    server = _text("server", value.get("server"), server)
    tool_id = value.get("id")
    if tool_id is None:
        tool_id = f"{server}__{name}" if server else name
    summary = value.get("summary")
    precondition = value.get("precondition")
    return Tool(
        id=_identifier("id", tool_id),
        name=name,
        description=_description(body.get("description")),
        input_schema=_schema(body),
        server=server,
        annotations=_object("annotations", value.get("annotations"), EMPTY),
        summary=None if summary is None else _text("summary", summary, ""),
        precondition=None if precondition is None else _object("precondition", precondition, EMPTY),
        provides=_names("provides", value.get("provides")),
    )


def _identifier(key: str, value: Json) -> str:
    if not isinstance(value, str) or not value.strip():
        _fail(key, value, "a text that is not empty")
    if len(value) > MAX_ID_LENGTH:
        _fail(key, value, f"at most {MAX_ID_LENGTH} characters, not {len(value)}")
    return _text(key, value, "")


def _text(key: str, value: Json, default: str) -> str:
    if value is None:
        return default
    if not isinstance(value, str):
        _fail(key, value, "a text")
    if not value.isascii():
        _encoded(key, value)
    return value


def _description(value: Json) -> str:
    text = _text("description", value, "")
    if len(text) * 4 > MAX_DESCRIPTION_BYTES:
        size = len(_encoded("description", text))
        if size > MAX_DESCRIPTION_BYTES:
            _fail("description", text, f"at most {MAX_DESCRIPTION_BYTES} bytes, not {size}")
    return text


def _schema(body: dict[str, Any]) -> JsonObject:
    key = next((key for key in _SCHEMA_KEYS if body.get(key) is not None), None)
    if key is None:
        return _NO_ARGUMENTS
    schema = _object(key, body[key], EMPTY)
    kind = schema.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        _fail(f"{key}.type", kind, '"object"')
    return schema


def _object(key: str, value: Json, default: JsonObject) -> JsonObject:
    if value is None:
        return default
    if not isinstance(value, dict):
        _fail(key, value, "a JSON object")
    return value


def _names(key: str, value: Json) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        _fail(key, value, "an array of fact names")
    return tuple(_identifier(key, name) for name in value)


def _encoded(key: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        surrogate = f"U+{ord(text[error.start]):04X}"
        message = f"{key} holds the lone surrogate {surrogate} at character {error.start}"
        raise InvalidCatalog(f"{message}; expected Unicode text") from None


def _refuse_lone_surrogates(
    objects: Sequence[Json], source: str, lines: Sequence[int] | None
) -> None:
    """Refuse an escaped lone surrogate anywhere in a tool, its schema included."""
    for index, value in enumerate(objects):
        try:
            _encoded("its JSON", json.dumps(value, ensure_ascii=False))
        except InvalidCatalog as error:
            raise InvalidCatalog(f"{source}, {_place(index, lines)}: {error}") from None


def _place(index: int, lines: Sequence[int] | None) -> str:
    return f"tool {index}" if lines is None else f"line {lines[index]}"


def _fail(key: str, value: Json, expected: str) -> NoReturn:
    found = json.dumps(value, default=repr)
    if len(found) > _SHOWN:
        found = f"{found[:_SHOWN]}..."
    raise InvalidCatalog(f"{key} is {found}; expected {expected}")
