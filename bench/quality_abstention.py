"""When no tool fits: how well a turn's best score, and its calibrated probability, tell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.quality_bed import Bed, Row
from bench.quality_sets import (
    NEVER_TRAINED,
    folder_of,
    labelled,
    present,
    snapshot_of,
    trained_on,
)
from ta_fast.calibration import Calibration, shipped
from ta_fast.catalog.sources import read_file
from ta_fast.errors import BackendUnavailable
from ta_fast.evaluate import Query, fit_of, learn, learn_across, measure_abstention, rank
from ta_fast.evaluate.calibration_measures import best_tools, first_kept
from ta_fast.snapshot import Snapshot
from ta_fast.types import F32

LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 21))
# What each set's probabilities are learnt on: others, of other origin.
LEARNT_ON = {
    "metatool_awareness": ("toollinkos", "bfcl_live_dedup", "bfcl_synth", "real_six_gtc"),
    "bfcl, irrelevance": ("toollinkos", "metatool_single", "real_six_gtc"),
}
OWN = {"metatool_awareness": "metatool_single"}
"""Where there are labels of the same tools by other queries."""
LEARNT_QUERIES = 1_000
"""Of a set, at most, so that learning takes seconds."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries to one catalog, what each may have, and whether some tool fits."""

    folder: str
    queries: list[Query]
    candidates: list[list[str]] | None
    fits: list[bool]


def abstention(bed: Bed) -> Row:
    """AUROC, precision and recall of abstaining, by the best score and by the probability."""
    rows: list[Row] = []
    absent = []
    for ranking in bed.rankings:
        scores, fits = _small_talk(bed, ranking)
        row: Row = {"set": "testbed, small talk", "trained_on": False, "score": ranking}
        rows.append({**row, **judged(scores, fits)})
    for name, read in {"metatool_awareness": _awareness, "bfcl, irrelevance": _irrelevance}.items():
        try:
            asked = read()
            fits = [fit for part in asked for fit in part.fits]
            row = {"set": name, "trained_on": trained_on(bed, name)}
            for ranking in bed.rankings:
                scores = np.concatenate([_best_scores(bed, part, ranking) for part in asked])
                rows.append({**row, "score": ranking, **judged(scores, fits)})
            for label, learnt in _learnt(bed, name, asked).items():
                rows.append({**row, "score": label, **_calibrated(bed, learnt, asked, fits)})
        except (FileNotFoundError, BackendUnavailable) as error:
            absent.append(f"{name} ({error})")
    return {"rows": rows, "absent": absent}


def judged(scores: F32, fits: Sequence[bool]) -> Row:
    """AUROC and a precision-recall curve of scores, higher where a tool is taken to fit.

    Args:
        scores: ``[Q]``, best scores or probabilities.
        fits: Whether some tool does fit.
    """
    right = np.array(fits, dtype=bool)
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    precision, recall = hits / np.arange(1, len(order) + 1), hits / right.sum()
    points = [
        {"recall": level, "precision": float(precision[np.argmax(recall >= level - 1e-9)])}
        for level in LEVELS
    ]
    auroc = measure_abstention(scores, right).auroc
    return {"queries": len(right), "fitting": int(right.sum()), "auroc": auroc, "points": points}


def _learnt(bed: Bed, name: str, asked: Sequence[Asked]) -> dict[str, Calibration]:
    """Calibrations that have seen none of the queries, by what they were learnt on.

    Scores of a set that the encoder was trained on are too good to learn from for another.
    """
    trained = any(trained_on(bed, folder) for folder in LEARNT_ON[name])
    folders, _ = present(NEVER_TRAINED) if trained else (LEARNT_ON[name], ())
    sets = [_few(bed, folder) for folder in folders]
    found = {}
    if len(sets) > 1:
        found[f"{bed.ranking}, calibrated on {', '.join(folders)}"] = learn_across(sets)
    if with_it := shipped(bed.encoder.name, bed.ranking):
        found[f"{bed.ranking}, the encoder's own calibration"] = with_it
    if name in OWN:
        snapshot, queries = _few(bed, OWN[name])
        seen = {query.text for part in asked for query in part.queries}
        own = [query for query in queries if query.text not in seen]
        found[f"{bed.ranking}, calibrated on its tools' labels in {OWN[name]}"] = learn(
            snapshot, own, {}
        )
    return found


def _few(bed: Bed, folder: str) -> tuple[Snapshot, list[Query]]:
    tools, queries = labelled(folder)
    few = queries[:: len(queries) // LEARNT_QUERIES + 1]
    return snapshot_of(tools, bed.encoder, bed.ranking), few


def _calibrated(bed: Bed, learnt: Calibration, asked: Sequence[Asked], fits: Sequence[bool]) -> Row:
    """The probability that some tool fits."""
    parts = []
    for part in asked:
        tools = read_file(folder_of(part.folder) / "tools.jsonl").tools
        snapshot = snapshot_of(tools, bed.encoder, bed.ranking)
        parts.append(fit_of(snapshot, learnt, part.queries, part.candidates))
    probabilities = np.concatenate(parts)
    error = measure_abstention(probabilities, fits).error
    row = judged(probabilities.astype(np.float32), fits)
    return {"error": error, **row}


def _best_scores(bed: Bed, asked: Asked, ranking: str) -> F32:
    tools = read_file(folder_of(asked.folder) / "tools.jsonl").tools
    snapshot = snapshot_of(tools, bed.encoder, ranking)
    if asked.candidates is None:
        return rank(snapshot, asked.queries).scores[:, 0]
    top = best_tools(snapshot, [query.text for query in asked.queries], len(tools)).top
    own = [[snapshot.index.rows[tool] for tool in offered] for offered in asked.candidates]
    kept = np.array([np.isin(rows, mine) for rows, mine in zip(top.rows, own, strict=True)])
    return first_kept(top, kept, 2).scores[:, 0]


def _small_talk(bed: Bed, ranking: str) -> tuple[F32, list[bool]]:
    best = [promotion.tools[0].score for promotion in bed.ranked(ranking)]
    return np.array(best, dtype=np.float32), [bool(turn.gold) for turn in bed.turns]


def _awareness() -> list[Asked]:
    rows = _rows("metatool_awareness")
    return [Asked("metatool_awareness", _queries(rows), None, [bool(row["gold"]) for row in rows])]


def _irrelevance() -> list[Asked]:
    """BFCL's live questions, each against the functions that it offers."""
    asked = []
    for folder in ("bfcl_irrelevance_live", "bfcl_live_dedup"):
        rows = [row for row in _rows(folder) if row.get("candidates")]
        offered = [row["candidates"] for row in rows]
        asked.append(Asked(folder, _queries(rows), offered, [bool(row["gold"]) for row in rows]))
    return asked


def _queries(rows: Sequence[Any]) -> list[Query]:
    return [Query(row["id"], row["text"], ()) for row in rows]


def _rows(folder: str) -> list[Any]:
    text = (folder_of(folder) / "queries.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
