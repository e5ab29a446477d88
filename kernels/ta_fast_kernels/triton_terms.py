"""The terms of tools and turns on a GPU, and stage one of hybrid scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from ta_fast_kernels import triton_lexical as kernels
from ta_fast_kernels.terms import UNIT
from ta_fast_kernels.triton_index import TILE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ta_fast_kernels.terms import Postings, TermRows

SUMS = 1 << 23
"""Lexical sums that a block holds, at most (33.5 MB)."""
PART = 32
"""Tiles of one program that sums postings, at least."""
PROGRAMS = 1024
"""Such programs that are enough: beyond, each takes more tiles."""
FAN = 32
"""Probes of one step when it looks for its positions in a term's."""
SUMMING = {"BLOCK": 1024, "num_warps": 4}
"""Postings that it takes at once."""


@dataclass(frozen=True, slots=True)
class TurnTerms:
    """``TermRows`` of B turns on the device, all int32: ``[B + 1]``, ``[M]``, ``[M]``.

    ``terms`` and ``counts`` may be longer than ``offsets`` says.
    """

    offsets: torch.Tensor
    terms: torch.Tensor
    counts: torch.Tensor

    def part(self, first: int, last: int) -> TurnTerms:
        """Turns ``first`` to ``last``."""
        return TurnTerms(self.offsets[first : last + 1], self.terms, self.counts)

    @staticmethod
    def room(turns: int, entries: int) -> int:
        """Numbers that ``pack`` writes, at most: offsets, terms and counts, each from a fourth."""
        return _head(turns) + 2 * entries

    @staticmethod
    def pack(rows: TermRows, packed: NDArray[np.int32], turns: int) -> None:
        """Write the terms of up to ``turns`` turns; those that are not there have none."""
        head, count = _head(turns), len(rows.terms)
        second = (head + len(packed)) // 2
        packed[: len(rows) + 1] = rows.offsets
        packed[len(rows) + 1 : head] = count
        packed[head : head + count] = rows.terms
        packed[second : second + count] = rows.values

    @classmethod
    def unpack(cls, packed: torch.Tensor, turns: int) -> TurnTerms:
        """Views of what ``pack`` wrote, on the device."""
        head = _head(turns)
        terms, counts = packed[head:].view(2, -1)
        return cls(packed[: turns + 1], terms, counts)


def _head(turns: int) -> int:
    return turns // 4 * 4 + 4


def _steps(count: int) -> int:
    """Steps of ``FAN`` probes each that find a place among so many."""
    return 0 if count == 0 else 1 + _steps(-(-count // FAN) - 1)


class TermIndex:
    """The terms of a catalog's tools on a device, by term and by position.

    Args:
        postings: the terms by stored row.
        stored: int64 ``[P]``, the stored row at each position; -1: padding.
        device: where.
    """

    def __init__(self, postings: Postings, stored: NDArray[np.int64], device: torch.device) -> None:
        place = np.empty(int(stored.max(initial=-1)) + 1, np.int64)
        there = np.flatnonzero(stored >= 0)
        place[stored[there]] = there
        size, count = len(postings), len(stored)
        position = torch.from_numpy(place[postings.stored]).to(device)
        sizes = torch.from_numpy(np.diff(postings.offsets)).to(device)
        term = torch.repeat_interleave(torch.arange(size, device=device), sizes)
        weight = torch.from_numpy(postings.weights).to(device, torch.int16)
        order = torch.argsort(term * count + position)
        self.offsets = torch.from_numpy(postings.offsets).to(device, torch.int32)
        self.positions, self.weights = position[order].int(), weight[order]
        order = torch.argsort(position * size + term)
        self.row_terms, self.row_weights = term[order].int(), weight[order]
        self.row_offsets = torch.zeros(count + 1, dtype=torch.int32, device=device)
        self.row_offsets[1:] = torch.bincount(position, minlength=count).cumsum(0)
        self.most = UNIT * float(postings.weights.max(initial=0))
        self._search = _steps(int(np.diff(postings.offsets).max(initial=0)))
        self.n_tiles, self._size = count // TILE, size
        self.sums = torch.empty(0, device=device)

    def make_room(self, turns: int, limit: int) -> None:
        """Make the block of sums for passes of ``turns`` turns, of ``limit`` bytes at most."""
        most = min(SUMS, limit // 4, turns * self.n_tiles * TILE)
        self.sums = torch.empty(max(most, turns * TILE), device=self.offsets.device)

    @property
    def nbytes(self) -> int:
        """Bytes of the index; the block of sums is scratch."""
        by_term = self.offsets, self.positions, self.weights
        by_tool = self.row_offsets, self.row_terms, self.row_weights
        return sum(tensor.nbytes for tensor in (*by_term, *by_tool))

    def block(self, turns: int) -> int:
        """Tiles whose sums are held at once."""
        return min(self.n_tiles, len(self.sums) // (turns * TILE))

    def sum_postings(self, terms: TurnTerms, first: int, tiles: int, **how: bool) -> None:
        """Fill the block of ``tiles`` tiles from ``first`` on."""
        turns = len(terms.offsets) - 1
        part = max(PART, -(-turns * tiles // PROGRAMS))
        parts = -(-tiles // part)
        whole = tiles == self.n_tiles and parts == 1
        kernels.sum_postings[(turns * parts,)](
            terms.offsets, terms.terms, terms.counts, self.offsets, self.positions, self.weights,
            self.sums, first, tiles, parts, part, 0 if whole else self._search, self._size,
            TERMS=16, FAN=FAN, **SUMMING, **how,
        )  # fmt: skip

    def find_maxima(
        self,
        terms: TurnTerms,
        operands: tuple[Any, ...],
        sizes: tuple[int, int, int],
        blocks: int,
        how: dict[str, Any],
    ) -> None:
        """Stage one: block after block of sums, then the maxima of its tiles.

        Args:
            terms: the turns' terms.
            operands: those of ``few_tiles``.
            sizes: words of allowed bits, turns, tiles of large classes.
            blocks: blocks of turns.
            how: how to launch it.
        """
        turns, step = sizes[1], self.block(sizes[1])
        follows = {"launch_pdl": True} if how["EARLY"] else {}
        for first in range(0, self.n_tiles, step):
            tiles = min(step, self.n_tiles - first)
            after = follows if first else {}
            self.sum_postings(terms, first, tiles, EARLY=how["EARLY"], **after)
            sums = self.sums[: turns * tiles * TILE].view(turns, -1)
            sums = TensorDescriptor(sums, list(sums.shape), [tiles * TILE, 1], [how["BM"], TILE])
            kernels.hybrid_tiles[(tiles * blocks,)](
                *operands, sums, first, *sizes, **how, **follows
            )


def lexical_operands(index: TermIndex | None, terms: TurnTerms | None) -> tuple[Any, ...]:
    """What stage two needs to find lexical sums: offsets, the rest, and what a count can reach."""
    if terms is None:
        return None, None, 0.0
    if index is None:
        raise ValueError("terms: the tools have no postings; expected None")
    rows = index.row_offsets, index.row_terms, index.row_weights
    return terms.offsets, (terms.terms, terms.counts, index.sums, *rows), index.most


def lexical_kind(index: TermIndex | None, terms: TurnTerms | None) -> Any:
    """Where stage two finds lexical sums: in the block, if there is only one."""
    if index is None or terms is None:
        return kernels.NONE
    whole = index.block(len(terms.offsets) - 1) == index.n_tiles
    return kernels.BLOCK_OF_SUMS if whole else kernels.ROWS_OF_TERMS
