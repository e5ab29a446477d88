"""Hybrid against dense scores on a GPU: checked against float64, then timed. Writes JSON.

    python -m bench.gpu_hybrid [--out FILE] [--shapes 1x10240,64x10240]

Medians of graph replays in microseconds; random unit vectors, D = 384, float16, k = 10, 64
classes of which each turn may use half. Terms are drawn so that their statistics are those of
real intents on 10,000 real definitions: 14 terms a tool, 11 a turn, which meet 1,600 postings
in the mean, 1,080 in the median and 6,800 at the 99th percentile (real: 1,405, 921, 6,797);
ten times as many tools meet ten times as often. Weights are BM25's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.gpu_peers import machine, said
from bench.gpu_scoring import CUDA, DIM, K, bits_of, guarded, micros, unit
from ta_fast_kernels import UNIT, Postings, class_order
from ta_fast_kernels.triton_terms import TurnTerms
from ta_fast_kernels.triton_topk import GroupSearch

VOCABULARY, OF_TOOL, OF_TURN = 8192, (15, 2), (11, 100)
"""Terms, and of a tool and a turn: draws, and what flattens 1 / (rank + it)."""
CLASSES = 64
SHAPES = (
    "1x10240,64x10240,1024x10240,1x102400,64x102400,1024x102400,1x1024000,64x1024000,1024x1024000"
)
CHECKED = 64 * 1_024_000


def draw(rows: int, draws: int, flat: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Owners and terms ``[M]`` of distinct drawn terms, ascending within a row."""
    generator = torch.Generator(CUDA).manual_seed(seed)
    chance = 1 / (torch.arange(VOCABULARY, device=CUDA, dtype=torch.float64) + flat)
    below = torch.cumsum(chance / chance.sum(), 0)
    uniform = torch.rand((rows, draws), device=CUDA, generator=generator, dtype=torch.float64)
    drawn = torch.searchsorted(below, uniform).clamp_(max=VOCABULARY - 1).sort(dim=1).values
    first = torch.ones_like(drawn, dtype=torch.bool)
    first[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
    owners, places = first.nonzero(as_tuple=True)
    return owners, drawn[owners, places]


class Tools:
    """N tools: vectors, terms, and the search in them."""

    def __init__(self, count: int) -> None:
        classes = np.random.default_rng(1).permutation(count) % CLASSES
        self.rows, self.starts = class_order(classes.astype(np.int32), CLASSES)
        self.vectors = unit(count, DIM, torch.float16, 1)
        self.owners, self.terms = draw(count, *OF_TOOL, 2)
        held = torch.bincount(self.terms, minlength=VOCABULARY)
        rarity = torch.log(1 + (count - held + 0.5) / (held + 0.5))
        often = 0.6 + torch.rand(len(self.terms), device=CUDA)
        self.weights = (0.02 / UNIT * rarity[self.terms] * often).round().clamp_(1, 2047).int()
        order = torch.sort(self.terms, stable=True).indices
        offsets = torch.cat([held.new_zeros(1), held.cumsum(0)])
        self.held = held
        self.postings = Postings(
            offsets.cpu().numpy(),
            self.owners[order].int().cpu().numpy(),
            self.weights[order].cpu().numpy(),
        )
        self.search = GroupSearch(self.vectors, self.rows, self.starts, 1.01, self.postings)


class Problem:
    """B turns against them."""

    def __init__(self, tools: Tools, turns: int) -> None:
        self.tools, self.turns = tools, turns
        self.queries = unit(turns, DIM, torch.float16, 3)
        self.allowed = bits_of(turns, CLASSES, "half")
        self.threshold = torch.full((turns,), -1.0, device=CUDA)
        self.owners, terms = draw(turns, *OF_TURN, 4)
        sizes = torch.bincount(self.owners, minlength=turns)
        offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]).int()
        self.terms = TurnTerms(offsets, terms.int(), torch.ones_like(terms, dtype=torch.int32))
        self.out = (
            torch.full((turns, K), float("nan"), device=CUDA),
            torch.full((turns, K), -77, dtype=torch.int32, device=CUDA),
        )

    def dense(self) -> None:
        self.tools.search.topk(self.queries, self.allowed, K, self.threshold, self.out)

    def hybrid(self) -> None:
        search = self.tools.search
        search.topk(self.queries, self.allowed, K, self.threshold, self.out, terms=self.terms)

    def met(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Postings that each turn meets."""
        found = self.tools.held[self.terms.terms.long()].double()
        total = torch.zeros(self.turns, dtype=torch.float64, device=CUDA)
        return total.index_add_(0, self.owners, found).cpu().numpy()

    def check(self) -> int:
        """Places that differ from float64 products and whole sums, of NaN-filled outputs."""
        self.out[0].fill_(float("nan"))
        self.out[1].fill_(-77)
        for buffer in (
            *self.tools.search.scratch(self.turns).values(),
            self.tools.search.terms.sums,
        ):
            buffer.fill_(float("nan") if buffer.is_floating_point() else -(2**31))
        self.hybrid()
        scores, rows = self.expected()
        return int(((rows != self.out[1]) | (scores != self.out[0])).sum())

    def expected(self) -> tuple[torch.Tensor, torch.Tensor]:
        """By float64 products (exact for float16 unit vectors), sorted by score, then row."""
        tools, count = self.tools, len(self.tools.vectors)
        sizes = torch.from_numpy(np.diff(tools.starts)).to(CUDA)
        owner = torch.repeat_interleave(torch.arange(CLASSES, device=CUDA), sizes)
        rows = torch.from_numpy(tools.rows).to(CUDA).long()
        wide, parts = tools.vectors.double().T.contiguous(), []
        for b in range(self.turns):
            mine = torch.zeros(VOCABULARY, dtype=torch.int32, device=CUDA)
            first, last = (int(i) for i in self.terms.offsets[b : b + 2])
            mine[self.terms.terms[first:last].long()] = self.terms.counts[first:last]
            sums = torch.zeros(count, dtype=torch.int32, device=CUDA)
            sums.index_add_(0, tools.owners, mine[tools.terms] * tools.weights)
            exact = (self.queries[b : b + 1].double() @ wide)[0] + sums.double() * UNIT
            score = exact.float() + 0.0
            ok = (self.allowed[b, owner // 32] >> (owner % 32)) & 1 == 1
            order = score.view(torch.int32)
            order = (order ^ ((order >> 31) & 0x7FFFFFFF)).long()
            key = torch.where(ok, (order << 32) | (0x7FFFFFFF - rows), -(2**63))
            parts.append(key.topk(K).values)
        best = torch.stack(parts)
        order = (best >> 32).int()
        score = (order ^ ((order >> 31) & 0x7FFFFFFF)).view(torch.float32)
        return score, (0x7FFFFFFF - (best & 0x7FFFFFFF)).int()


def measure(results: dict[str, Any], tools: Tools, turns: int) -> None:
    """One shape: what is wrong, then what both kinds of score cost."""
    p, count = Problem(tools, turns), len(tools.vectors)
    where = f"{turns}x{count}"
    if turns * count <= CHECKED:
        guarded(f"{where} wrong", results, p.check)
    guarded(f"{where} dense us", results, lambda: round(micros(p.dense), 2))
    guarded(f"{where} hybrid us", results, lambda: round(micros(p.hybrid), 2))
    met = p.met()
    for name, value in {"mean": met.mean(), "median": np.median(met), "max": met.max()}.items():
        results[f"{where} postings met by a turn, {name}"] = int(value)


def sizes(results: dict[str, Any], tools: Tools) -> None:
    """Bytes of the index and beside it."""
    search, count = tools.search, len(tools.vectors)
    index = tools.vectors.nbytes + search.terms.nbytes
    scratch = sum(t.nbytes for t in search.scratch(1024).values()) + search.terms.sums.nbytes
    beyond = scratch + search.tools.nbytes - tools.vectors.nbytes
    results[f"{count} tools: terms MB"] = round(search.terms.nbytes / 1e6, 1)
    results[f"{count} tools: scratch MB"] = round(scratch / 1e6, 1)
    results[f"{count} tools: beyond 64 MB, share of the index"] = round((beyond - 64e6) / index, 3)


def main() -> None:
    """Measure the shapes asked for, print them, and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="")
    parser.add_argument("--shapes", default=SHAPES)
    options = parser.parse_args()
    commit = said("git", "rev-parse", "--short", "HEAD")
    results: dict[str, Any] = {**machine(), "commit": commit}
    shapes = [tuple(map(int, shape.split("x"))) for shape in options.shapes.split(",")]
    for count in sorted({count for _, count in shapes}):
        tools = Tools(count)
        for turns in sorted(turns for turns, other in shapes if other == count):
            measure(results, tools, turns)
        sizes(results, tools)
        del tools
    if options.out:
        Path(options.out).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print("wrong", {name: value for name, value in results.items() if name.endswith("wrong")})


if __name__ == "__main__":
    main()
