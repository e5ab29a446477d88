"""Gated top-k on a GPU: group maxima by the matrix unit, then an exact search in few groups.

Two launches, no synchronisation and no allocation that depends on the data, so a
call can be captured in a CUDA graph. Needs torch and triton. kernels/README.md has the proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from ta_fast_kernels import triton_kernels as kernels
from ta_fast_kernels.triton_best import best_tools
from ta_fast_kernels.triton_index import TILE, Layout, group_size, place

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ta_fast_kernels.matrix import ToolMatrix

MAX_K = 64
"""Largest k that the kernels serve."""
MAX_TURNS = 1024
"""Turns of one pass; longer batches take several."""
MANY_GROUPS = 8192
"""Groups from which a small batch is padded: a tile's copy is slower where rows are missing."""
MAX_LANES = 2048
CHUNK = 16
CAP = 512
"""Tools of a turn that are listed before they are scored exactly."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How the matrix product is cut: turns, tools and dimensions of a tile."""

    turns: int
    tools: int
    dims: int
    warps: int
    stages: int


NARROW = Tiling(64, 128, 64, 4, 3)
WIDE = Tiling(128, 128, 64, 4, 2)


def tiling(turns: int) -> Tiling:
    """The measured choice for so many turns."""
    return NARROW if turns <= 64 else WIDE


class GroupSearch:
    """The tools of one ``ToolMatrix`` on a device, and the search in them.

    One instance serves one call at a time: it owns the scratch memory. Several instances
    (two epochs, say) are independent.

    Args:
        vectors: float16 or bfloat16 ``[N, D]`` on the device, in ``ToolMatrix`` order.
        rows: int32 ``[N]``, the catalog row of each.
        starts: int64 ``[G + 1]``.
        max_norm: an upper bound of the vectors' Euclidean norms.
    """

    def __init__(
        self,
        vectors: torch.Tensor,
        rows: NDArray[Any],
        starts: NDArray[Any],
        max_norm: float,
        *,
        group: int | None = None,
    ) -> None:
        count, width = vectors.shape
        self.device = vectors.device
        self.dim = -(-width // 16) * 16
        self.n_classes = len(starts) - 1
        self.n_words = -(-self.n_classes // 32)
        layout = Layout.plan(starts, group or group_size(count))
        self.group, self.identity = layout.group, layout.identity
        self.n_groups = len(layout.group_class)
        self.tools = place(vectors, layout, self.dim)
        stored = torch.from_numpy(layout.stored).to(self.device)
        there = stored >= 0
        self.rows = self._ints(rows)[stored.clamp_min(0)] if count else self._ints(stored)
        owner = torch.bucketize(stored, torch.from_numpy(starts[1:]).to(self.device), right=True)
        self.classes = torch.where(there, owner, -1).to(torch.int32)
        self.group_class = self._ints(layout.group_class)
        self.group_valid = self._ints(layout.group_valid)
        self.flags = {tile: self._ints(layout.flags(tile)) for tile in (128, 256)}
        self.slack = max_norm * 1.001 * (self.dim + 64) * 2.0**-22
        self.max_turns = self._turns_that_fit()
        self._scratch: dict[int, dict[str, torch.Tensor]] = {}
        self.early = self.device.type == "cuda"
        if self.early:
            properties = torch.cuda.get_device_properties(self.device)
            self.processors = properties.multi_processor_count
        else:
            self.processors = 2

    def _ints(self, values: Any) -> torch.Tensor:
        return torch.as_tensor(values).to(device=self.device, dtype=torch.int32)

    def _turns_that_fit(self) -> int:
        """Turns of one pass: maxima within 12 % of the index and 40 MB, a power of two."""
        budget = self.tools.nbytes * 0.12 + 40e6
        turns = MAX_TURNS
        while turns > 64 and turns * self.n_groups * 4 > budget:
            turns //= 2
        return turns

    def scratch(self, turns: int) -> dict[str, torch.Tensor]:
        """Scratch memory for a bucket of turns: made once, so that graphs may keep it."""
        bucket = 64 if turns <= 64 else self.max_turns
        if bucket not in self._scratch:
            ints = {"dtype": torch.int32, "device": self.device}
            lanes = self.lanes
            turns_of_tile = tiling(bucket).turns
            self._scratch[bucket] = {
                "queries": self.tools.new_zeros((turns_of_tile, self.dim)),
                "maxima": torch.empty(bucket * self.n_groups, device=self.device),
                "lanes": torch.empty(bucket * lanes, **ints),
                "hits": torch.empty(bucket * CHUNK * CHUNK, **ints),
                "found": torch.empty(bucket * CAP, **ints),
                "keys": torch.empty(bucket * (CAP + MAX_K), dtype=torch.int64, device=self.device),
            }
        return self._scratch[bucket]

    @property
    def lanes(self) -> int:
        """Interleaved sets of groups whose maxima give the first bound."""
        return min(MAX_LANES, max(64, 1 << (self.n_groups - 1).bit_length()))

    def topk(
        self,
        queries: torch.Tensor,
        allowed: torch.Tensor,
        k: int,
        threshold: torch.Tensor,
        out: tuple[torch.Tensor, torch.Tensor] | None = None,
        choice: Tiling | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores float32 ``[B, k]`` and catalog rows int32 ``[B, k]`` on the device.

        Args:
            queries: ``[B, D]`` of the tools' dtype, contiguous; numbers finite.
            allowed: int32 ``[B, ceil(G / 32)]``, contiguous.
            k: 1 to ``MAX_K``.
            threshold: float32 ``[B]``, contiguous; not NaN.
            out: where to write scores and rows.
            choice: a tiling other than the measured one.
        """
        turns = len(queries)
        if not 1 <= k <= MAX_K:
            raise ValueError(f"k: expected 1 to {MAX_K}, found {k}")
        if out is None:
            scores = torch.empty((turns, k), device=self.device)
            out = scores, torch.empty((turns, k), dtype=torch.int32, device=self.device)
        if self.n_groups == 0:
            out[0].fill_(float("-inf"))
            out[1].fill_(-1)
            return out
        if queries.shape[1] != self.dim:
            queries = torch.nn.functional.pad(queries, (0, self.dim - queries.shape[1]))
        for i in range(0, turns, self.max_turns):
            part = slice(i, i + self.max_turns)
            mine = out[0][part], out[1][part]
            self._pass(queries[part], allowed[part], k, threshold[part], mine, choice)
        return out

    def _pass(
        self,
        queries: torch.Tensor,
        allowed: torch.Tensor,
        k: int,
        threshold: torch.Tensor,
        out: tuple[torch.Tensor, torch.Tensor],
        choice: Tiling | None,
    ) -> None:
        cut = choice or tiling(len(queries))
        memory = self.scratch(len(queries))
        self.find_maxima(queries, allowed, memory, cut)
        self.find_best(queries, allowed, k, threshold, memory, out)

    def find_maxima(
        self, queries: torch.Tensor, allowed: torch.Tensor, memory: dict[str, Any], cut: Tiling
    ) -> None:
        """Stage one: the maximum of each group, for each turn."""
        turns, dim = queries.shape
        rows = turns
        if turns < cut.turns and self.n_groups >= MANY_GROUPS:
            memory["queries"][:turns] = queries
            queries, rows = memory["queries"], len(memory["queries"])
        left = TensorDescriptor(queries, [rows, dim], [dim, 1], [cut.turns, cut.dims])
        right = TensorDescriptor(
            self.tools, list(self.tools.shape), [dim, 1], [cut.tools, cut.dims]
        )
        programs = len(self.tools) // cut.tools * -(-turns // cut.turns)
        kernels.group_maxima[(programs,)](
            left, right, memory["maxima"], allowed, self.flags[cut.tools],
            self.group_class, self.group_valid, self.classes,
            self.n_words, turns, len(self.tools) // TILE,
            D=dim, GROUP=self.group, IDENTITY=self.identity, EARLY=self.early,
            BM=cut.turns, BN=cut.tools, BK=cut.dims, num_warps=cut.warps, num_stages=cut.stages,
        )  # fmt: skip

    def find_best(
        self,
        queries: torch.Tensor,
        allowed: torch.Tensor,
        k: int,
        threshold: torch.Tensor,
        memory: dict[str, Any],
        out: tuple[torch.Tensor, torch.Tensor],
        **how: int,
    ) -> None:
        """Stage two: the best tools of each turn, from the maxima."""
        width = 1 << (self.dim - 1).bit_length()
        lists = (memory[name] for name in ("lanes", "hits", "found", "keys"))
        shape: dict[str, Any] = {"BD": min(128, width), "MERGE": 32 if k <= 16 else 128}
        if len(queries) <= self.processors:  # one program a multiprocessor: make it fast
            shape |= {"BLOCK": 128, "ROWS": max(1, min(8, 8192 // width)), "num_warps": 8}
        else:  # make it small, so that several fit
            shape |= {"BLOCK": 32, "ROWS": max(1, min(4, 8192 // width)), "num_warps": 4}
            shape |= {"maxnreg": 128} if self.early else {}
        if self.early:
            shape["launch_pdl"] = True
        best_tools[(len(queries),)](
            queries, self.tools, self.rows, self.classes, allowed, threshold, memory["maxima"],
            *lists, *out, self.n_words, len(self.tools) // TILE, k, self.slack,
            D=self.dim, GROUP=self.group, K=16 if k <= 16 else 64,
            LANES=self.lanes, UNROLL=0 if self.n_groups <= self.lanes else 4,
            CHUNK=CHUNK, CAP=CAP, EARLY=self.early, **(shape | how),
        )  # fmt: skip


def search_of(matrix: ToolMatrix, dtype: torch.dtype, device: torch.device) -> GroupSearch:
    """A ``GroupSearch`` over the vectors of ``matrix``, rounded to ``dtype``, on ``device``."""
    rounded = torch.empty(matrix.vectors.shape, dtype=dtype, device=device)
    for i in range(0, len(matrix), 1 << 17):
        rounded[i : i + (1 << 17)] = torch.from_numpy(np.array(matrix.vectors[i : i + (1 << 17)]))
    # Rounding lengthens a vector by 2**-8 at most (and by a little where it underflows).
    max_norm = matrix.max_norm * (1 + 2.0**-8) + matrix.dim * 2.0**-24
    return GroupSearch(rounded, matrix.rows, matrix.starts, max_norm)
