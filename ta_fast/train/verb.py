"""The flags of ``ta-fast train``, and how its report is shown; torch is loaded when it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ta_fast.errors import BackendUnavailable


def add_flags(verb: argparse.ArgumentParser) -> None:
    """Add the verb's own flags."""
    verb.add_argument("--data", nargs="+", type=Path, default=[], metavar="DIR", help="sets")
    verb.add_argument("--events", type=Path, help="a log of events with intents, on the catalog")
    verb.add_argument("--out", type=Path, required=True, help="the model's folder to write")
    text = "also train without this set and measure on it; 'each' is every set"
    verb.add_argument("--leave-out", action="append", default=[], metavar="SET", help=text)
    verb.add_argument("--base", default="minilm", help="the model to start from")
    verb.add_argument("--seed", type=int, default=0)
    text = "change the recipe, such as views=1; see ta_fast.train.recipe"
    verb.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=text)
    verb.add_argument("--whole", type=Path, help="also write a model with all its weights here")
    verb.add_argument("--resume", action="store_true", help="go on with an interrupted run")


def run_verb(args: argparse.Namespace, catalog: str) -> dict[str, Any]:
    """Train as the flags say; ``catalog`` is the file whose tools the log's events are of."""
    try:
        from ta_fast.train.command import Options, run
        from ta_fast.train.recipe import Recipe
    except ModuleNotFoundError as error:
        message = f"the package {error.name!r} is not installed; pip install 'ta-fast[train]'"
        raise BackendUnavailable(message) from error
    options = Options(
        data=tuple(args.data),
        out=args.out,
        recipe=Recipe(seed=args.seed).having(args.set),
        base=args.base,
        events=args.events,
        catalog=catalog,
        leave_out=tuple(args.leave_out),
        resume=args.resume,
        whole=args.whole,
    )
    return run(options)


def show(result: dict[str, Any]) -> None:
    """Print the figures of a report."""
    print("R@5 / MRR@10       dense before  after          hybrid before   after")
    left_out = [("left out of training", figures) for figures in result["left_out"].values()]
    for what, sets in [*left_out, ("trained on", result["trained_on"])]:
        for name, found in sets.items():
            columns = "   ".join(
                f"{found[when][kind]['recall_5']:.3f}/{found[when][kind]['mrr_10']:.3f}"
                for kind in ("dense", "hybrid")
                for when in ("before", "after")
            )
            print(f"{name:18.18} {columns}   {what}")
