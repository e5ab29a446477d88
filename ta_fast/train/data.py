"""Labelled sets made ready for training: token ids, terms and gold tools, as plain arrays.

Everything that needs a tokenizer, a summary or a stem was done before (`prepare`), so that
a training machine needs NumPy and torch only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ta_fast.errors import InvalidCatalog
from ta_fast.types import I32
from ta_fast_kernels import TermRows

I64: TypeAlias = NDArray[np.int64]

VIEWS = 3
"""Texts of a tool whose mean is its served embedding; they come first."""
TEXTS = 5
"""Texts of a tool that training may draw from."""
NOISY = 4
"""Texts of a query with typos or cut short, and in other words."""
TURNS = 2
"""Texts of a query as a turn of a conversation."""
WORDINGS = 1 + NOISY + TURNS
"""Texts of a query: its own, then noisy ones, then turns."""


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Token ids of n texts end to end, int32 ``[T]``, and where each begins, ``[n + 1]``."""

    ids: I32
    starts: I64


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """N tools and the Q queries that need them.

    Attributes:
        name: Of the set.
        tools: ``TEXTS`` texts of each tool, tool after tool.
        queries: ``WORDINGS`` texts of each query, query after query.
        gold: (query, group, tool) int32 ``[G, 3]``, ascending: any tool of a group is right,
            every group of a query is needed.
        tool_terms: Terms and BM25 weights of each tool.
        query_terms: Terms of each text of ``queries``.
    """

    name: str
    tools: Texts
    queries: Texts
    gold: I32
    tool_terms: TermRows
    query_terms: TermRows

    @property
    def n_tools(self) -> int:
        """N."""
        return (len(self.tools.starts) - 1) // TEXTS

    @property
    def n_queries(self) -> int:
        """Q."""
        return (len(self.queries.starts) - 1) // WORDINGS

    @property
    def origin(self) -> str:
        """Sets whose names agree up to the first underscore are left out together."""
        return self.name.partition("_")[0]

    def digest(self) -> str:
        """Hexadecimal SHA-256 of everything in the set."""
        total = hashlib.sha256(self.name.encode())
        for name, array in sorted(_arrays(self).items()):
            total.update(f"{name} {array.shape}".encode())
            total.update(np.ascontiguousarray(array).tobytes())
        return total.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Sets, and the model whose tokens they are: its name and ``ModelFolder.digest``."""

    base: str
    base_digest: str
    sets: tuple[TrainingSet, ...]

    def save(self, path: Path) -> None:
        """Write everything to one compressed file."""
        arrays: dict[str, NDArray[Any]] = {"base": np.array([self.base, self.base_digest])}
        arrays["names"] = np.array([one.name for one in self.sets])
        for one in self.sets:
            arrays |= {f"{one.name}/{name}": array for name, array in _arrays(one).items()}
        with path.open("wb") as file:  # a path would be given an ending
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Prepared:
        """Read what ``save`` wrote.

        Raises:
            InvalidCatalog: the file cannot be read or is something else.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                base, digest = file["base"].tolist()
                return cls(
                    base, digest, tuple(_read(file, name) for name in file["names"].tolist())
                )
        except (OSError, ValueError, KeyError) as error:
            raise InvalidCatalog(f"{path}: {error}; expected prepared sets") from error


def without(sets: Sequence[TrainingSet], origin: str) -> list[TrainingSet]:
    """The sets of other origins."""
    return [one for one in sets if one.origin != origin]


def _arrays(one: TrainingSet) -> dict[str, NDArray[Any]]:
    return {
        "gold": one.gold,
        "tools.ids": one.tools.ids,
        "tools.starts": one.tools.starts,
        "queries.ids": one.queries.ids,
        "queries.starts": one.queries.starts,
        "tool_terms.offsets": one.tool_terms.offsets,
        "tool_terms.terms": one.tool_terms.terms,
        "tool_terms.values": one.tool_terms.values,
        "query_terms.offsets": one.query_terms.offsets,
        "query_terms.terms": one.query_terms.terms,
        "query_terms.values": one.query_terms.values,
    }


def _read(file: Any, name: str) -> TrainingSet:
    def texts(of: str) -> Texts:
        return Texts(file[f"{name}/{of}.ids"], file[f"{name}/{of}.starts"])

    def terms(of: str) -> TermRows:
        return TermRows(*(file[f"{name}/{of}.{part}"] for part in ("offsets", "terms", "values")))

    return TrainingSet(
        name,
        texts("tools"),
        texts("queries"),
        file[f"{name}/gold"],
        terms("tool_terms"),
        terms("query_terms"),
    )
