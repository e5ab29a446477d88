"""The scorer on an NVIDIA GPU, in Triton: vectors rounded to 16 bits, everything else exact."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from ta_fast.errors import BackendUnavailable
from ta_fast_kernels import ToolMatrix, TopK, check_operands, gated_topk

if TYPE_CHECKING:
    from types import ModuleType

    from ta_fast.types import F32, U32
    from ta_fast_kernels import TermRows

DTYPES = ("float16", "bfloat16")
"""What vectors can be rounded to."""
FEW_TERMS = 256
"""Terms of a batch that there is always room for: what is captured serves all smaller ones."""


class TritonScorer:
    """Scores on a GPU. Holds a copy of the matrix there, rounded to ``dtype``.

    Scores and rows are, bit for bit, the reference's on the rounded vectors. Scorers of two
    epochs share nothing. A scorer serves one call at a time; others wait.

    Args:
        matrix: the tools.
        device: a CUDA device's name.
        dtype: one of ``DTYPES``.

    Raises:
        BackendUnavailable: torch, triton or the device is missing.
        ValueError: another dtype, or a vector with a number too large for it.
    """

    def __init__(self, matrix: ToolMatrix, *, device: str = "cuda", dtype: str = "float16") -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, found {dtype!r}")
        self._torch, self._kernels = _backend(device)
        self._dtype = getattr(self._torch, dtype)
        self._largest = float(self._torch.finfo(self._dtype).max)
        self._check_range("vectors", matrix.vectors)
        self._matrix = matrix
        self.search = self._kernels.search_of(matrix, self._dtype, self._torch.device(device))
        self._most = int(self._kernels.MAX_K)
        self._rounded: ToolMatrix | None = None
        self._staging: dict[tuple[int, int, bool, int], _Staging] = {}
        self._lock = threading.Lock()

    def topk(
        self, queries: F32, allowed: U32, k: int, threshold: F32, terms: TermRows | None = None
    ) -> TopK:
        """See ``Scorer.topk``. k beyond 64 is served by the CPU: the same bits, slower."""
        check_operands(queries, self._matrix, allowed, k, threshold, terms)
        self._check_range("queries", queries)
        best = TopK(np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int32))
        with self._lock:
            if k > self._most:
                return self._on_cpu(queries, allowed, k, threshold, terms)
            with self._current():
                self._fill(best, queries, allowed, threshold, terms)
        return best

    def topk_from(
        self, vectors: Any, allowed: U32, k: int, threshold: F32, terms: TermRows | None = None
    ) -> TopK:
        """``topk`` of unit vectors ``[B, D]`` that a GPU encoder left on this device.

        They are read in the order of the caller's stream; the answer is on the host. The
        operands are taken as valid.
        """
        if k > self._most:
            queries: F32 = vectors.float().cpu().numpy()
            return self.topk(queries, allowed, k, threshold, terms)
        turns = len(vectors)
        best = TopK(np.empty((turns, k), np.float32), np.empty((turns, k), np.int32))
        with self._lock, self._current():
            self._fill(best, vectors, allowed, threshold, terms)
        return best

    def _current(self) -> AbstractContextManager[object]:
        """Triton launches on the thread's current device, which need not be this one."""
        device = self.search.device
        return self._torch.cuda.device(device) if device.type == "cuda" else nullcontext()

    def _fill(
        self, best: TopK, queries: Any, allowed: U32, threshold: F32, terms: TermRows | None
    ) -> None:
        k, on_host = best.rows.shape[1], isinstance(queries, np.ndarray)
        for i in range(0, len(queries), self.search.max_turns):
            part = slice(i, i + self.search.max_turns)
            turns = len(queries[part])
            own = None if terms is None else terms.part(i, i + turns)
            staging = self._staged(turns, k, on_host, 0 if own is None else len(own.terms))
            found = staging.run(queries[part], allowed[part], threshold[part], own)
            best.scores[part], best.rows[part] = found

    def topk_device(
        self,
        queries: Any,
        allowed: Any,
        k: int,
        threshold: Any,
        out: Any = None,
        terms: Any = None,
    ) -> tuple[Any, Any]:
        """Tensors of the device in and out; capturable in a CUDA graph; see ``GroupSearch.topk``.

        Not safe beside another call of this scorer on another stream.
        """
        scores, rows = self.search.topk(queries, allowed, k, threshold, out, terms=terms)
        return scores, rows

    def _check_range(self, name: str, vectors: F32) -> None:
        found = max(float(vectors.max(initial=0.0)), -float(vectors.min(initial=0.0)))
        if found > self._largest:
            raise ValueError(f"{name}: expected at most {self._largest:g}, found {found:g}")

    def _staged(self, turns: int, k: int, on_host: bool, entries: int) -> _Staging:
        key = _bucket(turns), k, on_host, _bucket(max(entries, FEW_TERMS)) if entries else 0
        if key not in self._staging:
            self._staging[key] = _Staging(
                self._torch, self._kernels, self.search, self._matrix, self._dtype, *key
            )
        return self._staging[key]

    def _on_cpu(
        self, queries: F32, allowed: U32, k: int, threshold: F32, terms: TermRows | None
    ) -> TopK:
        if self._rounded is None:
            old = self._matrix
            vectors = self._round(old.vectors)
            self._rounded = ToolMatrix(vectors, old.rows, old.starts, old.postings)
        return gated_topk(self._round(queries), self._rounded, allowed, k, threshold, terms)

    def _round(self, vectors: F32) -> F32:
        rounded: F32 = self._torch.from_numpy(vectors.copy()).to(self._dtype).float().numpy()
        return rounded


class _Staging:
    """Buffers for so many turns on both sides, and the captured call between them."""

    def __init__(
        self,
        torch: ModuleType,
        kernels: ModuleType,
        search: Any,
        matrix: ToolMatrix,
        dtype: Any,
        turns: int,
        k: int,
        on_host: bool,
        entries: int,
    ) -> None:
        self._search, self._torch, self._kernels, self._k = search, torch, kernels, k
        self._turns, self._dim, self._on_host, self._entries = turns, matrix.dim, on_host, entries
        self._graphed = search.device.type == "cuda"
        shapes = [((turns, matrix.n_words), torch.int32), ((turns,), torch.float32)]
        if entries:
            shapes.append(((kernels.TurnTerms.room(turns, entries),), torch.int32))
        if on_host:
            shapes.append(((turns, matrix.dim), torch.float32))
        self._host = [torch.zeros(s, dtype=t, pin_memory=self._graphed) for s, t in shapes]
        self._there = [torch.zeros_like(h, device=search.device) for h in self._host]
        self._queries = torch.zeros((turns, search.dim), dtype=dtype, device=search.device)
        self._out = torch.zeros((2, turns, k), dtype=torch.int32, device=search.device)
        self._found = torch.zeros((2, turns, k), dtype=torch.int32, pin_memory=self._graphed)
        if self._graphed:
            self._stream = torch.cuda.Stream(search.device)
            with torch.cuda.stream(self._stream):
                self._call()
            self._stream.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(
                self._graph, stream=self._stream, capture_error_mode="thread_local"
            ):
                self._call()

    def run(
        self, queries: Any, allowed: U32, threshold: F32, terms: TermRows | None
    ) -> tuple[F32, Any]:
        """Scores and rows of up to as many turns as there is room for."""
        turns = len(queries)
        host = [tensor.numpy() for tensor in self._host]
        host[0][:turns] = allowed.view(np.int32)
        host[0][turns:] = 0  # the other turns may use nothing
        host[1][:turns] = threshold
        if self._entries and terms is not None:
            self._kernels.TurnTerms.pack(terms, host[2], self._turns)
        if self._on_host:
            host[-1][:turns] = queries
        stream = self._order() if self._graphed else None
        with self._torch.cuda.stream(stream):
            if not self._on_host:
                self._queries[:turns, : self._dim].copy_(queries)
            if stream is None:
                self._call()
            else:
                self._graph.replay()
                stream.synchronize()
        scores, rows = self._found.numpy()[:, :turns]
        return scores.view(np.float32), rows

    def _order(self) -> Any:
        """The stream to run on: where queries are on the device, that of what made them."""
        return self._stream if self._on_host else self._torch.cuda.current_stream()

    def _call(self) -> None:
        for host, there in zip(self._host, self._there, strict=True):
            there.copy_(host, non_blocking=True)
        allowed, threshold = self._there[:2]
        if self._on_host:
            self._queries[:, : self._dim].copy_(self._there[-1])
        terms = None
        if self._entries:
            terms = self._kernels.TurnTerms.unpack(self._there[2], self._turns)
        out = self._out[0].view(self._torch.float32), self._out[1]
        self._search.topk(self._queries, allowed, self._k, threshold, out, terms=terms)
        self._found.copy_(self._out, non_blocking=True)


def _bucket(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def _backend(device: str) -> tuple[ModuleType, ModuleType]:
    """Torch and the kernels, or why they do not work here."""
    try:
        import torch

        from ta_fast_kernels import triton_topk
    except ImportError as error:
        raise BackendUnavailable(
            f"scorer 'triton': {error.name} is missing; pip install 'ta-fast[gpu]'"
        ) from error
    on_gpu = device.startswith("cuda") and torch.cuda.is_available()
    interpreted = device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if not (on_gpu or interpreted):
        raise BackendUnavailable(
            f"scorer 'triton': expected a CUDA device that torch sees, found {device!r}; "
            f"this torch is {torch.__version__}"
        )
    return torch, triton_topk
