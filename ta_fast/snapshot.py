"""One epoch of a catalog, ready to route turns against."""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from ta_fast.catalog import Catalog
from ta_fast.encoder import Encoder
from ta_fast.pipeline import Pipeline
from ta_fast.prompt import POOL_HEADER
from ta_fast.scorer import make_scorer
from ta_fast.tokens import count_tokens

REMEMBERED_POOLS = 64


class Snapshot:
    """An index, its scorer, and the summary pools of the states seen; thread-safe.

    Attributes:
        index: The immutable ``ToolIndex``.
        scorer: Scores batches against it.
        pipeline: Texts to rows: the encoder and the scorer as one step.
        pool_size: (allowed tools, pool tokens) of a state's allowed classes, as bytes.
        pool_text: The summary pool of a state's allowed classes, as bytes.
    """

    def __init__(self, catalog: Catalog, encoder: Encoder, scorer: str) -> None:
        catalog.embed(encoder)
        self.index = catalog.snapshot(encoder)
        self.scorer = make_scorer(scorer, self.index.matrix)
        self.pipeline = Pipeline(encoder, self.scorer)
        self.pool_size = lru_cache(maxsize=1024)(self._pool_size)
        self.pool_text = lru_cache(maxsize=REMEMBERED_POOLS)(self._pool_text)
        self._catalog = catalog
        self._header_tokens = count_tokens(POOL_HEADER)

    @cached_property
    def _lines(self) -> list[str]:
        lines = self._catalog.pool_lines()
        return [lines.get(tool_id, "") for tool_id in self.index.ids]

    def _rows(self, allowed: bytes) -> NDArray[np.bool_]:
        return self.index.allowed_rows(np.frombuffer(allowed, dtype=np.uint32))

    def _pool_size(self, allowed: bytes) -> tuple[int, int]:
        rows = self._rows(allowed)
        return int(rows.sum()), self._header_tokens + int(self.index.pool_tokens[rows].sum())

    def _pool_text(self, allowed: bytes) -> str:
        lines = self._lines
        return POOL_HEADER + "".join(lines[row] for row in np.flatnonzero(self._rows(allowed)))
