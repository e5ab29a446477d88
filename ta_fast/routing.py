"""What a batch of turns finds in one epoch: tools by score, and how likely they are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from ta_fast.calibration import Judge
from ta_fast.snapshot import Snapshot
from ta_fast.types import F32, U32, Turn


@dataclass(frozen=True, slots=True)
class Found:
    """What one turn finds.

    Attributes:
        scores: Of the tools to promote, by id, best first; none where the turn abstained.
        query: The turn's embedding ``[D]``, None where it stayed on a GPU.
        seconds: Durations of the batch by stage.
        right: With a calibration, the probability that each of the tools is right, by id.
        fit: With a calibration, the probability that some allowed tool fits the turn.
        abstained: ``fit`` is too low.
    """

    scores: dict[str, float]
    query: F32 | None
    seconds: dict[str, float]
    right: Mapping[str, float] = field(default_factory=dict)
    fit: float | None = None
    abstained: bool = False


def find(
    snapshot: Snapshot, turns: Sequence[Turn], texts: Sequence[str], allowed: U32, *, vectors: bool
) -> list[Found]:
    """Find the tools of B turns: one encoder call, one scorer call.

    Args:
        snapshot: The epoch.
        turns: Their ``top_k`` and ``threshold`` are used.
        texts: What is embedded of each.
        allowed: Allowed gate classes, uint32 ``[B, ceil(G/32)]``.
        vectors: The embeddings are wanted on the host.
    """
    if snapshot.judge is not None:
        return _judged(snapshot, snapshot.judge, turns, texts, allowed)
    k = min(max(turn.top_k for turn in turns), max(1, len(snapshot.index)))
    thresholds = np.array([turn.threshold for turn in turns], dtype=np.float32)
    routed = snapshot.pipeline.route(texts, allowed, k, thresholds, vectors=vectors)
    ids, found = snapshot.index.ids, []
    for b, turn in enumerate(turns):
        rows = routed.top.rows[b, : turn.top_k].tolist()
        pairs = zip(rows, routed.top.scores[b, : turn.top_k].tolist(), strict=True)
        scores = {ids[row]: score for row, score in pairs if row >= 0}
        query = None if routed.queries is None else routed.queries[b]
        found.append(Found(scores, query, routed.seconds))
    return found


def _judged(
    snapshot: Snapshot, judge: Judge, turns: Sequence[Turn], texts: Sequence[str], allowed: U32
) -> list[Found]:
    # The calibration sees the two best tools whatever k and the threshold, applied after it.
    k = max(2, min(max(turn.top_k for turn in turns), len(snapshot.index)))
    everything = np.full(len(turns), -np.inf, dtype=np.float32)
    routed = snapshot.pipeline.route(texts, allowed, k, everything, vectors=True)
    top, queries = routed.top, cast(F32, routed.queries)
    judgement = judge(top.scores, top.rows, queries, routed.words)
    thresholds = np.array([[turn.threshold] for turn in turns], dtype=np.float32)
    limits = np.array([[turn.top_k] for turn in turns])
    kept = (top.scores >= thresholds) & (top.rows >= 0) & (np.arange(k) < limits)
    kept &= ~judgement.abstained[:, None]
    ids, found = snapshot.index.ids, []
    for b, fit in enumerate(judgement.fit.tolist()):
        names = [ids[row] for row in top.rows[b, kept[b]].tolist()]
        scores = top.scores[b, kept[b]].tolist()
        right = judgement.right[b, kept[b]].tolist()
        found.append(
            Found(
                dict(zip(names, scores, strict=True)),
                queries[b],
                routed.seconds,
                dict(zip(names, right, strict=True)),
                fit,
                bool(judgement.abstained[b]),
            )
        )
    return found
