"""What the GPU scorers are compared with, on one CUDA device; correctness first, then time.

The chip's ceilings, the bare cuBLAS product, torch (product, gate, top-k) and faiss-gpu
(``IndexFlatIP``, without any gate), on random unit vectors of D = 384, k = 10. Then this
project's own ``torch`` and ``faiss`` scorers, from host arrays to host arrays.

Every time is a median in microseconds, by CUDA events; ``graph`` ones are replays of a CUDA
graph that holds ten calls. Up to 60 MB of an index stays in the chip's L2 between calls.

    PYTHONPATH=.:kernels python -m bench.gpu_peers bench/results/gpu_peers.json
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch

EVERYTHING = 0xFFFFFFFF
DIM, K, N_CLASSES = 384, 10, 64
SHAPES = [
    (1, 120),
    *((turns, 10_240) for turns in (1, 64)),
    *((turns, 102_400) for turns in (64, 1024)),
    *((turns, 1_024_000) for turns in (1, 64, 1024)),
]
PACKAGES = ("torch", "triton", "faiss-gpu", "numpy")

Row = dict[str, Any]
Timed = Callable[[], object]


class Problem:
    """B turns and N tools on the device, and a gate: 64 classes, half allowed a turn.

    ``queries`` and ``tools`` float32 ``[B, D]`` and ``[N, D]``, and both in float16
    (``half_*``); ``classes`` int64 ``[N]``, ascending; ``allowed`` bool ``[B, 64]``.
    """

    def __init__(self, turns: int, count: int) -> None:
        torch.manual_seed(turns + count)
        self.turns, self.count = turns, count
        self.queries, self.tools = unit_rows(turns), unit_rows(count)
        self.half_queries, self.half_tools = self.queries.half(), self.tools.half()
        self.classes = torch.randint(N_CLASSES, (count,), device="cuda").sort().values
        self.allowed = torch.rand(turns, N_CLASSES, device="cuda") < 0.5

    def row(self, what: str, us: float, how: str, **more: object) -> Row:
        """One measurement."""
        shape = {"turns": self.turns, "tools": self.count, "dim": DIM, "k": K}
        return {"what": what, **shape, "us": round(us, 2), "how": how, **more}


def unit_rows(count: int) -> torch.Tensor:
    """Random unit vectors, float32 ``[count, DIM]``, on the device."""
    rows = torch.randn(count, DIM, device="cuda")
    return rows.div_(rows.norm(dim=1, keepdim=True))


def event_us(call: Timed, budget: float = 0.15) -> float:
    """Median time of a call; as many calls as take ``budget`` seconds, 7 to 200."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    started = perf_counter()
    call()
    torch.cuda.synchronize()
    rounds = max(7, min(200, int(budget / (perf_counter() - started))))
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
    for begin, end in events:
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return 1e3 * median(begin.elapsed_time(end) for begin, end in events)


def graph_us(call: Timed, calls: int = 10) -> float:
    """Median time of a call inside a replayed CUDA graph; the call may not synchronise."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        call()
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call()
    return event_us(graph.replay) / calls


def wall_us(call: Timed, budget: float = 0.3) -> float:
    """Median wall-clock time of a call that returns host arrays."""
    call()
    times: list[float] = []
    while len(times) < 5 or (sum(times) < budget and len(times) < 100):
        started = perf_counter()
        call()
        times.append(perf_counter() - started)
    return 1e6 * median(times)


def ceilings() -> Row:
    """Bytes and operations a second: a 4 GiB copy, and bf16 and fp16 products of 8192^3."""
    source = torch.randn(1 << 29, device="cuda")
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / event_us(lambda: target.copy_(source))
    found = {"copy_tb_s": round(copied / 1e6, 3)}
    for name in ("bfloat16", "float16"):
        a, b = (torch.randn(8192, 8192, device="cuda", dtype=getattr(torch, name)) for _ in "ab")
        out = torch.empty_like(a)
        us = event_us(lambda a=a, b=b, out=out: torch.mm(a, b, out=out))  # type: ignore[misc]
        found[f"{name}_tflop_s"] = round(2 * 8192**3 / us / 1e6, 1)
    return found


def cublas(problem: Problem) -> list[Row]:
    """The bare fp16 product, every score written: what a top-k has to start from."""
    out = torch.empty(problem.turns, problem.count, device="cuda", dtype=torch.float16)

    def call() -> torch.Tensor:
        return torch.mm(problem.half_queries, problem.half_tools.T, out=out)

    return [
        problem.row("cublas", graph_us(call), "graph"),
        problem.row("cublas", event_us(call), "eager"),
    ]


def torch_eager(problem: Problem) -> list[Row]:
    """Product, gate as a mask, top-k, in fp16: what one writes first."""

    def call() -> tuple[torch.Tensor, torch.Tensor]:
        scores = problem.half_queries @ problem.half_tools.T
        scores.masked_fill_(~problem.allowed[:, problem.classes], -torch.inf)
        best = scores.topk(K)
        return best.values, best.indices

    scores, rows = call()
    gate = problem.allowed.gather(1, problem.classes[rows])
    assert gate.all(), "torch returned a gated tool"
    _check_scores(problem, scores, rows)
    best = _best(problem, gated=True)
    assert (best - scores[: len(best), -1].double()).abs().max() < 2e-3
    return [
        problem.row("torch", event_us(call), "eager"),
        problem.row("torch-graph", graph_us(call), "graph"),
    ]


def faiss_flat(problem: Problem, *, half: bool) -> list[Row]:
    """faiss-gpu's exact index, no gate, operands on the device."""
    import faiss
    import faiss.contrib.torch_utils

    resources = faiss.StandardGpuResources()
    config = faiss.GpuIndexFlatConfig()
    config.useFloat16 = half
    index = faiss.GpuIndexFlatIP(resources, DIM, config)
    index.add(problem.tools)
    scores, rows = index.search(problem.queries, K)
    _check_scores(problem, scores, rows)
    best = _best(problem, gated=False)
    assert (best - scores[: len(best), -1].double()).abs().max() < 2e-3
    us = event_us(lambda: index.search(problem.queries, K))
    return [problem.row("faiss-fp16" if half else "faiss-fp32", us, "eager", gate=False)]


def _check_scores(problem: Problem, scores: torch.Tensor, rows: torch.Tensor) -> None:
    """Assert that the scores are those of the rows, to fp16's rounding."""
    exact = (problem.queries[:, None].double() * problem.tools[rows].double()).sum(-1)
    assert (exact - scores.double()).abs().max() < 2e-3


def _best(problem: Problem, *, gated: bool) -> torch.Tensor:
    """The k-th best score of the first four turns, in float64."""
    scores = problem.queries[:4].double() @ problem.tools.double().T
    if gated:
        scores.masked_fill_(~problem.allowed[:4, problem.classes], -torch.inf)
    return scores.topk(K).values[:, -1]


def own_scorers(problem: Problem) -> list[Row]:
    """The torch and faiss scorers with and without a gate; wall clock, host to host."""
    from ta_fast.scorer import faiss_scorer, torch_scorer
    from ta_fast_kernels import ToolMatrix, gated_topk

    classes = problem.classes.int().cpu().numpy()
    matrix = ToolMatrix.from_rows(problem.tools.cpu().numpy(), classes, N_CLASSES)
    queries = problem.queries.cpu().numpy()
    threshold = np.full(problem.turns, -1, np.float32)
    allowed = np.packbits(problem.allowed.cpu().numpy(), axis=1, bitorder="little").view("<u4")
    one = np.uint64(1) << np.arange(problem.turns, dtype=np.uint64)[:, None] % np.uint64(64)
    gates = {
        "half": allowed,
        "none": np.full_like(allowed, EVERYTHING),
        "one class": one.view("<u4"),
    }
    rows = []
    for name, scorer in {
        "torch-scorer-fp32": torch_scorer.TorchScorer(matrix, device="cuda"),
        "torch-scorer-fp16": torch_scorer.TorchScorer(matrix, device="cuda", dtype="float16"),
        "faiss-scorer": faiss_scorer.FaissScorer(matrix, device="cuda"),
    }.items():
        for gate, bits in gates.items():
            operands = queries, bits, K, threshold
            found = scorer.topk(*operands)
            few = slice(0, 8)
            expected = gated_topk(queries[few], matrix, bits[few], K, threshold[few])
            same = np.array_equal(found.rows[few], expected.rows)
            assert same, f"{name} is not exact"
            assert np.array_equal(found.scores[few], expected.scores), f"{name} is not exact"
            us = wall_us(lambda s=scorer, o=operands: s.topk(*o))  # type: ignore[misc]
            rows.append(problem.row(name, us, "host to host", gate=gate))
    return rows


MEASURES: dict[str, Callable[[Problem], list[Row]]] = {
    "cublas": cublas,
    "torch": torch_eager,
    "faiss-fp32": lambda problem: faiss_flat(problem, half=False),
    "faiss-fp16": lambda problem: faiss_flat(problem, half=True),
}


def said(*command: str) -> str:
    """What a program prints, or ``unknown`` where it cannot run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip().split("\n")[0]  # one line, of one GPU or of several


def machine() -> Row:
    """Where and when: GPU, driver, versions, command."""
    versions = {"python": platform.python_version(), "cuda": str(torch.version.cuda)}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "versions": versions,
        "command": " ".join(sys.orig_argv[1:]),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
    }


def write_results(path: Path, rows: list[Row], **more: object) -> None:
    """Write measurements, the machine they were taken on, and whatever ``more`` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"bench": path.stem, **machine(), **more, "rows": rows}
    path.write_text(json.dumps(document, indent=1) + "\n")


def measure(
    problem: Problem, measures: Mapping[str, Callable[[Problem], list[Row]]] = MEASURES
) -> tuple[list[Row], list[str]]:
    """Run each measure on one problem: its rows, and a line for each that failed."""
    rows: list[Row] = []
    failed: list[str] = []
    for name, run in measures.items():
        try:
            rows += run(problem)
        except Exception as error:  # the others are still worth measuring
            message = f"{type(error).__name__}: {error}"
            failed.append(f"{name} at {problem.turns} x {problem.count}: {message}"[:400])
        torch.cuda.empty_cache()
    return rows, failed


def show(rows: list[Row]) -> None:
    """Print measurements, one a line."""
    for row in rows:
        print(*(row.get(key, "") for key in ("turns", "tools", "what", "how", "gate", "us")))
    sys.stdout.flush()


def main(path: Path, commit: str | None) -> None:
    """Measure everything, at every shape; what fails is said, and the rest goes on."""
    commit = commit or said("git", "rev-parse", "--short", "HEAD")
    rows: list[Row] = []
    failed: list[str] = []
    found = ceilings()
    print(found)
    for turns, count in SHAPES:
        own = {"own": own_scorers} if turns <= 64 and 1_000 < count <= 102_400 else {}
        more, errors = measure(Problem(turns, count), MEASURES | own)
        show(more)
        rows += more
        failed += errors
        write_results(path, rows, commit=commit, ceilings=found, failed=failed)
    print("failed:", *failed or ["nothing"], sep="\n  ")


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="the JSON file to write")
    parser.add_argument("--commit", help="what was measured, where git is not at hand")
    options = parser.parse_args()
    main(options.path, options.commit)
