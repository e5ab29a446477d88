"""Gated top-k over a flat FAISS index; the extra ``[faiss-cpu]`` or ``[faiss-gpu]``.

FAISS knows no gate. On a CPU its ID selector stands in for one, a search for each distinct
state of a batch. A GPU index silently ignores it (seen with 1.15.1), so there the search is
ungated and fetches twice as many tools until every turn has all it can need. Either way each
tool fetched is asked for its gate. Nor does it know terms: every tool that shares one with
its turn is scored besides. What is fetched is approximate; it is cut by the bound of
kernels/README.md and scored again, so the answer's bits are those of the reference.

Slower than a scorer that knows the gate. 64 turns against 10,000 tools of D = 384 on two CPU
cores: 2.7 times the NumPy scorer's time without a gate, 4.3 times with a state for each turn.
On an H200: 0.9 ms without a gate or with half of the classes, 8.3 ms with one class of 64.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from ta_fast.errors import BackendUnavailable, InvalidConfig
from ta_fast_kernels import TermRows, ToolMatrix, TopK, check_operands, gated_topk
from ta_fast_kernels.numpy_topk import (
    class_bits,
    error_bounds,
    lexical_part,
    merge,
    rescore,
)
from ta_fast_kernels.reference import unfilled

with warnings.catch_warnings():  # SWIG's generated types
    warnings.simplefilter("ignore", DeprecationWarning)
    import faiss as _faiss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ta_fast.types import F32, U32

faiss: Any = _faiss  # its stubs know the C++ constructors, not what Python adds to them

SPARE = 16
"""Tools fetched beyond 2 k at first: ties, rounding, and a few that the gate denies."""
TURNS_WITH_TERMS = 64
"""Turns whose lexical parts ``[B, N]`` are held at once."""
MOST_ON_GPU = 2048
"""Most tools that a GPU index returns; a turn that needs more is scored by NumPy."""

_ONE_AT_A_TIME = Lock()


@cache
def _gpu_resources() -> Any:
    """FAISS's scratch memory on the GPU (1.5 GB), shared by all epochs."""
    return faiss.StandardGpuResources()


class FaissScorer:
    """Scores with ``IndexFlatIP``, which holds a float32 copy of the matrix.

    Threads may share it; on a GPU their searches wait for each other, since FAISS's
    memory there may not be used twice at once.

    Args:
        matrix: the tools.
        device: ``cpu`` or ``cuda``; None takes CUDA where faiss sees a GPU.

    Raises:
        InvalidConfig: no such device.
        BackendUnavailable: a GPU was asked for and this faiss sees none.
    """

    def __init__(self, matrix: ToolMatrix, *, device: str | None = None) -> None:
        gpus = faiss.get_num_gpus()
        if device is None:
            device = "cuda" if gpus else "cpu"
        if device not in ("cpu", "cuda"):
            raise InvalidConfig(f"device: expected cpu or cuda, found {device!r}")
        if device == "cuda" and not gpus:
            raise BackendUnavailable(
                f"device 'cuda': faiss {faiss.__version__} sees no GPU; "
                "take device 'cpu', or pip install 'ta-fast[faiss-gpu]' beside a CUDA driver"
            )
        self.matrix = matrix
        self.device = device
        self._sizes = np.diff(matrix.starts)
        self._classes = np.repeat(np.arange(matrix.n_classes), self._sizes)
        self._most = min(len(matrix), MOST_ON_GPU) if device == "cuda" else len(matrix)
        self._index = self._make_index()

    def topk(
        self, queries: F32, allowed: U32, k: int, threshold: F32, terms: TermRows | None = None
    ) -> TopK:
        """See ``Scorer.topk``."""
        check_operands(queries, self.matrix, allowed, k, threshold, terms)
        best = unfilled(len(queries), k)
        if len(self.matrix) == 0:
            return best
        for turns, selector in self._groups(allowed) if len(queries) else ():
            part = TopK(best.scores[turns], best.rows[turns])
            self._search(queries[turns], allowed[turns], threshold[turns], selector, part)
            best.scores[turns], best.rows[turns] = part.scores, part.rows
        if terms is not None:
            for first in range(0, len(queries), TURNS_WITH_TERMS):
                last = min(first + TURNS_WITH_TERMS, len(queries))
                part = TopK(best.scores[first:last], best.rows[first:last])
                operands = queries[first:last], allowed[first:last], threshold[first:last]
                self._add_terms(*operands, terms.part(first, last), part)
        return best

    def _add_terms(
        self, queries: F32, allowed: U32, threshold: F32, terms: TermRows, best: TopK
    ) -> None:
        """Turn the best by inner product alone into the best by hybrid score.

        The lexical part is never negative. So a tool that shares no term with its turn is
        among the k best only if it is so without terms; every other tool is scored.
        """
        lexical = lexical_part(self.matrix, terms, range(len(self.matrix)))
        if lexical is None:
            return
        error = error_bounds(queries, self.matrix, terms)
        stored = np.argsort(self.matrix.rows)[best.rows]
        again = np.take_along_axis(lexical, stored, axis=1) > 0
        best.scores[again], best.rows[again] = -np.inf, -1
        may_use = class_bits(allowed, self.matrix.n_classes)[:, self._classes]
        turn, found = ((lexical > 0) & (may_use != 0)).nonzero()
        scores = rescore(queries, self.matrix, error, turn, found, lexical[turn, found])
        keep = scores >= threshold[turn]
        merge(best, turn[keep], scores[keep], self.matrix.rows[found[keep]])

    def _make_index(self) -> Any:
        if self.device == "cuda":
            with _ONE_AT_A_TIME:
                index = faiss.GpuIndexFlatIP(_gpu_resources(), self.matrix.dim)
                index.add(self.matrix.vectors)
        else:
            index = faiss.IndexFlatIP(self.matrix.dim)
            index.add(self.matrix.vectors)
        return index

    def _groups(self, allowed: U32) -> Iterator[tuple[NDArray[np.intp], NDArray[np.uint8] | None]]:
        """Turns that are searched together, and a bit for each stored row that they may use."""
        if self.device == "cuda":
            yield np.arange(len(allowed)), None
            return
        states, state = np.unique(allowed, axis=0, return_inverse=True)
        for i, may_use in enumerate(class_bits(states, self.matrix.n_classes)):
            rows = np.repeat(may_use, self._sizes)
            selector = None if rows.all() else np.packbits(rows, bitorder="little")
            yield np.flatnonzero(state.reshape(-1) == i), selector

    def _search(
        self,
        queries: F32,
        allowed: U32,
        threshold: F32,
        selector: NDArray[np.uint8] | None,
        best: TopK,
    ) -> None:
        """Fill ``best [B, k]``, fetching twice as many until no turn can need more."""
        k = best.rows.shape[1]
        error = error_bounds(queries, self.matrix)
        left = np.arange(len(queries))
        fetch = min(2 * k + SPARE, self._most)
        while len(left):
            approx, stored = self._fetch(queries[left], fetch, selector)
            words = allowed[left[:, None], self._classes[stored] // 32]
            may_use = words >> (self._classes[stored] % 32).astype(np.uint32) & 1 == 1
            may_use &= stored >= 0
            cut = np.maximum(
                _kth(approx, may_use, k) - 2 * error[left], threshold[left] - error[left]
            )
            full = fetch == len(self.matrix)
            done = full | (stored[:, -1] < 0) | (approx[:, -1] < cut)
            pair, place = (may_use & (approx >= cut[:, None]) & done[:, None]).nonzero()
            turns, stored = left[pair], stored[pair, place]
            scores = rescore(queries, self.matrix, error, turns, stored)
            keep = scores >= threshold[turns]
            merge(best, turns[keep], scores[keep], self.matrix.rows[stored[keep]])
            left = left[~done]
            if fetch == self._most and len(left):
                self._ask_numpy(queries, allowed, threshold, left, best)
                return
            fetch = min(2 * fetch, self._most)

    def _fetch(
        self, queries: F32, count: int, selector: NDArray[np.uint8] | None
    ) -> tuple[F32, NDArray[np.int64]]:
        """Approximate scores and stored rows ``[B, count]``, best first; -1 where unfilled."""
        queries = np.ascontiguousarray(queries)
        if self.device == "cuda":
            with _ONE_AT_A_TIME:
                approx, stored = self._index.search(queries, count)
        elif selector is None:
            approx, stored = self._index.search(queries, count)
        else:
            chosen = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(selector))
            approx, stored = self._index.search(queries, count, params=chosen)
        return approx, stored

    def _ask_numpy(
        self,
        queries: F32,
        allowed: U32,
        threshold: F32,
        turns: NDArray[np.intp],
        best: TopK,
    ) -> None:
        """Fill the turns that need more tools than a GPU index returns."""
        operands = queries[turns], self.matrix, allowed[turns], best.rows.shape[1], threshold[turns]
        found = gated_topk(*operands, backend="numpy")
        best.scores[turns], best.rows[turns] = found.scores, found.rows


def _kth(approx: F32, may_use: NDArray[np.bool_], k: int) -> F32:
    """``[B]``: the k-th best approximate score that may be used; -inf if there are fewer."""
    counts = may_use.cumsum(axis=1)
    place = (counts >= k).argmax(axis=1)
    kth = approx[np.arange(len(approx)), place]
    return np.where(counts[:, -1] >= k, kth, np.float32(-np.inf))
