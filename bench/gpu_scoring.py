"""Gated top-k on a GPU: checked against float64, then timed in CUDA graphs. Writes JSON.

    python -m bench.gpu_scoring [--out FILE] [--parts check,times]

Medians of graph replays in microseconds, random unit vectors, D = 384, float16, k = 10. The
bare product is ``torch.matmul`` into a ready buffer, in a graph too, in the same run.
"""

from __future__ import annotations

import argparse
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from bench.gpu_peers import machine, said
from ta_fast_kernels import class_order
from ta_fast_kernels.triton_maxima import Tiling, find_maxima
from ta_fast_kernels.triton_topk import FEW_TOOLS, GroupSearch

DIM, K = 384, 10
CUDA = "cuda"


def unit(count: int, dim: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Random unit vectors on the device."""
    generator = torch.Generator(CUDA).manual_seed(seed)
    drawn = torch.empty((count, dim), dtype=dtype, device=CUDA)
    for i in range(0, count, 1 << 18):
        part = torch.randn((min(1 << 18, count - i), dim), device=CUDA, generator=generator)
        drawn[i : i + (1 << 18)] = torch.nn.functional.normalize(part, dim=1)
    return drawn


def bits_of(turns: int, n_classes: int, gate: str) -> torch.Tensor:
    """Allowed bits: ``all``, ``half`` drawn for each turn, or ``few``: 5 % alike for all."""
    rng = np.random.default_rng(3)
    share = {"all": 1.0, "half": 0.5, "few": 0.05}[gate]
    drawn = rng.random((1 if gate == "few" else turns, -(-n_classes // 32) * 32)) < share
    if gate == "few" and n_classes < 100:
        drawn[:] = np.arange(drawn.shape[1]) % 20 == 1
    drawn = np.repeat(drawn, turns // len(drawn), axis=0)
    words = np.packbits(drawn, axis=1, bitorder="little").view("<i4")
    return torch.from_numpy(words.copy()).to(CUDA)


class Problem:
    """B turns against N tools."""

    def __init__(
        self,
        turns: int,
        count: int,
        n_classes: int = 64,
        gate: str = "half",
        *,
        dim: int = DIM,
        k: int = K,
        dtype: torch.dtype = torch.float16,
        vectors: torch.Tensor | None = None,
        search: GroupSearch | None = None,
        order: str = "even",
        copies: int = 1,
    ) -> None:
        self.k, self.turns, self.count = k, turns, count
        rng = np.random.default_rng(1)
        classes = rng.permutation(count) % n_classes
        if order == "uneven":
            classes = rng.integers(0, n_classes, count)
        rows, starts = class_order(classes.astype(np.int32), n_classes)
        self.vectors = unit(count, dim, dtype, 1) if vectors is None else vectors
        if copies > 1:
            self.vectors = (
                self.vectors[: -(-count // copies)].repeat(copies, 1)[:count].contiguous()
            )
        self.rows, self.starts = rows, starts
        self.search = search or GroupSearch(self.vectors, rows, starts, 1.01)
        self.queries = unit(turns, dim, dtype, 2)
        self.allowed = bits_of(turns, n_classes, gate)
        self.threshold = torch.full((turns,), -1.0, device=CUDA)
        self.out = (
            torch.full((turns, k), float("nan"), device=CUDA),
            torch.full((turns, k), -77, dtype=torch.int32, device=CUDA),
        )

    def run(self, choice: Tiling | None = None) -> None:
        self.search.topk(self.queries, self.allowed, self.k, self.threshold, self.out, choice)

    def expected(self) -> tuple[torch.Tensor, torch.Tensor]:
        """By float64 products (exact for float16 unit vectors), sorted by score, then row."""
        sizes = torch.from_numpy(np.diff(self.starts)).to(CUDA)
        owner = torch.repeat_interleave(torch.arange(len(sizes), device=CUDA), sizes)
        rows = torch.from_numpy(self.rows).to(CUDA).long()
        tools, parts = self.vectors.double().T.contiguous(), []
        for i in range(0, self.turns, 64):
            turns = slice(i, i + 64)
            score = (self.queries[turns].double() @ tools).float() + 0.0
            word = self.allowed[turns][:, owner // 32]
            ok = (word >> (owner % 32)) & 1 == 1
            ok &= score >= self.threshold[turns, None]
            order = score.view(torch.int32)
            order = (order ^ ((order >> 31) & 0x7FFFFFFF)).long()
            key = torch.where(ok, (order << 32) | (0x7FFFFFFF - rows), -(2**63))
            best = key.topk(min(self.k, self.count), dim=1).values
            parts.append(torch.nn.functional.pad(best, (0, self.k - best.shape[1]), value=-(2**63)))
        best = torch.cat(parts)
        order = (best >> 32).int()
        score = (order ^ ((order >> 31) & 0x7FFFFFFF)).view(torch.float32)
        none = best == -(2**63)
        row = torch.where(none, -1, 0x7FFFFFFF - (best & 0x7FFFFFFF)).int()
        return torch.where(none, float("-inf"), score), row

    def check(self, choice: Tiling | None = None, expected: Any = None) -> int:
        """Rows that differ from the reference; scores must be equal wherever rows are."""
        self.out[0].fill_(float("nan"))
        self.out[1].fill_(-77)
        for scratch in self.search.scratch(self.turns).values():
            scratch.fill_(float("nan") if scratch.is_floating_point() else 0x7FC00000)
        self.run(choice)
        scores, rows = expected or self.expected()
        return int(((rows != self.out[1]) | (scores != self.out[0])).sum())


def graph_of(call: Any) -> torch.cuda.CUDAGraph:
    """The call, warmed up and captured."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph


def micros(call: Any, budget: float = 0.12) -> float:
    """Median microseconds of a graph replay; short ones are timed in runs of 20."""
    graph = graph_of(call)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def timed(repeats: int) -> float:
        start.record()
        for _ in range(repeats):
            graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e3 / repeats

    once = timed(5)
    repeats = 20 if once < 500 else 3
    rounds = int(max(9, min(101, budget * 1e6 / (once * repeats))))
    return median(timed(repeats) for _ in range(rounds))


def guarded(name: str, results: dict[str, Any], call: Any) -> None:
    """One variant may fail; the others are still measured."""
    try:
        results[name] = call()
    except Exception as error:
        results[name] = f"FAILED {type(error).__name__}: {str(error)[-300:]}"
        traceback.print_exc(limit=3)
    print(f"{name:60s} {results[name]}", flush=True)


AWKWARD = [
    # turns, tools, classes, dimensions, k, order
    (1, 1, 1, 16, 1, "even"),
    (3, 31, 2, 16, 10, "even"),
    (64, 32, 32, 384, 10, "even"),
    (65, 33, 33, 400, 64, "even"),
    (3, 1000, 64, 384, 10, "uneven"),
    (64, 4097, 4097, 384, 10, "even"),
    (64, 4097, 4097, 384, 10, "uneven"),
    (130, 33_000, 300, 64, 33, "uneven"),
    (200, 70_001, 70_001, 384, 10, "even"),
    (70, 70_001, 70_001, 384, 10, "uneven"),
    (1024, 50_000, 64, 4096, 10, "even"),
]


def correctness(results: dict[str, Any]) -> None:
    """Awkward shapes and ties; wrong results are counted."""
    ties = Problem(64, 20_000, 7, "half", copies=2000)
    guarded("check ties 2000 copies", results, ties.check)
    ties = Problem(8, 70_000, 7, "half", copies=70_000)
    guarded("check all alike", results, ties.check)
    for turns, count, n_classes, dim, k, order in AWKWARD:
        for gate in ("half", "few", "all"):
            problem = Problem(turns, count, n_classes, gate, dim=dim, k=k, order=order)
            label = f"check {turns}x{count} G{n_classes} D{dim} k{k} {order} {gate}"
            guarded(label, results, problem.check)


SHAPES = [(1, 120), (1, 10_240), (64, 10_240), (1024, 10_240), (64, 102_400), (1024, 102_400),
          (1, 1_024_000), (64, 1_024_000), (1024, 1_024_000)]  # fmt: skip


def stages(results: dict[str, Any], p: Problem, where: str) -> None:
    """The bare product, each stage alone, and the whole; what is wrong, on the smaller."""
    memory = p.search.scratch(p.turns)
    product = torch.empty((p.turns, p.count), dtype=torch.float16, device=CUDA)
    one = p.search, p.queries, p.allowed, memory
    two = p.queries, p.allowed, K, p.threshold, memory, p.out
    calls: dict[str, Callable[[], object]] = {
        "cuBLAS us": lambda: torch.matmul(p.queries, p.vectors.T, out=product),
        "stage one us": lambda: find_maxima(*one),
        "stage two us": lambda: p.search.find_best(*two),
    }
    if p.turns > p.search.max_turns or len(p.search.tools) <= FEW_TOOLS:
        del calls["stage one us"], calls["stage two us"]
    for name, call in calls.items():
        guarded(f"{where} {name}", results, lambda c=call: round(micros(c), 2))
    guarded(f"{where} us", results, lambda: round(micros(p.run), 2))
    if p.turns * p.count <= 64 * 1_024_000:
        guarded(f"{where} wrong", results, p.check)


def times(results: dict[str, Any]) -> None:
    """Every shape; the gate's cost: none, 64 classes, a class a tool, 95 % denied to all."""
    for turns, count in SHAPES:
        vectors = unit(count, DIM, torch.float16, 1)
        search: dict[int, GroupSearch] = {}
        for n_classes, gate in [
            (64, "half"),
            (64, "all"),
            (64, "few"),
            (1, "all"),
            (count, "half"),
        ]:
            kept = search.get(n_classes)
            search.clear()
            p = Problem(turns, count, n_classes, gate, vectors=vectors, search=kept)
            search[n_classes] = p.search
            where = f"{turns}x{count} G{n_classes} {gate}"
            if gate == "half" and n_classes == 64:
                stages(results, p, where)
                memory = sum(t.nbytes for t in p.search.scratch(turns).values())
                padding = p.search.tools.nbytes - vectors.nbytes
                results[f"{where} scratch MB"] = round(memory / 1e6, 1)
                share = (memory + padding - 64e6) / vectors.nbytes
                results[f"{where} scratch beyond 64 MB, share of the index"] = round(share, 3)
            else:
                guarded(f"{where} us", results, lambda p=p: round(micros(p.run), 2))


def main() -> None:
    """Run the parts asked for, print them, and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="")
    parser.add_argument("--parts", default="check,times")
    options = parser.parse_args()
    commit = said("git", "rev-parse", "--short", "HEAD")
    results: dict[str, Any] = {**machine(), "commit": commit}
    for part, work in {"check": correctness, "times": times}.items():
        if part in options.parts.split(","):
            work(results)
    if options.out:
        Path(options.out).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    checks = [v for name, v in results.items() if name.startswith("check") or "wrong" in name]
    print("checks", len(checks), "failed", sum(v != 0 for v in checks))


if __name__ == "__main__":
    main()
