"""From scores to probabilities: what ``ta-fast calibrate`` learnt, applied with NumPy.

Two events have a probability, each by logistic regression (Platt, "Probabilistic outputs
for support vector machines", 1999) on the score and a few numbers of the turn:

- ``fit``, one a turn: some tool that the state allows fits it. Where it is too low the turn
  abstains: nothing is promoted but what is pinned.
- ``right``, one a tool: this tool is one of those that the turn needs. It also sees by how
  much the tool leads, and a term of the tool's own that was learnt with it.

The turn's numbers are its *background*, the mean cosine to intents that no tool serves, and
where words are counted: how many it has, and how many of them no tool has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ta_fast.encoder.model_folder import SHIPPED, named_folder
from ta_fast.errors import InvalidCatalog, InvalidConfig
from ta_fast.types import F32, I32

F64: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Logistic:
    """The probability ``1 / (1 + exp(-(bias + weights . features)))``."""

    bias: float
    weights: tuple[float, ...]

    def logits(self, features: F64) -> F64:
        """Log-odds ``[...]`` of features ``[..., F]``."""
        logits: F64 = features @ np.array(self.weights) + self.bias
        return logits

    def __call__(self, features: F64) -> F64:
        """Probabilities ``[...]`` of features ``[..., F]``."""
        return sigmoid(self.logits(features))


@dataclass(frozen=True, slots=True)
class AbstentionPoint:
    """What abstaining below a threshold does.

    ``precision``: share of the turns that get tools for which some tool fits. ``recall``:
    share of the turns for which some tool fits that get tools.
    """

    threshold: float
    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was learnt from labelled queries, for one encoder and one ranking.

    Attributes:
        encoder: The encoder's name.
        ranking: What ranks the tools.
        background: Mean vector of intents that no tool serves, D numbers.
        fits: Of (best score, *turn features).
        right: Of (score, lead, *turn features).
        offsets: What is added to a tool's log-odds of being right, by tool id.
        summaries: Hash of each tool's summary when this was learnt, by tool id.
        points: Thresholds of ``fit``, ascending, as measured on queries left out.
        queries: Number of labelled queries.
        auroc: How well ``fit`` tells turns apart, on queries left out.
        fit_error: Expected calibration error of ``fit``, likewise.
        right_error: Expected calibration error of ``right``, likewise.
    """

    encoder: str
    ranking: str
    background: tuple[float, ...]
    fits: Logistic
    right: Logistic
    offsets: Mapping[str, float]
    summaries: Mapping[str, str]
    points: tuple[AbstentionPoint, ...]
    queries: int
    auroc: float
    fit_error: float
    right_error: float


@dataclass(frozen=True, slots=True)
class Wish:
    """What abstention is for: a least precision, or a least recall, or nothing.

    Raises:
        InvalidConfig: both are given, or one is not in (0, 1].
    """

    precision: float | None = None
    recall: float | None = None

    def __post_init__(self) -> None:
        if self.precision is not None and self.recall is not None:
            raise InvalidConfig("precision and recall are both given; expected at most one")
        for name in ("precision", "recall"):
            value = getattr(self, name)
            good = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (good and 0 < value <= 1):
                raise InvalidConfig(f"{name} is {value!r}; expected a number above 0, at most 1")

    def __bool__(self) -> bool:
        """Whether anything is wished."""
        return self.precision is not None or self.recall is not None

    def threshold(self, points: Sequence[AbstentionPoint]) -> float:
        """The least ``fit`` of a turn that gets tools; 0 if nothing is wished.

        The highest threshold with the wished recall, or the lowest with the precision.

        Raises:
            InvalidConfig: no threshold has the wished precision.
        """
        if self.recall is not None:
            return max((p.threshold for p in points if p.recall >= self.recall), default=0.0)
        if self.precision is None:
            return 0.0
        reached = [p.threshold for p in points if p.precision >= self.precision]
        if not reached:
            best = max((p.precision for p in points), default=0.0)
            raise InvalidConfig(
                f"precision is {self.precision}; the calibration reaches {best:.3f} at most"
            )
        return min(reached)


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """``fit`` ``[B]`` and ``right`` ``[B, k]`` (NaN where unfilled), and who abstains ``[B]``."""

    fit: F64
    right: F64
    abstained: NDArray[np.bool_]


class Judge:
    """A calibration at work on one epoch's rows; thread-safe.

    Args:
        calibration: What was learnt.
        tools: Tool ids by catalog row.
        summaries: Hash of each tool's summary now; a changed tool loses its own term.
        wish: When to abstain.

    Raises:
        InvalidConfig: the wished precision is out of reach.
    """

    def __init__(
        self,
        calibration: Calibration,
        tools: Sequence[str],
        summaries: Mapping[str, str],
        wish: Wish,
    ) -> None:
        self.calibration = calibration
        self.threshold = wish.threshold(calibration.points)
        self._background = np.array(calibration.background)
        self._offsets = np.zeros(len(tools) + 1)  # the last one is read by row -1: unfilled
        for row, tool in enumerate(tools):
            if summaries.get(tool) == calibration.summaries.get(tool):
                self._offsets[row] = calibration.offsets.get(tool, 0.0)

    def __call__(self, scores: F32, rows: I32, queries: F32, terms: I32 | None = None) -> Judgement:
        """Judge B turns.

        Args:
            scores: Their best scores ``[B, k]``, k at least 2, best first, no threshold applied.
            rows: Catalog rows ``[B, k]``, -1 where unfilled.
            queries: Their embeddings ``[B, D]``.
            terms: Words of each turn and those of them that no tool has, ``[B, 2]``, where
                the calibration was learnt with them.
        """
        turn = turn_features(queries, self._background, terms)
        filled = rows >= 0
        fit = np.where(filled[:, 0], self.calibration.fits(best_features(scores, turn)), 0.0)
        logits = self.calibration.right.logits(tool_features(scores, turn)) + self._offsets[rows]
        right = np.where(filled, sigmoid(logits), np.nan)
        return Judgement(fit, right, fit < self.threshold)


def turn_features(queries: F32 | F64, background: F64, terms: I32 | None = None) -> F64:
    """The turns' own numbers ``[B, 1]``, or ``[B, 3]`` with their words counted."""
    columns = [queries.astype(np.float64) @ background]
    if terms is not None:
        # The first unknown word says most: the others are often of the same name or quote.
        columns += [np.sqrt(terms[:, 1]), terms[:, 0].astype(np.float64)]
    return np.stack(columns, axis=1)


def best_features(scores: F32, turn: F64) -> F64:
    """Features of ``fit``, ``[B, 1 + F]``: the best score, and the turn's numbers."""
    return np.column_stack([_finite(scores[:, 0]), turn])


def tool_features(scores: F32, turn: F64) -> F64:
    """Features of ``right``, ``[B, k, 2 + F]``: score, lead, and the turn's numbers.

    The lead is over the best other tool: negative but for the first, 0 without another.
    """
    filled = _finite(scores)
    rival = np.broadcast_to(filled[:, :1], filled.shape).copy()
    rival[:, 0] = np.where(np.isfinite(scores[:, 1]), filled[:, 1], filled[:, 0])
    shared = np.broadcast_to(turn[:, None], (*scores.shape, turn.shape[1]))
    return np.concatenate([np.stack([filled, filled - rival], axis=-1), shared], axis=-1)


def _finite(scores: F32) -> F64:
    """In float64, 0 where unfilled."""
    return np.where(np.isfinite(scores), scores, 0.0).astype(np.float64)


def sigmoid(logits: F64) -> F64:
    """``1 / (1 + exp(-x))``, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits))


def write_calibration(calibration: Calibration) -> str:
    """A calibration as JSON."""
    return json.dumps(asdict(calibration), allow_nan=False)


def read_calibration(text: str) -> Calibration:
    """The calibration that ``write_calibration`` wrote.

    Raises:
        InvalidCatalog: the text is something else.
    """
    try:
        fields = json.loads(text)
        for name in ("fits", "right"):
            fields[name] = Logistic(fields[name]["bias"], tuple(fields[name]["weights"]))
        fields["points"] = tuple(AbstentionPoint(**point) for point in fields["points"])
        return Calibration(**{**fields, "background": tuple(fields["background"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidCatalog(
            f"the stored calibration cannot be read ({error}); run ta-fast calibrate again"
        ) from error


@cache
def _shipped() -> tuple[Calibration, ...]:
    path = named_folder(SHIPPED) / "calibration.jsonl"
    return tuple(map(read_calibration, path.read_text(encoding="utf-8").splitlines()))


def shipped(encoder: str, ranking: str) -> Calibration | None:
    """What was learnt for the default encoder on other catalogs, for one without labels.

    Its level may be off (docs/quality.md). The last part of an encoder's name is its weights.
    """
    weights = encoder.rpartition(":")[2]
    for learnt in _shipped():
        if (learnt.encoder.rpartition(":")[2], learnt.ranking) == (weights, ranking):
            return learnt
    return None


def usable(
    calibrations: Mapping[tuple[str, str], Calibration],
    encoder: str,
    ranking: str,
    summaries: Mapping[str, str],
) -> tuple[Calibration | None, str]:
    """The calibration that fits, and for a person what is stale, "" if nothing is.

    Args:
        calibrations: What a catalog has, by (encoder, ranking).
        encoder: The encoder's name now.
        ranking: What ranks the tools now.
        summaries: Hash of each tool's summary now, by tool id.
    """
    wanted = f"encoder {encoder} and ranking {ranking}"
    if not calibrations:
        return None, ""
    if (learnt := calibrations.get((encoder, ranking))) is None:
        others = " and ".join(f"{e}, {r}" for e, r in sorted(calibrations))
        return None, f"there is no calibration for {wanted}, only for {others}"
    changed = sum(learnt.summaries.get(tool) != s for tool, s in summaries.items())
    removed = len(learnt.summaries.keys() - summaries.keys())
    if not changed and not removed:
        return learnt, ""
    return learnt, (
        f"the calibration for {wanted} was learnt on other tools: of {len(summaries)}, "
        f"{changed} are new or changed since, and {removed} are gone"
    )
