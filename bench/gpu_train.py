"""Many recipes on one GPU, each measured on sets left out of its training. Writes JSON.

    python -m bench.gpu_train --prepare SET... --data DIR     where all of ta_fast is installed
    python -m bench.gpu_train --data DIR --out FILE [--minutes N] [--only NAMES] [--leave SETS]
    python -m bench.gpu_train --join FILE... --out FILE       of runs on several GPUs

The first writes ``DIR/sets.npz`` (token ids, terms, gold tools) and ``DIR/model`` (the base,
float16). The second needs torch, NumPy and safetensors beside this repository. Figures are
written as soon as they are there; what time is left for is begun only if the last run's time
fits into it, and what the file has already is not run again. ``--save NAME --model FOLDER``
trains one recipe on all sets and writes its folder of changed weights. ``--join`` puts files of
one kind of machine together. ``--measure FOLDER`` measures a model that is there.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.bare import bare_packages

bare_packages()

import torch  # noqa: E402

from ta_fast.encoder.model_folder import named_folder, read_model_folder  # noqa: E402
from ta_fast.train.batches import DeviceSet  # noqa: E402
from ta_fast.train.bert import Bert  # noqa: E402
from ta_fast.train.data import Prepared  # noqa: E402
from ta_fast.train.folder import load_bert, write_delta  # noqa: E402
from ta_fast.train.loop import train  # noqa: E402
from ta_fast.train.measure import figures  # noqa: E402
from ta_fast.train.recipe import Recipe  # noqa: E402

LEFT_OUT = ("toollinkos", "bfcl", "metatool", "real")
"""Origins that are left out in turn; the other sets are noisy and only trained on."""
SHIPPED = Recipe(
    joint=1.0, dense=0.5, temperature=0.07, noise=0.4, turns=0.1, most=600, seeds=3, keep=0.7
)
RECIPES = {
    "trial": Recipe(views=1, of_texts=5),
    "shipped": SHIPPED,
    "softer": replace(SHIPPED, temperature=0.1),
    "two-seeds": replace(SHIPPED, seeds=2),
    "one-seed": replace(SHIPPED, seeds=1),
    "keep-all": replace(SHIPPED, keep=1.0),
    "dense-only": replace(SHIPPED, joint=0.0),
    "hybrid-only": replace(SHIPPED, dense=0.0),
    "as-typed": replace(SHIPPED, noise=0.0, turns=0.0),
    "two-of-five": replace(SHIPPED, views=2, of_texts=5),
    "any": replace(SHIPPED, loss="any"),
    "hard-8": replace(SHIPPED, hard=8),
    "most-1200": replace(SHIPPED, most=1200),
    "5-passes": replace(SHIPPED, passes=5),
}


def prepare(folders: Sequence[Path], data: Path, base: str) -> None:
    """Write what a run needs: the sets, and the base in float16."""
    from safetensors.torch import load_file, save_file

    from ta_fast.train.command import Options, read_sets

    model = read_model_folder(named_folder(base))
    there = data / "model"
    data.mkdir(parents=True, exist_ok=True)
    if not there.exists():
        keep = shutil.ignore_patterns("*.safetensors", "*.bin", "onnx*", "vocab.txt", "data_*")
        shutil.copytree(model.path, there, ignore=keep)
        halves = {name: it.half() for name, it in load_file(model.weights).items() if it.ndim}
        halves = {name: it for name, it in halves.items() if "position_ids" not in name}
        save_file(halves, there / "model.safetensors")
    sets = read_sets(Options(tuple(folders), data, base=base))
    Prepared(base, model.digest(), tuple(sets)).save(data / "sets.npz")
    print({one.name: one.n_queries for one in sets}, (data / "sets.npz").stat().st_size, "bytes")


class Bench:
    """The sets and the base on the device, the results so far, and the time that is left."""

    def __init__(self, data: Path, out: Path, minutes: float, held: Sequence[str] = ()) -> None:
        self.ends, self.out, self.held = perf_counter() + 60 * minutes, out, held
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.prepared = Prepared.load(data / "sets.npz")
        self.start = load_bert(read_model_folder(data / "model"), self.device)
        self.sets = [DeviceSet(one, self.device) for one in self.prepared.sets]
        self.results: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
        if "before" not in self.results:
            self.results |= {"machine": self._machine(), "before": self.measure(self.start, None)}
            self.results["recipes"] = {}
            self.save()

    def run(self, name: str, recipe: Recipe, leave: Sequence[str] = LEFT_OUT) -> bool:
        """Every set of some origins left out in turn; False when the time is up."""
        mine = self.results["recipes"].setdefault(name, {"recipe": asdict(recipe), "seconds": {}})
        figures_of = mine.setdefault("after", {})
        known = {one.source.origin for one in self.sets}
        for origin in [one for one in leave if one in known]:
            if origin in mine["seconds"]:
                continue
            last = max([0.0, *mine["seconds"].values()])
            if perf_counter() + last > self.ends:
                return False
            began = perf_counter()
            trained, losses = train(self.start, self.taught(origin), recipe)
            mine.setdefault("losses", {})[origin] = losses
            spent = perf_counter() - began  # the losses were read, so the device is done
            figures_of |= self.measure(trained, origin)
            mine["seconds"][origin] = round(spent, 2)
            if self.device.type == "cuda":
                mine["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 1)
            self.save()
        self.tell(name, figures_of, mine["seconds"])
        return True

    def write(self, recipe: Recipe, folder: Path) -> None:
        """Train on all sets but those held out, and write the model."""
        began = perf_counter()
        trained, losses = train(self.start, self.taught(None), recipe)
        spent = perf_counter() - began
        write_delta(folder, trained, self.prepared.base, self.prepared.base_digest, recipe)
        self.results["saved"] = {
            "recipe": asdict(recipe),
            "seconds": round(spent, 1),
            "losses": losses,
            "trained_on": sorted(one.source.name for one in self.taught(None)),
            "after": self.measure(trained, None),
        }
        self.save()

    def taught(self, origin: str | None) -> list[DeviceSet]:
        """The sets that are trained on when an origin is left out."""
        left = {origin, *self.held}
        return [one for one in self.sets if not left & {one.source.origin, one.source.name}]

    def judge(self, folder: Path) -> None:
        """Measure the model of a folder of changed weights."""
        model = read_model_folder(folder)
        after = self.measure(load_bert(model, self.device), None)
        self.results["shipped"] = {"digest": model.digest(), "after": after}
        self.save()

    def measure(self, bert: Bert, origin: str | None) -> dict[str, Any]:
        """Dense and hybrid figures of the sets of an origin, or of all left out or held."""
        origins = {*LEFT_OUT, *self.held} if origin is None else {origin}
        chosen = [one for one in self.sets if {one.source.origin, one.source.name} & origins]
        return {
            one.source.name: {kind: asdict(found) for kind, found in figures(bert, one).items()}
            for one in chosen
        }

    def tell(self, name: str, after: dict[str, Any], seconds: dict[str, float]) -> None:
        """One line: the means over the sets left out, before and after."""
        line = f"{name:20.20} {sum(seconds.values()):6.1f} s"
        for kind in ("dense", "hybrid"):
            for what in ("recall_5", "mrr_10"):
                old, new = (
                    sum(found[one][kind][what] for one in after) / max(1, len(after))
                    for found in (self.results["before"], after)
                )
                line += f"  {kind} {what} {old:.4f} {new:.4f}"
        print(line, flush=True)

    def save(self) -> None:
        """Write the results so far."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        partial = self.out.with_name(self.out.name + ".partial")
        partial.write_text(json.dumps(self.results, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.out)

    def _machine(self) -> dict[str, str]:
        cuda = self.device.type == "cuda"
        name = torch.cuda.get_device_name() if cuda else "cpu"
        return {"device": name, "torch": torch.__version__}


def join(files: Sequence[Path], out: Path) -> None:
    """Put results together: each left-out origin, and what was saved, from where it is."""
    whole: dict[str, Any] = {"recipes": {}}
    for path in files:
        part = json.loads(path.read_text(encoding="utf-8"))
        for name, mine in part.pop("recipes").items():
            known = whole["recipes"].setdefault(name, mine)
            for key in ("seconds", "after", "losses"):
                known.setdefault(key, {}).update(mine.get(key, {}))
        whole |= part
    out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Prepare, run the recipes asked for, or join what was run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--prepare", nargs="+", type=Path, default=[])
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--leave", default=",".join(LEFT_OUT), help="origins to leave out in turn")
    parser.add_argument("--join", nargs="+", type=Path, default=[])
    parser.add_argument("--held", default="", help="sets that are measured and never trained on")
    parser.add_argument("--save", default="", help="a recipe to train on all sets")
    parser.add_argument("--model", type=Path, help="where to write it")
    parser.add_argument("--measure", type=Path, help="a folder that was written")
    options = parser.parse_args()
    if options.join and options.out:
        join(options.join, options.out)
        return
    if options.data is None:
        parser.error("give --data, or --join with --out")
    if options.prepare:
        prepare(options.prepare, options.data, options.base)
        return
    if options.out is None or bool(options.save) != bool(options.model):
        parser.error("give --out, and --save together with --model")
    bench = Bench(options.data, options.out, options.minutes, options.held.split(","))
    if options.measure:
        bench.judge(options.measure)
        return
    if options.save:
        bench.write(RECIPES[options.save], options.model)
        return
    for name in options.only.split(",") if options.only else RECIPES:
        if not bench.run(name.strip(), RECIPES[name.strip()], options.leave.split(",")):
            print("the time is up")
            break


if __name__ == "__main__":
    main()
