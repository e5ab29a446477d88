"""What the tests of the Triton path share: where they run, and cases in 16 bits.

Whoever imports this has torch and Triton.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ta_fast.scorer.triton_scorer import TritonScorer
from ta_fast_kernels import ToolMatrix, TopK, reference
from tests.kernels.conftest import ON_GPU

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEVICE = "cuda" if ON_GPU else "cpu"
gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not ON_GPU, reason="torch sees no CUDA device")


@dataclass(frozen=True)
class Case:
    """Operands in the catalog's order; the vectors are numbers of 16 bits."""

    queries: NDArray[np.float32]
    tools: NDArray[np.float32]
    classes: NDArray[np.int32]
    n_classes: int
    allowed: NDArray[np.uint32]
    k: int
    threshold: NDArray[np.float32]
    dtype: str

    def scorer(self) -> TritonScorer:
        matrix = ToolMatrix.from_rows(self.tools, self.classes, self.n_classes)
        return TritonScorer(matrix, device=DEVICE, dtype=self.dtype)

    def run(self) -> TopK:
        return self.scorer().topk(self.queries, self.allowed, self.k, self.threshold)

    def expected(self) -> TopK:
        return reference.gated_topk(
            self.queries, self.tools, self.classes, self.allowed, self.k, self.threshold
        )


def rounded(vectors: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    return torch.from_numpy(vectors).to(getattr(torch, dtype)).float().numpy()


def make_case(
    seed: int,
    turns: int,
    count: int,
    *,
    dim: int = 32,
    n_classes: int = 40,
    k: int = 10,
    kind: str = "unit",
    density: float = 0.5,
    dtype: str = "float16",
) -> Case:
    """Draw a case; each class is allowed to each turn with probability ``density``."""
    rng = np.random.default_rng(seed)

    def vectors(rows: int) -> NDArray[np.float32]:
        if kind == "quantised":
            return rng.integers(-1, 2, (rows, dim)).astype(np.float32) / 2
        drawn = rng.standard_normal((rows, dim)).astype(np.float32)
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        if kind == "scaled":
            drawn *= np.float32(10) ** rng.integers(-12, 13, (rows, 1)).astype(np.float32)
        return rounded(drawn, dtype)

    bits = rng.random((turns, -(-n_classes // 32) * 32)) < density
    threshold = rng.choice([-np.inf, -0.5, 0.0, 0.25, np.inf], turns, p=[0.4, 0.2, 0.2, 0.1, 0.1])
    own = rng.permutation(count) if n_classes == count else rng.integers(0, n_classes, count)
    return Case(
        vectors(turns),
        vectors(count),
        own.astype(np.int32),
        n_classes,
        np.packbits(bits, axis=1, bitorder="little").view("<u4"),
        k,
        threshold.astype(np.float32),
        dtype,
    )
