"""Tools from MCP servers: listing over stdio and streamable HTTP, live schemas.

A server that cannot be reached is one failure among the others' tools; environments
and headers are never part of a message.
"""

from __future__ import annotations

import math
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import IO, Any, TextIO, cast

import anyio
import httpx2
from mcp import Client, StdioServerParameters
from mcp.client import Transport
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from ta_fast.catalog.mcp_json import McpServer
from ta_fast.catalog.sources import parse_tools
from ta_fast.errors import InvalidCatalog, SchemaUnavailable, UnknownTool
from ta_fast.types import Source, Tool

DEFAULT_TIMEOUT = 30.0
"""Seconds that one server has to start and to list its tools."""
MAX_PAGES = 1_000
"""Pages of one listing; a server whose cursors do not end is a failure."""

_CONCURRENT = 16  # servers started at once; each may be a process
_STDERR_LINES = 5
_STDERR_BYTES = 4_096


def list_tools(
    servers: Sequence[McpServer],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    progress: Callable[[str], None] | None = None,
) -> tuple[list[Source], dict[str, str]]:
    """List the tools of all servers at once.

    No server process outlives the call, whatever the server does. Not for use inside a
    running event loop.

    Args:
        servers: As ``read_mcp_json`` gives them.
        timeout: Seconds for each server to start and list.
        progress: Called with a server's name when it is done, in this thread.

    Returns:
        The sources (``mcp:<server>``) of the servers that answered, in the order given,
        and the reasons of those that did not, by server name.
    """
    sources: dict[str, Source] = {}
    failures: dict[str, str] = {}

    async def one(server: McpServer, limit: anyio.CapacityLimiter) -> None:
        async with limit:
            try:
                tools = await _list(server, timeout)
                sources[server.name] = Source(name=f"mcp:{server.name}", tools=tools)
            except _ServerFailed as error:
                failures[server.name] = str(error)
        if progress is not None:
            progress(server.name)

    async def all_servers() -> None:
        limit = anyio.CapacityLimiter(_CONCURRENT)
        async with anyio.create_task_group() as group:
            for server in servers:
                group.start_soon(one, server, limit)

    anyio.run(all_servers)
    names = [server.name for server in servers]
    return (
        [sources[name] for name in names if name in sources],
        {name: failures[name] for name in names if name in failures},
    )


class _ServerFailed(Exception):  # noqa: N818
    """Why one server gave no tools; for a person to read."""


async def _list(server: McpServer, timeout: float) -> list[Tool]:
    """The tools of one server, or _ServerFailed."""
    if server.problem:
        raise _ServerFailed(server.problem)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            objects = await _pages(server, timeout, log)
            return parse_tools(objects, source=f"mcp:{server.name}", server=server.name)
        except TimeoutError:
            reason = f"gave no list of tools within {timeout:g} s"
        except InvalidCatalog as error:
            reason = str(error)
        except Exception as error:  # boundary: whatever a server or the SDK does stays its own
            reason = _reason(error, server)
        raise _ServerFailed(reason + _tail(log))


async def _pages(server: McpServer, timeout: float, log: IO[str]) -> list[dict[str, Any]]:
    """Every page of one server's ``tools/list``, as JSON objects under MCP's names."""
    with anyio.fail_after(timeout) as scope:
        async with Client(_transport(server, log), cache=None) as client:
            objects = [tool async for page in _walk(client) for tool in page]
            # The time is for starting and listing; stopping a process has the SDK's own bounds.
            scope.deadline = math.inf
    return objects


def _transport(server: McpServer, log: IO[str]) -> Transport:
    if server.url:
        return _http_transport(server, log)
    parameters = StdioServerParameters(
        command=server.command, args=list(server.args), env=dict(server.env), cwd=server.cwd
    )
    return stdio_client(parameters, cast(TextIO, log))


@asynccontextmanager
async def _http_transport(server: McpServer, log: IO[str]) -> AsyncGenerator[Any]:
    async def note(response: httpx2.Response) -> None:
        # The SDK's own error does not say which status it was.
        if response.is_error:
            log.write(f"HTTP {response.status_code} {response.reason_phrase}\n")

    hooks = {"response": [note]}
    # No timeout here: the deadline around the whole listing is the one that counts.
    async with (
        httpx2.AsyncClient(headers=dict(server.headers), timeout=None, event_hooks=hooks) as http,
        streamable_http_client(server.url, http_client=http) as streams,
    ):
        yield streams


async def _walk(client: Client) -> AsyncGenerator[list[dict[str, Any]]]:
    """Every page of the listing, until the server gives no cursor."""
    cursor: str | None = None
    seen: set[str] = set()
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        yield [
            tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in page.tools
        ]
        cursor = page.next_cursor
        if cursor is None:
            return
        if cursor in seen:
            raise _ServerFailed(f"repeats the cursor {cursor[:80]!r}; its listing has no end")
        seen.add(cursor)
    raise _ServerFailed(f"lists more than {MAX_PAGES} pages of tools")


def _reason(error: BaseException, server: McpServer) -> str:
    """A readable reason: the innermost of the groups that task groups make."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, _ServerFailed):
        return str(error)
    if isinstance(error, OSError) and server.command:
        what = error.filename or server.command
        return f"cannot be started: {what!r}: {error.strerror}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _tail(log: IO[str]) -> str:
    """The last lines that the server wrote to its standard error, or its HTTP errors."""
    log.flush()
    size = log.seek(0, 2)
    log.seek(max(0, size - _STDERR_BYTES))
    lines = [line.strip() for line in log.read().splitlines() if line.strip()]
    return "".join(f"\n  {line}" for line in lines[-_STDERR_LINES:])


class LiveTools:
    """Full definitions straight from the servers: a source of schemas, thread-safe.

    A server is listed when one of its tools is first asked for; the listing is
    remembered for ``max_age`` seconds. Threads that ask the same server wait for one
    listing. Failures are not remembered.

    Args:
        servers: As ``read_mcp_json`` gives them.
        timeout: Seconds for a server to start and list.
        max_age: Seconds that a listing is good for.
    """

    def __init__(
        self,
        servers: Sequence[McpServer],
        timeout: float = DEFAULT_TIMEOUT,
        max_age: float = 300.0,
    ) -> None:
        self._servers = {server.name: server for server in servers}
        self._timeout = timeout
        self._max_age = max_age
        self._locks = {name: threading.Lock() for name in self._servers}
        self._listed: dict[str, tuple[float, dict[str, Tool]]] = {}

    def tool(self, tool_id: str) -> Tool:
        """The tool as its server defines it now.

        Raises:
            UnknownTool: no server has such a tool.
            SchemaUnavailable: the tool's server failed.
        """
        for name in self._servers:
            if tool_id.startswith(f"{name}__"):
                tool = self._listing(name).get(tool_id)
                if tool is not None:
                    return tool
        raise UnknownTool(f"no MCP server has the tool {tool_id!r}")

    def _listing(self, name: str) -> dict[str, Tool]:
        with self._locks[name]:
            listed = self._listed.get(name)
            if listed is None or time.monotonic() - listed[0] > self._max_age:
                sources, failures = list_tools([self._servers[name]], timeout=self._timeout)
                if failures:
                    raise SchemaUnavailable(f"MCP server {name!r}: {failures[name]}")
                listed = (time.monotonic(), {tool.id: tool for tool in sources[0].tools})
                self._listed[name] = listed
            return listed[1]
