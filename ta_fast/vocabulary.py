"""Words out of token ids: what a tokenizer's pieces spell, without reading the text again.

A piece that is a whole word stands for its English stem, or for nothing if it is a stop
word, punctuation or a special token. A word of several pieces stands for what they spell:
that is right in every script, also where the tokenizer knows little more than its letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ta_fast.types import I32

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Starts: TypeAlias = NDArray[np.integer[Any]]
"""Where each of B texts begins among T tokens that lie end to end, and T: ``[B + 1]``."""
Style: TypeAlias = Literal["##", "\u2581", "\u0120", ""]

ID_BYTES = 4
"""Bytes of a token id where a text's ids are kept as bytes: int32."""
NOTHING = np.uint64(0)
"""The key of what is no word."""

# English words that say nothing about what is wanted, and those of asking for it.
_STOP_WORDS = """
    a about all also am an and any are as at be been being but by can could d did do does for
    from had has have he her him his how i if in into is it its just ll m may me might my need
    no not of on or our please re s she should so some such t than that the their them then
    there these they this those to ve want was we were what when where which who will with
    would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())

# A word: its bytes b_j as the sum of (b_j + 1) * BASE**j mod 2**64, so that pieces add up.
_BASE = 0x9E3779B97F4A7C15
_LONGEST = 1024  # bytes of a word that get a power of their own; a longer one wraps around
_POWERS = np.cumprod(np.array([1] + [_BASE] * (_LONGEST - 1), np.uint64))

_SPECIAL = re.compile(r"\[[^\[\]]+\]|<[^<>]+>")
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # SentencePiece's way to write a lone byte
_PLURAL = re.compile(rb"(?<!s)s\Z")
_BLANKS = "\u2581 \t\n\r"
# Han, kana, Thai, Lao, Khmer, Burmese: there a piece is the best guess at a word.
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """Tables over a tokenizer's n pieces, by token id; made once for a tokenizer.

    Attributes:
        keys: The word that the piece is alone, uint64 ``[n]``; 0 is nothing.
        codes: What the piece adds to a longer word, uint64 ``[n]``.
        last_codes: What it adds at the word's end: the same without a plural's s.
        sizes: Its bytes, int64 ``[n]``.
        joins: Whether it continues the piece before it, bool ``[n]``.
        joinable: Whether it may be continued, bool ``[n]``.
        spelled: The pieces' codes, ascending, and ``spelled_keys`` their keys: a word may
            be one piece here and several there.
    """

    keys: U64
    codes: U64
    last_codes: U64
    sizes: I64
    joins: NDArray[np.bool_]
    joinable: NDArray[np.bool_]
    spelled: U64
    spelled_keys: U64

    @classmethod
    def from_pieces(cls, pieces: Sequence[str]) -> Vocabulary:
        """Make the tables.

        Args:
            pieces: The tokenizer's pieces by token id, "" where an id has none. WordPiece
                (``##``), SentencePiece (``\u2581``), byte-level BPE (``\u0120``) and whole words
                are told apart by the mark that is most frequent.
        """
        style = _style(pieces)
        read = [_read(piece, style) for piece in pieces]
        bodies = [body for body, _, _ in read]
        codes, keys = _codes(bodies), _keys(bodies)
        spelled, first = np.unique(codes, return_index=True)
        return cls(
            keys=keys,
            codes=codes,
            last_codes=_codes([_PLURAL.sub(b"", body) for body in bodies]),
            sizes=np.array([len(body) for body in bodies], np.int64),
            joins=np.array([joins for _, joins, _ in read], np.bool_),
            joinable=np.array([joinable for _, _, joinable in read], np.bool_),
            spelled=spelled,
            spelled_keys=keys[first],
        )

    def __len__(self) -> int:
        return len(self.keys)

    def joined(self, ids: I32, starts: Starts) -> NDArray[np.bool_]:
        """Which of T tokens continue the word of the token before them, bool ``[T]``."""
        joined = np.zeros(len(ids), np.bool_)
        np.logical_and(self.joins[ids[1:]], self.joinable[ids[:-1]], out=joined[1:])
        joined[starts[starts < len(ids)]] = False
        return joined

    def long_words(self, ids: I32, joined: NDArray[np.bool_]) -> tuple[I64, U64]:
        """The words of several pieces: where each begins among the tokens, and its key."""
        part = joined.copy()
        part[:-1] |= joined[1:]
        places = np.flatnonzero(part)
        if not len(places):
            return places, np.zeros(0, np.uint64)
        heads = np.flatnonzero(~joined[places])
        sizes = self.sizes[ids[places]]
        before = np.cumsum(sizes) - sizes
        before -= np.repeat(before[heads], np.diff(heads, append=len(places)))
        codes = self.codes[ids[places]]
        last = np.append(heads[1:], len(places)) - 1
        codes[last] = self.last_codes[ids[places[last]]]
        codes *= _POWERS[before % _LONGEST]
        return places[heads], self._known(np.add.reduceat(codes, heads))

    def words(self, ids: I32, starts: Starts) -> tuple[I64, U64]:
        """Every word of B texts: the text that it is in, ascending, and its key.

        Args:
            ids: Token ids of the texts end to end, ``[T]``.
            starts: Where each begins.
        """
        joined = self.joined(ids, starts)
        keys = self.keys[ids]
        keys[joined] = NOTHING
        begins, long_keys = self.long_words(ids, joined)
        keys[begins] = long_keys
        texts = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        kept = keys != NOTHING
        return texts[kept], keys[kept]

    def _known(self, codes: U64) -> U64:
        """The keys of spelled words: a piece's where one piece spells the same."""
        at = np.minimum(np.searchsorted(self.spelled, codes), len(self.spelled) - 1)
        keys: U64 = np.where(self.spelled[at] == codes, self.spelled_keys[at], codes)
        return keys


def _style(pieces: Sequence[str]) -> Style:
    marks: tuple[Style, ...] = ("##", "\u2581", "\u0120")
    counts = {mark: sum(piece.startswith(mark) for piece in pieces) for mark in marks}
    best = max(marks, key=lambda mark: counts[mark])
    return best if counts[best] else ""


def _read(piece: str, style: Style) -> tuple[bytes, bool, bool]:
    """What a piece spells in lower case, whether it joins, and whether it may be joined to."""
    lone = _BYTE.fullmatch(piece)
    if _SPECIAL.fullmatch(piece) and not lone:
        return b"", False, False
    if style == "##":
        text, marked = piece.removeprefix("##").lower(), not piece.startswith("##")
        return text.encode(), not marked and _is_letter(text[:1]), _is_letter(text[-1:])
    if style == "":
        return piece.lower().encode(), False, False
    raw = bytes.fromhex(lone[1]) if lone else _bytes_of(piece, style)
    try:
        text = raw.decode().lower()
    except UnicodeDecodeError:  # a part of a character
        return raw.strip(), raw == raw.lstrip(), True
    body = text.strip(_BLANKS)
    joins = text[:1] not in _BLANKS and _is_joint(body[:1])
    return body.encode(), joins, text[-1:] == body[-1:] and _is_joint(body[-1:])


def _is_letter(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character or " ")[0] == "M"


def _is_joint(character: str) -> bool:
    return _is_letter(character) and not _WITHOUT_SPACES.match(character)


def _bytes_of(piece: str, style: Style) -> bytes:
    """The bytes of a piece, which a byte-level BPE writes in an alphabet of its own."""
    if style == "\u0120" and all(character in _ALPHABET for character in piece):
        return bytes(_ALPHABET[character] for character in piece)
    return piece.encode()


def _alphabet() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 is itself, other bytes follow from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }


_ALPHABET = _alphabet()


def _keys(bodies: Sequence[bytes]) -> U64:
    """The key of each piece alone: its stem's code; of stop words and punctuation nothing."""
    from Stemmer import Stemmer  # what only reads with the tables does without it

    texts = [_core(body.decode(errors="ignore")) for body in bodies]
    stems = Stemmer("english").stemWords(texts)
    kept = [
        b"" if text in STOP_WORDS else (stem if text.isascii() else text).encode()
        for text, stem in zip(texts, stems, strict=True)
    ]
    return _codes(kept)


def _core(text: str) -> str:
    """A piece without the punctuation around it; empty where nothing else is in it."""
    letters = [place for place, character in enumerate(text) if character.isalnum()]
    return text[letters[0] : letters[-1] + 1] if letters else ""


def _codes(bodies: Sequence[bytes]) -> U64:
    """The code of each string of bytes; of an empty one 0."""
    flat = np.frombuffer(b"".join(bodies), np.uint8)
    sizes = np.array([len(body) for body in bodies], np.int64)
    ends = np.cumsum(sizes)
    place = np.arange(len(flat)) - np.repeat(ends - sizes, sizes)
    sums = np.zeros(len(flat) + 1, np.uint64)
    np.cumsum((flat.astype(np.uint64) + 1) * _POWERS[place % _LONGEST], out=sums[1:])
    codes: U64 = sums[ends] - sums[ends - sizes]
    return codes
