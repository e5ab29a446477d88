"""Gated top-k in plain torch, on any device that has float64; the extra ``[torch]``.

A matrix product in blocks of tools gives approximate scores; the gate is a mask on them.
Their error is bounded, so a cut below the k-th best keeps every tool that can be among the
k best (the proof is in kernels/README.md). Those few are scored again on the device, in
float64 and in the specified order. So ``dtype`` and device change the speed, never the
answer: its bits are those of the reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ta_fast.errors import BackendUnavailable, InvalidConfig
from ta_fast_kernels import UNIT, Postings, TermRows, ToolMatrix, TopK, check_operands
from ta_fast_kernels.matrix import norm_bounds
from ta_fast_kernels.numpy_topk import class_bits, lexical_bounds
from ta_fast_kernels.reference import unfilled

if TYPE_CHECKING:
    from ta_fast.types import F32, U32

DTYPES = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""What the product can read, and the relative rounding of a vector stored so."""
BATCH = 1024
"""Turns scored at once."""
BLOCK = {"cpu": 1 << 20, "cuda": 1 << 24}
"""Approximate scores held at once, by type of device (4 MB, 64 MB)."""
TERMS = 1 << 22
"""Products of a rescoring held at once, in float64 (32 MB)."""
LEAST = -1e38
"""Below every approximate score, above the -inf of a denied tool."""


class TorchScorer:
    """Scores with torch's own operators. Has no state; threads may share it.

    Args:
        matrix: the tools. Kept in float32 on the device, and in ``dtype`` beside it.
        device: torch's name of a device; None takes CUDA where there is one.
        dtype: what the product reads: ``float32``, ``float16`` or ``bfloat16``. The two
            short ones are scaled by powers of two, so no number overflows; they pass more
            tools to the rescoring.

    Raises:
        InvalidConfig: no such device or dtype.
        BackendUnavailable: the device is not there.
    """

    def __init__(
        self, matrix: ToolMatrix, *, device: str | None = None, dtype: str = "float32"
    ) -> None:
        if dtype not in DTYPES:
            raise InvalidConfig(f"dtype: expected one of {', '.join(DTYPES)}, found {dtype!r}")
        self.matrix = matrix
        self.device = _device(device)
        self.dtype = dtype
        self._scale = 1.0 if dtype == "float32" else 1 / float(_power_of_two(matrix.max_norm))
        # Torch warns of arrays that it must not write to; it never writes to this one.
        vectors = torch.from_numpy(np.require(matrix.vectors, requirements="W"))
        self._exact = vectors.to(self.device)
        self._stored = self._exact
        if dtype != "float32":
            self._stored = (self._exact * self._scale).to(getattr(torch, dtype))
        sizes = np.diff(matrix.starts)
        classes = np.repeat(np.arange(matrix.n_classes), sizes)
        self._classes = torch.from_numpy(classes).to(self.device)
        self._rows = torch.from_numpy(matrix.rows.astype(np.int64)).to(self.device)
        self._terms = None
        if matrix.postings is not None:
            self._terms = _Terms(matrix.postings, len(matrix), self.device)

    def topk(
        self, queries: F32, allowed: U32, k: int, threshold: F32, terms: TermRows | None = None
    ) -> TopK:
        """See ``Scorer.topk``."""
        check_operands(queries, self.matrix, allowed, k, threshold, terms)
        best = unfilled(len(queries), k)
        k = min(k, len(self.matrix))
        for first in range(0, len(queries) if k else 0, BATCH):
            turns = slice(first, first + BATCH)
            mine = None if terms is None else terms.part(first, min(first + BATCH, len(queries)))
            with torch.inference_mode():
                scores, rows = self._search(
                    queries[turns], allowed[turns], k, threshold[turns], mine
                )
            best.scores[turns, :k] = scores.cpu().numpy()
            best.rows[turns, :k] = rows.cpu().numpy()
        return best

    def _search(
        self, queries: F32, allowed: U32, k: int, threshold: F32, terms: TermRows | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores float32 and catalog rows int64 ``[B, k]``, block by block of stored rows."""
        exact = self._put(queries)
        low, unit, error = self._lower(queries)
        counts = None
        if terms is not None and self._terms is not None:
            counts = self._terms.counts(terms)
            error += self._put(lexical_bounds(terms) * 2.0**-22) * unit
        gate = self._put(class_bits(allowed, self.matrix.n_classes)).bool()
        least = self._put(threshold)
        scores = torch.full((len(queries), k), -torch.inf, device=self.device)
        rows = torch.full((len(queries), k), -1, dtype=torch.int64, device=self.device)
        size = max(1, BLOCK.get(self.device.type, BLOCK["cpu"]) // len(queries))
        for first in range(0, len(self.matrix), size):
            block = slice(first, first + size)
            approx = _product(low, self._stored[block])
            lexical = None
            if counts is not None and self._terms is not None:
                lexical = self._terms.part(counts, block)
                approx += lexical * unit.float()[:, None]
            approx.masked_fill_(~gate[:, self._classes[block]], -torch.inf)
            cut = torch.maximum(least, scores[:, -1]).double() * unit - error
            if k <= approx.shape[1]:
                cut = torch.maximum(cut, approx.topk(k).values[:, -1] - 2 * error)
            cut = cut.clamp_min(LEAST).float()
            turns, stored = (approx >= cut[:, None]).nonzero(as_tuple=True)
            extra = None if lexical is None else lexical[turns, stored]
            stored += first
            found = self._rescore(exact, turns, stored, extra)
            keep = found >= least[turns]
            turns, found, stored = turns[keep], found[keep], stored[keep]
            scores, rows = _merge(scores, rows, turns, found, self._rows[stored])
        return scores, rows

    def _lower(self, queries: F32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries as the product reads them, and ``[B]`` in float64: their unit and error.

        An approximate score is ``unit`` times the score, to within ``error``. Vectors
        stored with relative rounding r give products within ``(2r + r^2) |q| |t|``; the sum
        adds ``gamma(D + 8)``, here with a unit roundoff of 2**-22, since matrix units may
        truncate where float32 rounds. The last term is what underflows: half a step of
        float16 is 2**-25 below 2**-14, and no scaled norm exceeds 1.
        """
        norms = norm_bounds(queries)
        powers = np.ones(len(queries)) if self.dtype == "float32" else _power_of_two(norms)
        unit = self._scale / powers
        rounding = DTYPES[self.dtype] + 1.01 * _product_rounding()
        dim = self.matrix.dim
        relative = 1.01 * (2 * rounding + rounding**2 + (dim + 8) * 2.0**-22)
        error = norms * self.matrix.max_norm * unit * relative + dim * 2.0**-126
        if self.dtype == "float16":
            error += 3 * dim**0.5 * 2.0**-25
        scaled = (queries / powers[:, None]).astype(np.float32)
        return self._put(scaled).to(self._stored.dtype), self._put(unit), self._put(error)

    def _rescore(
        self,
        queries: torch.Tensor,
        turns: torch.Tensor,
        stored: torch.Tensor,
        lexical: torch.Tensor | None,
    ) -> torch.Tensor:
        """Score pairs of a turn and a stored row: float32 ``[M]``; ``lexical [M]`` is added."""
        size = max(1, TERMS // self.matrix.dim)
        parts = [
            _float64_products(queries[turns[i : i + size]], self._exact[stored[i : i + size]])
            for i in range(0, len(turns), size)
        ]
        scores = torch.cat(parts) if parts else queries.new_empty(0, dtype=torch.float64)
        if lexical is not None:
            scores += lexical.double()
        return scores.float() + 0.0  # no negative zero

    def _put(self, array: np.ndarray) -> torch.Tensor:
        """A copy on the device."""
        return torch.tensor(np.ascontiguousarray(array), device=self.device)


class _Terms:
    """The tools' weights on the device, as a sparse matrix of float32 ``[N, V]``."""

    def __init__(self, postings: Postings, count: int, device: torch.device) -> None:
        rows = postings.rows(count)
        self._vocabulary, self._device, self._offsets = len(postings), device, rows.offsets
        owner = np.repeat(np.arange(count), np.diff(rows.offsets))
        self._places = torch.from_numpy(np.stack((owner, rows.terms))).to(device)
        self._weights = torch.from_numpy(rows.values.astype(np.float32)).to(device)

    def counts(self, turns: TermRows) -> torch.Tensor:
        """The turns' counts: float32 ``[V, B]``."""
        known = turns.terms < self._vocabulary
        owner = np.repeat(np.arange(len(turns)), np.diff(turns.offsets))
        place = torch.from_numpy(np.stack((turns.terms[known], owner[known])))
        values = torch.from_numpy(turns.values[known].astype(np.float32))
        counts = torch.zeros(self._vocabulary, len(turns), device=self._device)
        counts[tuple(place.to(self._device))] = values.to(self._device)
        return counts

    def part(self, counts: torch.Tensor, block: slice) -> torch.Tensor:
        """The lexical part of the scores of a block of stored rows, exactly: ``[B, n]``."""
        count = min(block.stop, len(self._offsets) - 1) - block.start
        mine = slice(self._offsets[block.start], self._offsets[block.start + count])
        places = self._places[:, mine] - torch.tensor([[block.start], [0]], device=self._device)
        shape = count, self._vocabulary
        tools = torch.sparse_coo_tensor(
            places, self._weights[mine], shape, is_coalesced=True, check_invariants=False
        )
        return (tools @ counts).T * UNIT


def _device(name: str | None) -> torch.device:
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidConfig(f"device: expected a device of torch, found {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable(
            f"device {name!r}: torch {torch.__version__} sees no CUDA device; "
            "take device 'cpu', or install a CUDA build of torch"
        )
    return device


def _power_of_two(norms: np.ndarray | float) -> np.ndarray:
    """The least powers of two above ``norms``."""
    return np.ldexp(1.0, np.frexp(norms)[1])


def _product_rounding() -> float:
    """How float32 products may round their operands, by torch's global setting."""
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # set by backend, in torch's newer way: take the coarsest
        precision = "medium"
    return {"highest": 0.0, "high": 2.0**-11, "medium": 2.0**-8}[precision]


def _product(queries: torch.Tensor, tools: torch.Tensor) -> torch.Tensor:
    """``[B, D]`` and ``[N, D]`` -> float32 ``[B, N]``, summed in float32."""
    if queries.dtype == torch.float32:
        return queries @ tools.T
    if queries.device.type == "cuda":
        return torch.mm(queries, tools.T, out_dtype=torch.float32)
    return queries.float() @ tools.float().T


def _float64_products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``reference.float64_products``, addition for addition: ``[M, D]`` twice -> ``[M]``."""
    terms = left.double() * right.double()
    width = terms.shape[1]
    half = 1 << (width - 1).bit_length()
    while half > 1:
        half //= 2
        terms[:, : width - half] += terms[:, half:width]
        width = half
    return terms[:, 0]


def _merge(
    scores: torch.Tensor,
    rows: torch.Tensor,
    turns: torch.Tensor,
    new_scores: torch.Tensor,
    new_rows: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best k of ``[B, k]`` and of the new pairs ``[M]``: score descending, row ascending."""
    count, k = scores.shape
    each = torch.arange(count, device=turns.device)
    turns = torch.cat((each.repeat_interleave(k), turns))
    scores = torch.cat((scores.flatten(), new_scores))
    rows = torch.cat((rows.flatten(), new_rows))
    order = rows.argsort(stable=True)  # the last key first: each sort keeps the one before
    order = order[scores[order].argsort(stable=True, descending=True)]
    order = order[turns[order].argsort(stable=True)]
    turns = turns[order]
    place = torch.arange(len(turns), device=turns.device) - torch.searchsorted(turns, each)[turns]
    order = order[place < k]
    return scores[order].view(count, k), rows[order].view(count, k)
