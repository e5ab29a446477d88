"""What the engine asks of whoever computes: one router for each device, one epoch at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ta_fast.types import F32, U32

Rows = NDArray[np.intp]
"""Places of turns in a batch."""
Columns: TypeAlias = Mapping[str, NDArray[Any]]
"""What a router found for B turns: arrays of B rows, by name; ``scores`` and ``rows`` are there."""


_UNANSWERED = {"scores": -np.inf, "rows": -1}


def unanswered(like: Columns, turns: int) -> dict[str, NDArray[Any]]:
    """Columns for so many turns before they have an answer; of other names zeros."""
    return {
        name: np.full((turns, *values.shape[1:]), _UNANSWERED.get(name, 0), values.dtype)
        for name, values in like.items()
    }


class Prepared(Protocol):
    """B texts made ready for a device, by a router of its own."""

    @property
    def lengths(self) -> Sequence[int] | NDArray[Any]:
        """Tokens of each text, ``[B]``."""
        ...

    def take(self, rows: Rows) -> Prepared:
        """The same for some of the texts, in the order given."""
        ...


class Router(Protocol):
    """Texts to rows, against one epoch of one catalog, on one device.

    The two methods are called by two threads, which may overlap. A row's answer must not
    depend on the others. What a method raises is taken for the fault of a turn, which is
    then looked for by halving the batch; only ``BackendUnavailable`` says that the device
    itself is gone.
    """

    def prepare(self, texts: Sequence[str]) -> Prepared:
        """The host's part: tokens, terms. Called by the device's tokenising thread."""
        ...

    def run(self, prepared: Any, allowed: U32, k: int, threshold: F32) -> Columns:
        """The device's part. Called by the device's own thread, and by no other.

        Args:
            prepared: What ``prepare`` gave for B texts, or its ``take``.
            allowed: Allowed gate classes, ``[B, W]``.
            k: At least 1; may exceed the number of tools.
            threshold: Least scores, ``[B]``.

        Returns:
            ``scores`` and ``rows`` ``[B, k]``, -inf and -1 where unfilled, and whatever else
            the caller reads; the same names and shapes for every batch of an epoch.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Epoch:
    """One epoch of one catalog, as the engine sees it. A batch belongs to one of them.

    A turn names its epoch, so swapping a catalog is the caller's one assignment, and any
    number of catalogs and epochs can be in flight; one that no turn names is forgotten.

    Attributes:
        routers: One for each of the engine's devices, in their order.
        words: W, the uint32 words of a turn's allowed classes.
    """

    routers: tuple[Router, ...]
    words: int
