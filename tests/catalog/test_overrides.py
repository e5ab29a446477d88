"""The operator's file: what it sets, which entry wins, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ta_fast.catalog.overrides import Overrides, apply_overrides, read_overrides
from ta_fast.errors import InvalidCatalog
from ta_fast.types import Tool


def write(folder: Path, content: object) -> Path:
    """Write ``content`` as JSON."""
    path = folder / "overrides.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_file_is_read(tmp_path: Path) -> None:
    """Facts and the fields of tools come back as the catalog has them."""
    entry = {"summary": "Read.", "provides": ["f"], "precondition": {"all_of": ["g"]}}
    overrides = read_overrides(write(tmp_path, {"facts": ["plan"], "tools": {"fs__*": entry}}))
    assert overrides.facts == ("plan",)
    assert overrides.tools == {"fs__*": {**entry, "provides": ("f",)}}


def test_an_exact_id_beats_patterns_and_a_later_pattern_an_earlier_one() -> None:
    """The order holds field by field, wherever the exact id stands in the file."""
    tool = Tool(id="fs__read", name="read", summary="own")
    given = {
        "fs__read": {"summary": "exact"},
        "fs__*": {"summary": "first", "provides": ("a",), "precondition": {"all_of": ["x"]}},
        "*__read": {"summary": "second", "provides": ("b",)},
    }
    (changed,), unused = apply_overrides([tool], Overrides(tools=given))
    assert changed.summary == "exact"
    assert changed.provides == ("b",)
    assert changed.precondition == {"all_of": ["x"]}
    assert unused == {}


def test_annotations_are_merged_over_the_tools_own() -> None:
    """A key that the file does not name keeps the tool's value."""
    tool = Tool(id="a", name="a", annotations={"readOnlyHint": True, "title": "A"})
    given = {"*": {"annotations": {"readOnlyHint": False}}, "a": {"annotations": {"x": 1}}}
    (changed,), _ = apply_overrides([tool], Overrides(tools=given))
    assert changed.annotations == {"readOnlyHint": False, "title": "A", "x": 1}
    assert tool.annotations == {"readOnlyHint": True, "title": "A"}


def test_only_the_star_is_special() -> None:
    """Brackets, dots and question marks of an id mean themselves."""
    tools = [Tool(id="a.b[1]?x", name="a"), Tool(id="aXb1zx", name="b")]
    changed, _ = apply_overrides(tools, Overrides(tools={"a.b[1]?*": {"summary": "s"}}))
    assert [tool.summary for tool in changed] == ["s", None]


def test_an_entry_that_fits_no_tool_is_reported_with_the_nearest_id() -> None:
    """A typing mistake comes back with what was meant; nothing is changed by it."""
    tools = [Tool(id="github__get_issue", name="get_issue")]
    given = {"github__get_isue": {"summary": "s"}, "zzz*": {"summary": "s"}}
    changed, unused = apply_overrides(tools, Overrides(tools=given))
    assert changed == tools
    assert unused == {"github__get_isue": "github__get_issue", "zzz*": None}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], r"overrides.json is \[\]; expected a JSON object"),
        ({"tool": {}}, r"unknown key 'tool'; did you mean 'tools'"),
        ({"zzz": {}}, r"unknown key 'zzz'; expected one of facts, tools"),
        ({"tools": {"a": {"sumary": "x"}}}, r"'a': unknown key 'sumary'; did you mean 'summary'"),
        ({"tools": []}, r"tools is \[\]"),
        ({"tools": {"a": "x"}}, r"'a' is \"x\""),
        ({"facts": "x"}, r"facts is \"x\"; expected an array"),
        ({"facts": [""]}, r"facts is \[\"\"\]"),
        ({"tools": {"a": {"provides": [1]}}}, r"provides is \[1\]"),
        ({"tools": {"a": {"precondition": None}}}, r"precondition is null"),
        ({"tools": {"a": {"annotations": 1}}}, r"annotations is 1"),
        ({"tools": {"a": {"summary": " "}}}, r"summary is \" \""),
        ({"tools": {"a": {"summary": "word " * 61}}}, r"summary has \d+ cl100k tokens.*at most 60"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: object, words: str) -> None:
    """The message names the key or the value, and the nearest known key."""
    with pytest.raises(InvalidCatalog, match=words):
        read_overrides(write(tmp_path, content))
