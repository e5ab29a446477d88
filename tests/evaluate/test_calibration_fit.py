import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ta_fast import Catalog, Tool
from ta_fast.calibration import Judge, Wish
from ta_fast.errors import BackendUnavailable, InvalidCatalog
from ta_fast.evaluate import (
    Query,
    calibration_error,
    fit_of,
    learn,
    learn_across,
    measure_abstention,
    measure_across,
    measure_on,
)
from ta_fast.evaluate.calibration_measures import best_tools
from ta_fast.snapshot import Snapshot
from ta_fast.testing import HashingEncoder
from ta_fast.types import Source

WORDS = [f"{a}{b}" for a in ("ab", "cor", "dun", "fel", "gim") for b in ("ra", "to", "ni", "su")]
ENCODER = HashingEncoder(512)


def catalog_of(count: int = 20) -> tuple[Catalog, Snapshot]:
    """Tools of four words each, every word in four tools."""
    catalog = Catalog()
    tools = [
        Tool(f"t{i}", f"t{i}", " ".join(WORDS[(i + step) % 20] for step in (0, 1, 5, 11)))
        for i in range(count)
    ]
    catalog.replace([Source("file", tools)])
    return catalog, Snapshot(catalog, ENCODER, "numpy")


def labelled(count: int = 120, none: int = 0, seed: int = 0) -> list[Query]:
    """Queries with some of a tool's words and some of no tool; the last ones fit no tool."""
    rng = np.random.default_rng(seed)
    queries = []
    for q in range(count):
        i = int(rng.integers(20))
        own = [WORDS[(i + step) % 20] for step in (0, 1, 5, 11)][: int(rng.integers(2, 5))]
        noise = [f"z{n}" for n in rng.integers(0, 500, int(rng.integers(0, 6)))]
        queries.append(Query(f"q{q}", " ".join([*own, *noise]), (frozenset({f"t{i}"}),)))
    for q in range(none):
        noise = [f"z{n}" for n in rng.integers(0, 500, 5)]
        queries.append(Query(f"n{q}", " ".join([WORDS[q % 20], *noise]), ()))
    return queries


def test_learns_from_labelled_pairs_alone() -> None:
    """Without a query that fits no tool: good on queries left out, and on such queries."""
    catalog, snapshot = catalog_of()
    learnt = learn(snapshot, labelled(), catalog.summary_hashes())
    assert (learnt.encoder, learnt.ranking, learnt.queries) == (ENCODER.name, "dense", 120)
    assert learnt.auroc > 0.85
    assert learnt.right_error < 0.05
    assert learnt.summaries == catalog.summary_hashes()
    fresh = labelled(100, 100, seed=1)
    measured = measure_abstention(
        fit_of(snapshot, learnt, fresh), [bool(query.gold) for query in fresh]
    )
    assert measured.auroc > 0.9


def test_own_negatives_are_taken_as_they_are() -> None:
    """The probability is then of the file's own share, and calibrated on queries left out."""
    catalog, snapshot = catalog_of()
    learnt = learn(snapshot, labelled(300, 100), catalog.summary_hashes())
    fresh = labelled(300, 100, seed=1)
    fit, fits = fit_of(snapshot, learnt, fresh), [bool(query.gold) for query in fresh]
    measured = measure_abstention(fit, fits)
    assert measured.error < 0.08
    assert measured.share == 0.75
    assert float(fit.mean()) == pytest.approx(0.75, abs=0.06)


def test_candidates_bound_what_may_fit() -> None:
    """Only the tools that a query may have are looked at."""
    catalog, snapshot = catalog_of()
    learnt = learn(snapshot, labelled(), catalog.summary_hashes())
    query = Query("q", " ".join(WORDS[step] for step in (0, 1, 5, 11)), ())
    own, other = fit_of(snapshot, learnt, [query, query], [["t0", "t7"], ["t3", "t7"]])
    assert own == fit_of(snapshot, learnt, [query], [["t7", "t0"]])[0]
    assert own > 0.8
    assert other < 0.4


def test_a_tools_own_term_is_shrunk_by_how_little_is_known() -> None:
    """A tool that is found but never right gets less likely, the more so the more often."""
    catalog, snapshot = catalog_of()
    wrong = frozenset({"t7"})

    def offset(times: int) -> float:
        queries = labelled()
        text = " ".join(WORDS[step] for step in (0, 1, 5, 11))
        queries += [Query(f"x{i}", f"{text} z{i}", (wrong,)) for i in range(times)]
        return learn(snapshot, queries, catalog.summary_hashes()).offsets["t0"]

    few, many = offset(2), offset(12)
    assert many < few < 0
    assert many > -5


def test_learnt_mapping_is_monotone() -> None:
    """More score is never less probable, for the tool and for the turn."""
    catalog, snapshot = catalog_of()
    learnt = learn(snapshot, labelled(), catalog.summary_hashes())
    scores = np.stack([np.linspace(-0.2, 1, 50), np.full(50, -0.2)], axis=1).astype(np.float32)
    rows = np.tile(np.array([0, 1], np.int32), (50, 1))
    judge = Judge(learnt, snapshot.index.ids, learnt.summaries, Wish())
    judged = judge(scores, rows, np.repeat(ENCODER.encode(["x"]), 50, axis=0))
    assert (np.diff(judged.fit) > 0).all()
    assert (np.diff(judged.right[:, 0]) > 0).all()


def test_catalogs_without_labels_learn_from_others() -> None:
    """Measured on catalogs left out; no tool has a term of its own."""
    (_, one), (_, two), (catalog, third) = catalog_of(20), catalog_of(16), catalog_of(18)
    some = [query for query in labelled() if not query.gold[0] & {"t16", "t17", "t18", "t19"}]
    learnt = learn_across([(one, labelled()), (two, some)])
    assert learnt.auroc > 0.8
    assert (learnt.offsets, learnt.summaries) == ({}, {})
    fresh = labelled(100, 100, seed=1)
    measured = measure_abstention(fit_of(third, learnt, fresh), [bool(q.gold) for q in fresh])
    assert measured.auroc > 0.85
    assert catalog.calibrations() == {}


def test_catalogs_left_out_are_measured_one_by_one() -> None:
    """One figure a catalog, of what the others teach; a misleading catalog is the worst."""
    (_, one), (_, two), (_, third) = catalog_of(), catalog_of(), catalog_of()
    good, again = labelled(), labelled(seed=1)
    # A catalog whose requests have little in common with its tools.
    vague = [Query(q.id, f"{q.text.split()[0]} z1 z2 z3 z4", q.gold) for q in labelled(seed=2)]
    found = measure_across([(one, good), (two, again), (third, vague)])
    assert len(found) == 3
    assert found[2].auroc < min(found[0].auroc, found[1].auroc)
    assert found[2].error > max(found[0].error, found[1].error)


def test_measured_on_queries_not_seen() -> None:
    """As by hand where the labels themselves have turns that no tool fits."""
    catalog, snapshot = catalog_of()
    learnt = learn(snapshot, labelled(), catalog.summary_hashes())
    fresh = labelled(100, 100, seed=1)
    by_hand = measure_abstention(
        fit_of(snapshot, learnt, fresh), [bool(query.gold) for query in fresh]
    )
    found = measure_on(snapshot, learnt, fresh)
    assert found.auroc == pytest.approx(by_hand.auroc)
    assert found.error == pytest.approx(by_hand.error)
    with pytest.raises(InvalidCatalog, match="7 queries have gold tools"):
        measure_on(snapshot, learnt, labelled(7))


def test_what_cannot_be_learnt_from_is_refused() -> None:
    """Too few queries, and labels that go against the scores."""
    catalog, snapshot = catalog_of()
    with pytest.raises(InvalidCatalog, match="19 queries have gold tools; expected at least 20"):
        learn(snapshot, labelled(19), catalog.summary_hashes())
    texts = [query.text for query in labelled(60)]
    last = best_tools(snapshot, texts, 10).top.rows[:, 9]
    queries = [Query("q", t, (frozenset({f"t{r}"}),)) for t, r in zip(texts, last, strict=True)]
    with pytest.raises(InvalidCatalog, match="gold tools those of this catalog"):
        learn(snapshot, queries, catalog.summary_hashes())


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings it."""
    catalog, snapshot = catalog_of()
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(BackendUnavailable, match=r"ta-fast\[eval\]"):
        learn(snapshot, labelled(), catalog.summary_hashes())


def test_measures_by_hand() -> None:
    """AUROC counts ties half; abstaining below a threshold keeps those at it."""
    measured = measure_abstention([0.1, 0.4, 0.4, 0.9], [False, True, False, True])
    assert measured.auroc == pytest.approx((0.5 + 1 + 1 + 1) / 4)
    assert [(p.threshold, p.recall) for p in measured.points] == [(0.1, 1), (0.4, 1), (0.9, 0.5)]
    assert [p.precision for p in measured.points] == pytest.approx([1 / 2, 2 / 3, 1])
    assert measured.share == 0.5


def test_weights_stand_for_repeats() -> None:
    """A turn of weight 2 counts like two turns."""
    p, y = [0.2, 0.3, 0.6, 0.8], [False, True, False, True]
    weighted = measure_abstention(p, y, [1, 2, 1, 1])
    repeated = measure_abstention([p[0], *p[1:2] * 2, *p[2:]], [y[0], *y[1:2] * 2, *y[2:]])
    assert weighted.auroc == pytest.approx(repeated.auroc)
    assert weighted.points == repeated.points


@given(st.lists(st.booleans(), min_size=1, max_size=200), st.floats(0, 1))
def test_calibration_error_is_bounded(labels: list[bool], value: float) -> None:
    """Within [0, 1]; of a constant at least its distance from the share that is true."""
    error = calibration_error([value] * len(labels), labels)
    assert abs(value - float(np.mean(labels))) - 1e-9 <= error <= 1
    assert calibration_error(labels, labels) == 0
