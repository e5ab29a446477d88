"""Texts as token ids that lie end to end: two arrays, however many texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ta_fast.types import I32
from ta_fast.vocabulary import ID_BYTES


@dataclass(frozen=True, slots=True)
class Packed:
    """B texts end to end: ``ids`` int32 ``[T]``; text b is ``ids[starts[b]:starts[b + 1]]``.

    ``starts`` is int32 ``[B + 1]``.
    """

    ids: I32
    starts: I32

    @classmethod
    def of_rows(cls, rows: Sequence[bytes]) -> Packed:
        """From each text's ids as the bytes of their int32."""
        sizes = np.fromiter(map(len, rows), np.int32, len(rows))
        return cls.of_lengths(np.frombuffer(b"".join(rows), np.int32), sizes // ID_BYTES)

    @classmethod
    def of_lengths(cls, ids: I32, lengths: NDArray[np.integer]) -> Packed:
        """From the ids, and how many of them each text has."""
        starts = np.zeros(len(lengths) + 1, np.int32)
        lengths.cumsum(out=starts[1:])
        return cls(ids, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> I32:
        """Tokens of each text, ``[B]``."""
        return self.starts[1:] - self.starts[:-1]

    def rows(self) -> list[bytes]:
        """Each text's ids as the bytes of their int32."""
        ids, ends = self.ids.tobytes(), (self.starts * ID_BYTES).tolist()
        return [ids[begin:end] for begin, end in pairwise(ends)]

    def filled(self) -> Packed:
        """The same, where a text without a token has one of padding, which counts."""
        lengths = self.lengths
        if lengths.all():
            return self
        ids = np.insert(self.ids, self.starts[:-1][lengths == 0], 0)
        return Packed.of_lengths(ids, np.maximum(1, lengths))

    def take(self, places: NDArray[np.intp]) -> Packed:
        """Some of the texts, in the order given."""
        sizes = self.lengths[places]
        taken = Packed.of_lengths(self.ids[:0], sizes).starts
        flat = np.repeat(self.starts[places] - taken[:-1], sizes) + np.arange(taken[-1])
        return Packed(self.ids[flat], taken)

    def split(self, max_tokens: int) -> Iterator[tuple[slice, Packed]]:
        """The same texts in parts of at most ``max_tokens`` tokens, in order, and which they are.

        A text is at most ``max_tokens`` long.
        """
        first, texts = 0, len(self)
        if len(self.ids) <= max_tokens:
            yield slice(0, texts), self
            return
        while first < texts:
            room = int(self.starts[first]) + max_tokens
            last = int(np.searchsorted(self.starts, room, side="right")) - 1
            begin, end = self.starts[first], self.starts[last]
            yield (
                slice(first, last),
                Packed(self.ids[begin:end], self.starts[first : last + 1] - begin),
            )
            first = last
