"""The report's results as SVG plots; needs the ``report`` extra."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.quality_bed import HARD, MAIN

Row = Mapping[str, Any]
COLOURS = ("#30638e", "#d1495b", "#edae49", "#66a182", "#8a8d91", "#2e4057")
LINES: tuple[Any, ...] = (":", "--", "-", "-.", (0, (4, 1, 1, 1, 1, 1)))
DASHES = {MAIN: "-", HARD: "--"}


def draw(results: Row, folder: Path) -> list[Path]:
    """Draw every plot into a folder.

    Raises:
        SystemExit: matplotlib is absent.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise SystemExit(f"the plots: {error}; pip install 'ta-fast[report]'") from error
    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "report", "font.size": 9, "svg.fonttype": "none"})
    from matplotlib import pyplot as plt

    plots: dict[str, Callable[[Any, Row], None]] = {
        "quality_recall": _recall,
        "quality_scaling": _scaling,
        "quality_abstention": _abstention,
        "quality_caches": _caches,
    }
    paths = []
    for name, plot in plots.items():
        figure = plt.figure(figsize=(7.2, 3.8), layout="constrained")
        plot(figure, results)
        paths.append(folder / f"{name}.svg")
        figure.savefig(paths[-1], metadata={"Date": None})
        plt.close(figure)
    return paths


def _recall(figure: Any, results: Row) -> None:
    """Recall of the right tools against tool tokens of a steady turn."""
    axes = figure.add_subplot()
    kinds: list[tuple[str, str]] = []
    for encoder, row in ((name, row) for name, rows in results["curves"].items() for row in rows):
        tokens = [point["steady"] for point in row["points"]]
        recall = [point["recall"] for point in row["points"]]
        kind = encoder, row["ranking"]
        kinds += [] if kind in kinds else [kind]
        style = {"color": COLOURS[kinds.index(kind)], "marker": "."}
        label = f"{encoder}, {row['ranking']}, {row['reading']}"
        axes.plot(tokens, recall, DASHES[row["reading"]], label=label, **style)
    for row in next(iter(results["methods"].values()))[MAIN]:
        if row["method"] in ("B1", "B2", "B3"):
            axes.plot(row["steady"], row["recall"], "kx")
            axes.annotate(row["method"], (row["steady"], row["recall"]), (4, -10), **_NEAR)
    aim = 0.05 * results["definitions"]["sent"]
    axes.axvline(aim, color="black", lw=0.6)
    axes.annotate("95 % off", (aim, 0.02), (-44, 0), **_NEAR)
    axes.axhline(0.95, color="black", lw=0.6)
    axes.set(xscale="log", xlabel="tool tokens of a steady turn", ylabel="recall", ylim=(0, 1.02))
    axes.set_title("Recall of the right tools by k = 1 .. 80, gated, no threshold", **_TITLE)
    _finish(axes)


_NEAR = {"textcoords": "offset points", "fontsize": 8}
_TITLE = {"loc": "left", "fontsize": 10}


def _scaling(figure: Any, results: Row) -> None:
    """Utilisation and recall against the number of tools."""
    left, right = figure.subplots(1, 2)
    rows = results["scaling"]
    sizes = [row["tools"] for row in rows]
    series = {
        "Tool Attention, schemas alone": [row["default"]["rho_without_pool"] for row in rows],
        "Tool Attention, with the pool": [row["default"]["rho"] for row in rows],
        "B1, all schemas": [row["rho_all"] for row in rows],
    }
    for colour, (name, values) in zip(COLOURS, series.items(), strict=False):
        left.plot(sizes, values, marker=".", color=colour, label=name)
    left.axhline(0.87, color="black", lw=0.6)
    left.annotate("paper: 0.87", (sizes[-1], 0.87), (-44, 3), **_NEAR)
    left.set(xscale="log", xlabel="tools", ylim=(0, 1.02))
    left.set_title("Utilisation (rho) at turn 30", **_TITLE)
    for colour, (key, name) in zip(
        COLOURS, {"default": "threshold 0.28", "any": "no threshold"}.items(), strict=False
    ):
        recall = [row[key]["recall"] for row in rows]
        right.plot(sizes, recall, marker=".", color=colour, label=f"k = 10, {name}")
    right.set(xscale="log", xlabel="tools", ylim=(0, 1.02))
    right.set_title("Recall of the right tools", **_TITLE)
    _finish(left)
    _finish(right)


def _abstention(figure: Any, results: Row) -> None:
    """Precision against recall of the turns that get tools."""
    axes = figure.add_subplot()
    encoder, found = next(iter(results["abstention"].items()))
    rows = found["rows"]
    sets = list(dict.fromkeys(row["set"] for row in rows))
    scores = list(dict.fromkeys(row["score"] for row in rows))
    for row in rows:
        recall = [point["recall"] for point in row["points"]]
        precision = [point["precision"] for point in row["points"]]
        label = f"{row['set']}, {row['score']} (AUROC {row['auroc']:.3f})"
        style = {"color": COLOURS[sets.index(row["set"])], "ls": LINES[scores.index(row["score"])]}
        axes.plot(recall, precision, marker=".", label=label, **style)
    axes.set(xlabel="share of the turns that need a tool and get some", ylim=(0.4, 1.02))
    axes.set_ylabel("share of the turns with tools that need one")
    axes.set_title(f"Abstention, {encoder}", **_TITLE)
    _finish(axes)


def _caches(figure: Any, results: Row) -> None:
    """Hit ratio and tokens billed by delivery."""
    left, right = figure.subplots(1, 2, sharey=True)
    rows = results["caches"]["rows"]
    first = rows[0]["choice"]
    chosen = [row for row in rows if row["choice"] == first]
    names = [row["way"] for row in chosen]
    left.barh(names, [row["hit"] for row in chosen], color=COLOURS[0])
    left.set_title("Share read from the cache", **_TITLE)
    left.set(xlim=(0, 1))
    right.barh(names, [row["billed"] for row in chosen], color=COLOURS[1])
    right.set_title("Tokens billed a turn", **_TITLE)
    figure.suptitle(first, fontsize=9, x=0.99, ha="right")
    left.invert_yaxis()
    for axes in (left, right):
        axes.grid(visible=True, axis="x", lw=0.3)


def _finish(axes: Any) -> None:
    axes.grid(visible=True, lw=0.3)
    axes.legend(fontsize=7, frameon=False, handlelength=3.5)
