"""Gated top-k on a GPU: group maxima by the matrix unit, then an exact search in few groups.

A call can be captured in a CUDA graph. Needs torch and triton. The proof: kernels/README.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ta_fast_kernels.triton_best import best_tools
from ta_fast_kernels.triton_exact import every_tool
from ta_fast_kernels.triton_index import TILE, Layout, group_size, part_size, place
from ta_fast_kernels.triton_lexical import NONE, ROWS_OF_TERMS
from ta_fast_kernels.triton_maxima import Tiling, find_maxima, kernels_for_hopper
from ta_fast_kernels.triton_terms import TermIndex, TurnTerms, lexical_kind, lexical_operands

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ta_fast_kernels.matrix import ToolMatrix
    from ta_fast_kernels.terms import Postings

MAX_K = 64
"""Largest k that the kernels serve."""
MAX_TURNS = 1024
"""Turns of one pass; longer batches take several."""
FEW_TOOLS = 256
"""Up to so many positions, every tool is scored exactly, in one launch."""
FEW_GROUPS = 2048
"""Up to so many groups, the search starts from the groups; beyond, from the tiles."""
FEW_TILES = 2048
"""Up to so many tiles, 64 sets of tiles; beyond, more."""
LIST = 256 + 2048 + 2 * 32 * 16
"""Numbers that stage two writes down for a turn, at most."""


class GroupSearch:
    """The tools of one ``ToolMatrix`` on a device, and the search in them.

    One instance serves one call at a time: it owns the scratch memory. Several instances
    (two epochs, say) are independent.

    Args:
        vectors: float16 or bfloat16 ``[N, D]`` on the device, in ``ToolMatrix`` order.
        rows: int32 ``[N]``, the catalog row of each.
        starts: int64 ``[G + 1]``.
        max_norm: an upper bound of the vectors' Euclidean norms.
        postings: the tools' terms by stored row, for hybrid scores.
    """

    def __init__(
        self,
        vectors: torch.Tensor,
        rows: NDArray[Any],
        starts: NDArray[Any],
        max_norm: float,
        postings: Postings | None = None,
        *,
        group: int | None = None,
    ) -> None:
        count, width = vectors.shape
        self.device = vectors.device
        self.dim = -(-width // 16) * 16
        self.n_classes = len(starts) - 1
        self.n_words = -(-self.n_classes // 32)
        layout = Layout.plan(starts, group or group_size(count))
        self.group, self.identity, self.n_pure = layout.group, layout.identity, layout.n_pure
        self.tools = place(vectors, layout, self.dim)
        self.n_tiles = len(self.tools) // TILE
        stored = torch.from_numpy(layout.stored).to(self.device)
        there = stored >= 0
        self.rows = self._ints(rows)[stored.clamp_min(0)] if count else self._ints(stored)
        owner = torch.bucketize(stored, torch.from_numpy(starts[1:]).to(self.device), right=True)
        self.classes = torch.where(there, owner, -1).to(torch.int32)
        self.seams, self.group_valid = self._ints(layout.seams), self._ints(layout.group_valid)
        pure = layout.seams[:, :2]
        self.used = self._ints(np.unique(pure[pure >= 0] // 32))
        self.slack = max_norm * 1.001 * (self.dim + 64 + 128) * 2.0**-22
        self.max_turns = self._turns_that_fit()
        self._scratch: dict[int, dict[str, torch.Tensor]] = {}
        self.terms: TermIndex | None = None
        if postings is not None:
            self.terms = TermIndex(postings, layout.stored, self.device)
            self.terms.make_room(self.max_turns, self._room(self.terms.nbytes))
        self.early = self.device.type == "cuda"
        self.processors, self.hopper = 8, None
        if self.early:
            self.processors = torch.cuda.get_device_properties(self.device).multi_processor_count
            self.hopper = kernels_for_hopper(self.device)

    def _ints(self, values: Any) -> torch.Tensor:
        return torch.as_tensor(values).to(device=self.device, dtype=torch.int32)

    @property
    def n_groups(self) -> int:
        """Groups, padding included."""
        return self.n_tiles * (TILE // self.group)

    @property
    def few_groups(self) -> bool:
        """Does the search look at the words of all groups?"""
        return self.n_groups <= FEW_GROUPS

    def part(self, turns: int) -> int:
        """Tools of a part of a group."""
        return part_size(turns, self.n_tiles)

    @property
    def programs(self) -> int:
        """Programs of stage one that the device holds at once."""
        return 2 * self.processors

    def _turns_that_fit(self) -> int:
        """Turns of one pass: maxima within 13 % of the index and 50 MB, a power of two."""
        budget = self.tools.nbytes * 0.13 + 50e6
        turns = MAX_TURNS
        while turns > 64 and turns * (self.n_groups * 4 + self.n_tiles * 2) > budget:
            turns //= 2
        return turns

    def _room(self, terms: int) -> int:
        """Bytes that 15 % of the index and 64 MB leave for lexical sums."""
        turn = self.n_groups * 4 + self.n_tiles * 2 + LIST * 4
        return int((self.tools.nbytes + terms) * 0.15 + 64e6) - self.max_turns * turn

    def scratch(self, turns: int) -> dict[str, torch.Tensor]:
        """Scratch memory for a bucket of turns: made once, so that graphs may keep it."""
        bucket = 64 if turns <= 64 else self.max_turns
        if bucket not in self._scratch:
            half = {"dtype": torch.bfloat16, "device": self.device}
            ints = {"dtype": torch.int32, "device": self.device}
            listed = self.n_pure * -(-bucket // 64) + 2 * self.programs
            self._scratch[bucket] = {
                "queries": self.tools.new_zeros((128, self.dim)),
                "words": torch.empty(bucket * self.n_groups, **ints),
                "tops": torch.empty(bucket * -(-self.n_tiles // 16) * 16, **half),
                "lists": torch.empty(bucket * LIST, **ints),
                "todo": torch.empty(2 * listed, **ints),
                "union": torch.empty(self.programs * self.n_words, **ints),
            }
        return self._scratch[bucket]

    def topk(
        self,
        queries: torch.Tensor,
        allowed: torch.Tensor,
        k: int,
        threshold: torch.Tensor,
        out: tuple[torch.Tensor, torch.Tensor] | None = None,
        choice: Tiling | None = None,
        terms: TurnTerms | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores float32 ``[B, k]`` and catalog rows int32 ``[B, k]`` on the device.

        Args:
            queries: ``[B, D]`` of the tools' dtype, contiguous; numbers finite.
            allowed: int32 ``[B, ceil(G / 32)]``, contiguous.
            k: 1 to ``MAX_K``.
            threshold: float32 ``[B]``, contiguous; not NaN.
            out: where to write scores and rows.
            choice: a tiling other than the measured one.
            terms: the turns' terms, for hybrid scores; of tools with postings.
        """
        turns = len(queries)
        if not 1 <= k <= MAX_K:
            raise ValueError(f"k: expected 1 to {MAX_K}, found {k}")
        if out is None:
            scores = torch.empty((turns, k), device=self.device)
            out = scores, torch.empty((turns, k), dtype=torch.int32, device=self.device)
        if self.n_tiles == 0:
            out[0].fill_(float("-inf"))
            out[1].fill_(-1)
            return out
        if queries.shape[1] != self.dim:
            queries = torch.nn.functional.pad(queries, (0, self.dim - queries.shape[1]))
        for i in range(0, turns, self.max_turns):
            part = slice(i, i + self.max_turns)
            mine = out[0][part], out[1][part]
            own = None if terms is None else terms.part(i, i + self.max_turns)
            if len(self.tools) <= FEW_TOOLS:
                self.score_all(queries[part], allowed[part], k, threshold[part], mine, own)
                continue
            memory = self.scratch(len(queries[part]))
            find_maxima(self, queries[part], allowed[part], memory, choice, terms=own)
            self.find_best(queries[part], allowed[part], k, threshold[part], memory, mine, own)
        return out

    def score_all(
        self,
        queries: torch.Tensor,
        allowed: torch.Tensor,
        k: int,
        threshold: torch.Tensor,
        out: tuple[torch.Tensor, torch.Tensor],
        terms: TurnTerms | None = None,
        **how: Any,
    ) -> None:
        """The whole of a small catalog, in one launch."""
        width = 1 << (self.dim - 1).bit_length()
        kind = NONE if terms is None else ROWS_OF_TERMS
        shape = {"BD": min(128, width), "ROWS": 128, "num_warps": 16, "KIND": kind}
        every_tool[(len(queries),)](
            queries, self.tools, self.rows, self.classes, allowed, threshold, *out,
            self.n_words, len(self.tools), k, self.slack, *lexical_operands(self.terms, terms),
            D=self.dim, K=16 if k <= 16 else 64, **(shape | how),
        )  # fmt: skip

    def find_best(
        self,
        queries: torch.Tensor,
        allowed: torch.Tensor,
        k: int,
        threshold: torch.Tensor,
        memory: dict[str, Any],
        out: tuple[torch.Tensor, torch.Tensor],
        terms: TurnTerms | None = None,
        **how: Any,
    ) -> None:
        """Stage two: the best tools of each turn, from the maxima."""
        turns = len(queries)
        many = self.n_tiles > FEW_TILES
        entries = self.n_groups if self.few_groups else self.n_tiles
        shape: dict[str, Any] = {"TILES": not self.few_groups, "SLOTS": 16, "ONCE": not many}
        shape |= {"K": 16, "SETS": 128 if many else 64} if k <= 16 else {"K": 64, "SETS": 256}
        shape["FAN"] = 64 if many else (1024 if entries <= 1024 else 2048) // shape["SETS"]
        width = 1 << (self.dim - 1).bit_length()
        shape |= {"PART": self.part(turns), "BD": min(128, width), "ROWS": 16}
        if turns <= self.processors:  # one program a multiprocessor: make it fast
            shape["num_warps"] = 8
            if turns > 1 and not many and self.group <= 16:  # the slowest turn opens more
                shape |= {"ROWS": 32, "SLOTS": 32}
        else:  # make it small, so that several fit
            light = k <= 16 and not many and terms is None
            shape |= {"num_warps": 2, "ROWS": 8} if light else {"num_warps": 4}
            shape |= {"maxnreg": 128} if self.early else {}
        shape["KIND"] = lexical_kind(self.terms, terms)
        shape |= {"launch_pdl": True} if self.early else {}
        best_tools[(turns,)](
            queries, self.tools, self.rows, self.classes, allowed, threshold, memory["words"],
            memory["tops"], memory["lists"], *out, self.n_words, turns, self.n_tiles, k, self.slack,
            *lexical_operands(self.terms, terms),
            D=self.dim, GROUP=self.group, EARLY=self.early, **(shape | how),
        )  # fmt: skip


def search_of(matrix: ToolMatrix, dtype: torch.dtype, device: torch.device) -> GroupSearch:
    """A ``GroupSearch`` over the vectors of ``matrix``, rounded to ``dtype``, on ``device``."""
    rounded = torch.empty(matrix.vectors.shape, dtype=dtype, device=device)
    for i in range(0, len(matrix), 1 << 17):
        rounded[i : i + (1 << 17)] = torch.from_numpy(np.array(matrix.vectors[i : i + (1 << 17)]))
    # Rounding lengthens a vector by 2**-8 at most (and by a little where it underflows).
    max_norm = matrix.max_norm * (1 + 2.0**-8) + matrix.dim * 2.0**-24
    return GroupSearch(rounded, matrix.rows, matrix.starts, max_norm, matrix.postings)
