"""ToolIndex: the immutable snapshot that one epoch is scored against."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ta_fast.errors import InvalidCatalog
from ta_fast.gate import Clauses, Gate, build_gate, compile_precondition, restricted
from ta_fast.lexicon import Lexicon
from ta_fast.types import F32, I32, U32
from ta_fast_kernels import TermRows, ToolMatrix, class_order
from ta_fast_kernels.matrix import invert

IndexRow = tuple[str, str, str | None, str, int]
"""(id, wire name, precondition JSON, annotations JSON, tokens of the pool line)."""


@dataclass(frozen=True, slots=True, eq=False)
class ToolIndex:
    """One epoch of a catalog, ready to be scored; N tools, G gate classes.

    Attributes:
        epoch: The catalog's epoch.
        encoder: Name of the encoder that made the vectors.
        ids: Tool ids by catalog row.
        rows: Catalog row by tool id.
        wires: Catalog row by wire name, only where that is not the id.
        classes: Gate class by catalog row, int32 ``[N]``.
        gate: State to allowed classes.
        matrix: Unit vectors, stored by gate class.
        pool_tokens: Tokens of each tool's line in the summary pool, int32 ``[N]``.
        lexicon: The tools' words, for hybrid scores; None where scores are dense.
    """

    epoch: int
    encoder: str
    ids: tuple[str, ...]
    rows: Mapping[str, int]
    wires: Mapping[str, int]
    classes: I32
    gate: Gate
    matrix: ToolMatrix
    pool_tokens: I32
    lexicon: Lexicon | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def row_of_wire(self, wire: str) -> int | None:
        """Catalog row of the tool that the model calls ``wire``."""
        row = self.wires.get(wire)
        if row is not None:
            return row
        return self.rows.get(wire)

    def permits(self, allowed: U32, row: int) -> bool:
        """Whether a state's allowed classes permit the tool of a catalog row."""
        gate_class = int(self.classes[row])
        return bool(int(allowed[gate_class >> 5]) >> (gate_class & 31) & 1)

    def allowed_rows(self, allowed: U32) -> NDArray[np.bool_]:
        """The catalog rows that a state's allowed classes permit, bool ``[N]``."""
        bits = np.unpackbits(allowed.astype("<u4").view(np.uint8), bitorder="little")
        return bits[self.classes].astype(np.bool_)


def build_index(
    epoch: int,
    encoder: str,
    dim: int,
    tools: Sequence[IndexRow],
    vectors: Iterable[tuple[str, bytes | None]],
    words: tuple[Lexicon, TermRows] | None = None,
) -> ToolIndex:
    """Build the snapshot; each vector is read straight into its place in the matrix.

    Args:
        epoch: The catalog's epoch.
        encoder: Name of the encoder.
        dim: Its vectors' length D.
        tools: The N tools in catalog order.
        vectors: (id, D little-endian float32) in the same order; None where there is none.
        words: For hybrid scores the tools' lexicon, and their terms in the same order.

    Raises:
        InvalidCatalog: a vector is absent, has another length, or holds NaN.
    """
    gate, classes = build_gate(_clauses(tools))
    order, starts = class_order(classes, gate.n_classes)
    place = np.empty(len(tools), dtype=np.int64)
    place[order] = np.arange(len(tools))
    matrix = np.empty((len(tools), dim), dtype=np.float32)
    for row, (tool_id, vector) in enumerate(vectors):
        if vector is None:
            raise InvalidCatalog(
                f"tool {tool_id!r} has no vector by encoder {encoder}; run Catalog.embed first"
            )
        if len(vector) != 4 * dim:
            raise InvalidCatalog(
                f"the vector of tool {tool_id!r} has {len(vector)} bytes; expected {4 * dim}"
            )
        matrix[place[row]] = np.frombuffer(vector, dtype="<f4")
    ids = tuple(tool[0] for tool in tools)
    return ToolIndex(
        epoch=epoch,
        encoder=encoder,
        ids=ids,
        rows={tool_id: row for row, tool_id in enumerate(ids)},
        wires={tool[1]: row for row, tool in enumerate(tools) if tool[1] != tool[0]},
        classes=classes,
        gate=gate,
        matrix=_checked_matrix(encoder, matrix, order, starts, words and words[1]),
        pool_tokens=np.array([tool[4] for tool in tools], dtype=np.int32),
        lexicon=words and words[0],
    )


def _checked_matrix(
    encoder: str, vectors: F32, order: I32, starts: NDArray[np.int64], terms: TermRows | None
) -> ToolMatrix:
    try:
        return ToolMatrix(vectors, order, starts, None if terms is None else invert(terms, order))
    except ValueError as error:
        raise InvalidCatalog(
            f"the stored vectors of encoder {encoder} are damaged: {error}"
        ) from error


def _clauses(tools: Sequence[IndexRow]) -> list[Clauses]:
    """Compiled preconditions; distinct ones are few, so each is compiled once."""
    seen: dict[tuple[str | None, str], Clauses] = {}
    result = []
    for tool_id, _, precondition, hints, _ in tools:
        key = (precondition, hints)
        if key not in seen:
            parsed = None if precondition is None else json.loads(precondition)
            clauses = compile_precondition(parsed, tool_id)
            seen[key] = restricted(clauses, json.loads(hints), tool_id)
        result.append(seen[key])
    return result
