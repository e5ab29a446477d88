"""The tables of a training run, from `bench.gpu_train`'s file, into docs and the model card.

    python -m bench.train_report bench/results/gpu_train.json --into FILE...

Each file has the two marks between which they are written.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report import write_into

BEGIN = "<!-- results: python -m bench.train_report -->"
EVALUATED = ("toollinkos", "bfcl_live_dedup", "bfcl_synth", "metatool_single", "real_six_gtc")
KINDS = ("dense", "hybrid")
Found = Mapping[str, Any]


def figure(found: Found) -> str:
    """Recall at 5 and MRR at 10."""
    return f"{found['recall_5']:.3f} / {found['mrr_10']:.3f}"


def mean(found: Found, kind: str) -> dict[str, float]:
    """Over the five sets."""
    names = ("recall_5", "mrr_10")
    return {name: sum(found[one][kind][name] for one in EVALUATED) / 5 for name in names}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown, the first column to the left."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def left_out_of(document: Found) -> dict[str, Any]:
    """What the shipped recipe gives where an origin is left out; with fewer seeds where it must."""
    recipes = document["recipes"]
    return {
        name: found
        for recipe in ("two-seeds", "shipped")
        for name, found in recipes.get(recipe, {"after": {}})["after"].items()
    }


def left_out(document: Found) -> str:
    """Each of the five sets, as the original has it and when its origin was left out."""
    before, after = document["before"], left_out_of(document)
    rows = [
        [name, *(figure(found[name][kind]) for kind in KINDS for found in (before, after))]
        for name in EVALUATED
    ]
    last = [figure(mean(found, kind)) for kind in KINDS for found in (before, after)]
    head = ["left out, R@5 / MRR@10", "dense, MiniLM", "trained", "hybrid, MiniLM", "trained"]
    return table(head, [*rows, ["mean", *last]])


def never_seen(document: Found) -> str:
    """Sets that the saved model was not trained on."""
    before, after = document["before"], document["shipped"]["after"]
    rows = [
        [name, *(figure(found[name][kind]) for kind in KINDS for found in (before, after))]
        for name in after
        if name not in document["saved"]["trained_on"]
    ]
    head = ["never trained on", "dense, MiniLM", "minilm-tools", "hybrid, MiniLM", "minilm-tools"]
    return table(head, rows)


def trained_on(document: Found) -> str:
    """The five sets as the saved model, which was trained on them, has them."""
    after = document["shipped"]["after"]
    rows = [[name, *(figure(after[name][kind]) for kind in KINDS)] for name in EVALUATED]
    return table(["trained on: no measure of quality", "dense", "hybrid"], rows)


def tried(document: Found) -> str:
    """Every recipe's means over the sets left out."""
    rows = [
        [one["what"], *(figure(mean(one["left_out"], kind)) for kind in KINDS)]
        for one in document["tried"]
    ]
    ends = {"MiniLM": document["before"], "shipped": left_out_of(document)}
    first, last = (
        [what, *(figure(mean(found, kind)) for kind in KINDS)] for what, found in ends.items()
    )
    return table(["left out in turn, means", "dense", "hybrid"], [first, *rows, last])


def main() -> None:
    """Write the tables into each file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--into", nargs="+", type=Path, required=True)
    given = parser.parse_args()
    document = json.loads(given.results.read_text(encoding="utf-8"))
    saved = document["saved"]
    where = (
        f"{document['machine']['device']}, torch {document['machine']['torch']}, "
        f"{saved['seconds']:.0f} s for {saved['recipe']['seeds']} seeds; commit "
        f"{document['commit']}; `{document['command']}`"
    )
    parts = [make(document) for make in (left_out, never_seen, trained_on, tried)]
    for path in given.into:
        write_into(path, "\n\n".join([*parts, where]), BEGIN)


if __name__ == "__main__":
    main()
