"""The check of general ability: its formula, its pairs, and the base's figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ta_fast.encoder import make_encoder
from ta_fast.errors import BackendUnavailable
from ta_fast.evaluate.similarity import TOTAL, area, auroc, pairs
from ta_fast.types import F32


class Told:
    """An encoder that knows which sentences belong together, or only sees single words."""

    name, dim = "told", 512

    def __init__(self, *, knows: bool) -> None:
        self.of = {pair.second: pair.first for pair in pairs() if pair.same and knows}

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> F32:
        """A direction for each meaning."""
        del progress
        rows = [
            np.random.default_rng(list(self.of.get(text, text).encode())).normal(size=512)
            for text in texts
        ]
        vectors = np.array(rows, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_area_counts_pairs_and_half_of_ties() -> None:
    """Against the definition, written out."""
    right, wrong = np.array([0.9, 0.5, 0.1], np.float32), np.array([0.5, 0.2], np.float32)
    assert area(right, wrong) == pytest.approx((2 + 1.5 + 0) / 6)
    assert area(right, right) == 0.5


def test_pairs_are_many_and_balanced() -> None:
    """About 300, as many of each kind in every language, none twice or with itself."""
    assert len(pairs()) > 290
    for language in {pair.language for pair in pairs()}:
        same = [pair.same for pair in pairs() if pair.language == language]
        assert sum(same) * 2 == len(same) >= 18
    assert len({(pair.first, pair.second) for pair in pairs()}) == len(pairs())
    assert all(pair.first != pair.second for pair in pairs())


def test_who_knows_gets_all_and_who_guesses_half() -> None:
    """An encoder that knows the paraphrases has 1, one of random directions about 0.5."""
    assert auroc(Told(knows=True))[TOTAL] > 0.999
    assert auroc(Told(knows=False))[TOTAL] == pytest.approx(0.5, abs=0.08)


def test_the_base_neither_fails_nor_saturates() -> None:
    """MiniLM has room below and above; every language is measured."""
    try:
        minilm = make_encoder("minilm")
    except BackendUnavailable as error:
        pytest.skip(str(error))
    found = auroc(minilm)
    assert set(found) == {TOTAL, "en", "de", "fr", "es", "pt", "it", "nl", "pl", "ru"}
    assert 0.84 < found[TOTAL] < 0.97
