from __future__ import annotations

import re
from collections import Counter
from statistics import fmean

import pytest

from ta_fast.evaluate.testbed.distractors import make_distractors
from ta_fast.evaluate.testbed.tools import (
    PAPER_MEANS,
    PAPER_TOTAL,
    Register,
    intents,
    make_tools,
    schema_tokens,
    table,
)
from ta_fast.types import Tool

COUNTS = {"github": 30, "filesystem": 10, "database": 20, "slack": 15, "web": 10, "jira": 35}
REGISTERS: tuple[Register, ...] = ("plain", "terse")


@pytest.fixture(scope="module")
def tools() -> list[Tool]:
    """The testbed's tools."""
    return make_tools()


def test_servers_have_the_papers_counts(tools: list[Tool]) -> None:
    """120 tools on six servers, with ids of their own."""
    assert Counter(tool.server for tool in tools) == COUNTS
    assert len({tool.id for tool in tools}) == 120


@pytest.mark.parametrize("server", PAPER_MEANS)
def test_schemas_have_the_papers_mean(tools: list[Tool], server: str) -> None:
    """A server's mean schema is within 2 % of the paper's."""
    mean = fmean(schema_tokens(tool) for tool in tools if tool.server == server)
    assert mean == pytest.approx(PAPER_MEANS[server], rel=0.02)


def test_all_schemas_have_the_papers_total(tools: list[Tool]) -> None:
    """So are all schemas together, although the paper's means add up to more."""
    assert sum(map(schema_tokens, tools)) == pytest.approx(PAPER_TOTAL, rel=0.02)


def test_the_same_seed_gives_the_same_tools(tools: list[Tool]) -> None:
    """And another seed gives others, of the same names."""
    assert make_tools() == tools
    others = make_tools(seed=7)
    assert others != tools
    assert [tool.id for tool in others] == [tool.id for tool in tools]


def test_schemas_differ_and_can_be_used(tools: list[Tool]) -> None:
    """What is required is declared, every parameter is described, sizes vary."""
    for tool in tools:
        properties = tool.input_schema["properties"]
        assert set(tool.input_schema["required"]) <= set(properties)
        assert all(option["description"] for option in properties.values())
    assert len({schema_tokens(tool) for tool in tools}) > 60


@pytest.mark.parametrize("register", REGISTERS)
def test_every_tool_has_three_ways_to_be_asked_for(tools: list[Tool], register: Register) -> None:
    """No tool's ways are another's, and none is what its description says."""
    ways = intents(register)
    assert ways.keys() == {tool.id for tool in tools}
    assert len({way for three in ways.values() for way in three}) == 3 * len(tools)
    for tool in tools:
        assert tool.description.partition(".")[0] not in " ".join(ways[tool.id])


def test_terse_words_are_not_the_descriptions(tools: list[Tool]) -> None:
    """Most of a terse request's words are others."""
    ways = intents("terse")
    shares = []
    for tool in tools:
        described = _words(tool.description)
        shares += [len(_words(way) & described) / len(_words(way)) for way in ways[tool.id]]
    assert fmean(shares) < 0.3


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def test_every_slot_has_values() -> None:
    """Intents and the other sentences name only slots that the table fills."""
    slots = dict.fromkeys(table("tasks")["slots"], "x")
    assert all(
        way.format(**slots) for r in REGISTERS for ways in intents(r).values() for way in ways
    )


def test_distractors_are_many_and_of_their_own() -> None:
    """Ten thousand with the testbed's, sized like them; more is refused."""
    others = make_distractors(9_880)
    assert len({tool.id for tool in others}) == 9_880
    assert not {tool.server for tool in others} & set(COUNTS)
    assert schema_tokens(others[0]) == pytest.approx(PAPER_TOTAL / 120, rel=0.05)
    with pytest.raises(ValueError, match="were asked for"):
        make_distractors(1_000_000)
