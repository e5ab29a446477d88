"""The tools' vectors as the Triton kernels want them: in groups and tiles, by class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE = 128
"""Positions of one tile of the matrix product."""


def group_size(count: int) -> int:
    """Tools that share one maximum, in a catalog of ``count``.

    Small groups: more maxima, fewer tools to score again.
    """
    if count <= 16_384:
        return 8
    return 16 if count <= 262_144 else 32


def part_size(turns: int, tiles: int) -> int:
    """Tools of a group that are told apart only by their maximum: 1, 2 or 4.

    Small parts: a longer stage one (hidden while it waits for memory), fewer tools to score again.
    """
    if turns <= 64:
        return 1
    return 2 if tiles <= 2048 else 4


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Which stored row of a ``ToolMatrix`` is at which position on the device.

    A *large* class, of at least a tile and eight groups, has groups of its own, the last one
    padded. So a tile of large classes holds at most two kinds of group: those of the first
    class, and those of the second (or padding). The tiles after the ``n_pure`` of large classes
    hold all the other tools. If every tool has its own class (``identity``), a turn's
    ``allowed`` bits are already in storage order.

    ``stored`` int64 ``[P]`` (-1: padding), ``source`` int64 ``[P]`` (whose vector is there:
    padding repeats a member of its group, so that it changes no maximum). ``seams`` int32
    ``[n_pure, 4]``: the two classes of each tile (-1: padding), how many of its groups are of
    the first, and nothing. ``group_valid`` int32 ``[P / group]``: a bit for each member there is.
    """

    group: int
    identity: bool
    n_pure: int
    stored: NDArray[np.int64]
    source: NDArray[np.int64]
    seams: NDArray[np.int32]
    group_valid: NDArray[np.int32]

    @classmethod
    def plan(cls, starts: NDArray[np.int64], group: int) -> Layout:
        """The layout of classes that start at ``starts [G + 1]``."""
        sizes = np.diff(starts)
        large = sizes >= max(TILE, 8 * group)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        padded = -(-sizes // group) * group * large
        first = np.cumsum(padded) - padded
        shared = _up(int(padded.sum()), TILE)
        count = shared + _up(int(sizes[~large].sum()), TILE)
        row = np.arange(len(owner))
        position = row + (first - starts[:-1])[owner]
        small = ~large[owner]
        position[small] = shared + np.arange(int(small.sum()))
        members = np.full(count, -1, dtype=np.int64)
        members[position] = row
        there = (members >= 0).reshape(-1, group)
        valid = (there.astype(np.int64) << np.arange(group)).sum(axis=1)
        source = np.where(there, members.reshape(-1, group), members[::group, None])
        of_group = np.full(shared // group, -1, dtype=np.int32)
        of_group[position[~small] // group] = owner[~small]
        return cls(
            group=group,
            identity=bool((sizes == 1).all()),
            n_pure=shared // TILE,
            stored=_interleave(members, group),
            source=_interleave(source, group),
            seams=_seams(of_group.reshape(-1, TILE // group)),
            group_valid=valid.astype(np.uint32).view(np.int32),
        )


def _seams(of_group: NDArray[np.int32]) -> NDArray[np.int32]:
    """First class, last class, groups of the first, 0, from the classes ``[tiles, groups]``."""
    low, high = of_group[:, 0], of_group[:, -1]
    until = (of_group == low[:, None]).sum(axis=1)
    seams: NDArray[np.int32] = np.stack([low, high, until, 0 * low], axis=1).astype(np.int32)
    return seams


def _interleave(members: NDArray[np.int64], group: int) -> NDArray[np.int64]:
    """From group after group to four groups in turn, two members of each at a time."""
    blocks = members.reshape(-1, 4, group // 2, 2).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(blocks).reshape(-1)


def _up(count: int, step: int) -> int:
    return -(-count // step) * step


def place(vectors: Any, layout: Layout, dim: int) -> Any:
    """``vectors [N, D]`` (a device tensor) at their positions: ``[P, dim]``, zeros elsewhere."""
    import torch

    tools = torch.zeros((len(layout.source), dim), dtype=vectors.dtype, device=vectors.device)
    position = np.flatnonzero(layout.source >= 0)
    for i in range(0, len(position), 1 << 17):
        part = torch.from_numpy(position[i : i + (1 << 17)]).to(vectors.device)
        stored = torch.from_numpy(layout.source[position[i : i + (1 << 17)]]).to(vectors.device)
        tools[part, : vectors.shape[1]] = vectors[stored]
    return tools
