"""The lexical half of a hybrid score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ta_fast_kernels import MAX_COUNT, MAX_WEIGHT, UNIT, TermRows, ToolMatrix, gated_topk
from tests.cases import Case, make_case, term_rows

AXES = np.eye(3, dtype=np.float32)


def rows(*given: dict[int, int]) -> TermRows:
    """Rows of terms and values."""
    offsets = np.cumsum([0, *map(len, given)]).astype(np.int64)
    terms = [term for row in given for term in row]
    values = [value for row in given for value in row.values()]
    return TermRows(offsets, np.array(terms, np.int32), np.array(values, np.int32))


def hybrid_case(tools: TermRows, turns: TermRows) -> Case:
    """Three tools on the axes, in two classes; every turn may use all."""
    classes = np.array([1, 0, 1], np.int32)
    count = len(turns)
    queries = np.repeat(AXES[:1] * np.float32(0.5), count, axis=0)
    everything, least = np.full((count, 1), 3, np.uint32), np.full(count, -1, np.float32)
    return Case(queries, AXES, classes, 2, everything, 3, least, tools, turns)


def test_shared_terms_add_count_times_weight():
    """A hand-worked sum: terms that only one side has add nothing."""
    tools = rows({0: 100}, {1: 200, 2: 10}, {2: 2047})
    case = hybrid_case(tools, rows({1: 2, 2: 1, 9: 5}))
    top = gated_topk(case.queries, case.matrix, case.allowed, 3, case.threshold, case.turn_terms)
    assert top.rows.tolist() == [[2, 0, 1]]
    assert top.scores.tolist() == [[2047 * UNIT, 0.5, 410 * UNIT]]


def test_turns_without_terms_score_as_before():
    """No terms at all, and empty rows of terms, are the inner product alone."""
    dense = make_case(1, 6, 400)
    case = replace(
        dense, tool_terms=term_rows(np.random.default_rng(1), 400, 9, 50), turn_terms=None
    )
    empty = replace(case, turn_terms=TermRows.empty(6))
    assert case.expected().scores.tolist() == dense.expected().scores.tolist()
    assert empty.expected().rows.tolist() == dense.expected().rows.tolist()


def test_postings_and_rows_are_one_another():
    """The terms come back from a matrix as they went in, whatever the classes."""
    case = make_case(2, 1, 300).hybrid(2)
    terms = case.matrix.terms()
    assert terms is not None
    assert terms.offsets.tolist() == case.tool_terms.offsets.tolist()
    assert terms.terms.tolist() == case.tool_terms.terms.tolist()
    assert terms.values.tolist() == case.tool_terms.values.tolist()
    assert make_case(2, 1, 300).matrix.terms() is None


def test_largest_sums_are_exact():
    """The most that a turn may count, times the largest weight, to the last unit."""
    tools = rows({0: MAX_WEIGHT}, {0: MAX_WEIGHT - 1}, {})
    case = hybrid_case(tools, rows({0: MAX_COUNT}))
    top = gated_topk(case.queries, case.matrix, case.allowed, 3, case.threshold, case.turn_terms)
    expected = [MAX_COUNT * MAX_WEIGHT * UNIT + 0.5, MAX_COUNT * (MAX_WEIGHT - 1) * UNIT, 0.0]
    assert top.scores[0].tolist() == np.array(expected, np.float32).tolist()


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (rows({0: 1}, {}), "terms: expected 1 rows, found 2"),
        (rows({3: 1, 2: 1}), "expected to ascend within a row"),
        (rows({3: 0}), "expected terms from 0 and values from 1"),
        (rows({-1: 1}), "expected terms from 0 and values from 1"),
        (rows({0: MAX_COUNT, 1: 1}), f"at most {MAX_COUNT} a turn, found {MAX_COUNT + 1}"),
        (replace(rows({0: 1}), terms=np.zeros(1)), "terms: expected int32"),
        (replace(rows({0: 1}), offsets=np.array([0, 2])), "ascend from 0 to 1"),
    ],
)
def test_bad_terms_are_named(terms: TermRows, message: str):
    """What cannot be terms of this batch is refused."""
    case = hybrid_case(rows({0: 1}, {}, {}), terms)
    with pytest.raises(ValueError, match=message):
        gated_topk(case.queries[:1], case.matrix, case.allowed[:1], 3, case.threshold[:1], terms)


def test_bad_weights_are_named():
    """Weights beyond float16's whole numbers, and terms for a matrix without any."""
    classes = np.zeros(3, np.int32)
    with pytest.raises(ValueError, match="weights of at most 2047, found 2048"):
        ToolMatrix.from_rows(AXES, classes, 1, rows({0: 2048}, {}, {}))
    case = hybrid_case(rows({}, {}, {}), rows({0: 1}))
    bare = ToolMatrix.from_rows(AXES, case.classes, 2)
    with pytest.raises(ValueError, match="the matrix has no postings"):
        gated_topk(case.queries, bare, case.allowed, 3, case.threshold, case.turn_terms)
