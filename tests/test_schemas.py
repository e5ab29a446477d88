import threading
from collections import Counter

import pytest

from ta_fast import Tool
from ta_fast.errors import SchemaUnavailable, UnknownTool
from ta_fast.schemas import SchemaLoader
from ta_fast.tokens import count_tokens


class Shelf:
    """A tool source that counts, can be slow, and can fail."""

    def __init__(self) -> None:
        self.loads: Counter[str] = Counter()
        self.gate = threading.Event()
        self.gate.set()
        self.fail: Exception | None = None

    def tool(self, tool_id: str) -> Tool:
        self.loads[tool_id] += 1
        assert self.gate.wait(10)
        if self.fail:
            raise self.fail
        if tool_id == "absent":
            raise UnknownTool("absent")
        return Tool(id=tool_id, name=tool_id, description="d" * 100, server="srv")


def test_loads_once_per_epoch() -> None:
    """A second request is a hit; a new epoch loads again."""
    shelf = Shelf()
    loader = SchemaLoader(shelf)
    first = loader.schema("a", 1)
    assert loader.schema("a", 1) is first
    loader.schema("a", 2)
    assert shelf.loads == {"a": 2}
    assert (loader.stats.hits, loader.stats.misses, loader.stats.entries) == (1, 2, 2)


def test_tokens_are_those_of_the_compact_json() -> None:
    """The count is cl100k_base on the MCP definition."""
    schema = SchemaLoader(Shelf()).schema("a", 1)
    text = '{"name":"a","description":"' + "d" * 100 + '","inputSchema":{}}'
    assert schema.tokens == count_tokens(text)


def test_bounded_in_bytes_least_recently_used_goes() -> None:
    """The bound holds, and what was used last stays."""
    shelf = Shelf()
    loader = SchemaLoader(shelf, max_bytes=500)
    for name in ("a", "b", "c"):
        loader.schema(name, 1)
    loader.schema("a", 1)
    loader.schema("d", 1)
    assert loader.stats.bytes <= 500
    loader.schema("a", 1)
    assert shelf.loads["a"] == 1
    loader.schema("b", 1)
    assert shelf.loads["b"] == 2


def test_larger_than_the_bound_is_served_not_kept() -> None:
    """One schema never empties the cache."""
    loader = SchemaLoader(Shelf(), max_bytes=10)
    assert loader.schema("a", 1).id == "a"
    assert loader.stats.entries == 0


def test_single_flight() -> None:
    """Sixteen threads that want one schema cause one load and get the same object."""
    shelf = Shelf()
    shelf.gate.clear()
    loader = SchemaLoader(shelf)
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(loader.schema("a", 1))) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    shelf.gate.set()
    for thread in threads:
        thread.join(10)
    assert shelf.loads == {"a": 1}
    assert len({id(schema) for schema in got}) == 1
    assert len(got) == 16


def test_failures_reach_every_waiter_and_are_not_remembered() -> None:
    """Nobody hangs on a load that failed, and the next request tries again."""
    shelf = Shelf()
    shelf.gate.clear()
    shelf.fail = OSError("server gone")
    loader = SchemaLoader(shelf)
    errors: list[BaseException] = []

    def want() -> None:
        try:
            loader.schema("a", 1)
        except SchemaUnavailable as error:
            errors.append(error)

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    shelf.gate.set()
    for thread in threads:
        thread.join(10)
    assert len(errors) == 4
    assert "server gone" in str(errors[0])
    shelf.fail = None
    assert loader.schema("a", 1).id == "a"


def test_many_leaves_out_what_cannot_be_loaded() -> None:
    """One tool's failure does not cost the others."""
    loaded = SchemaLoader(Shelf()).load(["a", "absent", "b"], 1)
    assert [schema.id if schema else None for schema in loaded] == ["a", None, "b"]
    with pytest.raises(UnknownTool):
        SchemaLoader(Shelf()).schema("absent", 1)
