"""One epoch of a catalog, ready to route turns against."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ta_fast.calibration import Judge, Wish, shipped, usable
from ta_fast.catalog import Catalog
from ta_fast.encoder import Encoder, shows_tokens
from ta_fast.errors import InvalidConfig
from ta_fast.pipeline import Pipeline
from ta_fast.prompt import POOL_HEADER
from ta_fast.remembered import remembered
from ta_fast.scorer import make_scorer
from ta_fast.tokens import count_tokens

REMEMBERED_POOLS = 64
RANKINGS = ("auto", "dense", "hybrid")
"""What may rank the tools; ``auto`` is ``hybrid`` where the encoder shows its tokens."""


class Snapshot:
    """An index, its scorer, and the summary pools of the states seen; thread-safe.

    Attributes:
        index: The immutable ``ToolIndex``.
        scorer: Scores batches against it.
        pipeline: Texts to rows: the encoder and the scorer as one step.
        pool_size: (allowed tools, pool tokens) of a state's allowed classes, as bytes.
        pool_text: The summary pool of a state's allowed classes, as bytes.
        ranking: What ranks the tools: "dense" or "hybrid".
        judge: The catalog's calibration at work, if there is one and a wish was given.
        stale: What of the catalog's calibration is out of date, or "".
    """

    def __init__(
        self,
        catalog: Catalog,
        encoder: Encoder,
        scorer: str,
        wish: Wish | None = None,
        ranking: str = "auto",
    ) -> None:
        catalog.embed(encoder)
        self.ranking = choose_ranking(ranking, encoder)
        self.index = catalog.snapshot(encoder, self.ranking)
        self.scorer = make_scorer(scorer, self.index.matrix)
        self.pipeline = Pipeline(encoder, self.scorer, self.index.lexicon)
        self.pool_size = remembered(self._pool_size, 1024)
        self.pool_text = remembered(self._pool_text, REMEMBERED_POOLS)
        self._catalog = catalog
        self._header_tokens = count_tokens(POOL_HEADER)
        self.judge, self.stale = (None, "") if wish is None else self._judge(wish)

    def _judge(self, wish: Wish) -> tuple[Judge | None, str]:
        summaries = self._catalog.summary_hashes()
        calibrations = self._catalog.calibrations()
        learnt, stale = usable(calibrations, self.index.encoder, self.ranking, summaries)
        if learnt is not None:
            return Judge(learnt, self.index.ids, summaries, wish), stale
        if not wish:
            return None, stale
        why = stale or "the catalog has no calibration"
        if other := shipped(self.index.encoder, self.ranking):
            told = f"{why}; the encoder's own, learnt on other catalogs, is used instead"
            return Judge(other, self.index.ids, summaries, wish), told
        asked = "precision" if wish.precision else "recall"
        raise InvalidConfig(f"a {asked} is wished, but {why}; run ta-fast calibrate")

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


def choose_ranking(ranking: str, encoder: Encoder) -> str:
    """``dense`` or ``hybrid``.

    Raises:
        InvalidConfig: an unknown ranking, or hybrid scores with an encoder that shows no tokens.
    """
    if ranking not in RANKINGS:
        raise InvalidConfig(f"ranking: expected one of {', '.join(RANKINGS)}, found {ranking!r}")
    if shows_tokens(encoder):
        return "dense" if ranking == "dense" else "hybrid"
    if ranking == "hybrid":
        raise InvalidConfig(
            f"ranking 'hybrid': encoder {encoder.name} shows no tokens; take 'dense'"
        )
    return "dense"
