"""Reading texts: their token ids, and their terms for hybrid scores, as a few large arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ta_fast.encoder.packed import Packed
from ta_fast.lexicon import Lexicon, Tokenize
from ta_fast.types import I32
from ta_fast_kernels import TermRows

Fields: TypeAlias = Sequence[I32]
"""What was read as int32 arrays: lengths, ids, numbers of terms, terms, words; for dense scores
the last three are empty. Those of several batches, joined one by one, are those of all."""
FIELDS = 5
NOTHING = np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True)
class Read:
    """B texts, read.

    Attributes:
        tokens: Their token ids.
        terms: Their terms; None for dense scores.
        words: How many words each has, and how many of them no tool has, ``[B, 2]``; or None.
    """

    tokens: Packed
    terms: TermRows | None = None
    words: I32 | None = None

    @property
    def fields(self) -> Fields:
        """As plain arrays."""
        lengths, ids = self.tokens.lengths, self.tokens.ids
        if self.terms is None or self.words is None:
            return lengths, ids, NOTHING, NOTHING, NOTHING
        many = np.diff(self.terms.offsets).astype(np.int32)
        return lengths, ids, many, self.terms.terms, self.words.ravel()

    @classmethod
    def of_fields(cls, fields: Fields, *, hybrid: bool) -> Read:
        """From plain arrays."""
        lengths, ids, many, terms, words = fields
        tokens = Packed.of_lengths(ids, lengths)
        if not hybrid:
            return cls(tokens)
        offsets = np.zeros(len(many) + 1, np.int64)
        np.cumsum(many, out=offsets[1:])
        once = np.ones(len(terms), np.int32)  # a turn counts a word once
        return cls(tokens, TermRows(offsets, terms, once), words.reshape(-1, 2))


def read(tokenize: Tokenize, texts: Sequence[str], lexicon: Lexicon | None) -> Read:
    """Read B texts here and now; without a lexicon, for dense scores."""
    rows = tokenize(texts)
    tokens = Packed.of_rows(rows)
    return Read(tokens) if lexicon is None else Read(tokens, *lexicon.read(rows))
