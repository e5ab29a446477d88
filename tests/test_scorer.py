"""Every scorer returns what the reference returns, bit for bit."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ta_fast.errors import BackendUnavailable, InvalidConfig
from ta_fast.scorer import SCORERS, NumpyScorer, Scorer, make_scorer
from ta_fast_kernels import ToolMatrix, TopK
from tests.cases import EVERYTHING, Case, assert_same, make_case, vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

AXES = np.eye(4, dtype=np.float32)
CLASSES = np.array([1, 0, 1, 0], dtype=np.int32)
ANY = np.array([-1.0], dtype=np.float32)


def torch_scorer(matrix: ToolMatrix, **options: str) -> Scorer:
    pytest.importorskip("torch", reason="torch is not installed")
    from ta_fast.scorer.torch_scorer import TorchScorer

    if options["device"] == "cuda" and not sys.modules["torch"].cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return TorchScorer(matrix, **options)


def faiss_scorer(matrix: ToolMatrix, **options: str) -> Scorer:
    pytest.importorskip("faiss", reason="faiss is not installed")
    from ta_fast.scorer.faiss_scorer import FaissScorer

    if options["device"] == "cuda" and not sys.modules["faiss"].get_num_gpus():
        pytest.skip("faiss sees no GPU")
    return FaissScorer(matrix, **options)


# The scorers that promise the reference's bits.
MAKERS = {
    "numpy": NumpyScorer,
    "torch-cpu": lambda matrix: torch_scorer(matrix, device="cpu"),
    "torch-cpu-fp16": lambda matrix: torch_scorer(matrix, device="cpu", dtype="float16"),
    "torch-cpu-bf16": lambda matrix: torch_scorer(matrix, device="cpu", dtype="bfloat16"),
    "torch-cuda": lambda matrix: torch_scorer(matrix, device="cuda"),
    "torch-cuda-fp16": lambda matrix: torch_scorer(matrix, device="cuda", dtype="float16"),
    "torch-cuda-bf16": lambda matrix: torch_scorer(matrix, device="cuda", dtype="bfloat16"),
    "faiss-cpu": lambda matrix: faiss_scorer(matrix, device="cpu"),
    "faiss-cuda": lambda matrix: faiss_scorer(matrix, device="cuda"),
}
scorers = pytest.mark.parametrize(
    "maker", [pytest.param(n, marks=[pytest.mark.gpu] * ("cuda" in n)) for n in MAKERS]
)
names = pytest.mark.parametrize("name", SCORERS)


def make(name: str, matrix: ToolMatrix) -> Scorer:
    """The scorer of that name, or a skip that says what is absent."""
    try:
        return make_scorer(name, matrix)
    except BackendUnavailable as error:
        pytest.skip(str(error))


def run(case: Case, maker: str) -> TopK:
    """What a scorer made anew returns."""
    return case.ask(MAKERS[maker](case.matrix))


def one_state(tools: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> Case:
    """A case without a gate and without a threshold."""
    classes = np.zeros(len(tools), dtype=np.int32)
    everything = np.full((len(queries), 1), EVERYTHING)
    least = np.full(len(queries), -np.inf, dtype=np.float32)
    return Case(queries, tools, classes, 1, everything, k, least)


@names
def test_every_name_answers(name: str):
    """Each name gives a scorer; it returns the allowed tools, best first."""
    scorer = make(name, ToolMatrix.from_rows(AXES, CLASSES, 2))
    query = np.array([[0.75, 0.5, 0.25, 0.125]], dtype=np.float32)
    found = scorer.topk(query, np.array([[0b01]], dtype=np.uint32), 3, ANY)
    assert found.rows.tolist() == [[1, 3, -1]]
    assert found.scores.tolist() == [[0.5, 0.125, -np.inf]]


@names
def test_two_epochs_live_at_once(name: str):
    """A scorer keeps answering for its own epoch after a newer one was made."""
    old = make(name, ToolMatrix.from_rows(AXES, CLASSES, 2))
    new = make(name, ToolMatrix.from_rows(AXES[::-1].copy(), CLASSES, 2))
    both = np.array([[0b11]], dtype=np.uint32)
    assert old.topk(AXES[:1], both, 1, ANY).rows.tolist() == [[0]]
    assert new.topk(AXES[:1], both, 1, ANY).rows.tolist() == [[3]]


@names
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k: expected at least 1, found 0"),
        ({"queries": AXES[:1, :3]}, r"queries: .*found float32 \[1, 3\]"),
        ({"queries": AXES[:1] * np.float32(np.nan)}, "queries: .*found nan"),
        ({"allowed": np.zeros((1, 2), np.uint32)}, r"allowed: .*found uint32 \[1, 2\]"),
        ({"threshold": ANY * np.float32(np.nan)}, "threshold: expected numbers"),
    ],
)
def test_bad_operands_are_named(name: str, change: dict[str, object], message: str):
    """Every scorer refuses what cannot be scored, and says what it found."""
    scorer = make(name, ToolMatrix.from_rows(AXES, CLASSES, 2))
    operands = {
        "queries": AXES[:1],
        "allowed": np.array([[0b11]], dtype=np.uint32),
        "k": 3,
        "threshold": ANY,
    }
    with pytest.raises(ValueError, match=message):
        scorer.topk(**(operands | change))


def test_unknown_scorer_is_named():
    """An unknown name is refused with the known ones."""
    with pytest.raises(InvalidConfig, match=r"expected one of auto, numpy, .*found 'cuda'"):
        make_scorer("cuda", ToolMatrix.from_rows(AXES, CLASSES, 2))


@pytest.mark.parametrize("name", ["torch", "faiss", "triton"])
def test_absent_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch):
    """A scorer whose package is absent says which extra brings it."""
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"ta_fast.scorer.{name}_scorer", raising=False)
    for module in [m for m in sys.modules if m.startswith(f"ta_fast_kernels.{name}")]:
        monkeypatch.delitem(sys.modules, module)
        monkeypatch.delattr(module, raising=False)
    with pytest.raises(BackendUnavailable, match=rf"{name}.*'ta-fast\["):
        make_scorer(name, ToolMatrix.from_rows(AXES, CLASSES, 2))


@scorers
@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    turns=st.integers(0, 5),
    count=st.integers(0, 500),
    dim=st.integers(1, 20),
    n_classes=st.integers(1, 100),
    k=st.integers(1, 60),
    kind=st.sampled_from(["unit", "scaled", "quantised"]),
    density=st.sampled_from([0.0, 0.03, 0.5, 1.0]),
)
@pytest.mark.parametrize("hybrid", [False, True])
def test_any_case_equals_the_reference(
    maker: str, hybrid: bool, seed: int, turns: int, count: int, **options
):
    """Random catalogs, gates, k, thresholds and terms, with and without ties."""
    case = make_case(seed, turns, count, **options)
    case = case.hybrid(seed) if hybrid else case
    assert_same(run(case, maker), case.expected())


@scorers
@pytest.mark.parametrize(("turns", "count"), [(200, 500), (64, 20_000), (3, 5_000)])
@pytest.mark.parametrize("kind", ["unit", "quantised"])
def test_blocks_equal_the_reference(maker: str, turns: int, count: int, kind: str):
    """Many turns, and more rows than one block of the product holds."""
    case = make_case(5, turns, count, dim=8, kind=kind)
    assert_same(run(case, maker), case.expected())
    assert_same(run(case.hybrid(5), maker), case.hybrid(5).expected())


@scorers
@pytest.mark.parametrize("n_classes", [1, 32, 33, 2000])
def test_class_counts_equal_the_reference(maker: str, n_classes: int):
    """From one class for all tools to about one for each."""
    case = make_case(6, 5, 2000, n_classes=n_classes)
    assert_same(run(case, maker), case.expected())


@scorers
def test_close_scores_are_ordered_exactly(maker: str):
    """Tools that differ in their last bits, so that float32 sums would order them wrongly."""
    rng = np.random.default_rng(9)
    base = vectors(rng, 1, 384, "unit")
    steps = rng.integers(-2, 3, (3000, 384)).astype(np.float32) * np.float32(2.0**-27)
    case = one_state(base + steps, base, 50)
    assert_same(run(case, maker), case.expected())


@scorers
def test_long_queries_and_a_long_tool(maker: str):
    """Numbers beyond float16, and a tool so long that the others are nothing beside it."""
    rng = np.random.default_rng(10)
    tools = vectors(rng, 400, 48, "unit")
    tools[17] *= np.float32(1e13)
    queries = vectors(rng, 6, 48, "unit") * np.float32(10.0) ** np.arange(-20, 16, 6)[:, None]
    case = one_state(tools, queries.astype(np.float32), 5)
    assert_same(run(case, maker), case.expected())


@scorers
def test_a_turn_does_not_depend_on_its_batch(maker: str):
    """One turn alone, in a batch, and in the batch reversed gives the same bits."""
    case = make_case(11, 64, 2000, dim=384).hybrid(11)
    scorer = MAKERS[maker](case.matrix)
    together = case.ask(scorer)
    for turns in [*(slice(b, b + 1) for b in range(0, 64, 7)), slice(None, None, -1), slice(7, 20)]:
        alone = case.turns(turns).ask(scorer)
        assert_same(alone, TopK(together.scores[turns], together.rows[turns]))


@scorers
def test_forbidden_near_tools_do_not_starve_the_turn(maker: str):
    """The state forbids the 5,000 nearest tools; the one that qualifies is returned."""
    rng = np.random.default_rng(12)
    query = vectors(rng, 1, 64, "unit")
    tools = np.repeat(query, 5001, axis=0) + vectors(rng, 5001, 64, "unit") * np.float32(0.01)
    tools[1234] = vectors(rng, 1, 64, "unit")
    classes = np.zeros(5001, dtype=np.int32)
    classes[1234] = 1
    allowed = np.array([[0b10]], dtype=np.uint32)
    case = Case(query, tools, classes, 2, allowed, 3, ANY)
    found = run(case, maker)
    assert found.rows.tolist() == [[1234, -1, -1]]
    assert found.scores[0, 1:].tolist() == [-np.inf, -np.inf]


@scorers
def test_threshold_is_inclusive_to_the_bit(maker: str):
    """A score equal to the threshold counts; one bit above it, it does not."""
    case = make_case(13, 40, 300, dim=384, n_classes=1, density=1.0)
    everything = replace(case, threshold=np.full(40, -np.inf, np.float32), k=300)
    fifth = everything.expected().scores[:, 4]
    scorer = MAKERS[maker](case.matrix)
    for least, filled in [(fifth, 5), (np.nextafter(fifth, np.float32(2)), 4)]:
        found = replace(case, threshold=least).ask(scorer)
        assert ((found.rows >= 0).sum(axis=1) == filled).all()


@scorers
def test_unfilled_places(maker: str):
    """All gated, k beyond the catalog, an empty catalog and an empty batch."""
    few = make_case(14, 8, 50, n_classes=3, k=99)
    assert_same(run(few, maker), few.expected())
    assert_same(run(few.hybrid(14), maker), few.hybrid(14).expected())
    without_threshold = replace(few, threshold=np.full(8, -np.inf, np.float32))
    assert_same(run(without_threshold, maker), without_threshold.expected())
    gated = run(make_case(15, 4, 50, density=0.0), maker)
    assert (gated.rows == -1).all()
    assert (gated.scores == -np.inf).all()
    empty = run(make_case(16, 4, 0, k=7), maker)
    assert empty.rows.tolist() == [[-1] * 7] * 4
    assert run(make_case(17, 0, 50), maker).scores.shape == (0, 10)


@scorers
def test_bits_beyond_the_last_class_are_ignored(maker: str):
    """Only the first G bits count."""
    case = make_case(18, 8, 500, n_classes=37)
    beyond = case.allowed.copy()
    beyond[:4, 1] |= EVERYTHING << np.uint32(5)
    assert_same(run(replace(case, allowed=beyond), maker), case.expected())


@scorers
def test_many_copies_of_one_tool(maker: str):
    """5,000 tools that tie: the first rows of the catalog win."""
    rng = np.random.default_rng(19)
    tools = np.repeat(vectors(rng, 1, 64, "unit"), 5000, axis=0)
    found = run(one_state(tools, vectors(rng, 8, 64, "unit"), 10), maker)
    assert (found.rows == np.arange(10)).all()


@scorers
def test_threads_share_a_scorer(maker: str):
    """Concurrent calls do not disturb each other."""
    case = make_case(20, 16, 3000, dim=64).hybrid(20)
    scorer, expected = MAKERS[maker](case.matrix), case.expected()
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: case.ask(scorer), range(12)):
            assert_same(found, expected)


@scorers
def test_a_read_only_matrix_is_scored(maker: str):
    """A matrix that nobody may write to is taken as it is."""
    case = make_case(21, 3, 100)
    for array in (case.matrix.vectors, case.matrix.rows, case.matrix.starts, case.queries):
        array.setflags(write=False)
    assert_same(run(case, maker), case.expected())


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_torch_precision_changes_no_answer(precision: str):
    """Whatever precision the process allows float32 products, the bits stay."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    before = torch.get_float32_matmul_precision()
    case = make_case(22, 40, 3000, dim=384)
    try:
        torch.set_float32_matmul_precision(precision)
        for maker in ["torch-cpu"] + ["torch-cuda"] * torch.cuda.is_available():
            assert_same(run(case, maker), case.expected())
    finally:
        torch.set_float32_matmul_precision(before)


def test_bad_devices_and_dtypes_are_named():
    """What a scorer cannot run on is refused with what it found."""
    matrix = ToolMatrix.from_rows(AXES, CLASSES, 2)
    torch = pytest.importorskip("torch", reason="torch is not installed")
    with pytest.raises(InvalidConfig, match=r"device: .*found 'abacus'"):
        torch_scorer(matrix, device="abacus")
    with pytest.raises(InvalidConfig, match=r"dtype: .*found 'int8'"):
        torch_scorer(matrix, device="cpu", dtype="int8")
    if not torch.cuda.is_available():
        from ta_fast.scorer.torch_scorer import TorchScorer

        with pytest.raises(BackendUnavailable, match=r"device 'cuda': torch .* no CUDA device"):
            TorchScorer(matrix, device="cuda")


def test_faiss_names_bad_devices():
    """The FAISS scorer says what it found."""
    matrix = ToolMatrix.from_rows(AXES, CLASSES, 2)
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    with pytest.raises(InvalidConfig, match=r"device: .*found 'abacus'"):
        faiss_scorer(matrix, device="abacus")
    if not faiss.get_num_gpus():
        from ta_fast.scorer.faiss_scorer import FaissScorer

        with pytest.raises(BackendUnavailable, match=r"device 'cuda': faiss .* no GPU"):
            FaissScorer(matrix, device="cuda")
