"""Every backend returns what the reference returns, bit for bit."""

from __future__ import annotations

import math
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ta_fast_kernels import ToolMatrix, TopK, gated_topk
from ta_fast_kernels.reference import inner_products
from tests.cases import EVERYTHING, Case, assert_same, make_case, vectors

if TYPE_CHECKING:
    pass

# A new backend joins the tests by its name.
BACKENDS = ["numpy"]
backends = pytest.mark.parametrize("backend", BACKENDS)


def run(case: Case, backend: str) -> TopK:
    """What a backend returns."""
    operands = case.queries, case.matrix, case.allowed, case.k, case.threshold, case.turn_terms
    return gated_topk(*operands, backend=backend)


@backends
@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    turns=st.integers(0, 5),
    count=st.integers(0, 700),
    dim=st.integers(1, 20),
    n_classes=st.integers(1, 100),
    k=st.integers(1, 60),
    kind=st.sampled_from(["unit", "scaled", "quantised"]),
    density=st.sampled_from([0.0, 0.03, 0.5, 1.0]),
)
@pytest.mark.parametrize("hybrid", [False, True])
def test_any_case_equals_the_reference(
    backend: str, hybrid: bool, seed: int, turns: int, count: int, **options
):
    """Random catalogs, gates, facts, k, thresholds and terms, with and without ties."""
    case = make_case(seed, turns, count, **options)
    case = case.hybrid(seed) if hybrid else case
    assert_same(run(case, backend), case.expected())


@backends
@pytest.mark.parametrize("turns", [1, 3, 64])
@pytest.mark.parametrize("count", [1, 31, 32, 33, 1000, 4097])
@pytest.mark.parametrize("kind", ["unit", "quantised"])
def test_shapes_equal_the_reference(backend: str, turns: int, count: int, kind: str):
    """Sizes at and beside the edges of words, groups and blocks."""
    case = make_case(count + turns, turns, count, kind=kind)
    assert_same(run(case, backend), case.expected())


@backends
@pytest.mark.parametrize(("turns", "count"), [(200, 500), (64, 20_000), (3, 60_000)])
def test_several_batches_and_blocks_equal_the_reference(backend: str, turns: int, count: int):
    """More turns than one product takes, and more rows than one block holds."""
    case = make_case(5, turns, count, dim=8)
    assert_same(run(case, backend), case.expected())
    assert_same(run(case.hybrid(5), backend), case.hybrid(5).expected())


@backends
@pytest.mark.parametrize("n_classes", [1, 32, 33, 3000])
def test_class_counts_equal_the_reference(backend: str, n_classes: int):
    """From one class for all tools to a class for each tool, classes without tools included."""
    case = make_case(6, 5, 3000, n_classes=n_classes)
    assert_same(run(case, backend), case.expected())
    own = np.random.default_rng(7).permutation(n_classes).astype(np.int32)
    own[own == 5] = 4  # as many classes as tools, but one is empty and one holds two
    tools = np.resize(case.tools, (n_classes, case.tools.shape[1]))
    case = Case(case.queries, tools, own, n_classes, case.allowed, 10, case.threshold)
    assert_same(run(case, backend), case.expected())


@backends
def test_sparse_gates_skip_blocks_rightly(backend: str):
    """Few allowed classes among many large ones: whole ranges of rows are never multiplied."""
    case = make_case(8, 2, 30_000, n_classes=30, density=0.1)
    assert_same(run(case, backend), case.expected())
    assert_same(run(case.hybrid(8), backend), case.hybrid(8).expected())


@backends
def test_close_scores_are_ordered_exactly(backend: str):
    """Tools that differ in their last bits, so that float32 sums would order them wrongly."""
    rng = np.random.default_rng(9)
    base = vectors(rng, 1, 384, "unit")
    steps = rng.integers(-2, 3, (3000, 384)).astype(np.float32) * np.float32(2.0**-27)
    classes = np.zeros(3000, dtype=np.int32)
    allowed = np.full((1, 1), EVERYTHING)
    case = Case(base, base + steps, classes, 1, allowed, 50, np.array([-1], np.float32))
    assert_same(run(case, backend), case.expected())


@backends
def test_threshold_is_inclusive_to_the_bit(backend: str):
    """A score equal to the threshold counts; one bit above it, it does not."""
    case = make_case(10, 100, 300, dim=384, n_classes=1, density=1.0)
    scores = np.stack([inner_products(case.tools, query) for query in case.queries])
    fifth = np.sort(scores, axis=1)[:, -5]
    for least, filled in [(fifth, 5), (np.nextafter(fifth, np.float32(2)), 4)]:
        found = gated_topk(case.queries, case.matrix, case.allowed, 10, least, backend=backend)
        assert ((found.rows >= 0).sum(axis=1) == filled).all()


@backends
def test_a_turn_does_not_depend_on_its_batch(backend: str):
    """One turn alone, in a batch, and in the batch reversed gives the same bits."""
    case = make_case(11, 64, 2000, dim=384)
    together = run(case, backend)
    for turns in [*(slice(b, b + 1) for b in range(64)), slice(None, None, -1), slice(7, 20)]:
        alone = gated_topk(
            case.queries[turns],
            case.matrix,
            case.allowed[turns],
            case.k,
            case.threshold[turns],
            backend=backend,
        )
        assert_same(alone, TopK(together.scores[turns], together.rows[turns]))


@backends
def test_forbidden_near_tools_do_not_starve_the_turn(backend: str):
    """The state forbids the 5,000 nearest tools; the one that qualifies is returned."""
    rng = np.random.default_rng(12)
    query = vectors(rng, 1, 64, "unit")
    tools = np.repeat(query, 5001, axis=0) + vectors(rng, 5001, 64, "unit") * np.float32(0.01)
    tools[1234] = vectors(rng, 1, 64, "unit")
    classes = np.zeros(5001, dtype=np.int32)
    classes[1234] = 1
    allowed = np.array([[0b10]], dtype=np.uint32)
    threshold = np.array([-1], np.float32)
    matrix = ToolMatrix.from_rows(tools, classes, 2)
    found = gated_topk(query, matrix, allowed, 3, threshold, backend=backend)
    assert found.rows.tolist() == [[1234, -1, -1]]
    assert found.scores[0, 1:].tolist() == [-np.inf, -np.inf]


@backends
def test_no_gated_tool_among_a_million_results(backend: str):
    """Every one of at least 10^6 returned tools is of a class that its turn may use."""
    returned = 0
    for seed in range(16):
        case = make_case(seed, 128, 4000, n_classes=64, k=1000, density=0.5)
        found = gated_topk(
            case.queries,
            case.matrix,
            case.allowed,
            case.k,
            np.full(128, -np.inf, np.float32),
            backend=backend,
        )
        turns, places = np.nonzero(found.rows >= 0)
        classes = case.classes[found.rows[turns, places]]
        words = case.allowed[turns, classes // 32]
        assert (words >> (classes % 32).astype(np.uint32) & 1).all()
        returned += len(turns)
    assert returned >= 1_000_000


@backends
def test_unfilled_places(backend: str):
    """All gated, k beyond what is allowed, an empty catalog and an empty batch."""
    case = make_case(13, 4, 50, n_classes=3, k=99)
    nothing = run(case, backend)
    assert nothing.rows.shape == (4, 99)
    assert ((nothing.rows == -1) == (nothing.scores == -np.inf)).all()
    gated = run(make_case(14, 4, 50, density=0.0), backend)
    assert (gated.rows == -1).all()
    empty = run(make_case(15, 4, 0, k=7), backend)
    assert empty.rows.tolist() == [[-1] * 7] * 4
    assert run(make_case(16, 0, 50), backend).scores.shape == (0, 10)


@backends
def test_bits_beyond_the_last_class_are_ignored(backend: str):
    """Only the first G bits count."""
    case = make_case(17, 8, 500, n_classes=37)
    beyond = case.allowed.copy()
    beyond[:, 1] |= EVERYTHING << np.uint32(5)
    found = gated_topk(case.queries, case.matrix, beyond, case.k, case.threshold, backend=backend)
    assert_same(found, case.expected())


@backends
def test_many_copies_of_one_tool(backend: str):
    """10,000 tools that tie: the first rows win, and no large temporary is made."""
    rng = np.random.default_rng(18)
    queries = vectors(rng, 64, 384, "unit")
    tools = np.repeat(vectors(rng, 1, 384, "unit"), 10_000, axis=0)
    matrix = ToolMatrix.from_rows(tools, np.zeros(10_000, dtype=np.int32), 1)
    allowed, threshold = np.full((64, 1), EVERYTHING), np.full(64, -1, np.float32)
    tracemalloc.start()
    found = gated_topk(queries, matrix, allowed, 10, threshold, backend=backend)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.rows == np.arange(10)).all()
    assert peak < 100e6


@backends
def test_threads_share_a_matrix(backend: str):
    """Concurrent calls on one matrix do not disturb each other."""
    case = make_case(19, 16, 3000, dim=64)
    matrix, expected = case.matrix, case.expected()

    def call() -> TopK:
        return gated_topk(
            case.queries, matrix, case.allowed, case.k, case.threshold, backend=backend
        )

    with ThreadPoolExecutor(4) as pool:
        found = [f.result() for f in [pool.submit(call) for _ in range(80)]]
    for result in found:
        assert_same(result, expected)


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32 - 1), dim=st.integers(1, 400))
def test_score_is_the_inner_product(seed: int, dim: int):
    """The score is within one float32 rounding of the exact sum, and zero has no sign."""
    rng = np.random.default_rng(seed)
    left, right = vectors(rng, 2, dim, "unit")
    terms = [float(a) * float(b) for a, b in zip(left, right, strict=True)]
    score = inner_products(left[None], right[None])[0]
    exact = math.fsum(terms)
    assert abs(float(score) - exact) <= 2.0**-24 * abs(exact) * 1.001 + 1e-13
    zero = inner_products(-np.abs(left)[None], np.zeros((1, dim), np.float32))
    assert not np.signbit(zero[0])


def test_score_is_summed_in_the_specified_order():
    """Halves are added to halves: five terms are ((t0 + t4) + t2) + (t1 + t3)."""
    left = np.array([[2.0**60, 1.0, -(2.0**60), 2.0**-30, 3.0]], dtype=np.float32)
    ones = np.ones((1, 5), dtype=np.float32)
    expected = ((2.0**60 + 3.0) - 2.0**60) + (1.0 + 2.0**-30)
    assert inner_products(left, ones)[0] == np.float32(expected)


def test_reference_backend_is_the_reference():
    """Asked by name, on a stored matrix, the reference gives its own answer."""
    case = make_case(20, 5, 300)
    assert_same(run(case, "reference"), case.expected())


def test_import_is_light():
    """Importing the package loads no deep-learning library."""
    code = (
        "import sys, ta_fast_kernels; "
        "print([m for m in ('torch', 'triton', 'faiss', 'scipy') if m in sys.modules])"
    )
    path = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"


VALID = make_case(21, 2, 10, n_classes=40)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k: expected at least 1, found 0"),
        ({"k": -3}, "found -3"),
        ({"backend": "cuda"}, "found 'cuda'"),
        ({"queries": VALID.queries[:, :5]}, r"queries: .*found float32 \[2, 5\]"),
        ({"queries": VALID.queries.astype(np.float64)}, "queries: .*found float64"),
        ({"queries": VALID.queries * np.float32(np.nan)}, r"found nan at \[0, 0\]"),
        ({"queries": VALID.queries * np.float32(np.inf)}, "found -?inf"),
        ({"queries": np.full((2, 24), 1e16, np.float32)}, r"found 1e\+16"),
        ({"allowed": VALID.allowed[:, :1]}, r"allowed: .*\[2, 2\], found uint32 \[2, 1\]"),
        ({"allowed": VALID.allowed.astype(np.int64)}, "allowed: .*found int64"),
        ({"threshold": np.zeros(3, np.float32)}, r"threshold: .*\[2\], found float32 \[3\]"),
        ({"threshold": np.full(2, np.nan, np.float32)}, "threshold: .*nan"),
    ],
)
def test_bad_operands_are_named(change: dict[str, object], message: str):
    """A wrong operand is a ValueError that says what was found."""
    operands: dict[str, object] = {
        "queries": VALID.queries,
        "matrix": VALID.matrix,
        "allowed": VALID.allowed,
        "k": 3,
        "threshold": VALID.threshold,
    }
    with pytest.raises(ValueError, match=message):
        gated_topk(**(operands | change))
