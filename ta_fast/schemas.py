"""Lazy schemas: the full definitions of promoted tools, loaded when first needed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from ta_fast.errors import SchemaUnavailable, TaFastError
from ta_fast.tokens import count_tokens
from ta_fast.types import Tool, ToolSchema
from ta_fast.wire import compact_json, mcp_definition, wire_name

DEFAULT_MAX_BYTES = 64 * 1024 * 1024
MAX_DESCRIPTION = 64 * 1024
"""Characters of a description that are sent to a model, whatever a live server says."""


class ToolSource(Protocol):
    """Where full definitions come from: a ``Catalog``, or ``LiveTools`` of MCP servers."""

    def tool(self, tool_id: str) -> Tool:
        """The full definition of one tool; UnknownTool or SchemaUnavailable if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class LoaderStats:
    """Counts since the loader was made, and what it holds now."""

    hits: int
    misses: int
    entries: int
    bytes: int


class SchemaLoader:
    """An LRU of schemas, bounded in bytes; thread-safe.

    Several threads that want the same schema at once share one load (single flight).
    Failures are not remembered. A key is (epoch, tool id), so a schema that was loaded
    before a change of the catalog is never served after it.

    Args:
        source: Where definitions come from.
        max_bytes: Bound of the JSON text held, in bytes.
    """

    def __init__(self, source: ToolSource, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[int, str], tuple[ToolSchema, int]] = OrderedDict()
        self._loading: dict[tuple[int, str], Future[ToolSchema]] = {}
        self._bytes = self._hits = self._misses = 0

    def load(self, tool_ids: Sequence[str], epoch: int) -> list[ToolSchema | None]:
        """Schemas of the tools, in order; None for one that could not be loaded.

        A tool that its source no longer has, or whose server does not answer, is left
        out of a promotion; the others are not its hostages.
        """
        with self._lock:
            schemas = [self._hit((epoch, tool_id)) for tool_id in tool_ids]
        if not all(schemas):
            for place, tool_id in enumerate(tool_ids):
                if schemas[place] is None:
                    with suppress(TaFastError):
                        schemas[place] = self.schema(tool_id, epoch)
        return schemas

    def lacks(self, tool_ids: Sequence[str], epoch: int) -> list[str]:
        """Which of the tools would have to be loaded."""
        with self._lock:
            return [tool_id for tool_id in tool_ids if (epoch, tool_id) not in self._held]

    def schema(self, tool_id: str, epoch: int) -> ToolSchema:
        """The schema of one tool.

        Raises:
            UnknownTool: the source has no such tool.
            SchemaUnavailable: the source failed.
        """
        key = (epoch, tool_id)
        with self._lock:
            held = self._hit(key)
            if held is not None:
                return held
            flight = self._loading.get(key)
            leads = flight is None
            if flight is None:
                flight = self._loading[key] = Future()
                self._misses += 1
        if leads:
            self._fly(key, flight)
        return flight.result()

    def _hit(self, key: tuple[int, str]) -> ToolSchema | None:
        held = self._held.get(key)
        if held is None:
            return None
        self._held.move_to_end(key)
        self._hits += 1
        return held[0]

    def _fly(self, key: tuple[int, str], flight: Future[ToolSchema]) -> None:
        """Load, keep, and answer everyone who waits; whatever happens, nobody is left waiting."""
        try:
            schema, size = self._load(key[1])
        except BaseException as error:
            with self._lock:
                del self._loading[key]
            flight.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        with self._lock:
            del self._loading[key]
            self._keep(key, schema, size)
        flight.set_result(schema)

    def _load(self, tool_id: str) -> tuple[ToolSchema, int]:
        try:
            tool = self._source.tool(tool_id)
            description = tool.description[:MAX_DESCRIPTION]
            name = wire_name(tool_id)
            text = compact_json(mcp_definition(name, description, tool.input_schema))
        except TaFastError:
            raise
        except Exception as error:
            raise SchemaUnavailable(f"loading the schema of {tool_id!r} failed: {error}") from error
        schema = ToolSchema(
            id=tool_id,
            wire_name=name,
            server=tool.server,
            name=tool.name,
            description=description,
            input_schema=tool.input_schema,
            tokens=count_tokens(text),
        )
        return schema, len(text.encode())

    def _keep(self, key: tuple[int, str], schema: ToolSchema, size: int) -> None:
        if size > self._max_bytes:
            return
        self._held[key] = (schema, size)
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, (_, dropped) = self._held.popitem(last=False)
            self._bytes -= dropped

    @property
    def stats(self) -> LoaderStats:
        """Hits, misses and what is held."""
        with self._lock:
            return LoaderStats(self._hits, self._misses, len(self._held), self._bytes)
