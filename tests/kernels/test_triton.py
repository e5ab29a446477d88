"""The Triton path returns the reference's bits on vectors rounded to 16 bits.

Without a GPU the kernels run in Triton's interpreter, on small cases.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed")

from ta_fast.errors import BackendUnavailable  # noqa: E402
from ta_fast.scorer.triton_scorer import TritonScorer  # noqa: E402
from ta_fast_kernels import ToolMatrix, TopK, triton_maxima, triton_topk  # noqa: E402
from ta_fast_kernels.triton_index import Layout  # noqa: E402
from tests.cases import assert_same  # noqa: E402
from tests.kernels.triton_cases import DEVICE, ON_GPU, gpu, make_case, needs_gpu, rounded  # noqa: E402

pytestmark = pytest.mark.usefixtures("interpreter")


@pytest.fixture(params=[8, 32])
def group(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Groups and parts of small and of large catalogs, whatever the case's size."""
    monkeypatch.setattr(triton_topk, "group_size", lambda _: request.param)
    monkeypatch.setattr(triton_topk, "part_size", lambda *_: 1 if request.param == 8 else 2)
    return request.param


SHAPES = [
    # turns, tools, classes, dimensions, k
    (1, 0, 3, 16, 3),
    (1, 1, 1, 16, 1),
    (3, 31, 1, 400, 10),
    (3, 32, 64, 16, 10),
    (3, 33, 33, 24, 40),
    (3, 1000, 5, 384, 10),
    (2, 1000, 64, 16, 10),
    (2, 1000, 1000, 16, 10),
    (65, 129, 3, 16, 4),
    (2, 4097, 3, 16, 64),
]


@gpu
@pytest.mark.parametrize(("turns", "count", "n_classes", "dim", "k"), SHAPES)
@pytest.mark.parametrize("kind", ["unit", "quantised"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_shapes_equal_the_reference(
    group: int, dtype: str, kind: str, turns: int, count: int, n_classes: int, dim: int, k: int
):
    """Sizes at and beside the edges of groups, words and tiles; ties everywhere or nowhere."""
    if not ON_GPU and (dtype == "bfloat16") != (group == 32):
        pytest.skip("the interpreter is slow: one group size for each dtype")
    case = make_case(count, turns, count, n_classes=n_classes, dim=dim, k=k, kind=kind, dtype=dtype)
    assert_same(case.run(), case.expected())


@gpu
@pytest.mark.parametrize(("turns", "count"), [(1, 3000), (5, 700)])
def test_the_way_of_large_catalogs(turns: int, count: int, monkeypatch: pytest.MonkeyPatch):
    """Few programs that take several tiles each; a search from tiles to groups to tools."""
    monkeypatch.setattr(triton_topk, "FEW_GROUPS", 16)
    monkeypatch.setattr(triton_maxima, "MANY_GROUPS", 1)
    monkeypatch.setattr(triton_topk, "part_size", lambda *_: 4)
    monkeypatch.setattr(triton_topk.GroupSearch, "programs", 7)
    case = make_case(3, turns, count, dim=16, n_classes=3)
    assert_same(case.run(), case.expected())


@gpu
def test_vectors_of_very_different_lengths():
    """bfloat16 from 1e-12 to 1e12: scores that cancel are summed in the specified order."""
    case = make_case(4, 5, 700, kind="scaled", dtype="bfloat16")
    assert_same(case.run(), case.expected())


@gpu
def test_close_scores_are_ordered_exactly():
    """Tools that differ in their last bits, beyond what the matrix unit can tell apart."""
    rng = np.random.default_rng(5)
    base = rounded(rng.standard_normal((1, 64)).astype(np.float32) / 8, "float16")
    steps = rng.integers(-1, 2, (600, 64)).astype(np.float32) * np.float32(2.0**-13)
    case = make_case(5, 1, 600, dim=64, n_classes=2, k=50, density=1.0)
    case = replace(
        case, queries=base, tools=rounded(base + steps, "float16"), threshold=-np.ones(1, "f4")
    )
    assert_same(case.run(), case.expected())


@gpu
def test_more_ties_than_the_list_holds():
    """900 copies of one tool: every one is found, and the first rows win."""
    case = make_case(6, 2, 900, dim=16, n_classes=3, density=1.0)
    tools = np.repeat(case.tools[:1], 900, axis=0)
    case = replace(case, tools=tools, threshold=np.full(2, -5, np.float32))
    assert_same(case.run(), case.expected())


@gpu
def test_threshold_is_inclusive_to_the_bit():
    """A score equal to the threshold counts; one bit above it, it does not."""
    case = make_case(7, 3, 300, dim=384, n_classes=1, density=1.0)
    fifth = replace(case, threshold=np.full(3, -9, np.float32)).expected().scores[:, 4]
    for least, filled in [(fifth, 5), (np.nextafter(fifth, np.float32(2)), 4)]:
        found = replace(case, threshold=least).run()
        assert ((found.rows >= 0).sum(axis=1) == filled).all()


@gpu
def test_a_turn_does_not_depend_on_its_batch():
    """One turn alone, in a batch, and in the batch reversed gives the same bits."""
    case = make_case(8, 66, 100, dim=48)
    scorer = case.scorer()
    together = scorer.topk(case.queries, case.allowed, case.k, case.threshold)
    for turns in [slice(0, 1), slice(65, 66), slice(None, None, -1), slice(7, 20)]:
        operands = case.queries[turns], case.allowed[turns], case.k, case.threshold[turns]
        assert_same(scorer.topk(*operands), TopK(together.scores[turns], together.rows[turns]))


@gpu
@pytest.mark.parametrize("n_classes", [3, 500])
def test_nothing_allowed_and_too_little_allowed(n_classes: int):
    """All gated; fewer allowed than k; the rest is unfilled."""
    case = make_case(9, 3, 500, n_classes=n_classes, k=20, density=0.0)
    gated = case.run()
    assert (gated.rows == -1).all()
    assert (gated.scores == -np.inf).all()
    allowed = case.allowed.copy()
    allowed[:, 0] = 1
    assert_same(
        *(
            f()
            for f in (replace(case, allowed=allowed).run, replace(case, allowed=allowed).expected)
        )
    )


@gpu
def test_empty_batch_and_large_k():
    """No turns; and a k that the kernels do not serve, answered with the same bits."""
    case = make_case(10, 3, 200, k=100)
    assert_same(case.run(), case.expected())
    none = case.scorer().topk(case.queries[:0], case.allowed[:0], 5, case.threshold[:0])
    assert none.rows.shape == (0, 5)


@gpu
def test_vectors_that_are_on_the_device_already():
    """The same answer as for vectors from the host, batch after batch."""
    case = make_case(12, 5, 300, k=7)
    scorer = case.scorer()
    vectors = torch.from_numpy(case.queries).to(DEVICE)
    for turns in (5, 3, 1, 5):
        found = scorer.topk_from(
            vectors[:turns], case.allowed[:turns], case.k, case.threshold[:turns]
        )
        expected = case.expected()
        assert_same(found, TopK(expected.scores[:turns], expected.rows[:turns]))
    beyond = scorer.topk_from(vectors, case.allowed, 100, case.threshold)
    assert_same(beyond, replace(case, k=100).expected())


@gpu
def test_outputs_are_written_everywhere_and_scratch_is_never_read_stale():
    """With NaN in every buffer before the call the result is the same."""
    case = make_case(11, 5, 400, n_classes=3, k=7)
    search = case.scorer().search
    queries = torch.from_numpy(case.queries).to(DEVICE, torch.float16)
    allowed = torch.from_numpy(case.allowed.view(np.int32)).to(DEVICE)
    threshold = torch.from_numpy(case.threshold).to(DEVICE)
    out = torch.full((5, 7), float("nan"), device=DEVICE), torch.full((5, 7), -9).int().to(DEVICE)
    for buffer in search.scratch(5).values():
        buffer.fill_(float("nan") if buffer.is_floating_point() else -(2**31))
    search.topk(queries, allowed, 7, threshold, out)
    assert_same(TopK(*(tensor.cpu().numpy() for tensor in out)), case.expected())


@gpu
@pytest.mark.parametrize("few_groups", [16, 2048])
def test_nothing_of_an_earlier_call_is_read(few_groups: int, monkeypatch: pytest.MonkeyPatch):
    """Tiles that a whole batch may not see are skipped, and their old maxima with them."""
    monkeypatch.setattr(triton_topk, "FEW_GROUPS", few_groups)
    monkeypatch.setattr(triton_topk.GroupSearch, "programs", 3)
    case = make_case(16, 4, 1500, dim=16, n_classes=3, density=1.0)
    scorer = case.scorer()
    for allowed in (7, 2, 4, 7):
        now = replace(case, allowed=np.full((4, 1), allowed, np.uint32))
        found = scorer.topk(now.queries, now.allowed, now.k, now.threshold)
        assert_same(found, now.expected())


@gpu
@needs_gpu
def test_device_call_is_captured_in_a_graph():
    """A captured call serves new operands on replay."""
    case, other = make_case(12, 8, 5000), make_case(13, 8, 5000)
    scorer = case.scorer()
    queries = torch.from_numpy(case.queries).to(DEVICE, torch.float16)
    allowed = torch.from_numpy(case.allowed.view(np.int32)).to(DEVICE)
    threshold = torch.from_numpy(case.threshold).to(DEVICE)
    scorer.topk_device(queries, allowed, 10, threshold)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = scorer.topk_device(queries, allowed, 10, threshold)
    queries.copy_(torch.from_numpy(other.queries))
    graph.replay()
    expected = replace(case, queries=other.queries).expected()
    assert_same(TopK(*(tensor.cpu().numpy() for tensor in found)), expected)


def test_layout_keeps_every_tool_and_pads_with_members_of_the_group():
    """Each stored row is at one position; a group of one class repeats only its own."""
    sizes = np.array([300, 0, 1, 64, 7, 290])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    layout = Layout.plan(starts, 32)
    there = layout.stored[layout.stored >= 0]
    assert sorted(there) == list(range(662))
    owner = np.repeat(np.arange(6), sizes)
    place = np.arange(layout.n_pure * 128)
    tile, group = place // 128, place % 8 // 2
    low, high, until, _ = layout.seams[tile].T
    expected = np.where(group < until, low, high)
    found = layout.source[: len(place)]
    assert (np.where(found < 0, -1, owner[found]) == expected).all()
    assert (expected >= 0).sum() == 320 + 320


def test_bad_arguments_are_named():
    """A dtype that is none, and numbers that float16 cannot hold."""
    case = make_case(14, 1, 3)
    matrix = ToolMatrix.from_rows(case.tools * np.float32(1e6), case.classes, 40)
    with pytest.raises(ValueError, match="found 'int8'"):
        TritonScorer(matrix, device=DEVICE, dtype="int8")
    with pytest.raises(ValueError, match="vectors: expected at most 65504"):
        TritonScorer(matrix, device=DEVICE)
    with pytest.raises(ValueError, match="queries: expected at most 65504"):
        case.scorer().topk(case.queries * np.float32(1e6), case.allowed, 1, case.threshold)


def test_without_a_device_it_is_unavailable(monkeypatch: pytest.MonkeyPatch):
    """A device that torch does not see is named, and never replaced in silence."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    case = make_case(15, 1, 3)
    with pytest.raises(BackendUnavailable, match="expected a CUDA device"):
        case.scorer()
