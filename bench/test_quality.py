"""The report says what was measured, what was not, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import quality_abstention, quality_calibration, quality_sets
from bench.quality import DOCS, REPORT, RESULTS, rounded
from bench.quality_abstention import judged
from bench.quality_bed import MAIN, Bed, RememberingEncoder
from bench.quality_plots import draw
from bench.quality_tables import tables, write_into
from bench.quality_testbed import choices
from ta_fast.encoder.model_folder import SHIPPED
from ta_fast.evaluate.testbed.tasks import PLAIN_SHARE
from ta_fast.testing import HashingEncoder


def committed() -> Any:
    """The results in the repository."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def test_document_shows_what_the_results_say(tmp_path: Path) -> None:
    """The report's tables are those that the committed results give."""
    copy = tmp_path / REPORT
    copy.write_text((DOCS / REPORT).read_text(encoding="utf-8"), encoding="utf-8")
    write_into(copy, tables(committed()))
    assert copy.read_text(encoding="utf-8") == (DOCS / REPORT).read_text(encoding="utf-8")


def test_share_of_plain_requests_follows_its_rule() -> None:
    """Of the shares that were tried, it takes plain MiniLM nearest to the public sets' mean."""
    found = committed()["registers"]
    wished = found["means"]["minilm"]
    nearest = min(found["shares"], key=lambda row: abs(row["minilm"] - wished))
    assert nearest["share"] == PLAIN_SHARE


def test_plots_are_drawn(tmp_path: Path) -> None:
    """Every plot that the report shows."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    drawn = draw(committed(), tmp_path)
    shown = (DOCS / REPORT).read_text(encoding="utf-8")
    assert all(f"]({path.name})" in shown for path in drawn)
    assert all("<svg" in path.read_text(encoding="utf-8") for path in drawn)


def test_a_table_without_a_place_is_an_error(tmp_path: Path) -> None:
    """Nothing that was measured is dropped."""
    path = tmp_path / "report.md"
    path.write_text("<!-- a -->\nold\n<!-- end of a -->\n")
    write_into(path, {"a": "new"})
    assert path.read_text() == "<!-- a -->\nnew\n<!-- end of a -->\n"
    with pytest.raises(ValueError, match="no place for the table 'b'"):
        write_into(path, {"b": "new"})


def test_abstention_by_hand() -> None:
    """Scores 4 3 2 1, right right wrong right: two of three pairs are in order."""
    found = judged(np.array([4, 3, 2, 1], np.float32), [True, True, False, True])
    assert found["auroc"] == pytest.approx(2 / 3)
    at = {point["recall"]: point["precision"] for point in found["points"]}
    assert (at[0.65], at[0.7], at[1.0]) == (1.0, 0.75, 0.75)


def test_absent_sets_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing stands in for them."""
    monkeypatch.setattr(quality_sets, "DATA", (tmp_path,))
    bed = Bed(HashingEncoder(), quick=True)
    assert quality_sets.real_definitions(bed) == {
        "rows": [],
        "absent": ["real_six", "real_six_gtc"],
    }
    calibration = quality_calibration.calibration(bed)
    assert (calibration["rows"], calibration["absent"]) == ([], list(quality_calibration.SETS))
    absent = " ".join(quality_abstention.abstention(bed)["absent"])
    assert "metatool_awareness" in absent
    assert "bfcl" in absent


def test_remembered_texts_are_encoded_once() -> None:
    """And come back as they were, in any order."""
    asked: list[str] = []

    class Counting(HashingEncoder):
        def encode(self, texts, *, progress=None):  # type: ignore[no-untyped-def]
            asked.extend(texts)
            return super().encode(texts, progress=progress)

    encoder = RememberingEncoder(Counting())
    first = encoder.encode(["a", "b", "a"])
    second = encoder.encode(["b", "c"])
    assert asked == ["a", "b", "c"]
    assert np.array_equal(first[1], second[0])
    assert (encoder.dim, encoder.name) == (64, "hashing-64")


def test_choices_come_from_the_held_out_tasks() -> None:
    """The cheapest with the wished recall has it there; the cheap one saves what was wished."""
    bed = Bed(HashingEncoder(256), quick=True)
    found = choices(bed, "dense", MAIN)
    ranked = bed.ranked(held_out=True)
    for name, choice in found.items():
        if choice is not None:
            row = bed.row("", bed.cut(ranked, choice), bed.held_out)
            assert row["reduction" if name == "tokens" else "recall"] >= 0.95


@pytest.mark.parametrize(
    ("encoder", "reduction", "recall"), [(SHIPPED, 0.949, 0.95), ("minilm", 0.949, 0.91)]
)
def test_steady_turns_save_tokens_and_keep_the_right_tools(
    encoder: str, reduction: float, recall: float
) -> None:
    """Each turn by itself, k and threshold chosen on other tasks, where they save 95 %."""
    rows = committed()["methods"][encoder][MAIN]
    found = [row for row in rows if row["method"].startswith("Tool Attention, hybrid, ")]
    chosen = [row for row in found if not row["method"].endswith("default")]
    assert any(row["reduction"] >= reduction and row["recall"] >= recall for row in chosen)


@pytest.mark.parametrize("encoder", [SHIPPED, "minilm"])
@pytest.mark.parametrize(("name", "least"), [("metatool_awareness", 0.92), ("bfcl, irre", 0.86)])
def test_abstention_reaches_its_aim(encoder: str, name: str, least: float) -> None:
    """The best calibration that has not seen the queries tells whether some tool fits."""
    rows = committed()["abstention"][encoder]["rows"]
    found = [row["auroc"] for row in rows if row["set"].startswith(name) and "error" in row]
    assert max(found) >= least


@pytest.mark.parametrize("encoder", [SHIPPED, "minilm"])
def test_a_hundred_labels_calibrate_most_catalogs(encoder: str) -> None:
    """Calibration error on queries left out: at most 0.05 on all sets but one, 0.1 on that."""
    rows = committed()["calibration"][encoder]["rows"]
    few = sorted(row["few"] for row in rows if row["few"] is not None)
    assert few[-2] <= 0.05
    assert few[-1] <= 0.1


def test_sets_are_looked_for_in_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first that has one; what is in none is said by name."""
    (tmp_path / "b" / "some").mkdir(parents=True)
    (tmp_path / "b" / "some" / "tools.jsonl").write_text("")
    monkeypatch.setattr(quality_sets, "DATA", (tmp_path / "a", tmp_path / "b"))
    assert quality_sets.folder_of("some") == tmp_path / "b" / "some"
    assert quality_sets.present(["some", "other"]) == (["some"], ["other"])
    with pytest.raises(FileNotFoundError, match="other is in no folder of sets"):
        quality_sets.folder_of("other")


def test_figures_are_rounded() -> None:
    """To six digits, however deep."""
    assert rounded({"a": [0.123456789, 12], "b": (1234567.8,)}) == {
        "a": [0.123457, 12],
        "b": [1234570.0],
    }
