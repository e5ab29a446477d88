"""The tools' vectors as the Triton kernels want them: in groups, most of one class each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE = 256
"""Positions that the storage is padded to: the largest tile of any kernel."""


def group_size(count: int) -> int:
    """Tools that share one maximum, in a catalog of ``count``.

    Small groups: more maxima, fewer tools to score again.
    """
    if count <= 32_768:
        return 8
    return 16 if count <= 262_144 else 32


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Which stored row of a ``ToolMatrix`` is at which position on the device.

    Classes of at least eight groups, and those that fill their groups, get groups of their
    own, the last one padded. The other classes share groups. If every tool has its own
    class, in order (``identity``), a turn's ``allowed`` bits are already in storage order.

    ``stored`` int64 ``[P]`` (-1: padding), ``source`` int64 ``[P]`` (whose vector is there:
    padding repeats a member of its group, so that it changes no maximum), ``group_class``
    int32 ``[P / group]`` (-1: several classes), ``group_valid`` int32 ``[P / group]`` (a bit
    for each member there is).
    """

    group: int
    identity: bool
    stored: NDArray[np.int64]
    source: NDArray[np.int64]
    group_class: NDArray[np.int32]
    group_valid: NDArray[np.int32]

    @classmethod
    def plan(cls, starts: NDArray[np.int64], group: int) -> Layout:
        """The layout of classes that start at ``starts [G + 1]``."""
        sizes = np.diff(starts)
        identity = bool((sizes == 1).all())
        pure = (sizes >= 8 * group) | (sizes % group == 0)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        padded = -(-sizes // group) * group * pure
        first = np.cumsum(padded) - padded
        shared = _up(int(padded.sum()), TILE)
        count = shared + _up(int(sizes[~pure].sum()), TILE)
        row = np.arange(len(owner))
        position = row + (first - starts[:-1])[owner]
        mixed = ~pure[owner]
        position[mixed] = shared + np.arange(int(mixed.sum()))
        members = np.full(count, -1, dtype=np.int64)
        members[position] = row
        group_class = np.full(count // group, -1, dtype=np.int32)
        group_class[position[~mixed] // group] = owner[~mixed]
        there = (members >= 0).reshape(-1, group)
        valid = (there.astype(np.int64) << np.arange(group)).sum(axis=1)
        source = np.where(there, members.reshape(-1, group), members[::group, None])
        return cls(
            group=group,
            identity=identity,
            stored=_interleave(members, group),
            source=_interleave(source, group),
            group_class=group_class,
            group_valid=valid.astype(np.uint32).view(np.int32),
        )

    def flags(self, tile: int) -> NDArray[np.int32]:
        """Of each tile: 0, its groups are of one class each; 1, of a class a tool; 2, of any."""
        shared = (self.group_class < 0) & (self.group_valid != 0)
        kind = np.where(shared, 1 if self.identity else 2, 0).astype(np.int32)
        worst: NDArray[np.int32] = kind.reshape(-1, tile // self.group).max(axis=1, initial=0)
        return worst


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
