"""Gated top-k against the bare matrix product of the same run; correctness first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.common import ratio
from ta_fast.scorer import NumpyScorer
from ta_fast_kernels import TermRows, ToolMatrix, TopK, gated_topk

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIM = 384
K = 10
MOST = 1.5
"""What 64 turns against 10,000 tools may cost, in bare matrix products."""
MOST_HYBRID = 1.5
"""What hybrid scores may cost there, in dense ones."""
VOCABULARY, FLATTENED = 8192, 30
"""Terms are drawn with probability 1 / (rank + 30). So a turn's 11 terms meet a quarter of
the tools; those of real intents met a seventh of 10,000 real definitions."""

# Gate classes, and the share of them that a turn may use.
GATES = {"64-classes-half": (64, 0.5), "no-gate": (1, 1.0), "class-per-tool-half": (10_000, 0.5)}


class Problem:
    """B turns against N tools: operands, the scorer, and the bare product."""

    def __init__(self, turns: int, count: int, n_classes: int, share: float) -> None:
        rng = np.random.default_rng(0)
        self.queries = unit_vectors(rng, turns)
        self.tools = unit_vectors(rng, count)
        bits = rng.random((turns, -(-n_classes // 32) * 32)) < share
        self.allowed = np.packbits(bits, axis=1, bitorder="little").view("<u4")
        self.threshold = np.full(turns, -1, dtype=np.float32)
        classes = rng.permutation(np.arange(count, dtype=np.int32) % n_classes)
        weights, self.terms = term_rows(rng, count, 20, 600), term_rows(rng, turns, 11, 2)
        matrix = ToolMatrix.from_rows(self.tools, classes, n_classes, weights)
        self.scorer = NumpyScorer(matrix)

    def topk(self) -> TopK:
        return self.scorer.topk(self.queries, self.allowed, K, self.threshold)

    def hybrid(self) -> TopK:
        return self.scorer.topk(self.queries, self.allowed, K, self.threshold, self.terms)

    def product(self) -> NDArray[np.float32]:
        return self.queries @ self.tools.T

    def check(self) -> None:
        """Assert that the scorer returns what the reference returns."""
        operands = (self.queries, self.scorer.matrix, self.allowed, K, self.threshold)
        for terms, found in ((None, self.topk()), (self.terms, self.hybrid())):
            expected = gated_topk(*operands, terms, backend="reference")
            np.testing.assert_array_equal(found.rows, expected.rows)
            np.testing.assert_array_equal(found.scores, expected.scores)


def unit_vectors(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    vectors = rng.standard_normal((count, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def term_rows(rng: np.random.Generator, rows: int, draws: int, most: int) -> TermRows:
    chance = 1 / (np.arange(VOCABULARY) + FLATTENED)
    drawn = rng.choice(VOCABULARY, (rows, draws), p=chance / chance.sum())
    terms = [np.unique(row).astype(np.int32) for row in drawn]
    offsets = np.cumsum([0, *map(len, terms)]).astype(np.int64)
    values = rng.integers(1, most + 1, offsets[-1]).astype(np.int32)
    return TermRows(offsets, np.concatenate(terms), values)


@pytest.mark.parametrize("gate", GATES)
def test_batch(benchmark: BenchmarkFixture, gate: str) -> None:
    """64 turns against 10,000 tools cost at most 1.5 bare matrix products."""
    problem = Problem(64, 10_000, *GATES[gate])
    problem.check()
    benchmark(problem.topk)
    if benchmark.enabled:
        found = ratio(problem.topk, problem.product, 101)
        benchmark.extra_info["ratio to matrix product"] = round(found, 3)
        assert found <= MOST


@pytest.mark.parametrize("turns", [1, 64])
def test_hybrid(benchmark: BenchmarkFixture, turns: int) -> None:
    """Hybrid scores of 64 turns against 10,000 tools cost at most 1.5 times dense ones."""
    problem = Problem(turns, 10_000, *GATES["64-classes-half"])
    problem.check()
    benchmark(problem.hybrid)
    if benchmark.enabled:
        found = ratio(problem.hybrid, problem.topk, 101)
        benchmark.extra_info["ratio to dense scores"] = round(found, 3)
        assert found <= MOST_HYBRID or turns == 1


def test_batch_product(benchmark: BenchmarkFixture) -> None:
    """The bare product of 64 turns and 10,000 tools, which the batch is compared with."""
    assert benchmark(Problem(64, 10_000, 1, 1.0).product).shape == (64, 10_000)


@pytest.mark.parametrize("count", [120, 1000, 10_000])
def test_one_turn(benchmark: BenchmarkFixture, count: int) -> None:
    """One turn, as an agent asks it, in 64 gate classes of which half are allowed."""
    problem = Problem(1, count, 64, 0.5)
    problem.check()
    benchmark(problem.topk)
    if benchmark.enabled:
        found = ratio(problem.topk, problem.product, 101)
        benchmark.extra_info["ratio to matrix product"] = round(found, 3)
