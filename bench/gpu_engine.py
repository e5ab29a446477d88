"""Ten thousand sessions, one process, one GPU: turns a second, their times, what bounds them.

    python -m bench.gpu_engine --model FOLDER --out FILE [--device cuda:0] [--seconds 8]
    python -m bench.gpu_engine --model FOLDER --out FILE --devices cuda:0,cuda:1 --tokenisers 4
    python -m bench.gpu_engine --device cpu --tools 200 --sessions 50 --seconds 2

Texts are running words of this repository's documents. For dense and for hybrid scores: a closed
loop of all sessions gives the most turns a second, an open loop at 80 % of it the times, and a
third run, with samples of all threads and the GPU's kernels traced, says where time goes. A
sample of the answers is compared with those that the pipeline gives to each turn alone. With
``--devices`` requests of many turns go to the first device and then to all of them. With
``--tokenisers`` texts are read by so many processes for each device.

Needs NumPy, tokenizers, safetensors, torch and Triton beside this repository; uvloop is used
where it is installed. Where PyStemmer is not, words are not stemmed: that costs the same, and
nothing here measures which tools are right. One part that fails is reported and the others are
measured. The result is written after each part.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from bench.bare import STEMMER, bare_packages

bare_packages()

from bench.cpu import Sampler  # noqa: E402
from bench.engine_load import (  # noqa: E402
    LEAST,
    K,
    Report,
    Seen,
    Sessions,
    Turns,
    bulk,
    intents,
    quiet_collector,
    run,
    tools,
)
from bench.gpu_share import Kernels  # noqa: E402
from ta_fast.encoder import Encoder  # noqa: E402
from ta_fast.encoder.processes import ProcessReadEncoder  # noqa: E402
from ta_fast.engine import Engine, Epoch  # noqa: E402
from ta_fast.lexicon import Lexicon  # noqa: E402
from ta_fast.pipeline import Pipeline  # noqa: E402
from ta_fast.routers import PipelineRouter  # noqa: E402
from ta_fast.types import F32  # noqa: E402
from ta_fast_kernels import ToolMatrix  # noqa: E402

CLASSES, ROLES = 64, 64
INTENTS = 65_536
LOAD = 0.8
"""Of the most turns a second, for the open loop."""
CHECKED = 400
TOLERANCE = 2e-3
"""Half-precision scores of one text in batches of different shapes."""
WANTED = {"turns_per_s": 50_000, "p99_ms": 50.0, "two_devices": 1.8}


class Bench:
    """Tools and intents, a pipeline for each kind of scores and device, and the results.

    Args:
        options: Of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.names: list[str] = options.devices.split(",") if options.devices else [options.device]
        self.encoders = [make_encoder(name, options.model) for name in self.names]
        if options.tokenisers:
            self.encoders = [ProcessReadEncoder(it, options.tokenisers) for it in self.encoders]
        self.tools = tools(options.tools)
        self.vectors: F32 = self.encoders[0].encode([tool.description for tool in self.tools])
        rng = np.random.default_rng(0)
        self.classes = rng.integers(0, CLASSES, len(self.tools)).astype(np.int32)
        self.turns = Turns(
            intents(INTENTS, 3), rng.integers(0, 2**32, (ROLES, CLASSES // 32), dtype=np.uint32)
        )
        self.results: dict[str, Any] = {**machine(), **counts(options), "devices": self.names}
        self.results |= {"loop": "uvloop" if find_spec("uvloop") else "asyncio", "wanted": WANTED}
        self.results["stemmed"] = STEMMER
        sys.setswitchinterval(options.switch / 1e3)
        self.results["switch_interval_ms"] = 1e3 * sys.getswitchinterval()

    def epoch(self, kind: str) -> tuple[Epoch, list[Pipeline]]:
        """Pipelines of that kind of scores on every device, warm."""
        lexicon, terms = None, None
        if kind == "hybrid":
            encoder: Any = self.encoders[0]
            lexicon, terms = Lexicon.build(encoder.vocabulary, self.tools, encoder.rows)
        matrix = ToolMatrix.from_rows(self.vectors, self.classes, CLASSES, terms)
        pipelines = [
            Pipeline(encoder, make_scorer(name, matrix), lexicon)
            for name, encoder in zip(self.names, self.encoders, strict=True)
        ]
        for pipeline in pipelines:
            self.warm(pipeline)
        routers = tuple(PipelineRouter(pipeline, vectors=False) for pipeline in pipelines)
        return Epoch(routers, self.turns.roles.shape[1]), pipelines

    def warm(self, pipeline: Pipeline) -> None:
        """Compile and capture what batches of all sizes need, as one device at a time must."""
        most = 4096 if self.names[0] != "cpu" else 8
        for _ in range(2):
            size = 1
            while size <= most:
                self.alone(pipeline, range(size), [i % ROLES for i in range(size)])
                size *= 2

    def alone(self, pipeline: Pipeline, texts: Sequence[int], roles: Sequence[int]) -> Any:
        """The pipeline's answer to turns, without an engine."""
        least = np.full(len(texts), LEAST, np.float32)
        asked = [self.turns.texts[i] for i in texts]
        return pipeline.route(asked, self.turns.roles[list(roles)], K, least).top

    def sessions(self, kind: str) -> None:
        """The closed loop, the open one, and where time goes."""
        epoch, pipelines = self.epoch(kind)
        epoch = Epoch(epoch.routers[:1], epoch.words)
        seconds, warm = self.options.seconds, self.options.seconds / 2
        found = self.results.setdefault(kind, {})
        with Engine() as engine:

            def load() -> Sessions:
                return Sessions(engine, lambda: epoch, self.turns, self.options.sessions)

            closed = run(load().closed(warm, seconds))
            found["closed"] = closed.plain()
            found["answers"] = self.compared(pipelines[0], closed.seen)
            self.save()
            rate = self.options.rate or LOAD * closed.turns
            opened = run(load().open(rate, warm, seconds))
            found["open"] = {"offered_per_s": round(rate), **opened.plain()}
            found["answers_open"] = self.compared(pipelines[0], opened.seen)
            self.save()
            found["where"] = self.where(load(), warm, pipelines[0], closed)
        self.save()

    def where(self, load: Sessions, seconds: float, pipeline: Pipeline, closed: Report) -> Any:
        """Samples of the threads, and the GPU's share of time, in a closed loop of their own."""
        sampler, kernels = Sampler(), Kernels(self.names[0])
        with sampler.running():
            report = run(kernels.traced(load.closed(seconds / 2, seconds)))
        found: dict[str, Any] = {"closed": report.plain(), "samples": sampler.top()}
        if kernels.there:
            found["gpu_share_by_kernels"] = kernels.share
            found["gpu_share_by_a_batch_alone"] = self.by_a_batch_alone(pipeline, closed)
        return found

    def by_a_batch_alone(self, pipeline: Pipeline, closed: Report) -> float:
        """An upper bound: time of a batch's ``run`` with nothing beside it, by batches a second."""
        size = max(1, round(closed.rows_of_batch))
        prepared = pipeline.prepare([self.turns.texts[i] for i in range(size)])
        allowed = np.resize(self.turns.roles, (size, self.turns.roles.shape[1]))
        least, times = np.full(size, LEAST, np.float32), []
        for _ in range(30):
            began = perf_counter()
            pipeline.run(prepared, allowed, K, least)
            times.append(perf_counter() - began)
        return round(float(np.median(times)) * closed.turns / size, 4)

    def compared(self, pipeline: Pipeline, seen: Seen) -> dict[str, Any]:
        """A sample of answers beside those of the same turns alone: wrong is 0 or an error."""
        sample = seen.sample[:: max(1, len(seen.sample) // CHECKED)]
        same = wrong = 0
        worst = 0.0
        for text, role, top in sample:
            alone = self.alone(pipeline, [text], [role])
            apart = np.abs(np.nan_to_num(alone.scores - top.scores, nan=0.0, posinf=1, neginf=1))
            worst = max(worst, float(apart.max()))
            same += bool((alone.rows == top.rows).all())
            rows = top.rows[top.rows >= 0]
            classes = self.classes[rows]
            allowed = self.turns.roles[role][classes >> 5] >> (classes & 31) & 1
            wrong += bool(apart.max() > TOLERANCE or not allowed.all())
        if wrong or not sample:
            raise AssertionError(f"{wrong} of {len(sample)} answers are wrong; off by {worst}")
        return {"checked": len(sample), "same_rows": same, "wrong": wrong, "score_off": worst}

    def many(self, kind: str) -> None:
        """Requests of many turns, on the first device and on all of them, twice in turn."""
        epoch, pipelines = self.epoch(kind)
        found: dict[str, list[float]] = {}
        size, seconds = self.options.bulk, self.options.seconds
        for count in (1, len(self.names)) * 2:
            on = Epoch(epoch.routers[:count], epoch.words)
            with Engine(count) as engine:
                run(bulk(engine, on, self.turns, size, seconds / 4))
                quiet_collector()
                rate, seen = run(bulk(engine, on, self.turns, size, seconds / 2))
            found.setdefault(str(count), []).append(rate)
            checked = self.compared(pipelines[0], seen)
        best = {count: max(rates) for count, rates in found.items()}
        ratio = best[str(len(self.names))] / best["1"]
        self.results.setdefault(kind, {})["route_many"] = {
            "turns_a_request": size,
            "turns_per_s": {count: list(map(round, rates)) for count, rates in found.items()},
            "ratio": round(ratio, 2),
            "answers": checked,
        }
        self.save()

    def save(self) -> None:
        """Write what is there."""
        if self.options.out:
            self.options.out.parent.mkdir(parents=True, exist_ok=True)
            self.options.out.write_text(json.dumps(self.results, indent=1) + "\n")


def make_encoder(device: str, folder: Path | None) -> Encoder:
    """MiniLM on that device."""
    from ta_fast.encoder.model_folder import minilm_folder, read_model_folder

    folder = folder or minilm_folder()
    if device == "cpu":
        from ta_fast.encoder.onnx_encoder import OnnxEncoder

        return OnnxEncoder(folder)
    from ta_fast.encoder.gpu_encoder import GpuEncoder

    return GpuEncoder(read_model_folder(folder), device=device)


def make_scorer(device: str, matrix: ToolMatrix) -> Any:
    """The scorer that fits the encoder."""
    if device == "cpu":
        from ta_fast.scorer.numpy_scorer import NumpyScorer

        return NumpyScorer(matrix)
    from ta_fast.scorer.triton_scorer import TritonScorer

    return TritonScorer(matrix, device=device)


def machine() -> dict[str, Any]:
    """Where, with what, and when."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "command": " ".join(sys.orig_argv[1:]),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
    }
    if "torch" in sys.modules:
        import torch

    if "torch" in sys.modules and torch.cuda.is_available():
        found |= {"torch": torch.__version__, "gpu": torch.cuda.get_device_name()}
    return found


def counts(options: argparse.Namespace) -> dict[str, Any]:
    """What was asked for."""
    names = ("tools", "sessions", "seconds", "tokenisers", "commit")
    return {name: getattr(options, name) for name in names}


def table(results: dict[str, Any]) -> None:
    """A line for each figure."""
    for kind in ("dense", "hybrid"):
        found = results.get(kind, {})
        for phase in ("closed", "open"):
            if one := found.get(phase):
                ms, cpu = one["ms"], one["cpu_us_per_turn"]
                print(
                    f"{kind:7}{phase:7}{one['turns_per_s']:>8} turns/s  p50 {ms['p50']:.1f}  "
                    f"p99 {ms['p99']:.1f}  p99.9 {ms['p99.9']:.1f} ms  batch "
                    f"{one['rows_of_batch']:.0f}  cpu us/turn {one['cpu_us_per_turn_in_all']} {cpu}"
                    f"  errors {one['errors']}"
                )
        if where := found.get("where"):
            shares = {name: value for name, value in where.items() if name.startswith("gpu")}
            print(f"{kind:7}{shares or 'no GPU'}")
            for thread, top in where["samples"].items():
                if thread.startswith(("Main", "ta-fast")):
                    print(f"  {thread}:", ", ".join(f"{x['at']} {x['share']}" for x in top[:6]))
        if many := found.get("route_many"):
            print(f"{kind:7}route_many {many['turns_per_s']} ratio {many['ratio']}")
    for name, error in results.get("failed", {}).items():
        print(f"FAILED {name}: {error.splitlines()[-1]}")


def main() -> int:
    """Measure, part by part; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="MiniLM's folder; the installed one if not said")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--devices", default="", help="two or more: only requests of many turns")
    parser.add_argument("--tools", type=int, default=10_000)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each part")
    parser.add_argument("--rate", type=float, default=0.0, help="of the open loop; 0: see above")
    parser.add_argument("--bulk", type=int, default=4096, help="turns of a request of many")
    parser.add_argument("--switch", type=float, default=0.5, help="interval of threads in ms")
    parser.add_argument("--tokenisers", type=int, default=0, help="processes for each device")
    parser.add_argument("--kinds", default="dense,hybrid")
    parser.add_argument("--commit", default="")
    options = parser.parse_args()
    bench, failed = Bench(options), {}
    part: Callable[[str], None] = bench.many if options.devices else bench.sessions
    for kind in options.kinds.split(","):
        try:
            part(kind)
        except Exception:  # the other parts are still worth measuring
            failed[kind] = traceback.format_exc()
            print(failed[kind], file=sys.stderr)
    bench.results["failed"] = failed
    bench.save()
    table(bench.results)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
