"""Embeddings of intents that come again, kept for an encoder whose vectors are on the host."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from threading import Lock
from typing import Any

import numpy as np

from ta_fast.encoder import Encoder
from ta_fast.errors import InvalidConfig
from ta_fast.types import F32


class RememberingEncoder:
    """An encoder that does not compute again what it computed lately; thread-safe.

    It has what the encoder within has, tokens and vocabulary too, and the same name: the
    vectors are the same. Only vectors that stay on a GPU cannot be kept here, and computing
    them there is cheaper than this; they come to the host then.

    Args:
        encoder: Computes what is not remembered.
        size: Vectors kept at most, the least recently used go first; ``4 D`` bytes each and
            the text or its token ids.

    Attributes:
        hits, misses: Texts whose vector was there, and was not.

    Raises:
        InvalidConfig: size is below 1.
    """

    def __init__(self, encoder: Encoder, size: int) -> None:
        if size < 1:
            raise InvalidConfig(f"{size} remembered embeddings; expected 1 or more")
        self._encoder = encoder
        self._size = size
        self._kept: OrderedDict[Hashable, F32] = OrderedDict()
        self._lock = Lock()
        self.name, self.dim = encoder.name, encoder.dim
        self.hits = self.misses = 0

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> F32:
        """See `Encoder.encode`. With ``progress``, as for long work, nothing is kept."""
        if progress:
            return self._encoder.encode(texts, progress=progress)
        return self._through(self._encoder.encode, texts)

    def __getattr__(self, name: str) -> Any:
        if name in {"_encoder", "on_device", "pack"}:
            raise AttributeError(name)
        found = getattr(self._encoder, name)
        return partial(self._through, found) if name == "encode_rows" else found

    def _through(self, encode: Callable[[Any], F32], keys: Sequence[Hashable]) -> F32:
        """Vectors of texts, or of token ids as bytes: a key tells which by its type."""
        known: dict[Hashable, F32] = {}
        with self._lock:
            for key in keys:
                if key in self._kept:
                    known[key] = self._kept[key]
                    self._kept.move_to_end(key)
                    self.hits += 1
                else:
                    self.misses += 1
        lacking = [key for key in dict.fromkeys(keys) if key not in known]
        if lacking:
            # Each on its own: a view would keep its whole batch.
            new = {key: row.copy() for key, row in zip(lacking, encode(lacking), strict=True)}
            with self._lock:
                self._kept |= new
                while len(self._kept) > self._size:
                    self._kept.popitem(last=False)
            known |= new
        return np.array([known[key] for key in keys], np.float32).reshape(len(keys), self.dim)
