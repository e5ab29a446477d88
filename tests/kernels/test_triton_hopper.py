"""The kernels of Hopper GPUs write what the kernels of all GPUs write, to the bit.

The latter are held to the reference in the interpreter, which cannot run Gluon. That these compile
is tested without a GPU, too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed")
from ta_fast_kernels import triton_maxima, triton_topk  # noqa: E402
from tests.cases import assert_same  # noqa: E402
from tests.kernels.triton_cases import DEVICE, ON_GPU, make_case  # noqa: E402

HOPPER = ON_GPU and triton_maxima.kernels_for_hopper(torch.device("cuda")) is not None
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HOPPER, reason="needs a Hopper GPU, and Triton 3.6"),
]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("dim", [64, 192, 320, 384])
@pytest.mark.parametrize("n_classes", [1, 20, 300, 3000])
@pytest.mark.parametrize("turns", [65, 128, 300])
def test_words_are_the_same(turns: int, n_classes: int, dim: int, dtype: str):
    """Large classes, small ones and both; blocks full and not; tiles that none may see."""
    case = make_case(turns, turns, 3000, dim=dim, n_classes=n_classes, density=0.5, dtype=dtype)
    few = case.allowed.copy()
    few[:] = case.allowed[0]
    scorer = case.scorer()
    search = scorer.search
    queries = torch.from_numpy(case.queries).to(DEVICE, getattr(torch, dtype))
    for allowed in (case.allowed, few):
        bits = torch.from_numpy(allowed.view(np.int32)).to(DEVICE)
        written = []
        for kernels in (None, triton_maxima.kernels_for_hopper(search.device)):
            search.hopper, memory = kernels, search.scratch(turns)
            memory["words"].zero_()
            memory["tops"].zero_()
            triton_maxima.find_maxima(search, queries, bits, memory, few=False)
            written.append((memory["words"].clone(), memory["tops"].clone()))
        assert torch.equal(written[0][0], written[1][0])
        assert torch.equal(written[0][1], written[1][1])


@pytest.mark.parametrize("few_groups", [16, 2048])
@pytest.mark.parametrize("n_classes", [3, 40, 6000])
@pytest.mark.parametrize("k", [10, 64])
def test_batch_after_batch_equals_the_reference(
    k: int, n_classes: int, few_groups: int, monkeypatch: pytest.MonkeyPatch
):
    """Other gates each time, and nothing of an earlier call is read."""
    monkeypatch.setattr(triton_topk, "FEW_GROUPS", few_groups)
    monkeypatch.setattr(triton_topk.GroupSearch, "programs", 7)
    case = make_case(1, 130, 6000, dim=128, n_classes=n_classes, k=k, density=0.5)
    scorer = case.scorer()
    for allowed in (case.allowed, np.repeat(case.allowed[:1], 130, axis=0), case.allowed):
        now = replace(case, allowed=np.ascontiguousarray(allowed))
        found = scorer.topk(now.queries, now.allowed, k, now.threshold)
        assert_same(found, now.expected())
