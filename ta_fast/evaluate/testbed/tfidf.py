"""TF-IDF as an encoder: the baseline of the paper's ablation, without a model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import log

import numpy as np

from ta_fast.types import F32

_WORD = re.compile(r"[a-z0-9]+")


class TfidfEncoder:
    """Words weighted by ``(1 + log tf) * (1 + log((1 + n) / (1 + df)))``, unit length.

    A text of unknown words alone gets a direction of its own, near to no other text.

    Args:
        texts: What the vocabulary and the document frequencies are taken from.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        frequency = Counter(word for text in texts for word in set(_words(text)))
        self._place = {word: place for place, word in enumerate(sorted(frequency))}
        self._weight = {w: 1 + log((1 + len(texts)) / (1 + frequency[w])) for w in frequency}
        self.dim = len(self._place) + 1
        digest = blake2b("\n".join(texts).encode(), digest_size=6).hexdigest()
        self.name = f"tfidf-{digest}"

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> F32:
        """Unit vectors, float32 ``[B, D]``."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for word, count in Counter(_words(text)).items():
                if word in self._place:
                    vectors[row, self._place[word]] = (1 + log(count)) * self._weight[word]
            if not vectors[row].any():
                vectors[row, -1] = 1.0
        if progress:
            progress(len(texts))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("_", " "))
