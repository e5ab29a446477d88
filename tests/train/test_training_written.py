"""Requests that were written by hand become labelled sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.training_written import WRITTEN, read_catalog, write_sets
from ta_fast.errors import InvalidCatalog

CATALOG = """# a small shop
find_order(number, email): Look up an order.
- where is my parcel 4711
- what did I buy in May => list_orders
list_orders(): All orders of a customer.
- everything I ever ordered, please
"""


def catalog(folder: Path, text: str) -> Path:
    """A file of that text."""
    path = folder / "shop.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_tools_and_requests(tmp_path: Path) -> None:
    """A tool has its parameters; a request has the tool above it, and those behind the arrow."""
    tools, asked = read_catalog(catalog(tmp_path, CATALOG))
    assert list(tools) == ["shop/find_order", "shop/list_orders"]
    assert tools["shop/find_order"]["name"] == "find_order"
    assert list(tools["shop/find_order"]["inputSchema"]["properties"]) == ["number", "email"]
    assert list(asked) == [
        ("where is my parcel 4711", ["shop/find_order"]),
        ("what did I buy in May", ["shop/find_order", "shop/list_orders"]),
        ("everything I ever ordered, please", ["shop/list_orders"]),
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a sentence that is lost", "line 7"),
        ("list_orders(): Once more.", "twice"),
        ("- and that => sell_all", "sell_all"),
    ],
)
def test_tells_what_is_wrong(tmp_path: Path, line: str, told: str) -> None:
    """What cannot be read is an error that names it."""
    with pytest.raises(InvalidCatalog, match=told):
        read_catalog(catalog(tmp_path, CATALOG + line + "\n"))


def test_evaluated_texts_are_left_out(tmp_path: Path) -> None:
    """A request that is nearly an evaluation query is not written."""
    catalog(tmp_path, CATALOG)
    lines = list(write_sets(tmp_path, tmp_path / "sets", frozenset({"where is my parcel today"})))
    rows = (tmp_path / "sets/written_1/queries.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["text"] for row in rows] == [
        "what did I buy in May",
        "everything I ever ordered, please",
    ]
    assert "1 like an evaluated one" in lines[0]


def test_every_written_catalog_can_be_read() -> None:
    """The files that come with the repository are whole: every tool is asked for."""
    files = sorted(WRITTEN.glob("*.txt"))
    assert len(files) > 100
    for path in files:
        tools, asked = read_catalog(path)
        wanted = {tool for _, needed in asked for tool in needed}
        assert wanted == tools.keys(), path.name
