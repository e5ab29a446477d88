"""Scorers: query vectors and allowed classes in, the best k tools out."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, cast

from ta_fast.errors import BackendUnavailable, InvalidConfig
from ta_fast.scorer.numpy_scorer import NumpyScorer

if TYPE_CHECKING:
    from ta_fast.types import F32, U32
    from ta_fast_kernels import TermRows, ToolMatrix, TopK

__all__ = ["SCORERS", "NumpyScorer", "Scorer", "make_scorer"]

SCORERS = ("auto", "numpy", "torch", "faiss", "triton")
"""Names that ``make_scorer`` takes.

``auto`` is ``triton`` where torch is loaded (by a GPU encoder, say) and sees a GPU, and no CPU
is asked for; else ``numpy``. It never loads torch to find out.
"""

# A scorer's class, and the pip extra that brings what it needs.
_CLASSES = {
    "torch": ("TorchScorer", "torch"),
    "faiss": ("FaissScorer", "faiss-cpu"),
    "triton": ("TritonScorer", "gpu"),
}


class Scorer(Protocol):
    """Gated top-k over the tools of one epoch; scorers of two epochs can live at once."""

    def topk(
        self, queries: F32, allowed: U32, k: int, threshold: F32, terms: TermRows | None = None
    ) -> TopK:
        """The best k allowed tools of each turn; see ``ta_fast_kernels.gated_topk``.

        Safe to call from several threads. Every scorer returns the same bits, whatever
        else is in the batch, unless its class says otherwise.

        Args:
            queries: ``[B, D]``.
            allowed: ``[B, ceil(G / 32)]``, a bit for each gate class.
            k: at least 1; may exceed the number of tools.
            threshold: ``[B]``, the least score of a returned tool.
            terms: the turns' terms, for hybrid scores; of a matrix with postings.

        Raises:
            ValueError: a wrong shape or dtype, k < 1, or numbers that are not finite.
        """
        ...


def make_scorer(name: str, matrix: ToolMatrix, device: str = "") -> Scorer:
    """The scorer of that name over ``matrix``.

    Args:
        name: One of ``SCORERS``.
        matrix: The tools.
        device: Where it computes: ``cpu``, ``cuda`` or ``cuda:NUMBER``. "" is the current GPU
            for ``triton``, and for ``torch`` and ``faiss`` if there is one.

    Raises:
        InvalidConfig: no scorer has that name, or it does not compute on such a device.
        BackendUnavailable: a package or device that the scorer needs is absent.
    """
    if name not in SCORERS:
        raise InvalidConfig(f"scorer: expected one of {', '.join(SCORERS)}, found {name!r}")
    if name == "auto":
        name = _best(device)
    elif name == "numpy" and device not in ("", "cpu"):
        raise InvalidConfig(f"scorer 'numpy' on device {device!r}; expected cpu")
    if name == "numpy":
        return NumpyScorer(matrix)
    class_name, extra = _CLASSES[name]
    try:
        module = import_module(f"ta_fast.scorer.{name}_scorer")
    except ImportError as error:
        raise BackendUnavailable(
            f"scorer {name!r}: {error}; pip install 'ta-fast[{extra}]'"
        ) from error
    there = {"device": device} if device else {}
    return cast("Scorer", getattr(module, class_name)(matrix, **there))


def _best(device: str) -> str:
    """What ``auto`` stands for now; said in the log."""
    torch = sys.modules.get("torch")
    sees_gpu = torch is not None and torch.cuda.is_available() and find_spec("triton") is not None
    name = "triton" if sees_gpu and device != "cpu" else "numpy"
    logging.getLogger("ta_fast").info("scorer auto: %s", name)
    return name
