"""The lexical half of a score: which words a turn shares with a tool, and what they weigh.

A tool's words are those of its name, description, server and parameters, weighted by BM25
(Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009) over the catalog.
A turn's words count once each: a word said twice is hardly better evidence. The
constants are BM25's usual ones; docs/architecture.md has the figures.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ta_fast.remembered import remembered
from ta_fast.types import I32, Json, JsonObject, Tool
from ta_fast.vocabulary import I64, ID_BYTES, NOTHING, U64, Vocabulary
from ta_fast_kernels.terms import MAX_WEIGHT, UNIT, TermRows

Tokenize: TypeAlias = Callable[[Sequence[str]], Sequence[bytes]]
"""Texts to the bytes of their int32 token ids; it may cut each text to its limit."""

K1 = 1.2
"""How soon a repeated word saturates."""
B = 0.75
"""How much a tool's length counts against it."""
SCALE = 0.02
"""What one unit of BM25 adds to a cosine of all-MiniLM-L6-v2."""

REMEMBERED_WORDS = 1 << 15
"""Words of several pieces whose terms are kept."""
_UNKNOWN, _NO_WORD = -1, -2
_TOOLS_AT_ONCE = 1024
_MOST_PARAMETERS = 256  # of one tool that are read, nested ones counted
_MOST_VALUES = 32  # of one enumeration
_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PUNCTUATION = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True, eq=False)
class Lexicon:
    """The V terms of a catalog: words that tools have, and the way to them from token ids.

    Attributes:
        vocabulary: The tokenizer's.
        keys: The word of each term, uint64 ``[V]``, ascending.
        of_token: The term that a token is as a word of its own, int32 ``[n]``; -1: none.
        one: The way for one turn.
    """

    vocabulary: Vocabulary
    keys: U64
    of_token: I32
    one: OneTurn

    @classmethod
    def build(
        cls, vocabulary: Vocabulary, tools: Sequence[Tool], tokenize: Tokenize
    ) -> tuple[Lexicon, TermRows]:
        """The lexicon of N tools, and their terms and weights in the tools' order."""
        owners, words, counts = _count(vocabulary, tools, tokenize)
        keys, terms = np.unique(words, return_inverse=True)
        weights = _bm25(owners, terms, counts, len(tools))
        kept = weights > 0  # what every tool has tells nothing
        rows = TermRows(
            _offsets(owners[kept], len(tools)), terms[kept].astype(np.int32), weights[kept]
        )
        return cls.of_words(vocabulary, keys), rows

    @classmethod
    def of_words(cls, vocabulary: Vocabulary, keys: U64) -> Lexicon:
        """The lexicon whose terms are these words, ascending."""
        of_token = _find(keys, vocabulary.keys)
        return cls(vocabulary, keys, of_token, OneTurn(vocabulary, keys, of_token))

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, rows: Sequence[bytes]) -> tuple[TermRows, I32]:
        """The terms of B turns, each counted once; and how many words they have.

        Args:
            rows: The bytes of each turn's int32 token ids, special tokens included.

        Returns:
            The terms, and ``[B, 2]``: words as often as they are said, and of those the
            ones that no tool has.
        """
        if len(rows) == 1:
            return self.one.read(rows[0])
        ids, starts = end_to_end(rows)
        keys, terms, owners = self._terms(ids, starts)
        word, known = keys != NOTHING, terms >= 0
        pairs = np.unique(owners[known] * len(self) + terms[known])
        owner, found = np.divmod(pairs, max(1, len(self)))
        ones = np.ones(len(found), np.int32)
        turns = TermRows(_offsets(owner, len(rows)), found.astype(np.int32), ones)
        words = np.bincount(owners[word], minlength=len(rows))
        unknown = np.bincount(owners[word & ~known], minlength=len(rows))
        return turns, np.stack((words, unknown), axis=1).astype(np.int32)

    def _terms(self, ids: I32, starts: I64) -> tuple[U64, I32, I64]:
        """Of each of T tokens the word that begins there, its term or -1, and its turn."""
        keys, terms = self.vocabulary.keys[ids], self.of_token[ids]
        joined = self.vocabulary.joined(ids, starts)
        if joined.any():
            begins, long_keys = self.vocabulary.long_words(ids, joined)
            keys[joined], terms[joined] = NOTHING, -1
            keys[begins], terms[begins] = long_keys, _find(self.keys, long_keys)
        return keys, terms, np.repeat(np.arange(len(starts) - 1), np.diff(starts))


class OneTurn:
    """Reads one turn without NumPy, whose calls are what costs when a turn comes alone."""

    def __init__(self, vocabulary: Vocabulary, keys: U64, of_token: I32) -> None:
        self._vocabulary, self._keys = vocabulary, keys
        self._joins, self._joinable = vocabulary.joins.tobytes(), vocabulary.joinable.tobytes()
        self._alone = np.where(vocabulary.keys == NOTHING, _NO_WORD, of_token).tolist()
        self._of_pieces = remembered(self._long_word, REMEMBERED_WORDS)

    def read(self, row: bytes) -> tuple[TermRows, I32]:
        """See ``Lexicon.read``."""
        ids = memoryview(row).cast("i").tolist()
        words, found, i = [], set(), 0
        while i < len(ids):
            j = i + 1
            while j < len(ids) and self._joins[ids[j]] and self._joinable[ids[j - 1]]:
                j += 1
            if j == i + 1:
                term = self._alone[ids[i]]
            else:
                term = self._of_pieces(row[ID_BYTES * i : ID_BYTES * j])
            if term != _NO_WORD:
                words.append(term)
                found.add(term)
            i = j
        found.discard(_UNKNOWN)
        terms = np.array(sorted(found), np.int32)
        offsets = np.array([0, len(found)], np.int64)
        counts = np.array([[len(words), words.count(_UNKNOWN)]], np.int32)
        return TermRows(offsets, terms, np.ones(len(found), np.int32)), counts

    def _long_word(self, row: bytes) -> int:
        ids = np.frombuffer(row, np.int32)
        _, keys = self._vocabulary.long_words(ids, np.arange(len(ids)) > 0)
        return _NO_WORD if keys[0] == NOTHING else int(_find(self._keys, keys)[0])


def _count(
    vocabulary: Vocabulary, tools: Sequence[Tool], tokenize: Tokenize
) -> tuple[I64, U64, I64]:
    """Every tool's distinct words: (tool, word, how often) ascending; three of ``[M]``."""
    owners, words, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)], [np.zeros(0, int)]
    for first in range(0, len(tools), _TOOLS_AT_ONCE):
        fields = [_fields(tool) for tool in tools[first : first + _TOOLS_AT_ONCE]]
        rows = tokenize([text for texts in fields for text in texts])
        texts, keys = vocabulary.words(*end_to_end(rows))
        known, places = np.unique(keys, return_inverse=True)
        pairs, many = np.unique(texts // len(fields[0]) * len(known) + places, return_counts=True)
        tool, word = np.divmod(pairs, max(1, len(known)))
        owners.append(first + tool)
        words.append(known[word])
        counts.append(many)
    return np.concatenate(owners), np.concatenate(words), np.concatenate(counts)


def _bm25(owners: I64, terms: I64, counts: I64, tools: int) -> I32:
    """Weights in `UNIT`, int32 ``[M]``: 0 where a word tells less than half of one."""
    holders = np.bincount(terms)
    rarity = np.log(1 + (tools - holders + 0.5) / (holders + 0.5))
    lengths = np.bincount(owners, counts, tools)
    relative = lengths / max(1.0, lengths.mean()) if tools else lengths
    often = counts * (K1 + 1) / (counts + K1 * (1 - B + B * relative[owners]))
    whole = np.rint(SCALE / UNIT * rarity[terms] * often)
    weights: I32 = np.minimum(whole, MAX_WEIGHT).astype(np.int32)
    return weights


def _fields(tool: Tool) -> tuple[str, ...]:
    """A tool's texts, each cut by itself: always as many."""
    names, descriptions, values = [], [], []
    for name, schema in parameters(tool.input_schema):
        names.append(spaced(name))
        if isinstance(text := schema.get("description"), str):
            descriptions.append(text)
        if isinstance(choices := schema.get("enum"), list):
            values += [spaced(value) for value in choices[:_MOST_VALUES] if isinstance(value, str)]
    texts = (
        _named(tool.name),
        tool.description,
        spaced(tool.server),
        " ".join(names),
        " ".join(descriptions),
        " ".join(values),
    )
    return tuple(" ".join(text.split()) for text in texts)


def parameters(schema: Json) -> Iterator[tuple[str, JsonObject]]:
    """(name, schema) of parameters, those of objects and choices within them too."""
    waiting, left = deque([("", schema)]), _MOST_PARAMETERS
    while waiting and left:
        name, part = waiting.popleft()
        part = part if isinstance(part, dict) else {}
        left -= 1
        yield name, part
        for key in ("properties", "$defs", "definitions"):
            if isinstance(named := part.get(key), dict):
                waiting += named.items()
        for key in ("items", "additionalProperties"):
            if isinstance(part.get(key), dict):
                waiting.append(("", part[key]))
        for key in ("anyOf", "oneOf", "allOf"):
            if isinstance(choices := part.get(key), list):
                waiting += (("", choice) for choice in choices)


def spaced(name: str) -> str:
    """``createOrUpdate_file`` as ``create Or Update file``."""
    return _PUNCTUATION.sub(" ", _CASE.sub(" ", name))


def _named(name: str) -> str:
    """A name in words, and also unsplit where it is split at capitals: turns may quote it."""
    words, whole = spaced(name), _PUNCTUATION.sub(" ", name)
    return words if words == whole else f"{words} {whole}"


def end_to_end(rows: Sequence[bytes]) -> tuple[I32, I64]:
    """Token ids of B texts end to end, ``[T]``, and where each text begins, ``[B + 1]``."""
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)) // ID_BYTES, out=starts[1:])
    return np.frombuffer(b"".join(rows), np.int32), starts


def _offsets(owners: I64, rows: int) -> I64:
    """Where each row's entries begin, int64 ``[rows + 1]``, of ascending owners."""
    offsets = np.zeros(rows + 1, np.int64)
    np.cumsum(np.bincount(owners, minlength=rows), out=offsets[1:])
    return offsets


def _find(keys: U64, wanted: U64) -> I32:
    """The place of each wanted one in ascending ``keys``, int32; -1 where it is not."""
    if not len(keys):
        return np.full(len(wanted), -1, np.int32)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found: I32 = np.where(keys[at] == wanted, at, -1).astype(np.int32)
    return found
