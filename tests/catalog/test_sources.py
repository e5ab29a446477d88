"""Files of tools: every form is told by its content, every mistake by its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ta_fast.catalog.sources import MAX_DESCRIPTION_BYTES, parse_tools, read_file
from ta_fast.errors import InvalidCatalog

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
MCP = {"name": "read", "description": "Read a file.", "inputSchema": SCHEMA}
ANTHROPIC = {"name": "read", "description": "Read a file.", "input_schema": SCHEMA}
FUNCTION = {"name": "read", "description": "Read a file.", "parameters": SCHEMA}


def write(folder: Path, content: object, name: str = "tools") -> Path:
    """Write text or bytes as they are, anything else as JSON."""
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(MCP),
        json.dumps(MCP) + "\n\n",
        json.dumps(MCP, indent=2),
        {"tools": [MCP]},
        {"jsonrpc": "2.0", "id": 1, "result": {"tools": [MCP]}},
        [MCP],
        [ANTHROPIC],
        [{"type": "custom", **ANTHROPIC}],
        [{"type": "function", "function": FUNCTION}],
        [{"type": "function", "strict": True, **FUNCTION}],
        b"\xef\xbb\xbf" + json.dumps([MCP]).encode(),
    ],
    ids=[
        "jsonl",
        "jsonl-blank-line",
        "one-object",
        "tools-list",
        "json-rpc",
        "mcp-array",
        "anthropic",
        "anthropic-custom",
        "openai-chat",
        "openai-responses",
        "byte-order-mark",
    ],
)
def test_every_form_gives_the_same_tool(tmp_path: Path, content: object) -> None:
    """JSONL, tools/list, OpenAI and Anthropic forms of one tool are one tool."""
    path = write(tmp_path, content)
    source = read_file(path)
    assert source.name == str(path)
    (tool,) = source.tools
    assert (tool.id, tool.name, tool.description) == ("read", "read", "Read a file.")
    assert tool.input_schema == SCHEMA


def test_a_jsonl_row_carries_the_operators_fields(tmp_path: Path) -> None:
    """Server, annotations, summary, precondition and provides are kept; other keys ignored."""
    row = {
        **MCP,
        "server": "fs",
        "annotations": {"readOnlyHint": True},
        "summary": "Read.",
        "precondition": {"all_of": ["a"]},
        "provides": ["b"],
        "family": "files",
    }
    (tool,) = read_file(write(tmp_path, row)).tools
    assert tool.id == "fs__read"
    assert tool.server == "fs"
    assert tool.annotations == {"readOnlyHint": True}
    assert tool.summary == "Read."
    assert tool.precondition == {"all_of": ["a"]}
    assert tool.provides == ("b",)


def test_an_own_id_is_kept() -> None:
    """An id that is given is not made from the server and the name."""
    (tool,) = parse_tools([{**MCP, "id": "x", "server": "fs"}], source="s")
    assert tool.id == "x"


def test_a_tool_without_a_schema_takes_no_arguments() -> None:
    """A missing schema is an object without properties."""
    (tool,) = parse_tools([{"name": "now"}], source="s", server="time")
    assert tool.id == "time__now"
    assert tool.input_schema == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        (["read"], ["tool 1", "a tool is", "JSON object"]),
        ({**MCP, "name": ""}, ["tool 1", 'name is ""', "not empty"]),
        ({**MCP, "name": 7}, ["tool 1", "name is 7"]),
        ({"description": "x"}, ["tool 1", "name is null"]),
        ({**MCP, "inputSchema": ["a"]}, ["tool 1", 'inputSchema is ["a"]', "JSON object"]),
        ({**MCP, "inputSchema": {"type": "string"}}, ['inputSchema.type is "string"']),
        ({**MCP, "description": 5}, ["description is 5"]),
        ({**MCP, "annotations": []}, ["annotations is []"]),
        ({**MCP, "provides": "x"}, ['provides is "x"', "array"]),
        ({**MCP, "precondition": "x"}, ['precondition is "x"']),
        ({**MCP, "name": "n" * 600}, ["at most 512 characters, not 600"]),
        ({**MCP, "name": "a\ud800"}, ["lone surrogate U+D800 at character 1"]),
        ({**MCP, "id": "first"}, ['id is "first"', "already at tool 0"]),
        ({"type": "function", "function": "f"}, ['function is "f"']),
    ],
)
def test_a_bad_tool_is_refused_with_its_place(tool: object, words: list[str]) -> None:
    """The message names the index, the value found and what was expected."""
    with pytest.raises(InvalidCatalog) as error:
        parse_tools([{"name": "first"}, tool], source="tools.json")
    message = str(error.value)
    assert message.startswith("tools.json, tool 1: ")
    for part in words:
        assert part in message


def test_a_huge_description_is_refused_without_being_quoted_whole() -> None:
    """One megabyte of description is an error that names the size; 64 KiB is not."""
    parse_tools([{"name": "a", "description": "x" * MAX_DESCRIPTION_BYTES}], source="s")
    parse_tools([{"name": "a", "description": "é" * (MAX_DESCRIPTION_BYTES // 2)}], source="s")
    with pytest.raises(InvalidCatalog, match=r"at most 65536 bytes, not 1048576") as error:
        parse_tools([{"name": "a", "description": "x" * 2**20}], source="s")
    assert len(str(error.value)) < 300


def test_duplicate_lines_are_both_named(tmp_path: Path) -> None:
    """The second line of a duplicate id names the first."""
    path = write(tmp_path, '{"name": "a"}\n\n{"name": "b"}\n{"name": "a"}\n')
    with pytest.raises(InvalidCatalog, match=r"tools, line 4: id is \"a\".*already at line 1"):
        read_file(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"name": "a"}\n{"name": "b"\n', "line 2, column"),
        ('{"name": "a"\n{"name": "b"}\n', "line 1, column"),
        ('[\n{"name": "a"},\n{"name" "b"}\n]', "line 3, column"),
        ('[{"name": "a", "inputSchema": {"minimum": NaN}}]', "NaN is not a JSON value"),
        ("[" * 200_000, "nested too deeply"),
        ("", "not JSON"),
        ("[]", "holds no tools"),
        ({"tools": []}, "holds no tools"),
        ({"toolz": []}, "found no list of tools"),
        ('"text"', "found no list of tools"),
        ({"mcpServers": {}}, "names MCP servers"),
        (b'[{"name": "a\xff"}]', "byte 0xff at offset 12 is not UTF-8"),
        ('[{"name": "a", "inputSchema": {"title": "\\ud83d"}}]', "lone surrogate U\\+D83D"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(tmp_path: Path, content: object, words: str) -> None:
    """Broken JSON, wrong documents and wrong bytes are told by line or offset."""
    with pytest.raises(InvalidCatalog, match=words):
        read_file(write(tmp_path, content))


def test_an_escaped_pair_of_surrogates_is_text(tmp_path: Path) -> None:
    """Only lone surrogates are refused."""
    (tool,) = read_file(write(tmp_path, '[{"name": "a", "description": "\\ud83d\\ude00"}]')).tools
    assert tool.description == "\U0001f600"


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """The path is named."""
    with pytest.raises(InvalidCatalog, match=r"nowhere: cannot be read: No such file"):
        read_file(tmp_path / "nowhere")
