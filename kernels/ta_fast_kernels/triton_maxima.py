"""Stage one of the Triton path: which kernel finds the maxima, and how its product is cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import triton
from triton.tools.tensor_descriptor import TensorDescriptor

from ta_fast_kernels import triton_kernels as kernels
from ta_fast_kernels.triton_index import TILE

if TYPE_CHECKING:
    from types import ModuleType

    from ta_fast_kernels.triton_terms import TurnTerms
    from ta_fast_kernels.triton_topk import GroupSearch

MANY_GROUPS = 8192
"""Groups from which a small batch is padded: a tile's copy is slower where rows are missing."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How the matrix product is cut: turns and dimensions of a tile of 128 tools."""

    turns: int
    dims: int
    warps: int
    stages: int


NARROW = Tiling(64, 64, 4, 3)
WIDE = Tiling(128, 64, 4, 3)
WIDE_HYBRID = Tiling(128, 64, 8, 3)


def tiling(turns: int, *, hybrid: bool = False) -> Tiling:
    """The measured choice for so many turns."""
    if turns <= 64:
        return NARROW
    return WIDE_HYBRID if hybrid else WIDE


def find_maxima(
    search: GroupSearch,
    queries: torch.Tensor,
    allowed: torch.Tensor,
    memory: dict[str, Any],
    choice: Tiling | None = None,
    few: bool | None = None,
    terms: TurnTerms | None = None,
) -> None:
    """Stage one: the maximum of each group and tile, for each turn."""
    turns, dim = queries.shape
    cut = choice or tiling(turns, hybrid=terms is not None)
    if turns < cut.turns and search.n_groups >= MANY_GROUPS:
        memory["queries"][:turns] = queries
        queries = memory["queries"][: cut.turns]
    left = TensorDescriptor(queries, list(queries.shape), [dim, 1], [cut.turns, cut.dims])
    right = TensorDescriptor(search.tools, list(search.tools.shape), [dim, 1], [TILE, cut.dims])
    operands = left, right, memory["words"], memory["tops"], allowed
    of_tools = search.group_valid, search.classes
    how: dict[str, Any] = {"D": dim, "GROUP": search.group, "BM": cut.turns, "BK": cut.dims}
    how["PART"] = search.part(turns)
    how |= {"EARLY": search.early, "num_warps": cut.warps, "num_stages": cut.stages}
    n_words, n_tiles, n_pure = search.n_words, search.n_tiles, search.n_pure
    blocks, n_shared = -(-turns // cut.turns), n_tiles - n_pure
    if terms is not None and search.terms is not None:
        how |= {"IDENTITY": search.identity, "SHARED": n_shared > 0}
        sizes = n_words, turns, n_pure
        search.terms.find_maxima(terms, (*operands, search.seams, *of_tools), sizes, blocks, how)
        return
    if (n_tiles * blocks <= search.programs) if few is None else few:
        kernels.few_tiles[(n_tiles * blocks,)](
            queries, *operands, search.seams, *of_tools, n_words, turns, n_tiles, n_pure,
            IDENTITY=search.identity, SHARED=n_shared > 0, SHORT=turns < cut.turns, **how,
        )  # fmt: skip
        return
    if search.hopper is not None and search.hopper.serves(turns, dim):
        search.hopper.find_maxima(search, queries, allowed, memory, how["PART"])
        return
    if n_pure:
        kernels.pure_tiles[(search.programs,)](
            *operands, search.seams, search.used, memory["todo"], memory["union"],
            n_words, len(search.used), turns, n_pure, EVERY=search.few_groups, **how,
        )  # fmt: skip
    if n_shared:
        if cut.turns > 64 and search.group <= 16:  # the gate's bits need registers
            how["num_warps"] = 8
        kernels.shared_tiles[(search.programs,)](
            *operands, *of_tools, n_words, turns, n_tiles, n_pure,
            IDENTITY=search.identity, **how,
        )  # fmt: skip


def kernels_for_hopper(device: torch.device) -> ModuleType | None:
    """The kernels of Hopper GPUs; None elsewhere, and for a Triton they were not tested with."""
    known = triton.__version__.startswith("3.6.")
    if torch.cuda.get_device_capability(device)[0] != 9 or not known:
        return None
    from ta_fast_kernels import triton_hopper

    return triton_hopper
