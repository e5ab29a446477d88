"""Does it choose the right tools, and what does it save? Measures, and writes the report.

    python -m bench.quality              # all of it, into bench/results and docs
    python -m bench.quality --render     # the tables and plots of the results that are there
    python -m bench.quality --quick      # a fifth of the tasks, printed, nothing written

Everything runs on a CPU. Sets and packages that are absent are named and left out.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

from tqdm import tqdm

from bench import (
    quality_abstention,
    quality_caches,
    quality_calibration,
    quality_registers,
    quality_scale,
    quality_sets,
    quality_testbed,
)
from bench.quality_bed import Bed, RememberingEncoder
from bench.quality_plots import draw
from bench.quality_tables import tables, write_into
from ta_fast.encoder import make_encoder
from ta_fast.encoder.model_folder import SHIPPED

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "quality.json"
DOCS = ROOT / "docs"
REPORT = "quality.md"
PARTS: dict[str, Callable[[Bed], Any]] = {
    "definitions": quality_testbed.definitions,
    "registers": quality_registers.registers,
    "methods": quality_testbed.methods,
    "session": quality_testbed.session,
    "curves": quality_testbed.curves,
    "ablations": quality_testbed.ablations,
    "utilisations": quality_testbed.utilisations,
    "poisons": quality_scale.poisons,
    "caches": quality_caches.caches,
    "real_definitions": quality_sets.real_definitions,
    "abstention": quality_abstention.abstention,
    "calibration": quality_calibration.calibration,
    "retrieval": quality_sets.retrieval,
    "scaling": quality_scale.scaling,
}
PLAIN = "minilm"
"""What the rule of the requests is about, and what was trained on none of the sets."""
COMPARED = (
    "methods",
    "session",
    "curves",
    "real_definitions",
    "abstention",
    "calibration",
    "retrieval",
)
"""What is measured with both encoders: what is about choosing tools."""
PACKAGES = ("ta-fast", "numpy", "onnxruntime", "tiktoken", "bfcl-eval")


def measure(encoder: str, *, quick: bool) -> dict[str, Any]:
    """Every part's results, with how long each took.

    Args:
        encoder: Its name; some parts are measured with plain MiniLM as well.
        quick: A fifth of the tasks.
    """
    names = dict.fromkeys((encoder, PLAIN))
    beds = {name: Bed(RememberingEncoder(make_encoder(name)), quick) for name in names}
    results: dict[str, Any] = {
        "bench": "quality",
        "command": "python -m bench.quality",
        "encoders": [bed.encoder.name for bed in beds.values()],
        "versions": {"python": platform.python_version(), **_versions()},
        "cores": os.cpu_count(),
        "seconds": {},
    }
    progress = tqdm(PARTS.items(), desc="report", unit="part")
    for name, part in progress:
        progress.set_postfix_str(name)
        started = perf_counter()
        if name in COMPARED:
            results[name] = {label: part(bed) for label, bed in beds.items()}
        else:
            results[name] = part(beds[PLAIN if name == "registers" else encoder])
        results["seconds"][name] = round(perf_counter() - started, 1)
    return results


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def rounded(value: Any) -> Any:
    """The results with figures of six digits: more are noise."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def render(results: dict[str, Any], docs: Path) -> None:
    """Write the tables into the report and draw its plots."""
    write_into(docs / REPORT, tables(results))
    draw(results, docs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write, render."""
    parser = ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--render", action="store_true", help="measure nothing")
    parser.add_argument("--quick", action="store_true", help="a fifth of the tasks; writes nothing")
    parser.add_argument("--encoder", default=SHIPPED, help="as ta-fast takes it")
    options = parser.parse_args(arguments)
    if options.render:
        render(json.loads(RESULTS.read_text(encoding="utf-8")), DOCS)
        return
    results = rounded(measure(options.encoder, quick=options.quick))
    if options.quick:
        for name, text in tables(results).items():
            sys.stdout.write(f"**{name}**\n\n{text}\n\n")
        return
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    render(results, DOCS)


if __name__ == "__main__":
    main()
