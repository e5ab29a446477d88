import json
from math import log2
from pathlib import Path

import numpy as np
import pytest

from ta_fast import Catalog, Tool
from ta_fast.errors import InvalidCatalog
from ta_fast.evaluate import (
    Query,
    best_threshold,
    measure,
    rank,
    read_queries,
    sweep_thresholds,
)
from ta_fast.snapshot import Snapshot
from ta_fast.testing import HashingEncoder
from ta_fast.types import Source, TopK

IDS = list("abcdefghijklmnop")


def query(*gold: str) -> Query:
    return Query("q", "text", tuple(frozenset(group) for group in gold))


def ranking(*orders: str, scores: list[float] | None = None) -> TopK:
    rows = np.array([[IDS.index(t) for t in order.ljust(10, "p")] for order in orders], np.int32)
    one = scores or [1 - 0.1 * i for i in range(10)]
    return TopK(np.array([one] * len(orders), np.float32), rows)


def test_metrics_by_hand() -> None:
    """Two gold tools, found at ranks 2 and 6, and one query that finds nothing."""
    got = measure(IDS, [query("b", "f"), query("o")], ranking("abcdefghij", "abcdefghij"))
    assert got.recall_1 == 0
    assert got.recall_5 == pytest.approx((0.5 + 0) / 2)
    assert got.recall_10 == pytest.approx((1 + 0) / 2)
    assert got.mrr_10 == pytest.approx((1 / 2 + 0) / 2)
    ideal = 1 / log2(2) + 1 / log2(3)
    assert got.ndcg_10 == pytest.approx((1 / log2(3) + 1 / log2(7)) / ideal / 2)
    assert (got.count, got.skipped) == (2, 0)


def test_equivalent_tools_count_once() -> None:
    """A group of equivalents is found by any of its tools, and only once."""
    got = measure(IDS, [query("bd")], ranking("abdc"))
    assert (got.recall_5, got.mrr_10) == (1.0, 0.5)
    assert got.ndcg_10 == pytest.approx(1 / log2(3))


def test_queries_without_gold_are_left_out_and_counted() -> None:
    """They have no recall; how many there are is told."""
    got = measure(IDS, [query(), query("a")], ranking("b", "a"))
    assert (got.recall_1, got.count, got.skipped) == (1.0, 1, 1)
    assert measure(IDS, [query()], ranking("a")).count == 0


def test_sweep_finds_the_best_threshold() -> None:
    """With gold at cosine 0.45 and noise at 0.25 and below, a threshold between them wins."""
    scores = [0.45, 0.25, 0.2, *[0.1] * 7]
    points = sweep_thresholds(IDS, [query("a"), query("b")], ranking("acde", "bcde", scores=scores))
    best = best_threshold(points)
    assert best.threshold == 0.26
    assert (best.precision, best.recall, best.f1) == (1.0, 1.0, 1.0)
    low = points[0]
    assert low.recall == 1.0
    assert low.precision == pytest.approx(2 / 20)
    assert points[-1].f1 == 0.0


def test_rank_ignores_state_and_threshold() -> None:
    """Every tool is ranked, gated or not."""
    catalog = Catalog()
    gated = Tool("b", "b", "send mail", precondition={"all_of": ["role:x"]})
    catalog.replace([Source("f", [Tool("a", "a", "read mail"), gated])])
    encoder = HashingEncoder()
    top = rank(Snapshot(catalog, encoder, "numpy"), [Query("q", "send mail b", ())])
    assert sorted(top.rows[0].tolist(), reverse=True) == [1, 0, *[-1] * 8]
    assert top.rows[0, 0] == 1


def test_reads_queries_with_equivalents(tmp_path: Path) -> None:
    """``gold_any`` wins over ``gold``; blank lines are skipped."""
    path = tmp_path / "q.jsonl"
    rows = [
        {"id": "1", "text": "x", "gold": ["a", "b"]},
        {"id": "2", "text": "y", "gold": ["a"], "gold_any": [["a", "c"]]},
    ]
    path.write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    one, two = read_queries(path, set(IDS))
    assert one.gold == (frozenset("a"), frozenset("b"))
    assert two.gold == (frozenset("ac"),)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"id": "1", "text": "x"}', r"q\.jsonl:1: expected"),
        (b'{"id": "1", "text": "x", "gold": ["a"]}\nnonsense', r"q\.jsonl:2: expected"),
        (b'{"text": " ", "gold": []}', "text is ' '"),
        (b'{"id": "7", "text": "x", "gold": ["zzz"]}', r"\['zzz'\] of query '7' is no tool"),
        (b"\xff", "cannot read"),
        (b"", "holds no query"),
        (b"[1]", "expected"),
    ],
)
def test_bad_queries_are_named(tmp_path: Path, content: bytes, says: str) -> None:
    """File and line, what was found, what was expected."""
    path = tmp_path / "q.jsonl"
    path.write_bytes(content)
    with pytest.raises(InvalidCatalog, match=says):
        read_queries(path, set(IDS))
