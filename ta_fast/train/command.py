"""The verb ``train``: from folders of sets and a log to a model's folder and a report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ta_fast.catalog import Catalog
from ta_fast.encoder import make_encoder, shows_tokens
from ta_fast.encoder.model_folder import named_folder, read_model_folder
from ta_fast.errors import InvalidConfig
from ta_fast.train.batches import DeviceSet
from ta_fast.train.bert import Bert
from ta_fast.train.data import TrainingSet
from ta_fast.train.folder import load_bert, write_delta, write_whole
from ta_fast.train.loop import train
from ta_fast.train.measure import figures
from ta_fast.train.prepare import read_log, read_set
from ta_fast.train.recipe import Recipe

REPORT = "training.json"
Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """What is trained on what.

    Attributes:
        data: Folders of labelled sets.
        out: The model's folder to write.
        recipe: How.
        base: The model to start from: ``minilm``, a folder or a Hugging Face name.
        events: A log of events over the tools of the catalog file ``catalog``.
        catalog: See ``events``.
        leave_out: Sets that are left out in turn, each with those of its origin, to
            measure what training gives on tools that it never saw; ``each`` is every set.
        resume: Go on with an interrupted run.
        whole: Also write a model with all weights into this folder.
        device: torch's name; by default a GPU where there is one.
    """

    data: tuple[Path, ...]
    out: Path
    recipe: Recipe = field(default_factory=Recipe)
    base: str = "minilm"
    events: Path | None = None
    catalog: str = ""
    leave_out: tuple[str, ...] = ()
    resume: bool = False
    whole: Path | None = None
    device: str = ""


def run(options: Options) -> Result:
    """Train; write the model and the report, which is also returned.

    Raises:
        InvalidConfig: an option that cannot be used, or ``out`` holds a model already.
        InvalidCatalog: a set or the log is broken.
        BackendUnavailable: the base is not there.
    """
    _check(options)
    model = read_model_folder(named_folder(options.base))
    chosen = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    start = load_bert(model, torch.device(chosen))
    sets = _on_device(read_sets(options), start)
    options.out.mkdir(parents=True, exist_ok=True)
    what = {
        "base": options.base,
        "recipe": asdict(options.recipe),
        "sets": {one.source.name: one.source.digest() for one in sets},
    }
    report = _unfinished(options.out / REPORT, what) if options.resume else {}
    report |= {**what, "device": chosen}
    left_out = report.setdefault("left_out", {})
    for origin in _origins(options.leave_out, [one.source for one in sets]):
        if origin not in left_out:
            others = [one for one in sets if one.source.origin != origin]
            mine = [one for one in sets if one.source.origin == origin]
            trained, _ = _train(options, start, others, f"without {origin}")
            left_out[origin] = compare(start, trained, mine)
            _write(options, report)
    trained, report["losses"] = _train(options, start, sets, "training")
    report["trained_on"] = compare(start, trained, sets)
    write_delta(options.out, trained, options.base, model.digest(), options.recipe)
    if options.whole is not None:
        write_whole(read_model_folder(options.out), options.whole)
    _write(options, report)
    for state in options.out.glob("*.state"):
        state.unlink()
    return report


def read_sets(options: Options) -> list[TrainingSet]:
    """Every set of the options, made ready; see `prepare`."""
    tokens = make_encoder(options.base)
    if not shows_tokens(tokens):
        raise InvalidConfig(f"base {options.base!r} shows no tokens; expected a BERT")
    sets = [read_set(folder, tokens) for folder in tqdm(options.data, desc="sets", delay=1.0)]
    if options.events is not None:
        with Catalog(options.catalog) as catalog:
            sets.append(read_log(options.events, catalog, tokens))
    names = [one.name for one in sets]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InvalidConfig(f"two sets are named {min(twice)!r}; expected different names")
    return sets


def compare(start: Bert, trained: Bert, sets: Sequence[DeviceSet]) -> Result:
    """Figures of each set, dense and hybrid, before and after."""
    return {
        one.source.name: {
            when: {kind: asdict(found) for kind, found in figures(bert, one).items()}
            for when, bert in (("before", start), ("after", trained))
        }
        for one in sets
    }


def _check(options: Options) -> None:
    if not options.data and options.events is None:
        raise InvalidConfig("nothing to train on: give --data DIR or --events LOG")
    if not options.resume and options.out.exists() and any(options.out.iterdir()):
        raise InvalidConfig(f"{options.out} is not empty; expected a new folder, or --resume")
    if options.whole is not None and options.whole.exists():
        raise InvalidConfig(f"{options.whole} exists already; expected a new folder")


def _on_device(sets: Sequence[TrainingSet], start: Bert) -> list[DeviceSet]:
    return [DeviceSet(one, start.device) for one in sets]


def _origins(names: Sequence[str], sets: Sequence[TrainingSet]) -> list[str]:
    known = {one.name: one.origin for one in sets}
    chosen = list(known) if "each" in names else names
    for name in chosen:
        if name not in known:
            raise InvalidConfig(f"--leave-out {name!r}: expected one of {sorted(known)}, or each")
    return list(dict.fromkeys(known[name] for name in chosen))


def _train(
    options: Options, start: Bert, sets: Sequence[DeviceSet], label: str
) -> tuple[Bert, list[float]]:
    state = options.out / f"{label.replace(' ', '-')}.state"
    with _progress(label) as tell:
        return train(start, sets, options.recipe, state=state, progress=tell)


@contextmanager
def _progress(label: str) -> Any:
    with tqdm(desc=label, unit="step", delay=1.0) as bar:

        def tell(done: int, total: int, loss: float) -> None:
            bar.total = total
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update(done - bar.n)

        yield tell


def _unfinished(path: Path, what: Result) -> Result:
    """The report so far of an interrupted run of the same base, recipe and sets."""
    if not path.is_file():
        return {}
    report: Result = json.loads(path.read_text(encoding="utf-8"))
    for name, value in what.items():
        if report.get(name) != value:
            raise InvalidConfig(f"{path}: {name} differs; expected the same run, to go on")
    return report


def _write(options: Options, report: Result) -> None:
    text = json.dumps(report, indent=1, ensure_ascii=False)
    (options.out / REPORT).write_text(text + "\n", encoding="utf-8")
