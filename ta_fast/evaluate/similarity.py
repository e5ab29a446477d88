"""Does an encoder still know what sentences mean? Paraphrases against unrelated sentences.

Training for tools must not cost general ability. The sentences of ``similarity.tsv`` are of
everyday and technical life, not intents; they were written for this project. In English a
paraphrase shares few words with its sentence, and a fifth of the unrelated sentences share many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from ta_fast.encoder import Encoder
from ta_fast.types import F32

TOTAL = "total"
MOST_LOSS = 0.02
"""How much lower than its base's a trained encoder's total may be."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sentences of one language, and whether they mean the same."""

    language: str
    same: bool
    first: str
    second: str


def auroc(encoder: Encoder) -> dict[str, float]:
    """How well cosines tell paraphrases from unrelated sentences.

    The area under the ROC curve: the probability that a paraphrase scores higher than an
    unrelated pair, where ties count half (Hanley and McNeil, 1982). 0.5 is chance.

    Args:
        encoder: Any.

    Returns:
        The area for each language's pairs, and ``total`` for all pairs at once.
    """
    rows = pairs()
    cosines = _cosines(encoder, rows)
    same = np.array([row.same for row in rows])
    languages = np.array([row.language for row in rows])
    found = {TOTAL: area(cosines[same], cosines[~same])}
    for language in dict.fromkeys(languages.tolist()):
        chosen = languages == language
        found[language] = area(cosines[chosen & same], cosines[chosen & ~same])
    return found


def area(right: F32, wrong: F32) -> float:
    """Share of all pairs of a right and a wrong score in which the right one is higher.

    Args:
        right: Scores ``[n]`` that should be high.
        wrong: Scores ``[m]`` that should be low.
    """
    above = right[:, None] > wrong
    ties = right[:, None] == wrong
    return float(above.mean() + ties.mean() / 2)


@cache
def pairs() -> tuple[Pair, ...]:
    """The pairs of ``similarity.tsv``."""
    text = files(__package__).joinpath("similarity.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines()[1:])
    return tuple(Pair(language, same == "1", a, b) for language, same, a, b in rows)


def _cosines(encoder: Encoder, rows: Sequence[Pair]) -> F32:
    first = encoder.encode([row.first for row in rows])
    second = encoder.encode([row.second for row in rows])
    cosines: F32 = np.einsum("nd,nd->n", first, second)
    return cosines
