"""Which tools will retrieve badly, and few others."""

from __future__ import annotations

import numpy as np
import pytest

from ta_fast.catalog.doctor import NEAR_DUPLICATE, Finding, diagnose
from ta_fast.types import F32, Tool


def apart(count: int) -> F32:
    """Unit vectors without anything in common, ``[count, count]``."""
    return np.eye(count, dtype=np.float32)


def findings(*tools: Tool) -> list[Finding]:
    """What is found in tools whose summaries are far apart."""
    return diagnose(tools, [f"summary {n}" for n in range(len(tools))], apart(len(tools)))


@pytest.mark.parametrize("description", ["", "  \n", "TODO", "This is a tool.", "fetch"])
def test_no_or_empty_words_as_description(description: str) -> None:
    """Nothing, white space, filler, or only the name's one word again."""
    (finding,) = findings(Tool(id="x", name="fetch", description=description))
    assert (finding.tool_id, finding.problem, finding.severity) == (
        "x",
        "no_description",
        "warning",
    )


@pytest.mark.parametrize("name", ["gtusr", "fn_12", "xq", "42", "v1", "HTTP"])
@pytest.mark.parametrize(
    ("description", "severity"),
    [
        ("Gets users", "warning"),
        ("Look up one person of the company directory by name", "note"),
    ],
)
def test_cryptic_names(name: str, description: str, severity: str) -> None:
    """A name without a readable part is found, and weighs less with a full description."""
    (finding,) = findings(Tool(id="x", name=name, description=description))
    assert (finding.problem, finding.severity) == ("cryptic_name", severity)
    assert repr(name) in finding.detail


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("get_user", "Get user"),
        ("mergePullRequest", "Merge a pull request"),
        ("git_status", "Shows the working tree status"),
        ("fetch", "Fetches a URL from the internet"),
        ("sqlQuery", "Run a query"),
        ("strings.xml", "Convert strings"),
        ("查询", "查询天气"),
    ],
)
def test_ordinary_tools_are_left_alone(name: str, description: str) -> None:
    """A telling name may be repeated by its description; scripts other than Latin are words."""
    assert findings(Tool(id="x", name=name, description=description)) == []


def test_the_operators_summary_counts_as_description() -> None:
    """A tool without a description is fine when the operator wrote a summary."""
    assert findings(Tool(id="x", name="fetch", summary="Download a page as text.")) == []


def test_near_duplicates_name_each_other_across_blocks() -> None:
    """The nearest tool is named from both sides; a cosine just below the limit is not."""
    count = 1500
    tools = [Tool(id=f"t{n}", name="read_file", description="Read text") for n in range(count)]
    summaries = [f"s{n}" for n in range(count)]
    summaries[1400] = summaries[3]
    vectors = apart(count)
    vectors[1400] = vectors[3]
    vectors[7, [7, 8]] = 0.0
    below = NEAR_DUPLICATE - 0.01
    vectors[7, [7, 8]] = np.sqrt(1 - below**2), below
    close = NEAR_DUPLICATE + 0.01
    vectors[1200, [1200, 5]] = np.sqrt(1 - close**2), close
    found = {finding.tool_id: finding for finding in diagnose(tools, summaries, vectors)}
    assert {key: value.other for key, value in found.items()} == {
        "t3": "t1400",
        "t1400": "t3",
        "t5": "t1200",
        "t1200": "t5",
    }
    assert found["t3"].detail == "the same summary as 't1400'"
    assert "cosine 0.960 to 't1200'" in found["t5"].detail


def test_an_empty_catalog_has_no_findings() -> None:
    """No tools, nothing to say; one tool is no duplicate of itself."""
    assert diagnose([], [], np.empty((0, 4), np.float32)) == []
    assert findings(Tool(id="x", name="fetch", description="Download a page")) == []


def test_a_precondition_that_waits_for_a_removed_tool_is_named() -> None:
    """Its tool can never be promoted, and nothing else would say so."""
    waits = Tool("w__b", "send_letter", "Sends a letter.", precondition={"all_of": ["seen:w__a"]})
    provides = Tool("w__a", "read_letter", "Reads a letter.")
    vectors = np.eye(2, 4, dtype=np.float32)
    found = diagnose([provides, waits], ["read", "send"], vectors)
    assert [finding.problem for finding in found] == []
    found = diagnose([waits], ["send"], vectors[:1])
    assert [(f.tool_id, f.problem) for f in found] == [("w__b", "unknown_fact")]
    assert "seen:w__a" in found[0].detail
