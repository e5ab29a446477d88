"""Text to token ids: truncated, padded, and safe for any str."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from ta_fast.errors import InvalidConfig
from ta_fast.vocabulary import ID_BYTES

I32: TypeAlias = NDArray[np.int32]
I64: TypeAlias = NDArray[np.int64]

CHARACTERS_PER_TOKEN = 64
"""Characters of a text that are looked at, for each token of the model's limit.

English has 4 to 5 characters a token. The cut changes a vector only if the first
64 x limit characters (16,384 for MiniLM) hold fewer tokens than the limit: long runs of
blanks, or of words over 100 characters, each of which is one unknown token.
"""
PADDING = bytes(ID_BYTES)
"""The row of one padding token."""
PLAIN = {"add_special_tokens": False}
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
        self._splits_at_blanks = isinstance(self._tokenizer.pre_tokenizer, BertPreTokenizer)
        self._known: dict[str, bytes] = {}  # rows of words in ASCII
        whole, bare = self._tokenizer.encode("a").ids, self._tokenizer.encode("a", **PLAIN).ids
        first = next((i for i, token in enumerate(whole) if [token] == bare), 0)
        self._before, self._after = as_row(whole[:first]), as_row(whole[first + len(bare) :])
        self._room = ID_BYTES * max_length - len(self._before) - len(self._after)

    def rows(self, texts: Sequence[str]) -> list[bytes]:
        """Token ids of each text, special tokens included, truncated: see `as_row`."""
        readable = [self._readable(text) for text in texts]
        rows = [self._of_words(text) for text in readable]
        others = [place for place, row in enumerate(rows) if not row]
        if others:
            found = self._tokenizer.encode_batch_fast([readable[place] for place in others])
            for place, encoding in zip(others, found, strict=True):
                rows[place] = as_row(encoding.ids)
        return rows

    def pieces(self) -> list[str]:
        """What each token id is in the tokenizer's file; "" for an id without a piece."""
        return listed(self._tokenizer.get_vocab())

    def _of_words(self, text: str) -> bytes:
        """The row of a plain ASCII text, from its words'; empty where that is not to be had.

        A BERT's tokens never cross a blank, so a text's are those of its words, and most
        words have been seen. One thread does this as fast as sixteen do the whole work.
        """
        if not (self._splits_at_blanks and text.isprintable()):
            return b""
        words = text.split()
        try:
            row = b"".join(map(self._known.__getitem__, words))
        except KeyError:
            if not text.isascii() or max(map(len, words)) > LONGEST_REMEMBERED:
                return b""
            row = b"".join(map(self._word, words))
        return self._before + row[: self._room] + self._after if words else b""

    def _word(self, word: str) -> bytes:
        row = self._known.get(word)
        if row is None:
            row = as_row(self._tokenizer.encode(word, **PLAIN).ids)
            if len(self._known) >= REMEMBERED_WORDS:
                self._known.clear()  # seldom, and cheaper than to tell which was used last
            self._known[word] = row
        return row

    def _readable(self, text: str) -> str:
        text = text[: self._characters]
        return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


def listed(ids: Mapping[str, int]) -> list[str]:
    """Pieces by id, "" where there is none, of ids by piece."""
    pieces = [""] * (max(ids.values(), default=-1) + 1)
    for piece, place in ids.items():
        pieces[place] = piece
    return pieces


def as_row(ids: Sequence[int]) -> bytes:
    """Token ids as the bytes of their int32: quick to join, and nothing to collect."""
    return np.array(ids, np.int32).tobytes()


def token_count(row: bytes) -> int:
    """Tokens of a row; an empty one counts as one of padding."""
    return max(1, len(row) // ID_BYTES)


def pad(rows: Sequence[bytes]) -> Tokens:
    """Pad to the longest; an empty text is one padding token that counts."""
    if len(rows) == 1:
        alone = np.frombuffer(rows[0] or PADDING, np.int32).astype(np.int64)[None]
        return Tokens(alone, np.ones(alone.shape, np.int64))
    lengths = np.array([token_count(row) for row in rows], np.int64)
    mask = np.arange(lengths.max(initial=1)) < lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = flat(rows)
    return Tokens(ids, mask.astype(np.int64))


def flat(rows: Sequence[bytes]) -> I32:
    """The rows' ids end to end, int32 ``[T]``; an empty text is one padding token that counts."""
    return np.frombuffer(b"".join([row or PADDING for row in rows]), np.int32)
