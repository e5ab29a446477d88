"""Results of the GPU benches as Markdown tables and one plot; the plot needs ``[report]``.

    python -m bench.report bench/results --into README.md --plot docs/scoring.svg

Reads every JSON file of the folder: the ``rows`` and ``ceilings`` of gpu_peers.py, the named
times of gpu_scoring.py, the shapes of gpu_encoder.py. The least time counts where several
ways were tried. What is not there is called "not measured".
"""

from __future__ import annotations

import json
import re
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MISSING = "not measured"
PIPELINE = "gpu_pipeline"
BEGIN, END = "<!-- results: python -m bench.report -->", "<!-- end of results -->"
ENGINE = {"engine_threads", "gpu_engine", "gpu_engine_2"}
ELSEWHERE = {"quality", "serve", "soak", "gpu_train", *ENGINE}
# A column, and the measurements that it takes the best of.
COLUMNS = {
    "ta_fast": ("G64 half",),
    "cuBLAS, product only": ("cublas",),
    "torch": ("torch",),
    "FAISS, no gate": ("faiss-fp32", "faiss-fp16"),
}
# Gates of gpu_scoring.py: classes and how many are allowed. N classes: one for each tool.
GATES = {
    "no gate": "G1 all",
    "64 classes": "G64 all",
    "half denied": "G64 half",
    "95 % denied to all": "G64 few",
    "a class a tool": "GN half",
}
# The floor's mark and colour, then each column's.
STYLES = (("|", "black"), ("o", "#d1495b"), ("D", "#30638e"), ("s", "#8a8d91"), ("^", "#edae49"))
# "all" is both launches with 64 classes, half of them allowed.
NAMED_TIME = re.compile(r"(\d+)x(\d+) (cuBLAS|all|G\d+ \w+ us)")

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """B turns against N tools of D dimensions, fp16, k returned."""

    tools: int
    turns: int
    dim: int = 384
    k: int = 10

    @property
    def flops(self) -> float:
        """Operations of the product."""
        return 2.0 * self.turns * self.tools * self.dim

    @property
    def moved(self) -> float:
        """Bytes that must move: both operands once, the answer once."""
        return 2.0 * self.dim * (self.turns + self.tools) + 8.0 * self.turns * self.k

    def floor(self, ceilings: Mapping[str, float]) -> float | None:
        """Microseconds by the measured rates of a copy and of a large product.

        Reading alone can be a little faster than copying, and an index that fits the L2 is.
        """
        if not {"copy_tb_s", "float16_tflop_s"} <= ceilings.keys():
            return None
        bytes_us = self.moved / ceilings["copy_tb_s"] / 1e6
        return max(bytes_us, self.flops / ceilings["float16_tflop_s"] / 1e6)


Times = dict[Shape, dict[str, float]]


def load(folder: Path) -> dict[str, Document]:
    """The results of the folder by the file's name, but for those that other pages show."""
    paths = [path for path in sorted(folder.glob("*.json")) if path.stem not in ELSEWHERE]
    return {path.stem: json.loads(path.read_text()) for path in paths}


def scoring_times(documents: Mapping[str, Document]) -> Times:
    """The least time of every measurement at every shape."""
    times: Times = {}
    for document in documents.values():
        for shape, what, us in _measurements(document):
            found = times.setdefault(shape, {})
            found[what] = min(us, found.get(what, us))
    return dict(sorted(times.items()))


def _measurements(document: Document) -> Iterator[tuple[Shape, str, float]]:
    rows = document.get("rows", []) if document.get("bench") != PIPELINE else []
    for row in rows:
        yield Shape(row["tools"], row["turns"], row["dim"], row["k"]), row["what"], row["us"]
    for name, us in document.items():
        match = NAMED_TIME.fullmatch(name)
        if match and isinstance(us, int | float):
            turns, tools = int(match[1]), int(match[2])
            what = {"cuBLAS": "cublas", "all": "G64 half"}.get(
                match[3], match[3].removesuffix(" us")
            )
            yield Shape(tools, turns), what.replace(f"G{tools} ", "GN "), us


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table of numbers."""
    rows = [f"| {' | '.join(cells)} |" for cells in [heads, *lines]]
    return "\n".join([rows[0], f"|{'---:|' * len(heads)}", *rows[1:]])


def scoring_table(times: Times, ceilings: Mapping[str, float]) -> str:
    """Microseconds by shape, and how many times faster than torch and FAISS we are."""
    ours, _, *peers = COLUMNS
    lines = []
    for shape, found in times.items():
        columns = [_best(found, whats) for whats in COLUMNS.values()]
        ratios = [
            _ratio(_best(found, COLUMNS[peer]), _best(found, COLUMNS[ours])) for peer in peers
        ]
        cells = [f"{shape.turns:,}", f"{shape.tools:,}", _number(shape.floor(ceilings))]
        lines.append([*cells, *map(_number, columns), *ratios])
    speedups = [f"x {name.split(',')[0]}" for name in peers]
    return table(["turns", "tools", "floor", *COLUMNS, *speedups], lines)


def gate_table(times: Times) -> str:
    """Microseconds by shape and gate."""
    shapes = {shape: found for shape, found in times.items() if GATES["no gate"] in found}
    lines = [
        [f"{shape.turns:,}", f"{shape.tools:,}", *(_number(found.get(g)) for g in GATES.values())]
        for shape, found in shapes.items()
    ]
    return table(["turns", "tools", *GATES], lines)


def encoder_table(documents: Mapping[str, Document]) -> str:
    """Milliseconds of the encoder by shape, and its peers'."""
    found = [d for d in documents.values() if isinstance(d.get("ours"), list)]
    runtimes = [d.get("onnxruntime", {}).get("shapes", []) for d in found]
    peers = [
        {(row["tokens"], row["texts"]): row["ms"] for rows in kind for row in rows}
        for kind in ([d.get("peer", []) for d in found], runtimes)
    ]
    lines = [
        [
            f"{row['tokens']}",
            f"{row['texts']:,}",
            _number(row["ms"]),
            f"{row['per_s']:,.0f}",
            f"{row['share']:.0%}" if "share" in row else MISSING,
            *(_number(peer.get((row["tokens"], row["texts"]))) for peer in peers),
        ]
        for document in found
        for row in document["ours"]
    ]
    heads = ["tokens", "texts", "ms", "texts/s", "share of the matrix rate"]
    return table([*heads, "sentence-transformers, ms", "onnxruntime-gpu, ms"], lines)


def pipeline_table(documents: Mapping[str, Document]) -> str:
    """Text to tools: one turn, and turns a second in bulk."""
    rows = [r for d in documents.values() if d.get("bench") == PIPELINE for r in d["rows"]]
    lines = [
        [
            row["what"],
            _number(row.get("us")) if "us" in row else "",
            _number(row.get("per_s")) if "per_s" in row else row.get("missing", ""),
        ]
        for row in rows
    ]
    return table(["text to tools, 10,000 tools, 16 tokens", "us", "turns/s"], lines)


def write_into(path: Path, text: str, begin: str = BEGIN) -> None:
    """Put the tables between a file's two marks, in place of what stands there."""
    before, rest = path.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(END)
    path.write_text(f"{before}{begin}\n{text}\n{END}{after}", encoding="utf-8")


def _best(found: Mapping[str, float], whats: Sequence[str]) -> float | None:
    return min((found[what] for what in whats if what in found), default=None)


def _number(value: float | None) -> str:
    """Three digits or the whole part."""
    if value is None:
        return MISSING
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(theirs: float | None, ours: float | None) -> str:
    return f"{theirs / ours:.1f}" if theirs and ours else MISSING


def provenance(documents: Mapping[str, Document]) -> str:
    """One line for each file: the machine, the versions, the commit, the command, its note."""
    lines = []
    for name, document in documents.items():
        gpu = document.get("gpu", document.get("device", "GPU unknown"))
        versions = document.get("versions") or {
            k: document[k] for k in ("torch", "triton") if k in document
        }
        parts = [gpu, f"driver {document.get('driver', 'unknown')}"]
        parts += [f"{k} {v}" for k, v in versions.items()]
        parts += [f"commit {document.get('commit') or 'unknown'}"]
        note = f". {document['note']}" if "note" in document else ""
        command = document.get("command", "unknown")
        lines.append(f"- {name}: {', '.join(parts)}; `{command}`{note}")
    return "\n".join(lines)


def plot(times: Times, ceilings: Mapping[str, float], path: Path) -> None:
    """A line for each shape: the floor, and how far from it each implementation is.

    Raises:
        SystemExit: matplotlib is absent.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise SystemExit(f"the plot: {error}; pip install 'ta-fast[report]'") from error
    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "report", "font.size": 9, "svg.fonttype": "none"})
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 1.6 + 0.34 * len(times)))
    series = {"floor": [shape.floor(ceilings) for shape in times]}
    for name, whats in COLUMNS.items():
        series[name] = [_best(found, whats) for found in times.values()]
    for (name, marks), (marker, colour) in zip(series.items(), STYLES, strict=True):
        x = [us for us in marks if us is not None]
        y = [line for line, us in enumerate(marks) if us is not None]
        label = name if x else f"{name}: {MISSING}"
        axes.scatter(
            x, y, 60 if marker == "|" else 36, colour, marker=marker, label=label, zorder=3
        )
    axes.set(xscale="log", xlabel="microseconds (median)", ylim=(len(times) - 0.4, -0.6))
    axes.set_yticks(range(len(times)), [f"{s.turns:,} x {s.tools:,}" for s in times])
    axes.set_title("Turns x tools, fp16, k = 10", loc="left", fontsize=10)
    axes.grid(visible=True, lw=0.3)
    figure.legend(fontsize=8, loc="outside lower center", ncols=3, frameon=False)
    figure.set_layout_engine("constrained")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables; draw the plot where one is asked for."""
    parser = ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, help="where the JSON files are")
    parser.add_argument("--into", type=Path, help="Markdown file with the two marks")
    parser.add_argument("--plot", type=Path, help="SVG file to draw")
    options = parser.parse_args(arguments)
    documents = load(options.folder)
    ceilings: dict[str, float] = {}
    for document in documents.values():
        ceilings |= document.get("ceilings", {})
    times = scoring_times(documents)
    parts = {
        "Scoring, microseconds": scoring_table(times, ceilings),
        "The gate's cost, microseconds": gate_table(times),
        "Encoder": encoder_table(documents),
        "Text to tools": pipeline_table(documents),
        "Where": provenance(documents),
    }
    text = "\n\n".join(f"**{title}**\n\n{part}" for title, part in parts.items())
    if options.into:
        write_into(options.into, text)
    else:
        sys.stdout.write(text + "\n")
    if options.plot:
        plot(times, ceilings, options.plot)


if __name__ == "__main__":
    main()
