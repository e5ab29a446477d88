"""Tables of poisons, prompt caches and the sets that others made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from bench.quality_format import NAMES, Row, count, figure, share, threshold
from bench.report import table

PAPER_POISONS = "46 of 50 gated out"


def poisons(found: Row) -> str:
    """Poisoned tools promoted on a turn that they aim at."""
    lines = []
    for row in found["rows"]:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(row["by_kind"].items()))
        gate = "with" if row["gated"] else "without"
        paper = PAPER_POISONS if row["gated"] and row["threshold"] > 0 else ""
        promoted = f"{row['promoted']} of {found['count']}"
        cells = [row["ranking"], threshold(row["threshold"]), gate, promoted]
        lines.append([*cells, share(row["share_of_turns"]), kinds, paper])
    heads = ["ranking", "threshold", "gate", "promoted", "of the turns aimed at", "kinds", "paper"]
    flagged = ", ".join(found["flagged_by"])
    note = (
        f"`ta-fast doctor` flags {found['flagged']} of the {found['count']} ({flagged}), and "
        f"{found['flagged_of_ours']} of the testbed's own tools beside them."
    )
    return f"{table(heads, lines)}\n\n{note}"


def caches(found: Row) -> str:
    """Tokens sent, read and billed a turn."""
    heads = ["choice", "delivery", "tokens sent", "hit ratio", "billed", "billed, free writes"]
    lines = [
        [
            "" if row["way"] == "all schemas" else row["choice"],
            row["way"],
            count(row["tokens"]),
            figure(row["hit"]),
            count(row["billed"]),
            count(row["billed_free_writes"]),
            count(row["last"]),
        ]
        for row in found["rows"]
    ]
    return table([*heads, "context at turn 30"], lines)


def churn(found: Row) -> str:
    """How the promoted set changes."""
    lines = [
        [row["choice"], f"{row['shown']:.1f}", f"{row['new']:.2f}", share(row["same"])]
        for row in found["churn"]
    ]
    note = f"The state, and with it the pool, changes before {found['pool_changes']:.0%} of turns."
    heads = ["choice", "promoted", "new since the turn before", "turns with the same set"]
    return f"{table(heads, lines)}\n\n{note}"


def real(results: Mapping[str, Row]) -> str:
    """Tokens and recall on real definitions."""
    heads = ["encoder", "definitions", "tools", "method", "first turn", "steady", "reduction"]
    lines = [
        [
            encoder,
            row["set"],
            count(row["tools"]),
            NAMES.get(row["method"], row["method"]),
            count(row["steady"] + row["pool"]),
            count(row["steady"]),
            share(row["reduction"]),
            figure(row["recall"]),
        ]
        for encoder, row in _rows(results)
    ]
    return table([*heads, "recall"], lines) + _absent(results)


def _rows(results: Mapping[str, Row]) -> Iterator[tuple[str, Row]]:
    """Every encoder's rows."""
    for encoder, found in results.items():
        yield from ((encoder, row) for row in found["rows"])


def _absent(results: Mapping[str, Row]) -> str:
    return absent(next(iter(results.values())))


def retrieval(results: Mapping[str, Row]) -> str:
    """Labelled sets made by others."""
    keys = ("recall_1", "recall_5", "recall_10", "mrr_10", "ndcg_10")
    lines = [
        [
            row["set"],
            count(row["tools"]),
            count(row["count"]),
            encoder,
            "yes" if row["trained_on"] else "no",
            row["ranking"],
            *(figure(row[key]) for key in keys),
        ]
        for encoder, row in sorted(_rows(results), key=_by_set(results))
    ]
    heads = ["set", "tools", "queries", "encoder", "trained on it", "ranking"]
    return table([*heads, "R@1", "R@5", "R@10", "MRR@10", "nDCG@10"], lines) + _absent(results)


def _by_set(results: Mapping[str, Row]) -> Callable[[tuple[str, Row]], int]:
    """Sorts rows by set, in the order of the first encoder's."""
    places: dict[str, int] = {}
    for _, row in _rows(results):
        places.setdefault(row["set"], len(places))
    return lambda pair: places[pair[1]["set"]]


def abstention(results: Mapping[str, Row]) -> str:
    """How well a turn's best score, or its probability, tells whether some tool fits."""
    lines = []
    for encoder, row in sorted(_rows(results), key=_by_set(results)):
        at = {point["recall"]: point["precision"] for point in row["points"]}
        error = figure(row["error"]) if "error" in row else ""
        trained = "yes" if row["trained_on"] else "no"
        cells = [row["set"], encoder, trained, row["score"], count(row["queries"])]
        cells += [count(row["fitting"]), figure(row["auroc"]), error]
        lines.append([*cells, *(figure(at[level]) for level in (0.8, 0.9, 0.95))])
    heads = ["set", "encoder", "trained on it", "score", "queries", "a tool fits", "AUROC"]
    heads += ["calibration error"]
    heads += [f"precision at recall {level}" for level in ("0.80", "0.90", "0.95")]
    return table(heads, lines) + _absent(results)


def calibration(results: Mapping[str, Row]) -> str:
    """How good probabilities are with labels of the catalog's own, few or all, and without."""
    errors = ("across", "few", "error", "right_error")
    lines = [
        [
            row["set"],
            encoder,
            "yes" if row["trained_on"] else "no",
            count(row["queries"]),
            figure(row["auroc"]),
            *(figure(row[key]) for key in errors),
        ]
        for encoder, row in sorted(_rows(results), key=_by_set(results))
    ]
    heads = ["set", "encoder", "trained on it", "queries", "AUROC, own labels"]
    heads += ["error, other catalogs' labels", "error, 100 own labels", "error, own labels"]
    return table([*heads, "error of a tool's probability"], lines) + _absent(results)


def absent(found: Row) -> str:
    """What was left out of a table."""
    return f"\n\nNot there, so left out: {', '.join(found['absent'])}." if found["absent"] else ""
