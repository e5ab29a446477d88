"""Text to token ids: truncated, padded, and safe for any str."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from ta_fast.errors import InvalidConfig

I64: TypeAlias = NDArray[np.int64]

CHARACTERS_PER_TOKEN = 64
"""Characters of a text that are looked at, for each token of the model's limit.

English has 4 to 5 characters a token. The cut changes a vector only if the first
64 x limit characters (16,384 for MiniLM) hold fewer tokens than the limit: long runs of
blanks, or of words over 100 characters, each of which is one unknown token.
"""
REMEMBERED_WORDS = 1 << 15
"""Words whose ids are kept."""
LONGEST_REMEMBERED = 64
"""Characters of such a word at most, so that what is kept is bounded."""
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Tokens:
    """A padded batch: ``ids`` and ``mask`` int64 ``[B, S]``; the mask is 0 at padding."""

    ids: I64
    mask: I64


class TextTokenizer:
    """The model's own fast tokenizer, truncating to ``max_length`` tokens."""

    def __init__(self, path: Path, max_length: int) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise InvalidConfig(f"{path}: {error}; expected a tokenizer's file") from error
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.no_padding()
        self._characters = max_length * CHARACTERS_PER_TOKEN
        self._max_length = max_length
        self._splits_at_blanks = isinstance(self._tokenizer.pre_tokenizer, BertPreTokenizer)
        self._word = lru_cache(REMEMBERED_WORDS)(self._word_ids)
        whole, bare = self._tokenizer.encode("a").ids, self._word("a")
        first = next((i for i, token in enumerate(whole) if [token] == bare), 0)
        self._before, self._after = whole[:first], whole[first + len(bare) :]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, truncated, not padded."""
        readable = [self._readable(text) for text in texts]
        ids = [self._of_words(text) for text in readable]
        others = [place for place, row in enumerate(ids) if not row]
        if others:
            found = self._tokenizer.encode_batch_fast([readable[place] for place in others])
            for place, encoding in zip(others, found, strict=True):
                ids[place] = encoding.ids
        return ids

    def _of_words(self, text: str) -> list[int]:
        """The ids of a plain ASCII text, from its words'; none where that is not to be had.

        A BERT's tokens never cross a blank, so a text's are those of its words, and most
        words have been seen. One thread does this as fast as sixteen do the whole work.
        """
        if not (self._splits_at_blanks and text.isascii() and text.isprintable()):
            return []
        words = text.split()
        if not words or max(map(len, words)) > LONGEST_REMEMBERED:
            return []
        tokens = list(chain.from_iterable(map(self._word, words)))
        room = self._max_length - len(self._before) - len(self._after)
        return [*self._before, *tokens[:room], *self._after]

    def _word_ids(self, word: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(word, add_special_tokens=False).ids
        return ids

    def _readable(self, text: str) -> str:
        text = text[: self._characters]
        return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


def pad(ids: Sequence[Sequence[int]]) -> Tokens:
    """Pad to the longest; an empty text is one padding token that counts."""
    if len(ids) == 1:
        alone = np.array([ids[0] or [0]], np.int64)
        return Tokens(alone, np.ones(alone.shape, np.int64))
    lengths = np.array([max(1, len(row)) for row in ids], np.int64)
    width = int(lengths.max(initial=1))
    padded = np.zeros((len(ids), width), np.int64)
    for row, tokens in zip(padded, ids, strict=True):
        row[: len(tokens)] = tokens
    return Tokens(padded, (np.arange(width) < lengths[:, None]).astype(np.int64))
