"""The shipped encoder's calibration for catalogs without labels.

    python -m bench.training_calibration SET... --out ta_fast/models/minilm-tools/calibration.jsonl

The sets are labelled ones that the encoder was not trained on: on others its scores are too good.
A line is written for each ranking, and what it reaches on sets left out is told.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.quality_sets import snapshot_of
from ta_fast.calibration import write_calibration
from ta_fast.catalog.sources import read_file
from ta_fast.encoder import make_encoder
from ta_fast.evaluate import learn_across, read_queries

RANKINGS = ("dense", "hybrid")


def main() -> None:
    """Learn and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sets", nargs="+", type=Path, help="folders of labelled sets")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    encoder, lines = make_encoder(), []
    for ranking in RANKINGS:
        sets = []
        for folder in given.sets:
            tools = read_file(folder / "tools.jsonl").tools
            queries = read_queries(folder / "queries.jsonl", {tool.id for tool in tools})
            sets.append((snapshot_of(tools, encoder, ranking), queries))
        learnt = learn_across(sets)
        lines.append(write_calibration(learnt) + "\n")
        told = f"AUROC {learnt.auroc:.3f}, calibration error {learnt.fit_error:.3f}"
        print(f"{ranking}: {learnt.queries} queries; on sets left out {told}", flush=True)
    given.out.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
