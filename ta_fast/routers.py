"""A pipeline as the engine's router, and the engine's answer as the pipeline's."""

from __future__ import annotations

from collections.abc import Sequence

from ta_fast.engine import Answer, Columns
from ta_fast.pipeline import Pipeline, Prepared, Routed
from ta_fast.types import F32, U32


class PipelineRouter:
    """A pipeline as the engine's router.

    Args:
        pipeline: Of one epoch, on one device.
        vectors: Embeddings are wanted: a calibration or an event reads them.
    """

    def __init__(self, pipeline: Pipeline, *, vectors: bool) -> None:
        self._pipeline, self._vectors = pipeline, vectors

    def prepare(self, texts: Sequence[str]) -> Prepared:
        """See ``Router.prepare``."""
        return self._pipeline.prepare(texts)

    def run(self, prepared: Prepared, allowed: U32, k: int, threshold: F32) -> Columns:
        """See ``Router.run``."""
        routed = self._pipeline.run(prepared, allowed, k, threshold, vectors=self._vectors)
        columns = {"scores": routed.top.scores, "rows": routed.top.rows}
        if self._vectors and routed.queries is not None:
            columns["queries"] = routed.queries
        if self._vectors and routed.words is not None:
            columns["words"] = routed.words
        return columns


def routed(answer: Answer) -> Routed:
    """What the pipeline would have given for these turns alone."""
    columns = answer.columns
    seconds = {"wait": answer.waited, **answer.seconds}
    return Routed(answer.top, columns.get("queries"), seconds, columns.get("words"))
