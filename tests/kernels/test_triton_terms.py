"""Hybrid scores on the Triton path are the reference's bits on vectors rounded to 16 bits.

Without a GPU the kernels run in Triton's interpreter, on small cases.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed")

from ta_fast.scorer.triton_scorer import TritonScorer  # noqa: E402
from ta_fast_kernels import MAX_COUNT, MAX_WEIGHT, TermRows, TopK, triton_terms, triton_topk  # noqa: E402
from ta_fast_kernels.triton_terms import TurnTerms  # noqa: E402
from tests.cases import EVERYTHING, Case, assert_same, make_case  # noqa: E402
from tests.kernels.triton_cases import DEVICE, ON_GPU, gpu, needs_gpu  # noqa: E402

pytestmark = pytest.mark.usefixtures("interpreter")


@pytest.fixture(params=["one block", "several blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All sums at once, a program for each tile; and those of one tile at a time."""
    monkeypatch.setattr(triton_terms, "PART", 1)
    if request.param == "several blocks":
        monkeypatch.setattr(triton_terms, "SUMS", 1)  # one tile, if no turn has room for one
    return request.param


def rounded(case: Case, dtype: str = "float16") -> Case:
    """The case with vectors that ``dtype`` holds."""
    queries, tools = (
        torch.from_numpy(vectors).to(getattr(torch, dtype)).float().numpy()
        for vectors in (case.queries, case.tools)
    )
    return replace(case, queries=queries, tools=tools)


def hybrid(seed: int, turns: int, count: int, *, dtype: str = "float16", **how: object) -> Case:
    """A case with terms whose vectors ``dtype`` holds."""
    return rounded(make_case(seed, turns, count, **how), dtype).hybrid(seed)


def scorer_of(case: Case, dtype: str = "float16") -> TritonScorer:
    return TritonScorer(case.matrix, device=DEVICE, dtype=dtype)


def check(case: Case, dtype: str = "float16") -> None:
    """Assert that the scorer returns what the reference returns."""
    assert_same(case.ask(scorer_of(case, dtype)), case.expected())


def rows(*given: dict[int, int]) -> TermRows:
    """Rows of terms and values."""
    offsets = np.cumsum([0, *map(len, given)]).astype(np.int64)
    terms = [term for row in given for term in row]
    values = [value for row in given for value in row.values()]
    return TermRows(offsets, np.array(terms, np.int32), np.array(values, np.int32))


SHAPES = [
    # turns, tools, classes, dimensions, k
    (1, 1, 1, 16, 1),
    (3, 31, 1, 400, 10),
    (3, 33, 33, 24, 40),
    (2, 1000, 5, 64, 10),
    (2, 513, 513, 16, 10),
    (65, 300, 3, 16, 4),
    (2, 2049, 3, 16, 64),
]


@gpu
@pytest.mark.parametrize(("turns", "count", "n_classes", "dim", "k"), SHAPES)
@pytest.mark.parametrize("kind", ["unit", "quantised"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_shapes_equal_the_reference(
    blocks: str, dtype: str, kind: str, turns: int, count: int, n_classes: int, dim: int, k: int
):
    """Sizes at and beside the edges of groups, words and tiles; ties everywhere or nowhere."""
    if not ON_GPU and (dtype == "bfloat16") != (kind == "quantised"):
        pytest.skip("the interpreter is slow: one kind of vectors for each dtype")
    if not ON_GPU and turns > 3 and (dtype, blocks) != ("float16", "one block"):
        pytest.skip("the interpreter is slow: a large batch once")
    check(
        hybrid(count, turns, count, n_classes=n_classes, dim=dim, k=k, kind=kind, dtype=dtype),
        dtype,
    )


@gpu
@needs_gpu
@pytest.mark.parametrize(
    ("turns", "count"), [(1, 40_000), (70, 40_000), (300, 9_000), (5, 300_000)]
)
@pytest.mark.parametrize("n_classes", [1, 64, 7000])
def test_large_catalogs_equal_the_reference(blocks: str, turns: int, count: int, n_classes: int):
    """Every group size and tiling; blocks of one tile, too."""
    case = hybrid(turns, turns, count, n_classes=n_classes)
    if blocks == "several blocks" and count > 40_000:
        pytest.skip("a launch for each tile takes too long")
    check(case)


@gpu
@pytest.mark.usefixtures("blocks")
def test_the_way_of_large_catalogs(monkeypatch: pytest.MonkeyPatch):
    """A search from tiles to groups to tools."""
    monkeypatch.setattr(triton_topk, "FEW_GROUPS", 16)
    check(hybrid(3, 3, 700, dim=16, n_classes=3))


@gpu
@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("terms", ["none shared", "one in all", "all in all"])
def test_terms_that_tell_nothing_or_much(terms: str):
    """No shared terms; one that every tool has; tools that have all that a turn asks for."""
    case = rounded(make_case(4, 3, 300, n_classes=3, density=1.0))
    tool = {"none shared": {0: 5}, "one in all": {7: 100}, "all in all": {7: 100, 8: 3, 9: 2047}}
    turn = {"none shared": {1: 1}, "one in all": {7: 2}, "all in all": {7: 1, 8: 4, 9: 1}}
    check(replace(case, tool_terms=rows(*[tool[terms]] * 300), turn_terms=rows(*[turn[terms]] * 3)))


@gpu
@pytest.mark.usefixtures("blocks")
def test_ties_through_terms():
    """Copies of one vector: only the terms tell them apart, and most have the same."""
    case = rounded(make_case(5, 2, 400, n_classes=3, density=1.0, k=20))
    terms = rows(*({0: 10 + i % 3} if i % 2 else {1: 20, 2: i % 3 + 1} for i in range(400)))
    turns = rows({0: 2, 1: 1, 2: 1}, {})
    tools = np.repeat(case.tools[:1], 400, axis=0)
    least = np.full(2, -9, np.float32)
    check(replace(case, tools=tools, tool_terms=terms, turn_terms=turns, threshold=least))


@gpu
@pytest.mark.usefixtures("blocks")
def test_gated_tools_with_large_sums():
    """The best by far may not be used: the others are returned."""
    case = hybrid(6, 4, 500, n_classes=5, density=1.0)
    loud = rows(*({0: MAX_WEIGHT} if own == 2 else {0: 1} for own in case.classes))
    asked = rows(*[{0: MAX_COUNT}] * 4)
    allowed = np.full((4, 1), ~np.uint32(4))
    found = replace(case, tool_terms=loud, turn_terms=asked, allowed=allowed)
    found = replace(found, threshold=np.full(4, -9, np.float32))
    check(found)
    assert not (case.classes[found.expected().rows] == 2).any()


@gpu
@pytest.mark.usefixtures("blocks")
def test_many_terms_in_one_turn():
    """Hundreds of terms in some turns and tools, none in others, some that no tool has."""
    rng = np.random.default_rng(7)
    case = rounded(make_case(7, 4, 300, n_classes=2, density=1.0))

    def draw(many: int) -> dict[int, int]:
        terms = np.sort(rng.choice(400, many, replace=False)).tolist()
        return dict(zip(terms, rng.integers(1, 20, many).tolist(), strict=True))

    tools = rows(*(draw(int(rng.choice([0, 3, 200], p=[0.3, 0.65, 0.05]))) for _ in range(300)))
    turns = rows(draw(150), {}, {5: 8196}, draw(17) | {10**9: 3})
    check(replace(case, tool_terms=tools, turn_terms=turns, allowed=np.full((4, 1), EVERYTHING)))


@gpu
@pytest.mark.usefixtures("blocks")
def test_threshold_is_inclusive_to_the_bit():
    """A hybrid score equal to the threshold counts; one bit above it, it does not."""
    case = hybrid(8, 3, 300, dim=64, n_classes=1, density=1.0)
    fifth = replace(case, threshold=np.full(3, -9, np.float32)).expected().scores[:, 4]
    for least, filled in [(fifth, 5), (np.nextafter(fifth, np.float32(99)), 4)]:
        found = replace(case, threshold=least)
        assert ((found.ask(scorer_of(found)).rows >= 0).sum(axis=1) == filled).all()


@gpu
def test_a_turn_does_not_depend_on_its_batch():
    """One turn alone, in a batch, and in the batch reversed gives the same bits."""
    count = 66 if ON_GPU else 6
    case = hybrid(9, count, 300, dim=48)
    scorer = scorer_of(case)
    together = case.ask(scorer)
    for turns in [slice(0, 1), slice(count - 1, count), slice(None, None, -1), slice(2, 5)]:
        found = case.turns(turns).ask(scorer)
        assert_same(found, TopK(together.scores[turns], together.rows[turns]))


@gpu
def test_turns_without_terms_and_with_too_large_k():
    """Dense scores of a matrix with postings; a k that the kernels do not serve."""
    case = hybrid(10, 3, 200, k=100)
    scorer = scorer_of(case)
    assert_same(case.ask(scorer), case.expected())
    for terms in (None, TermRows.empty(3)):
        few = replace(case, k=7, turn_terms=terms)
        assert_same(few.ask(scorer), few.expected())


@gpu
def test_vectors_that_are_on_the_device_already():
    """The same answer as for vectors from the host, batch after batch, with and without terms."""
    case = hybrid(11, 5, 300, k=7)
    scorer = scorer_of(case)
    vectors = torch.from_numpy(case.queries).to(DEVICE)
    for turns in (5, 3, 1, 5):
        part = case.turns(slice(0, turns))
        operands = vectors[:turns], part.allowed, 7, part.threshold
        assert_same(scorer.topk_from(*operands, part.turn_terms), part.expected())
        dense = replace(part, turn_terms=None)
        assert_same(scorer.topk_from(*operands), dense.expected())


def on_device(case: Case) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, TurnTerms]:
    """Queries, allowed bits, thresholds and terms as tensors of the device."""
    packed = np.zeros(TurnTerms.room(len(case.queries), 256), np.int32)
    TurnTerms.pack(case.turn_terms, packed, len(case.queries))
    words = torch.from_numpy(case.allowed.view(np.int32)).to(DEVICE)
    terms = TurnTerms.unpack(torch.from_numpy(packed).to(DEVICE), len(case.queries))
    queries = torch.from_numpy(case.queries).to(DEVICE, torch.float16)
    return queries, words, torch.from_numpy(case.threshold).to(DEVICE), terms


@gpu
@pytest.mark.usefixtures("blocks")
def test_outputs_are_written_everywhere_and_scratch_is_never_read_stale():
    """With NaN in every buffer before the call the result is the same."""
    case = hybrid(12, 5, 400, n_classes=3, k=7)
    search = scorer_of(case).search
    queries, allowed, threshold, terms = on_device(case)
    out = torch.full((5, 7), float("nan"), device=DEVICE), torch.full((5, 7), -9).int().to(DEVICE)
    for buffer in (*search.scratch(5).values(), search.terms.sums):
        buffer.fill_(float("nan") if buffer.is_floating_point() else -(2**31))
    search.topk(queries, allowed, 7, threshold, out, terms=terms)
    assert_same(TopK(*(tensor.cpu().numpy() for tensor in out)), case.expected())


@gpu
@needs_gpu
def test_device_call_is_captured_in_a_graph():
    """A captured call serves new queries and new terms on replay."""
    case, other = hybrid(13, 8, 5000), hybrid(14, 8, 5000)
    scorer = scorer_of(case)
    queries, allowed, threshold, terms = on_device(case)
    scorer.topk_device(queries, allowed, 10, threshold, terms=terms)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = scorer.topk_device(queries, allowed, 10, threshold, terms=terms)
    new = on_device(other)
    queries.copy_(new[0])
    for there, fresh in zip(
        (terms.offsets, terms.terms, terms.counts),
        (new[3].offsets, new[3].terms, new[3].counts),
        strict=True,
    ):
        there.copy_(fresh)
    graph.replay()
    expected = replace(case, queries=other.queries, turn_terms=other.turn_terms).expected()
    assert_same(TopK(*(tensor.cpu().numpy() for tensor in found)), expected)


def test_terms_without_postings_are_refused():
    """A matrix of vectors alone cannot give hybrid scores."""
    case = hybrid(15, 1, 5)
    bare = scorer_of(replace(case, tool_terms=None))
    with pytest.raises(ValueError, match="the matrix has no postings"):
        case.ask(bare)
    with pytest.raises(ValueError, match="the tools have no postings"):
        bare.topk_from(torch.from_numpy(case.queries).to(DEVICE), *case_operands(case))


def case_operands(case: Case) -> tuple[object, ...]:
    return case.allowed, case.k, case.threshold, case.turn_terms
