import json
import logging
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ta_fast import Catalog, Session, Tool, ToolAttention, Turn
from ta_fast.calibration import (
    AbstentionPoint,
    Calibration,
    Judge,
    Logistic,
    Wish,
    read_calibration,
    usable,
    write_calibration,
)
from ta_fast.errors import InvalidCatalog, InvalidConfig
from ta_fast.events import Event, RouteEvent
from ta_fast.testing import HashingEncoder
from ta_fast.types import F32, I32, Source

ENCODER = HashingEncoder(256)
TOOLS = [
    Tool("read", "read", "read a text file from disk"),
    Tool("write", "write", "write a text file to disk", precondition={"all_of": ["may:write"]}),
    Tool("weather", "weather", "weather report for a city"),
]
POINTS = (
    AbstentionPoint(0.1, 0.5, 1.0),
    AbstentionPoint(0.5, 0.8, 0.96),
    AbstentionPoint(0.9, 0.95, 0.4),
)


def calibration(**changes: Any) -> Calibration:
    """Fits from a score of 0.5 on; a tool of that score and no lead is as likely right as not."""
    return Calibration(
        **{
            "encoder": ENCODER.name,
            "ranking": "dense",
            "background": tuple(np.zeros(ENCODER.dim).tolist()),
            "fits": Logistic(-10.0, (20.0, -5.0)),
            "right": Logistic(-10.0, (20.0, 3.0, -5.0)),
            "offsets": {"weather": 1.5},
            "summaries": hashes(),
            "points": POINTS,
            "queries": 40,
            "auroc": 0.9,
            "fit_error": 0.03,
            "right_error": 0.02,
            **changes,
        }
    )


def hashes(tools: list[Tool] = TOOLS) -> dict[str, str]:
    """Summary hashes as a catalog of the tools has them."""
    catalog = Catalog()
    catalog.replace([Source("file", tools)])
    return catalog.summary_hashes()


def build(
    learnt: Calibration | None, tools: list[Tool] = TOOLS, **options: Any
) -> tuple[Catalog, ToolAttention]:
    catalog = Catalog()
    catalog.replace([Source("file", tools)])
    if learnt is not None:
        catalog.save_calibration(learnt)
    return catalog, ToolAttention(catalog, ENCODER, **options)


def batch(*scores: list[float]) -> tuple[F32, I32, F32]:
    """Scores, rows 0, 1, ... and embeddings of turns."""
    filled = np.array(scores, np.float32)
    rows = np.where(np.isfinite(filled), np.arange(filled.shape[1]), -1).astype(np.int32)
    return filled, rows, ENCODER.encode(["x"] * len(scores))


@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=20, unique=True))
def test_higher_scores_are_never_less_likely(best: list[float]) -> None:
    """Both probabilities grow with the best tool's score, all else equal."""
    judge = Judge(calibration(), ["a", "b"], {}, Wish())
    found = judge(*batch(*[[score, -1.0] for score in sorted(best)]))
    assert (np.diff(found.fit) >= 0).all()
    assert (np.diff(found.right[:, 0]) >= 0).all()
    assert ((found.fit > 0) & (found.fit < 1)).all()


def test_probabilities_by_hand() -> None:
    """The formula of logistic regression over score, lead and background."""
    background = np.zeros(ENCODER.dim)
    background[:] = ENCODER.encode(["x"])[0] * 0.5
    judge = Judge(calibration(background=tuple(background.tolist())), ["a", "b"], {}, Wish())
    found = judge(*batch([0.75, 0.5]))
    assert found.fit[0] == pytest.approx(1 / (1 + np.exp(10 - 15 + 2.5)))
    assert found.right[0, 0] == pytest.approx(1 / (1 + np.exp(10 - 15 - 0.75 + 2.5)))
    assert found.right[0, 1] == pytest.approx(1 / (1 + np.exp(10 - 10 + 0.75 + 2.5)))


def test_words_are_used_where_they_were_learnt() -> None:
    """Words and unknown words move the probability as their weights say."""
    fits = Logistic(0.0, (0.0, 0.0, 2.0, -1.0))
    right = Logistic(0.0, (0.0, 0.0, 0.0, 2.0, -1.0))
    judge = Judge(calibration(fits=fits, right=right), ["a", "b"], {}, Wish())
    found = judge(*batch([0.5, 0.1]), terms=np.array([[5, 4]], np.int32))
    assert found.fit[0] == pytest.approx(1 / (1 + np.exp(-(2 * 2 - 5))))
    assert found.right[0, 0] == pytest.approx(found.fit[0])


def test_unfilled_and_lone_tools() -> None:
    """No tool at all never fits; a lone one has no lead; an unfilled place has no probability."""
    judge = Judge(calibration(offsets={}), ["a", "b"], {}, Wish(recall=0.96))
    found = judge(*batch([-np.inf, -np.inf], [0.5, -np.inf]))
    assert (found.fit[0], found.abstained[0]) == (0.0, True)
    assert np.isnan(found.right[0]).all()
    assert found.right[1, 0] == pytest.approx(0.5)
    assert np.isnan(found.right[1, 1])


def test_a_tools_own_term_holds_while_its_summary_does() -> None:
    """A tool that changed since falls back to the common mapping."""
    ids = ["read", "weather"]
    same = Judge(calibration(), ids, hashes(), Wish())
    changed = Judge(calibration(), ids, {**hashes(), "weather": "other"}, Wish())
    scores, rows, queries = batch([0.5, 0.5])
    odds = [
        right / (1 - right)
        for right in (judge(scores, rows, queries).right[0, 1] for judge in (same, changed))
    ]
    assert np.log(odds[0] / odds[1]) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("wish", "threshold"),
    [
        (Wish(), 0.0),
        (Wish(recall=1.0), 0.1),
        (Wish(recall=0.95), 0.5),
        (Wish(recall=0.1), 0.9),
        (Wish(precision=0.5), 0.1),
        (Wish(precision=0.81), 0.9),
    ],
)
def test_wish_to_threshold(wish: Wish, threshold: float) -> None:
    """The highest threshold of a recall, the lowest of a precision."""
    assert wish.threshold(POINTS) == threshold


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"precision": 0.9, "recall": 0.9}, "at most one"),
        ({"precision": 0}, "precision is 0"),
        ({"recall": 1.5}, "recall is 1.5"),
        ({"recall": float("nan")}, "recall is nan"),
        ({"recall": "0.9"}, "recall is '0.9'"),
    ],
)
def test_bad_wishes_are_refused(values: dict[str, Any], says: str) -> None:
    """Both at once, or a share that is none."""
    with pytest.raises(InvalidConfig, match=says):
        Wish(**values)


def test_precision_out_of_reach_is_told() -> None:
    """With the best that can be had."""
    with pytest.raises(InvalidConfig, match=r"precision is 0\.99; .* 0\.950 at most"):
        Wish(precision=0.99).threshold(POINTS)


def test_stored_and_read_back_equal(tmp_path: Path) -> None:
    """Through the file, bit for bit; a later one of the same key takes its place."""
    learnt = calibration(background=tuple(np.random.default_rng(0).random(256).tolist()))
    with Catalog(tmp_path / "c.db") as catalog:
        catalog.save_calibration(replace(learnt, queries=1))
        catalog.save_calibration(learnt)
        catalog.save_calibration(replace(learnt, ranking="other"))
    with Catalog(tmp_path / "c.db") as catalog:
        stored = catalog.calibrations()
    assert stored.keys() == {(ENCODER.name, "dense"), (ENCODER.name, "other")}
    assert stored[ENCODER.name, "dense"] == learnt


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"fits": 1}', "null"])
def test_damaged_calibration_is_told(text: str) -> None:
    """With what to do."""
    with pytest.raises(InvalidCatalog, match="run ta-fast calibrate again"):
        read_calibration(text)
    assert read_calibration(write_calibration(calibration())) == calibration()


def test_files_of_version_1_are_upgraded(tmp_path: Path) -> None:
    """Tools stay, and a calibration can be kept; by two processes at once."""
    path = tmp_path / "old.db"
    with Catalog(path) as catalog:
        catalog.replace([Source("file", TOOLS)])
    with sqlite3.connect(path) as raw:
        raw.execute("DROP TABLE calibrations")
        raw.execute("PRAGMA user_version = 1")
    raw.close()
    with Catalog(path) as catalog, Catalog(path) as again:
        assert (len(catalog), catalog.calibrations()) == (3, {})
        catalog.save_calibration(calibration())
        assert len(again.calibrations()) == 1


def test_what_is_stale() -> None:
    """Another encoder, another ranking, new, changed and removed tools."""
    learnt = calibration()
    stored = {(learnt.encoder, learnt.ranking): learnt}
    assert usable(stored, ENCODER.name, "dense", hashes()) == (learnt, "")
    assert usable({}, ENCODER.name, "dense", hashes()) == (None, "")
    for encoder, ranking in (("other", "dense"), (ENCODER.name, "hybrid")):
        found, says = usable(stored, encoder, ranking, hashes())
        assert found is None
        assert f"no calibration for encoder {encoder} and ranking {ranking}" in says
    tools = [replace(TOOLS[0], description="read anything"), *TOOLS[2:], Tool("new", "new", "x")]
    found, says = usable(stored, ENCODER.name, "dense", hashes(tools))
    assert found == learnt
    assert "of 3, 2 are new or changed since, and 1 are gone" in says


def test_stale_calibration_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A warning when it is loaded; none at each refresh, none when nothing changed."""
    with caplog.at_level(logging.WARNING, logger="ta_fast"):
        build(calibration())
        assert not caplog.records
        catalog, attention = build(calibration(), [*TOOLS, Tool("new", "new", "something")])
        catalog.replace([Source("more", [Tool("more", "more", "and more")])])
        assert attention.refresh()
    assert [record.message.count("1 are new") for record in caplog.records] == [1]


def test_wish_without_a_calibration_is_refused() -> None:
    """What cannot be kept is not promised: none at all, or one of another encoder."""
    with pytest.raises(InvalidConfig, match="no calibration; run ta-fast calibrate"):
        build(None, recall=0.95)
    with pytest.raises(InvalidConfig, match="only for other, dense"):
        build(calibration(encoder="other"), precision=0.8)


def test_without_a_calibration_nothing_changes() -> None:
    """No probability, and nobody abstains."""
    _, attention = build(None)
    promotion = attention.before_model(Turn("read a text file", threshold=0.1))
    assert (promotion.fit, promotion.abstained) == (None, False)
    assert [tool.probability for tool in promotion.tools] == [None] * len(promotion.tools)


def test_calibration_without_a_wish_only_tells() -> None:
    """The same tools as without it, with probabilities, however little fits."""
    turns = [
        Turn("read a text file", threshold=0.1),
        Turn("weather report", top_k=1, threshold=-1.0),
        Turn("quantum zebra", threshold=-1.0),
        Turn("weather report for a city", facts=frozenset({"may:write"}), threshold=0.9),
    ]
    _, plain = build(None)
    _, judged = build(calibration())
    for before, after in zip(plain.before_models(turns), judged.before_models(turns), strict=True):
        assert [(t.id, t.score) for t in before.tools] == [(t.id, t.score) for t in after.tools]
        assert not after.abstained
        assert after.fit is not None
        assert all(t.probability is not None for t in after.tools)


def test_a_turn_that_nothing_fits_promotes_only_what_is_pinned() -> None:
    """It says so; a forbidden pinned tool stays forbidden; another turn of the batch is served."""
    _, attention = build(calibration(), recall=0.95, always_include=["read", "write"])
    none, some = attention.before_models(
        [Turn("quantum zebra", threshold=-1.0), Turn("weather report for a city", threshold=0.3)]
    )
    assert (none.ids, none.abstained) == (("read",), True)
    assert none.fit is not None
    assert none.fit < 0.5
    assert (none.tools[0].pinned, none.tools[0].score, none.tools[0].probability) == (
        True,
        None,
        None,
    )
    assert (some.ids[0], some.abstained) == ("weather", False)
    assert some.tools[0].probability is not None
    assert some.tools[0].probability > 0.5


def test_a_batch_judges_like_single_turns() -> None:
    """Whatever k and threshold the others have, also where k is 1."""
    _, attention = build(calibration(), recall=0.95)
    turns = [
        Turn("read a text file", top_k=1, threshold=0.1),
        Turn("weather report for a city", top_k=3, threshold=-1.0),
        Turn("text disk", facts=frozenset({"may:write"}), threshold=0.4),
    ]
    for alone, together in zip(
        map(attention.before_model, turns), attention.before_models(turns), strict=True
    ):
        assert alone.fit == together.fit
        assert [(t.id, t.probability) for t in alone.tools] == [
            (t.id, t.probability) for t in together.tools
        ]


def test_nothing_allowed_abstains() -> None:
    """No tool, no probability that one fits."""
    _, attention = build(calibration(summaries=hashes(TOOLS[1:2])), TOOLS[1:2], recall=0.95)
    promotion = attention.before_model(Turn("write a text file"))
    assert (promotion.tools, promotion.fit, promotion.abstained) == ((), 0.0, True)


def test_abstaining_is_recorded_and_explained() -> None:
    """In the event, as JSON, and for the operator."""
    seen: list[Event] = []
    _, attention = build(calibration(), recall=0.95, on_event=seen.append)
    promotion = attention.before_model(Turn("quantum zebra", session=Session("s"), threshold=-1.0))
    (event,) = seen
    assert isinstance(event, RouteEvent)
    assert (event.fit, event.abstained, event.right) == (promotion.fit, True, ())
    attention.before_model(Turn("weather report for a city", threshold=0.5))
    served = seen[1]
    assert isinstance(served, RouteEvent)
    assert [tool for tool, _ in served.right] == ["weather"]
    assert json.dumps(served.right)
    why = attention.explain(Turn("quantum zebra", threshold=-1.0), "read")
    assert (why.promoted, why.abstained, why.fit) == (False, True, promotion.fit)
    good = attention.explain(Turn("weather report for a city"), "weather")
    assert (good.promoted, good.abstained) == (True, False)
