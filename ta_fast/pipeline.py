"""Text in, promoted rows out: encoder and scorer as one step, on the host or on a GPU.

A batch goes through two stages. ``prepare`` is the host's work on texts: tokens, and their
terms for hybrid scores. ``run`` sees arrays only. Where encoder and scorer live on the same
GPU the vectors never leave it: token ids go up, k rows a turn come down. Everywhere else
vectors pass through NumPy. Long lists are cut into parts, and the next part is prepared while
the present one is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ta_fast.encoder import Encoder, shows_tokens
from ta_fast.encoder.batching import ahead
from ta_fast.encoder.packed import Packed
from ta_fast.encoder.reading import read
from ta_fast.lexicon import Lexicon
from ta_fast.scorer import Scorer
from ta_fast.types import F32, I32, U32, TopK
from ta_fast_kernels import TermRows

CHARACTERS_PER_TOKEN = 4
"""In English 4 to 5."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """B texts, ready for the device.

    Attributes:
        texts: As they came.
        tokens: Their token ids; None where the encoder does not show them. For an encoder
            that leaves its vectors on a GPU, each has one at least.
        terms: Their terms; None for dense scores.
        words: How many words each has, and how many of them no tool has, ``[B, 2]``.
    """

    texts: Sequence[str]
    tokens: Packed | None = None
    terms: TermRows | None = None
    words: I32 | None = None

    @property
    def lengths(self) -> NDArray[np.integer[Any]]:
        """Tokens of each text; characters over four where tokens are not shown."""
        if self.tokens is not None:
            return np.maximum(1, self.tokens.lengths)
        sizes = np.fromiter(map(len, self.texts), np.int64, len(self.texts))
        return 1 + sizes // CHARACTERS_PER_TOKEN

    def take(self, places: NDArray[np.intp]) -> Prepared:
        """Some of the texts, in the order given."""
        return Prepared(
            [self.texts[i] for i in places],
            None if self.tokens is None else self.tokens.take(places),
            None if self.terms is None else self.terms.take(places),
            None if self.words is None else self.words[places],
        )


@dataclass(frozen=True, slots=True)
class Routed:
    """The best rows of B turns, and how long the stages took.

    ``queries`` are the embeddings ``[B, D]``, None where they stayed on a GPU. ``seconds`` has
    ``prepare`` (what was not done ahead), and ``encode`` and ``score``, or ``route`` where they
    are one. ``words`` says how many words a turn has and how many of them no tool has, ``[B, 2]``;
    None for dense scores.
    """

    top: TopK
    queries: F32 | None
    seconds: dict[str, float]
    words: I32 | None = None


class Pipeline:
    """Encoder and scorer of one epoch as one step; thread-safe.

    Args:
        encoder: Text to unit vectors.
        scorer: Over vectors of the same encoder.
        lexicon: The tools' words, where the scorer's matrix has terms and scores are hybrid.
    """

    def __init__(self, encoder: Encoder, scorer: Scorer, lexicon: Lexicon | None = None) -> None:
        self._encoder: Any = encoder
        self._scorer: Any = scorer
        self._lexicon = lexicon
        self._shows_tokens = shows_tokens(encoder)
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
        parts: list[Routed] = []
        started = perf_counter()
        for part, prepared in ahead(self.prepare, texts):
            waited = perf_counter() - started
            routed = self.run(prepared, allowed[part], k, threshold[part], vectors=vectors)
            routed.seconds["prepare"] = waited
            parts.append(routed)
            started = perf_counter()
        return parts[0] if len(parts) == 1 else _joined(parts)

    def prepare(self, texts: Sequence[str]) -> Prepared:
        """The host's work on B texts."""
        if not self._shows_tokens:
            return Prepared(texts)
        read_texts = getattr(self._encoder, "read_texts", partial(read, self._encoder.rows))
        found = read_texts(texts, self._lexicon)
        tokens = found.tokens.filled() if self.on_device else found.tokens
        return Prepared(texts, tokens, found.terms, found.words)

    def run(
        self, prepared: Prepared, allowed: U32, k: int, threshold: F32, *, vectors: bool = False
    ) -> Routed:
        """Encode and score B prepared texts; see ``route``."""
        started = perf_counter()
        terms = () if prepared.terms is None else (prepared.terms,)
        if self.on_device and not vectors and len(prepared.texts):
            top = self._on_device(prepared, allowed, k, threshold)
            return Routed(top, None, {"route": perf_counter() - started}, prepared.words)
        queries = self._encode(prepared)
        encoded = perf_counter()
        top = self._scorer.topk(queries, allowed, k, threshold, *terms)
        seconds = {"encode": encoded - started, "score": perf_counter() - encoded}
        return Routed(top, queries, seconds, prepared.words)

    def _encode(self, prepared: Prepared) -> F32:
        if prepared.tokens is not None and hasattr(self._encoder, "encode_rows"):
            vectors: F32 = self._encoder.encode_rows(prepared.tokens.rows())
        else:
            vectors = self._encoder.encode(prepared.texts)
        return vectors

    def _on_device(self, prepared: Prepared, allowed: U32, k: int, threshold: F32) -> TopK:
        tops: list[TopK] = []
        tokens = prepared.tokens or Packed.of_rows(())
        for turns, packed in tokens.split(self._encoder.max_tokens):
            operands = allowed[turns], k, threshold[turns]
            terms = prepared.terms and (prepared.terms.part(turns.start, turns.stop),)
            with self._encoder.on_device(packed) as vectors:
                tops.append(self._scorer.topk_from(vectors, *operands, *(terms or ())))
        return tops[0] if len(tops) == 1 else _stacked(tops)


def _stacked(tops: Sequence[TopK]) -> TopK:
    scores, rows = [top.scores for top in tops], [top.rows for top in tops]
    return TopK(np.concatenate(scores), np.concatenate(rows))


def _joined(parts: Sequence[Routed]) -> Routed:
    """One answer of several parts, in order; their seconds added up."""
    queries = [part.queries for part in parts if part.queries is not None]
    words = [part.words for part in parts if part.words is not None]
    return Routed(
        _stacked([part.top for part in parts]),
        np.concatenate(queries) if queries else None,
        {stage: sum(part.seconds[stage] for part in parts) for stage in parts[0].seconds},
        np.concatenate(words) if words else None,
    )
