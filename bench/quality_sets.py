"""Labelled sets made by others: retrieval, and the tokens of real definitions.

The sets are not part of this repository. The folder that holds them is named by the environment
variable TA_FAST_DATA, by default ``../shared/data`` beside the checkout; that of the sets which
``bench.training_sets`` writes by TA_FAST_SETS. BFCL comes from the package ``bfcl-eval`` as well.
What is absent is named and left out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from bench.quality_bed import QUICK, Bed, Row, bar
from ta_fast.catalog import Catalog
from ta_fast.catalog.sources import read_file
from ta_fast.encoder import Encoder
from ta_fast.encoder.model_folder import SHIPPED
from ta_fast.errors import BackendUnavailable
from ta_fast.evaluate import Query, measure, rank, read_queries
from ta_fast.evaluate.bfcl import bfcl_folder, read_bfcl
from ta_fast.evaluate.testbed.exposure import ArrayTokens, Exposure
from ta_fast.evaluate.testbed.methods import (
    ANY_SCORE,
    DEFAULT_CHOICE,
    Choice,
    make_attention,
    narrowed,
    promote,
)
from ta_fast.evaluate.testbed.tasks import TaskTurn
from ta_fast.snapshot import Snapshot
from ta_fast.types import Source, Tool

_BESIDE = str(Path(__file__).parents[2] / "shared" / "data")
_NAMED = os.environ.get("TA_FAST_DATA", _BESIDE), os.environ.get("TA_FAST_SETS", "")
DATA = tuple(Path(folder) for folder in _NAMED if folder)
PUBLIC = ("toollinkos", "bfcl_live_dedup", "bfcl_synth", "metatool_single", "real_six_gtc")
BFCL = "bfcl-eval, live"
NEVER_TRAINED = ("nestful", "agentdojo_tasks", "home_sentences")
"""Sets that the shipped encoder was not trained on; it was trained on every other one here."""
REAL = ("real_six", "real_six_gtc")


def folder_of(name: str) -> Path:
    """Where a set is.

    Raises:
        FileNotFoundError: it is in none of the folders.
    """
    for folder in DATA:
        if (folder / name / "tools.jsonl").exists():
            return folder / name
    raise FileNotFoundError(f"{name} is in no folder of sets")


def labelled(name: str) -> tuple[Sequence[Tool], list[Query]]:
    """A set's tools and queries; see ``folder_of`` for what it raises."""
    tools = read_file(folder_of(name) / "tools.jsonl").tools
    return tools, read_queries(folder_of(name) / "queries.jsonl", {tool.id for tool in tools})


def present(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Which sets are there, and which are absent."""
    there = [name for name in names if any((folder / name).is_dir() for folder in DATA)]
    return there, [name for name in names if name not in there]


def trained_on(bed: Bed, name: str) -> bool:
    """Whether the encoder was trained on a set, so that its figure there is none of quality."""
    return bed.encoder.name.startswith(SHIPPED) and name not in NEVER_TRAINED


def retrieval(bed: Bed) -> Row:
    """Recall, MRR and nDCG on each labelled set, by ranking."""
    there, absent = present((*PUBLIC, *NEVER_TRAINED))
    rows = []
    for name in there:
        rows += _retrieved(bed, name, *labelled(name))
    try:
        found = read_bfcl(bfcl_folder())
        rows += _retrieved(bed, BFCL, found.tools, found.queries)
    except BackendUnavailable as error:
        absent.append(f"{BFCL} ({error})")
    return {"rows": rows, "absent": absent}


def _retrieved(bed: Bed, name: str, tools: Sequence[Tool], queries: Sequence[Query]) -> list[Row]:
    queries = queries[:: QUICK if bed.quick else 1]
    rows = []
    for ranking in bed.rankings:
        snapshot = snapshot_of(tools, bed.encoder, ranking)
        with bar(name, queries) as advance:
            top = rank(snapshot, queries, advance.update)
        figures = asdict(measure(snapshot.index.ids, queries, top))
        row = {"set": name, "trained_on": trained_on(bed, name), "tools": len(tools)}
        rows.append({**row, "ranking": ranking, **figures})
    return rows


def snapshot_of(tools: Sequence[Tool], encoder: Encoder, ranking: str) -> Snapshot:
    """The tools alone, ranked so."""
    catalog = Catalog()
    catalog.replace([Source("set", tools)])
    return Snapshot(catalog, encoder, "auto", ranking=ranking)


def real_definitions(bed: Bed) -> Row:
    """Tool tokens a turn on definitions that real MCP servers returned."""
    there, absent = present(REAL)
    if REAL[-1] in absent:  # it has the queries
        return {"rows": [], "absent": list(REAL)}
    rows = []
    for name in there:
        rows += _real(bed, name, read_file(folder_of(name) / "tools.jsonl").tools)
    return {"rows": rows, "absent": absent}


def _real(bed: Bed, name: str, tools: Sequence[Tool]) -> list[Row]:
    """Every method that needs no state and no history; the real servers state no preconditions."""
    ids = {tool.id for tool in tools}
    queries = read_queries(folder_of(REAL[-1]) / "queries.jsonl", ids)
    turns = [TaskTurn(query.text, (), frozenset()) for query in queries]
    arrays = ArrayTokens(tools)
    everything = arrays.count(tuple(arrays.texts))
    rows = [{"set": name, "tools": len(tools), "method": "B1", "steady": everything, "pool": 0}]
    rows[0] |= {"recall": 1.0, "reduction": 0.0}
    for ranking in bed.rankings:
        ranked = promote(
            make_attention(tools, bed.encoder, ranking=ranking), turns, Choice(20, ANY_SCORE)
        )
        for label, choice in _real_choices(ranking).items():
            shown = narrowed(ranked, arrays, choice)
            steady = fmean(e.schema_tokens for e in shown)
            rows.append(
                {
                    "set": name,
                    "tools": len(tools),
                    "method": label,
                    "steady": steady,
                    "pool": fmean(e.pool_tokens for e in shown) if "B3" not in label else 0,
                    "recall": fmean(map(_found, queries, shown)),
                    "reduction": 1 - steady / everything,
                }
            )
    return rows


def _real_choices(ranking: str) -> dict[str, Choice]:
    named = {
        f"Tool Attention, {ranking}, k = 10, threshold 0.28": DEFAULT_CHOICE,
        f"Tool Attention, {ranking}, k = 5, no threshold": Choice(5, ANY_SCORE),
        f"Tool Attention, {ranking}, k = 10, no threshold": Choice(10, ANY_SCORE),
    }
    return {"B3": Choice(10, ANY_SCORE), **named} if ranking == "dense" else named


def _found(query: Query, shown: Exposure) -> float:
    ids = set(shown.ids)
    return fmean(bool(group & ids) for group in query.gold)
