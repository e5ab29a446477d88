"""Large catalogs and many results on the Triton path: only a GPU is fast enough."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed")

from ta_fast.scorer.triton_scorer import TritonScorer  # noqa: E402
from ta_fast_kernels import ToolMatrix  # noqa: E402
from tests.cases import assert_same  # noqa: E402
from tests.kernels.triton_cases import DEVICE, gpu, make_case, needs_gpu  # noqa: E402

pytestmark = [gpu, needs_gpu]


@pytest.mark.parametrize("count", [40_000, 300_000])
@pytest.mark.parametrize("n_classes", [1, 64, 7000])
@pytest.mark.parametrize("turns", [1, 64, 300])
def test_large_catalogs_equal_the_reference(turns: int, count: int, n_classes: int):
    """Several groups to a lane, and every group size."""
    case = make_case(turns, turns, count, n_classes=n_classes)
    assert_same(case.run(), case.expected())


def test_never_a_forbidden_row_in_a_hundred_million_results():
    """Every row of 10^8 results is of a class that its turn may use, and most places are filled."""
    turns, count, n_classes, k = 1024, 20_000, 96, 64
    generator = torch.Generator(DEVICE).manual_seed(13)
    classes = np.random.default_rng(13).integers(0, n_classes, count).astype(np.int32)
    tools = torch.randn(count, 64, generator=generator, device=DEVICE)
    tools /= tools.norm(dim=1, keepdim=True)
    matrix = ToolMatrix.from_rows(tools.cpu().numpy(), classes, n_classes)
    scorer = TritonScorer(matrix)
    class_of = torch.from_numpy(classes).to(DEVICE).long()
    threshold = torch.full((turns,), -1.0, device=DEVICE)
    filled = forbidden = 0
    while filled < 10**8:
        queries = torch.randn(turns, 64, generator=generator, device=DEVICE)
        queries = (queries / queries.norm(dim=1, keepdim=True)).half()
        bits = torch.rand(turns, n_classes, generator=generator, device=DEVICE) < 0.3
        weights = 1 << torch.arange(32, device=DEVICE)
        words = (bits.view(turns, -1, 32).long() * weights).sum(2).int()
        _, rows = scorer.topk_device(queries, words, k, threshold)
        there = rows >= 0
        permitted = bits.gather(1, class_of[rows.long().clamp(min=0)])
        filled += int(there.sum())
        forbidden += int((there & ~permitted).sum())
    assert forbidden == 0


def test_four_million_rows():
    """The largest catalog that is promised, against float64 on the device."""
    turns, count, n_classes, k, dim = 3, 4_000_000, 64, 10, 64
    rng = np.random.default_rng(14)
    tools = rng.standard_normal((count, dim), dtype=np.float32)
    tools /= np.linalg.norm(tools, axis=1, keepdims=True)
    tools = tools.astype(np.float16).astype(np.float32)
    classes = rng.integers(0, n_classes, count).astype(np.int32)
    allowed = rng.integers(0, 2**32, (turns, 2), dtype=np.uint32)
    queries = tools[rng.integers(0, count, turns)]
    threshold = np.full(turns, -1, np.float32)
    found = TritonScorer(ToolMatrix.from_rows(tools, classes, n_classes)).topk(
        queries, allowed, k, threshold
    )
    scores = torch.from_numpy(queries).to(DEVICE).double() @ (
        torch.from_numpy(tools).to(DEVICE).double().T
    )
    bits = np.unpackbits(allowed.view(np.uint8), axis=1, bitorder="little")[:, classes]
    scores[torch.from_numpy(bits == 0).to(DEVICE)] = -torch.inf
    best = scores.topk(k, dim=1)
    np.testing.assert_allclose(found.scores, best.values.float().cpu().numpy(), atol=1e-6)
    assert (found.rows == best.indices.cpu().numpy()).all()
