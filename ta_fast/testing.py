"""Small fakes for tests, of this project and of its users."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np

from ta_fast.types import F32


class HashingEncoder:
    """An ``Encoder`` without a model: words are hashed to signed dimensions.

    Texts that share words are near, equal texts are equal, and it is fast.

    Args:
        dim: Length D of the vectors.
    """

    def __init__(self, dim: int = 64) -> None:
        self.dim = dim
        self.name = f"hashing-{dim}"

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> F32:
        """Unit vectors, float32 ``[B, D]``."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"[a-z0-9]+", text.lower()) or [""]:
                digest = blake2b(word.encode(), digest_size=8).digest()
                place = int.from_bytes(digest[:6], "little") % self.dim
                vectors[row, place] += 1.0 if digest[7] & 1 else -1.0
            if not vectors[row].any():
                vectors[row, 0] = 1.0
        if progress:
            progress(len(texts))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors
