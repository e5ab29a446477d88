"""The report's results as Markdown tables, beside what the paper claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import quality_tables_sets as sets
from bench.quality_bed import MAIN, READINGS
from bench.quality_format import NAMES, PAPER, Row, both, count, figure, share, threshold
from bench.report import MISSING, table

ABLATIONS = {
    "no gate": "2,462",
    "summaries alone, no schema": "4,820",
    "k = 5": "1,320",
    "k = 20": "4,190",
    "threshold 0.15": "3,270",
    "threshold 0.40": "1,480",
    "TF-IDF": "2,410",
}


def tables(results: Row) -> dict[str, str]:
    """Every table of the report, by the name of its place in the document."""
    return {
        "definitions": definitions(results["definitions"]),
        "methods": methods({name: of[MAIN] for name, of in results["methods"].items()}),
        "projections": projections(),
        "readings": readings(results["methods"]),
        "turns": turns(_shipped(results["methods"])),
        "registers": registers(results["registers"]),
        "session": session(results["session"]),
        "ablations": ablations(results["ablations"]),
        "utilisation": utilisation(results["utilisations"]),
        "scaling": scaling(results["scaling"]),
        "poisons": sets.poisons(results["poisons"]),
        "caches": sets.caches(results["caches"]),
        "churn": sets.churn(results["caches"]),
        "real": sets.real(results["real_definitions"]),
        "retrieval": sets.retrieval(results["retrieval"]),
        "abstention": sets.abstention(results["abstention"]),
        "calibration": sets.calibration(results["calibration"]),
        "where": where(results),
    }


def definitions(found: Row) -> str:
    """Schema sizes by server."""
    lines = [
        [row["server"], str(row["tools"]), f"{row['tokens']:.0f}", f"{row['paper']}"]
        for row in found["servers"]
    ]
    tools = sum(row["tools"] for row in found["servers"])
    lines.append(["all, together", str(tools), count(found["total"]), count(found["paper_total"])])
    kinds = {kind: share(number / found["turns"]) for kind, number in found["kinds"].items()}
    note = (
        f"{count(found['tasks'])} tasks of {count(found['turns'])} turns: {kinds['one_tool']} ask "
        f"for one tool, {kinds['two_tools']} for two, {kinds['follow_up']} continue the turn "
        f"before without saying what, {kinds['small_talk']} need no tool. There are "
        f"{count(found['intents'])} different intents; a turn's state permits "
        f"{found['permitted']:.0f} of the tools on average. All schemas as one array, as it is "
        f"sent: {count(found['sent'])} tokens."
    )
    return f"{table(['server', 'tools', 'tokens a schema', 'paper'], lines)}\n\n{note}"


def _shipped(found: Row) -> Any:
    """The first encoder's part of what both were measured for."""
    return next(iter(found.values()))


def methods(found: Mapping[str, Sequence[Row]]) -> str:
    """The main table."""
    heads = ["encoder", "method", "first turn", "steady", "reduction", "recall", "shown"]
    heads += ["forbidden", "rho at turn 30", "paper: tokens", "paper: rho"]
    lines = []
    for encoder, row in _by_encoder(found):
        paper = PAPER.get(_family(row["method"]), ("", "", ""))
        lines.append(
            [
                encoder,
                _label(row),
                count(row["first"]),
                count(row["steady"]),
                share(row["reduction"]),
                figure(row["recall"]) if row["method"] != "B4" else MISSING,
                f"{row['shown']:.1f}",
                share(row["forbidden"]),
                figure(row["rho"]),
                *paper[:2],
            ]
        )
    return table(heads, lines)


def _by_encoder(found: Mapping[str, Sequence[Row]]) -> Iterator[tuple[str, Row]]:
    """Rows with their encoder; those that need none stand once, without."""
    needless = ("B1", "B2", "B4")
    yield from (("", row) for row in _shipped(found) if row["method"] in needless)
    for encoder, rows in found.items():
        yield from ((encoder, row) for row in rows if row["method"] not in needless)


def projections() -> str:
    """What the paper projects and nobody here measures."""
    lines = [
        [NAMES.get(method, method), MISSING, claimed] for method, (*_, claimed) in PAPER.items()
    ]
    return table(["method", "success, P50, cost of a task", "paper's projection"], lines)


def readings(found: Mapping[str, Mapping[str, Sequence[Row]]]) -> str:
    """Ungated and gated methods in each reading of the tasks."""
    lines = []
    for reading in READINGS:
        for encoder, row in _by_encoder({name: of[reading] for name, of in found.items()}):
            if encoder:
                cells = [encoder, _label(row), count(row["first"]), count(row["steady"])]
                lines.append([reading, *cells, share(row["reduction"]), figure(row["recall"])])
    heads = ["requests", "encoder", "method", "first turn", "steady", "reduction", "recall"]
    return table(heads, lines)


def turns(found: Mapping[str, Sequence[Row]]) -> str:
    """Recall by kind of turn."""
    kinds = ("one_tool", "two_tools", "follow_up")
    lines = [
        [reading, _label(row), *(figure(row["recall_by"].get(kind)) for kind in kinds)]
        for reading, rows in found.items()
        for row in rows
        if row["method"].startswith("Tool Attention") or row["method"] == "B3"
    ]
    return table(["requests", "method", "one tool", "two tools", "follow-up"], lines)


def registers(found: Row) -> str:
    """How hard the requests are, beside those of the public sets."""
    lines = [
        [
            f"testbed, {row['set']}" if row["set"] in READINGS else row["set"],
            count(row["tools"]),
            count(row["queries"]),
            figure(row["minilm"]),
            figure(row["bm25"]),
        ]
        for row in found["rows"]
    ]
    means = found["means"]
    if means["minilm"] is not None:
        name = "mean of the public sets"
        lines.append([name, "", "", figure(means["minilm"]), figure(means["bm25"])])
    shares = ", ".join(f"{row['share']:.0%}: {figure(row['minilm'])}" for row in found["shares"])
    text = table(["set", "tools", "requests", "R@5 of plain MiniLM", "R@5 of BM25"], lines)
    note = f"R@5 of plain MiniLM by the share of plain requests: {shares}."
    return f"{text}\n\n{note}{sets.absent(found)}"


def session(found: Mapping[str, Sequence[Row]]) -> str:
    """Session lists beside none."""
    heads = ["encoder", "session list", "k", "threshold", "sent anew", "off B1"]
    heads += ["in the context", "off B1", "recall", "follow-ups", "rho at turn 30"]
    held = {"steady": "95 % off what is sent anew", "resident": "95 % off the context"}
    lines = []
    for encoder, row in ((name, row) for name, rows in found.items() for row in rows):
        limit = f"at most {row['limit']}; {held[row['counted']]}" if row["limit"] else "none"
        above = f"{row['threshold']:.2f}" if row["threshold"] > 0 else "none"
        tokens = [count(row["steady"]), share(row["reduction"])]
        tokens += [count(row["resident"]), share(row["resident_reduction"])]
        figures = [row["recall"], row["recall_by"].get("follow_up"), row["rho"]]
        lines.append([encoder, limit, str(row["top_k"]), above, *tokens, *map(figure, figures)])
    return table(heads, lines)


def ablations(rows: Sequence[Row]) -> str:
    """One change at a time."""
    heads = ["Tool Attention", "first turn", "steady", "recall", "shown", "forbidden", "rho"]
    lines = [
        [
            row["method"],
            count(row["first"]),
            count(row["steady"]),
            figure(row["recall"]),
            f"{row['shown']:.1f}",
            share(row["forbidden"]),
            figure(row["rho"]),
            "2,368" if row["method"].startswith("as it is") else ABLATIONS.get(row["method"], ""),
        ]
        for row in rows
    ]
    return table([*heads, "paper: tokens"], lines)


def utilisation(rows: Sequence[Row]) -> str:
    """Utilisation under other growths of the conversation."""
    names = [name for name in rows[0] if name != "per_turn"]
    lines = [[count(row["per_turn"]), *(figure(row[name]) for name in names)] for row in rows]
    return table(["conversation's tokens a turn", *names], lines)


def scaling(rows: Sequence[Row]) -> str:
    """Catalogs of 10 to 10,000 tools."""
    heads = ["tools", "B1 tokens", "pool", "schemas", "rho B1", "rho", "rho without pool"]
    lines = []
    for row in rows:
        loose, strict = row["any"], row["default"]
        lines.append(
            [
                count(row["tools"]),
                count(row["all"]),
                count(loose["pool"]),
                f"{count(strict['schemas'])} / {count(loose['schemas'])}",
                figure(row["rho_all"]),
                f"{figure(strict['rho'])} / {figure(loose['rho'])}",
                both(strict["rho_without_pool"], loose["rho_without_pool"]),
                f"{figure(strict['recall'])} / {figure(loose['recall'])}",
            ]
        )
    return table([*heads, "recall"], lines)


def where(results: Row) -> str:
    """The run's circumstances."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    seconds = sum(results["seconds"].values())
    return (
        f"`{results['command']}`, encoders {' and '.join(results['encoders'])}, {versions}, "
        f"{results['cores']} CPU cores, {seconds:.0f} s"
    )


def write_into(path: Path, parts: Mapping[str, str]) -> None:
    """Put each table between its two marks in a document, in place of what stands there.

    Raises:
        ValueError: a table has no place in the document.
    """
    text = path.read_text(encoding="utf-8")
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            raise ValueError(f"{path} has no place for the table {name!r}")
        text = f"{before}{begin}\n{part}\n{end}{after}"
    path.write_text(text, encoding="utf-8")


def _family(method: str) -> str:
    """The paper's row that a method belongs to; only the defaults are the paper's."""
    if method.startswith("Tool Attention") and not method.endswith(", default"):
        return ""
    return method.partition(",")[0]


def _label(row: Row) -> str:
    if "top_k" not in row:
        return NAMES[row["method"]]
    method, _, why = row["method"].rpartition(", ")
    ends = {"default": "the paper's", "tokens": "held out: 95 % off", "recall": "held out: recall"}
    chosen = f"k = {row['top_k']}, {threshold(row['threshold'])}"
    return f"{method}, {chosen} ({ends[why]})"
