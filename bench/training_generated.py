"""Sets of generated intents for the tools of other sets, a few of each.

    python -m bench.training_generated NAME=FOLDER... --out OUT [--each 4] [--most 200]

Writes ``OUT/NAME_generated`` for the tools of each folder's ``tools.jsonl``. A name begins with
its set's origin, so that both are left out of training together.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from ta_fast.catalog.sources import read_file
from ta_fast.train.generate import write_generated


def write_some(tools: Path, folder: Path, *, each: int, most: int) -> int:
    """Write a set of at most so many intents, drawn with a fixed seed; returns their number."""
    write_generated(read_file(tools).tools, folder, each=each)
    queries = folder / "queries.jsonl"
    lines = queries.read_text(encoding="utf-8").splitlines()
    random.Random(0).shuffle(lines)  # noqa: S311
    queries.write_text("\n".join(lines[:most]) + "\n", encoding="utf-8")
    return len(lines[:most])


def main() -> None:
    """Write the sets asked for, a line each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sets", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--each", type=int, default=4, help="intents of a tool")
    parser.add_argument("--most", type=int, default=200, help="intents of a set")
    given = parser.parse_args()
    for one in given.sets:
        name, _, source = one.partition("=")
        if not source:
            parser.error(f"expected NAME=FOLDER, found {one!r}")
        folder = given.out / f"{name}_generated"
        count = write_some(Path(source) / "tools.jsonl", folder, each=given.each, most=given.most)
        print(f"{folder.name}: {count} intents", flush=True)


if __name__ == "__main__":
    main()
