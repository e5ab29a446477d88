"""Cases of gated top-k, drawn at random or by hand, for every implementation's tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ta_fast.scorer import Scorer
from ta_fast_kernels import TermRows, ToolMatrix, TopK, reference

EVERYTHING = np.uint32(0xFFFFFFFF)


@dataclass(frozen=True)
class Case:
    """The operands of the operation, in the catalog's order."""

    queries: NDArray[np.float32]
    tools: NDArray[np.float32]
    classes: NDArray[np.int32]
    n_classes: int
    allowed: NDArray[np.uint32]
    k: int
    threshold: NDArray[np.float32]
    tool_terms: TermRows | None = None
    turn_terms: TermRows | None = None

    @cached_property
    def matrix(self) -> ToolMatrix:
        """The tools, stored by class."""
        return ToolMatrix.from_rows(self.tools, self.classes, self.n_classes, self.tool_terms)

    def expected(self) -> TopK:
        """What the reference returns."""
        return reference.gated_topk(
            self.queries,
            self.tools,
            self.classes,
            self.allowed,
            self.k,
            self.threshold,
            self.turn_terms,
            self.tool_terms,
        )

    def ask(self, scorer: Scorer) -> TopK:
        """What a scorer returns."""
        extra = () if self.turn_terms is None else (self.turn_terms,)
        return scorer.topk(self.queries, self.allowed, self.k, self.threshold, *extra)

    def turns(self, turns: slice) -> Case:
        """The same case, some of its turns."""
        return replace(
            self,
            queries=self.queries[turns],
            allowed=self.allowed[turns],
            threshold=self.threshold[turns],
            turn_terms=self.turn_terms
            and self.turn_terms.take(np.arange(len(self.queries))[turns]),
        )

    def hybrid(self, seed: int, vocabulary: int = 50) -> Case:
        """The same case with terms: a few in most tools and turns, in some none."""
        rng = np.random.default_rng(seed)
        return replace(
            self,
            tool_terms=term_rows(rng, len(self.tools), vocabulary, 2047),
            turn_terms=term_rows(rng, len(self.queries), vocabulary + 3, 3),
        )


def term_rows(rng: np.random.Generator, rows: int, vocabulary: int, most: int) -> TermRows:
    """Rows of up to eight terms, low ones more often, with values from 1 to ``most``."""
    drawn = [
        np.unique((vocabulary * rng.random(rng.integers(0, 9)) ** 2).astype(np.int32))
        for _ in range(rows)
    ]
    offsets = np.cumsum([0, *map(len, drawn)]).astype(np.int64)
    terms = np.concatenate([*drawn, np.zeros(0, np.int32)])
    return TermRows(offsets, terms, rng.integers(1, most + 1, len(terms)).astype(np.int32))


def vectors(rng: np.random.Generator, count: int, dim: int, kind: str) -> NDArray[np.float32]:
    """Unit vectors, vectors of very different lengths, or ones with ties everywhere."""
    if kind == "quantised":
        return rng.integers(-1, 2, (count, dim)).astype(np.float32) / 2
    drawn = rng.standard_normal((count, dim)).astype(np.float32)
    if kind == "scaled":
        return drawn * np.float32(10) ** rng.integers(-12, 13, (count, 1)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def make_case(
    seed: int,
    turns: int,
    count: int,
    *,
    dim: int = 24,
    n_classes: int = 40,
    k: int = 10,
    kind: str = "unit",
    density: float = 0.5,
) -> Case:
    """Draw a case; each class is allowed to each turn with probability ``density``."""
    rng = np.random.default_rng(seed)
    bits = rng.random((turns, -(-n_classes // 32) * 32)) < density
    threshold = rng.choice([-np.inf, -0.5, 0.0, 0.25, 0.5, np.inf], turns)
    return Case(
        vectors(rng, turns, dim, kind),
        vectors(rng, count, dim, kind),
        rng.integers(0, n_classes, count).astype(np.int32),
        n_classes,
        np.packbits(bits, axis=1, bitorder="little").view("<u4"),
        k,
        threshold.astype(np.float32),
    )


def assert_same(found: TopK, expected: TopK) -> None:
    """The same bits, shapes and dtypes."""
    assert found.scores.dtype == np.float32
    assert found.rows.dtype == np.int32
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores.view(np.uint32), expected.scores.view(np.uint32))
