"""The texts that make a tool's embedding."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ta_fast.catalog.summaries import summarize
from ta_fast.catalog.views import VIEWS, combined, views
from ta_fast.types import Tool

SCHEMA = {"type": "object", "properties": {"dueDate": {"type": "string"}, "project_id": {}}}


def test_a_name_a_sentence_and_the_parameters() -> None:
    """Names are written in words; the second view has no name."""
    tool = Tool("j__createIssue", "createIssue", "Opens a ticket in a project.", SCHEMA)
    assert views(tool, summarize(tool)) == (
        "create Issue: Opens a ticket in a project.",
        "Opens a ticket in a project.",
        "create Issue: due Date, project id",
    )


def test_an_operators_summary_is_what_is_embedded() -> None:
    """The operator's words replace the description in the first two views."""
    tool = Tool("j__x", "x", "Old words.", summary="Files a bug.")
    assert views(tool, summarize(tool))[:2] == ("x: Files a bug.", "Files a bug.")


@given(st.text(min_size=1), st.text(), st.lists(st.text(), max_size=40))
def test_views_are_three_lines_of_text(name: str, description: str, names: list[str]) -> None:
    """Whatever a tool is called and says, each view is one line, bounded and not empty."""
    schema = {"type": "object", "properties": {key: {} for key in names}}
    tool = Tool(f"s__{name}", name, description, schema)
    texts = views(tool, summarize(tool))
    assert len(texts) == VIEWS
    assert all(len(text.splitlines()) <= 1 and len(text) <= 1500 for text in texts)
    assert all(texts) or not name.strip()


def test_combined_is_the_unit_mean() -> None:
    """Three unit vectors a tool become one of length 1; opposite ones become no NaN."""
    given_ = np.array([[1, 0], [0, 1], [0, 1], [1, 0], [1, 0], [1, 0]], np.float32)
    found = combined(given_, 2)
    assert np.allclose(found, [[1 / 5**0.5, 2 / 5**0.5], [1, 0]])
    assert np.isfinite(combined(np.zeros((3, 2), np.float32), 1)).all()
