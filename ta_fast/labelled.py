"""The verbs that need labelled queries: how well tools are found, and what is learnt from it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from ta_fast import commands
from ta_fast.calibration import Calibration, Wish
from ta_fast.catalog import Catalog
from ta_fast.commands import PROGRESS_AFTER, Result
from ta_fast.config import Config, read_config, write_config
from ta_fast.encoder import Encoder, make_encoder
from ta_fast.evaluate import (
    MIN_QUERIES,
    Query,
    best_threshold,
    learn,
    measure,
    rank,
    read_queries,
    sweep_thresholds,
)
from ta_fast.snapshot import Snapshot
from ta_fast.types import TopK


def evaluate(config: Config, tools: Path, queries: Path) -> Result:
    """Retrieval metrics of labelled queries over the tools of a file."""
    encoder = make_encoder(config.encoder)
    with _catalog(config, tools, encoder) as catalog:
        snapshot = Snapshot(catalog, encoder, config.scorer, ranking=config.ranking)
        labelled, top = _ranked(snapshot, queries)
    return asdict(measure(snapshot.index.ids, labelled, top))


def calibrate(config: Config, tools: Path | None, queries: Path, write_to: Path | None) -> Result:
    """Sweep the threshold for the best F1; on the catalog's own tools, learn probabilities.

    The threshold and what is wished go to the configuration, probabilities to the catalog;
    neither does where ``write_to`` is None.
    """
    encoder = make_encoder(config.encoder)
    wish = Wish(config.precision, config.recall)
    with _catalog(config, tools, encoder) as catalog:
        snapshot = Snapshot(catalog, encoder, config.scorer, ranking=config.ranking)
        labelled, top = _ranked(snapshot, queries)
        promoted = TopK(top.scores[:, : config.top_k], top.rows[:, : config.top_k])
        points = sweep_thresholds(snapshot.index.ids, labelled, promoted)
        best = best_threshold(points)
        enough = sum(bool(query.gold) for query in labelled) >= MIN_QUERIES
        learnt = None
        if tools is None and (enough or wish):
            learnt = _learn(snapshot, labelled, catalog)
        told = None if learnt is None else _told(learnt, wish)
        if write_to is not None and learnt is not None:
            catalog.save_calibration(learnt)
    if write_to is not None:
        stored = read_config(write_to) if write_to.exists() else Config()
        stored = replace(stored, threshold=best.threshold)
        if learnt is not None:
            stored = replace(stored, precision=wish.precision, recall=wish.recall)
        write_config(write_to, stored)
    return {
        "best": asdict(best),
        "sweep": [asdict(point) for point in points],
        "queries": len(labelled),
        "written": str(write_to) if write_to else None,
        "probabilities": told,
    }


def _catalog(config: Config, tools: Path | None, encoder: Encoder) -> Catalog:
    """The configured catalog, or one of a file's tools that nothing keeps; embedded."""
    if tools is None:
        catalog = commands.open_catalog(config)
    else:
        catalog = Catalog()
        catalog.replace(commands.file_sources(config, tools))
    commands.embed(catalog, encoder)
    return catalog


def _ranked(snapshot: Snapshot, queries: Path) -> tuple[list[Query], TopK]:
    """Labelled queries, and the ranking of the tools for them."""
    labelled = read_queries(queries, snapshot.index.rows)
    with tqdm(total=len(labelled), desc="ranking", unit="query", delay=PROGRESS_AFTER) as bar:
        return labelled, rank(snapshot, labelled, bar.update)


def _learn(snapshot: Snapshot, labelled: list[Query], catalog: Catalog) -> Calibration:
    with tqdm(total=len(labelled), desc="learning", unit="query", delay=PROGRESS_AFTER) as bar:
        return learn(snapshot, labelled, catalog.summary_hashes(), bar.update)


def _told(learnt: Calibration, wish: Wish) -> Result:
    return {
        "auroc": learnt.auroc,
        "fit_error": learnt.fit_error,
        "right_error": learnt.right_error,
        "abstention": [asdict(point) for point in learnt.points],
        "abstain_below": wish.threshold(learnt.points),
    }
