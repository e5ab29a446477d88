"""Text in, promoted rows out: encoder and scorer as one step, on the host or on a GPU.

Where both live on the same GPU the vectors never leave it: token ids go up, k rows a turn
come down. Everywhere else vectors pass through NumPy. Long lists are cut into batches, and
the next batch is tokenised while the present one is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from ta_fast.encoder import Encoder
from ta_fast.encoder.batching import ahead
from ta_fast.scorer import Scorer
from ta_fast.types import F32, I32, U32, TopK


@dataclass(frozen=True, slots=True)
class Routed:
    """The best rows of B turns, and how long the stages took.

    ``queries`` are the embeddings ``[B, D]``, None where they stayed on a GPU. ``seconds``
    has ``encode`` and ``score``, or ``route`` where they are one. ``terms``: how many words
    each turn has, and how many of them no tool has, ``[B, 2]``; None where none are counted.
    """

    top: TopK
    queries: F32 | None
    seconds: dict[str, float]
    terms: I32 | None = None


class Pipeline:
    """Encoder and scorer of one epoch as one step; thread-safe.

    Args:
        encoder: Text to unit vectors.
        scorer: Over vectors of the same encoder.
    """

    def __init__(self, encoder: Encoder, scorer: Scorer) -> None:
        self._encoder: Any = encoder
        self._scorer: Any = scorer
        self.on_device = hasattr(encoder, "on_device") and hasattr(scorer, "topk_from")

    def route(
        self, texts: Sequence[str], allowed: U32, k: int, threshold: F32, *, vectors: bool = False
    ) -> Routed:
        """The best k allowed rows for each of B texts.

        Args:
            texts: B intents.
            allowed: Allowed gate classes, uint32 ``[B, ceil(G/32)]``.
            k: At least 1.
            threshold: Least scores, float32 ``[B]``.
            vectors: The embeddings are wanted on the host.
        """
        started = perf_counter()
        if self.on_device and not vectors and texts:
            top = self._on_device(texts, allowed, k, threshold)
            return Routed(top, None, {"route": perf_counter() - started})
        queries = self._encoder.encode(texts)
        encoded = perf_counter()
        top = self._scorer.topk(queries, allowed, k, threshold)
        seconds = {"encode": encoded - started, "score": perf_counter() - encoded}
        return Routed(top, queries, seconds)

    def _on_device(self, texts: Sequence[str], allowed: U32, k: int, threshold: F32) -> TopK:
        tops: list[TopK] = []
        for part, tokens in ahead(self._encoder.tokenize, texts):
            for piece, batch in tokens.split(self._encoder.max_tokens):
                turns = slice(part.start + piece.start, part.start + piece.stop)
                operands = allowed[turns], k, threshold[turns]
                with self._encoder.on_device(batch) as vectors:
                    tops.append(self._scorer.topk_from(vectors, *operands))
        if len(tops) == 1:
            return tops[0]
        scores, rows = [top.scores for top in tops], [top.rows for top in tops]
        return TopK(np.concatenate(scores), np.concatenate(rows))
