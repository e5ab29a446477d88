"""An ``mcp.json``: which MCP servers there are, and how to reach them.

Credentials may stand in the file as ``${VAR}`` or ``${VAR:-default}``; environments and
headers are never part of a message.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ta_fast.catalog.sources import parse_json, read_text
from ta_fast.errors import InvalidCatalog
from ta_fast.types import Json

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_HTTP_TYPES = ("http", "streamable-http", "streamableHttp", "streamable_http")
_STDIO_KEYS = ("command", "args", "env", "cwd")
_HTTP_KEYS = ("url", "headers")


@dataclass(frozen=True, slots=True)
class McpServer:
    """How to reach one server: ``command`` (stdio) or ``url`` (streamable HTTP).

    ``problem`` says why the entry cannot be used (a variable that is not set); such a
    server is reported by ``list_tools`` as failed.
    """

    name: str
    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    cwd: str | None = None
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    problem: str = ""


def read_mcp_json(path: Path, environ: Mapping[str, str]) -> list[McpServer]:
    """Read the servers of an ``mcp.json``, without those that are ``disabled``.

    Args:
        path: File with ``{"mcpServers": {name: {"command", ...} or {"url", ...}}}``.
        environ: Values for ``${VAR}``.

    Raises:
        InvalidCatalog: the file is not such a file.
    """
    document = parse_json(read_text(path), path)
    if not isinstance(document, dict) or "mcpServers" not in document:
        found = sorted(document) if isinstance(document, dict) else type(document).__name__
        near = difflib.get_close_matches("mcpServers", found, 1) if isinstance(found, list) else []
        hint = f" (is {near[0]!r} meant to be it?)" if near else ""
        raise InvalidCatalog(f'{path}: expected {{"mcpServers": {{...}}}}, found {found}{hint}')
    entries = document["mcpServers"]
    if not isinstance(entries, dict):
        message = f"{path}: mcpServers is {type(entries).__name__}; expected a JSON object"
        raise InvalidCatalog(message)
    return [
        _server(path, name, entry, environ)
        for name, entry in entries.items()
        if not (isinstance(entry, dict) and entry.get("disabled") is True)
    ]


def _server(path: Path, name: str, entry: Json, environ: Mapping[str, str]) -> McpServer:
    where = f"{path}: server {name!r}"
    if not name.strip():
        raise InvalidCatalog(f"{path}: a server has an empty name")
    if not isinstance(entry, dict):
        raise InvalidCatalog(f"{where} is {type(entry).__name__}; expected a JSON object")
    kind = entry.get("type", "stdio" if "command" in entry else "http")
    if kind not in ("stdio", *_HTTP_TYPES):
        known = f"stdio or {_HTTP_TYPES[0]}"
        return McpServer(name, problem=f"type {kind!r} is not supported; expected {known}")
    key, keys = ("command", _STDIO_KEYS) if kind == "stdio" else ("url", _HTTP_KEYS)
    if not isinstance(entry.get(key), str) or not entry[key]:
        found = ", ".join(sorted(entry)) or "nothing"
        raise InvalidCatalog(f"{where}: has {found}; expected {key!r} as a text")
    given = {key: entry[key] for key in keys if entry.get(key) is not None}
    _check_shapes(where, given)
    try:
        values = {key: _expand(value, environ) for key, value in given.items()}
    except KeyError as error:
        return McpServer(name, problem=f"the environment variable {error.args[0]} is not set")
    return McpServer(name, **values)


def _check_shapes(where: str, given: Mapping[str, Json]) -> None:
    for key, value in given.items():
        if key == "args":
            good = isinstance(value, list) and all(isinstance(item, str) for item in value)
            expected = "an array of texts"
        elif key in ("env", "headers"):
            good = isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
            expected = "an object of texts"
        else:
            good, expected = isinstance(value, str), "a text"
        if not good:
            raise InvalidCatalog(f"{where}: {key} is not {expected}")


def _expand(value: Json, environ: Mapping[str, str]) -> Any:
    """Replace ``${VAR}`` and ``${VAR:-default}``; KeyError names a variable that is not set."""
    if isinstance(value, list):
        return tuple(_expand(item, environ) for item in value)
    if isinstance(value, dict):
        return MappingProxyType({key: _expand(item, environ) for key, item in value.items()})

    def replace(match: re.Match[str]) -> str:
        name, default = match.groups()
        # As in a shell, ":-" also stands in for an empty value.
        if default is not None:
            return environ.get(name) or default
        return environ[name]

    return _VARIABLE.sub(replace, value)
