"""The paper's tables on the testbed: definitions, methods, session lists, ablations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from bench.quality_bed import READINGS, Bed, Row, all_turns, summaries_of
from ta_fast.evaluate.testbed.cli_client import CommandHelp, cli_discovery
from ta_fast.evaluate.testbed.exposure import Exposure
from ta_fast.evaluate.testbed.measures import utilisation
from ta_fast.evaluate.testbed.methods import (
    ANY_SCORE,
    DEFAULT_CHOICE,
    Choice,
    all_schemas,
    make_attention,
    most_used,
    nearest,
    promote,
    session_lists,
    static,
    tool_attention,
)
from ta_fast.evaluate.testbed.tasks import Task
from ta_fast.evaluate.testbed.tfidf import TfidfEncoder
from ta_fast.evaluate.testbed.tools import PAPER_MEANS, PAPER_TOTAL, schema_tokens
from ta_fast.sessions import MAX_DELIVERED
from ta_fast.types import Promotion, Tool

WISHED_REDUCTION, WISHED_RECALL = 0.95, 0.95
KS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 40, 60, 80)
THRESHOLDS = (ANY_SCORE, 0.1, 0.15, 0.2, 0.25, 0.28, 0.32, 0.36, 0.4, 0.45, 0.5, 0.55, 0.6)
LIMITS = (None, 8, 16, 32, MAX_DELIVERED)
"""Tools in a session's list; the last is what ta_fast.sessions takes if it is not told."""


def definitions(bed: Bed) -> Row:
    """The tools' schema sizes beside the paper's."""
    rows = []
    for server, paper in PAPER_MEANS.items():
        sizes = [schema_tokens(tool) for tool in bed.tools if tool.server == server]
        rows.append({"server": server, "tools": len(sizes), "tokens": fmean(sizes), "paper": paper})
    total = sum(schema_tokens(tool) for tool in bed.tools)
    return {
        "servers": rows,
        "total": total,
        "paper_total": PAPER_TOTAL,
        "sent": bed.everything,
        "tasks": len(bed.tasks),
        "turns": len(bed.turns),
        "kinds": Counter(turn.kind for turn in bed.turns),
        "intents": len({turn.intent for turn in bed.turns}),
        "permitted": fmean(len(bed.permits.permitted(turn.facts)) for turn in bed.turns),
    }


def methods(bed: Bed) -> dict[str, list[Row]]:
    """The main table, in every reading of the tasks."""
    return {reading: _methods(bed, reading) for reading in READINGS}


def _methods(bed: Bed, reading: str) -> list[Row]:
    tasks = bed.read(reading)
    turns = all_turns(tasks)
    rows = [
        bed.row("B1", all_schemas(bed.arrays, turns)),
        bed.row("B2", static(bed.arrays, turns, most_used(bed.held_out))),
        bed.row("B3", nearest(bed.attention("dense", gated=False), bed.arrays, turns)),
        bed.row("B4", cli_discovery(CommandHelp(bed.tools), tasks)),
    ]
    for ranking in bed.rankings:
        rows += _chosen(bed, ranking, reading, context=False)
    return rows + _chosen(bed, bed.ranking, reading, context=True)


def _chosen(bed: Bed, ranking: str, reading: str, *, context: bool) -> list[Row]:
    """Tool Attention as the paper has it, and as the held-out tasks suggest."""
    ranked = bed.ranked(ranking, reading, context=context)
    label = f"{ranking} with the two turns before" if context else ranking
    chosen = choices(bed, ranking, reading, context=context)
    rows = []
    for name, choice in (
        chosen.items() if context else {"default": DEFAULT_CHOICE, **chosen}.items()
    ):
        if choice is not None:
            row = bed.row(f"Tool Attention, {label}, {name}", bed.cut(ranked, choice))
            rows.append({**row, "top_k": choice.top_k, "threshold": choice.threshold})
    return rows


def choices(
    bed: Bed, ranking: str, reading: str, *, context: bool = False
) -> dict[str, Choice | None]:
    """Choices of k and the threshold as the held-out tasks suggest them.

    ``tokens``: the best recall with the wished reduction. ``recall``: the fewest tokens with
    the wished recall; None if no choice has it.
    """
    tried = _tried(bed, bed.ranked(ranking, reading, held_out=True, context=context), None)
    right = [(choice, row) for choice, row in tried if row["recall"] >= WISHED_RECALL]
    return {
        "tokens": _best(tried, bed.everything, "steady"),
        "recall": max(right, key=lambda t: t[1]["reduction"])[0] if right else None,
    }


def _tried(bed: Bed, ranked: Sequence[Promotion], limit: int | None) -> list[tuple[Choice, Row]]:
    """Every choice of k and the threshold on the held-out tasks."""
    ks = [k for k in KS if limit is None or k <= limit]
    tried = [Choice(k, threshold) for k in ks for threshold in THRESHOLDS]
    held_out = bed.held_out
    return [
        (choice, bed.row("", _listed(bed, held_out, ranked, choice, limit), held_out))
        for choice in tried
    ]


def _listed(
    bed: Bed, tasks: Sequence[Task], ranked: Sequence[Promotion], choice: Choice, limit: int | None
) -> list[Exposure]:
    """What a choice shows, in session lists of at most ``limit`` tools or in none."""
    shown = bed.cut(ranked, choice)
    return session_lists(tasks, shown, bed.arrays, bed.permits, limit) if limit else shown


def _best(tried: Sequence[tuple[Choice, Row]], everything: int, tokens: str) -> Choice | None:
    """The choice with the best recall among those whose tokens save what is wished."""
    most = (1 - WISHED_REDUCTION) * everything
    short = [(choice, row) for choice, row in tried if row[tokens] <= most]
    return max(short, key=lambda t: t[1]["recall"])[0] if short else None


def session(bed: Bed) -> list[Row]:
    """Without a session list and with one, k and threshold by the held-out tasks.

    For each limit the best recall where 5 % of B1's tokens may be sent anew on a turn, and
    where no more may be in the context; what no choice reaches is left out.
    """
    rows = []
    for limit in LIMITS:
        tried = _tried(bed, bed.ranked(held_out=True), limit)
        for counted in ("steady", "resident") if limit else ("steady",):
            choice = _best(tried, bed.everything, counted)
            if choice is None:
                continue
            row = bed.row("", _listed(bed, bed.tasks, bed.ranked(), choice, limit))
            row |= {"limit": limit, "counted": counted}
            row |= {"resident_reduction": 1 - row["resident"] / bed.everything}
            rows.append({**row, "top_k": choice.top_k, "threshold": choice.threshold})
    return rows


def curves(bed: Bed) -> list[Row]:
    """Recall against tokens for every k without a threshold, by ranking and reading."""
    rows = []
    for ranking in bed.rankings:
        for reading in READINGS:
            ranked = bed.ranked(ranking, reading)
            points = []
            for k in KS:
                row = bed.row("", bed.cut(ranked, Choice(k, ANY_SCORE)))
                points.append({"k": k, "steady": row["steady"], "recall": row["recall"]})
            rows.append({"ranking": ranking, "reading": reading, "points": points})
    return rows


def ablations(bed: Bed) -> list[Row]:
    """What each part contributes, at the paper's defaults but for the one that is changed."""
    ranked, loose = bed.ranked(), bed.ranked(gated=False)
    rows = [
        bed.row(
            f"as it is: {bed.ranking}, k = 10, threshold 0.28", bed.cut(ranked, DEFAULT_CHOICE)
        ),
        bed.row("no gate", bed.cut(loose, DEFAULT_CHOICE)),
        bed.row("summaries alone, no schema", _summaries_only(bed)),
        bed.row("no lazy loading: all permitted schemas", _all_permitted(bed)),
    ]
    rows += [bed.row(f"k = {k}", bed.cut(ranked, Choice(top_k=k))) for k in (5, 20)]
    rows += [
        bed.row(f"threshold {threshold:.2f}", bed.cut(ranked, Choice(threshold=threshold)))
        for threshold in (0.15, 0.40)
    ]
    rows += [
        bed.row("no threshold", bed.cut(ranked, Choice(threshold=ANY_SCORE))),
        bed.row("no threshold, no gate", bed.cut(loose, Choice(threshold=ANY_SCORE))),
        bed.row(
            "no threshold, with the words of the two turns before",
            tool_attention(
                bed.attention(), bed.arrays, bed.turns, Choice(threshold=ANY_SCORE, context=True)
            ),
        ),
    ]
    described = [replace(tool, summary=_with_server(tool)) for tool in bed.tools]
    attention = make_attention(described, bed.encoder, ranking=bed.ranking)
    shown = tool_attention(attention, bed.arrays, bed.turns, Choice(threshold=ANY_SCORE))
    rows.append(bed.row("no threshold, summaries begin with the server's name", shown))
    rows += _encoders(bed)
    for ranking in bed.rankings:
        if ranking != bed.ranking:
            others = bed.ranked(ranking)
            rows.append(bed.row(f"ranking {ranking}", bed.cut(others, DEFAULT_CHOICE)))
            no_threshold = bed.cut(others, Choice(threshold=ANY_SCORE))
            rows.append(bed.row(f"ranking {ranking}, no threshold", no_threshold))
    return rows


def _summaries_only(bed: Bed) -> list[Exposure]:
    return [Exposure((), 0, promotion.pool_tokens) for promotion in bed.ranked()]


def _all_permitted(bed: Bed) -> list[Exposure]:
    order = {tool: place for place, tool in enumerate(bed.ids)}
    shown = [tuple(sorted(promotion.ids, key=order.__getitem__)) for promotion in bed.ranked()]
    return [
        Exposure(ids, bed.arrays.count(ids), promotion.pool_tokens)
        for ids, promotion in zip(shown, bed.ranked(), strict=True)
    ]


def _encoders(bed: Bed) -> list[Row]:
    """TF-IDF, the paper's other encoder."""
    encoder = TfidfEncoder(summaries_of(bed.tools))
    attention = make_attention(bed.tools, encoder)
    ranked = promote(attention, bed.turns, Choice(len(bed.tools), ANY_SCORE))
    return [
        bed.row("TF-IDF", bed.cut(ranked, DEFAULT_CHOICE)),
        bed.row("TF-IDF, no threshold", bed.cut(ranked, Choice(threshold=ANY_SCORE))),
    ]


def _with_server(tool: Tool) -> str:
    return f"{tool.name}: {tool.server}. {tool.description}"


def utilisations(bed: Bed) -> list[Row]:
    """Utilisation at turn 30 under other assumptions about the conversation's growth."""
    turns = bed.turns
    shown = {
        "B1": all_schemas(bed.arrays, turns),
        "Tool Attention": bed.cut(bed.ranked(), DEFAULT_CHOICE),
    }
    return [
        {"per_turn": per_turn, **{m: utilisation(bed.tasks, e, per_turn) for m, e in shown.items()}}
        for per_turn in (250, 500, 1_000)
    ]
