"""Prompt caches: tokens billed in sessions of 30 turns under each delivery."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from statistics import fmean

from tqdm import tqdm

from bench.quality_bed import Bed, Row, all_turns
from ta_fast.evaluate.testbed.caches import FREE_WRITES, CacheRule
from ta_fast.evaluate.testbed.conversations import WAYS, bill, long_sessions, session_requests
from ta_fast.evaluate.testbed.measures import churn
from ta_fast.evaluate.testbed.methods import ANY_SCORE, DEFAULT_CHOICE, Choice, tool_attention
from ta_fast.evaluate.testbed.tasks import Task

SESSIONS = 20
CHOICES = {
    "k = 10, threshold 0.28": DEFAULT_CHOICE,
    "k = 5, threshold 0.20": Choice(5, 0.20),
    "k = 10, no threshold": Choice(10, ANY_SCORE),
}


def caches(bed: Bed) -> Row:
    """Tokens sent, read, billed; how the promoted set and the pool change from turn to turn."""
    sessions = long_sessions(bed.tasks, SESSIONS)
    rows: list[Row] = []
    for name, choice in tqdm(CHOICES.items(), desc="caches", leave=False):
        for label, way in WAYS.items():
            if way.delivery is None and rows:
                continue  # the same whatever is chosen
            made = session_requests(way, sessions, bed.attention(), bed.arrays, bed.permits, choice)
            requests = list(made)
            charged, free = bill(requests, CacheRule()), bill(requests, FREE_WRITES)
            row = {"choice": name, "way": label, **asdict(charged)}
            rows.append(row | {"billed_free_writes": free.billed})
    return {
        "sessions": len(sessions),
        "rule": asdict(CacheRule()),
        "rows": rows,
        "churn": [_churn(bed, sessions, name) for name in CHOICES],
        "pool_changes": _pool_changes(bed, sessions),
    }


def _churn(bed: Bed, sessions: list[Task], name: str) -> Row:
    shown = tool_attention(bed.attention(), bed.arrays, all_turns(sessions), CHOICES[name])
    new, same = churn(sessions, shown)
    return {"choice": name, "new": new, "same": same, "shown": fmean(len(e.ids) for e in shown)}


def _pool_changes(bed: Bed, sessions: list[Task]) -> float:
    """Share of the turns before which the state, and so the pool, has changed."""
    return fmean(
        bed.permits.permitted(before.facts) != bed.permits.permitted(now.facts)
        for task in sessions
        for before, now in pairwise(task.turns)
    )
