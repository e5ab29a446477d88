"""Parts and batches: every text once, in order, within the limits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ta_fast.encoder import batching

LENGTHS = st.lists(st.integers(1, 40), max_size=60)


@given(lengths=LENGTHS, most=st.integers(1, 100), padded=st.booleans())
def test_batches_hold_every_text_within_the_limit(
    lengths: list[int], most: int, padded: bool
) -> None:
    """Longest first; over the limit only a text that is alone."""
    batches = list(batching.by_length(lengths, most, padded=padded))
    places = [place for batch in batches for place in batch]
    assert sorted(places) == list(range(len(lengths)))
    assert [lengths[place] for place in places] == sorted(lengths, reverse=True)
    for batch in batches:
        sizes = [lengths[place] for place in batch]
        tokens = len(sizes) * max(sizes) if padded else sum(sizes)
        assert tokens <= most or len(batch) == 1


@given(lengths=LENGTHS, most=st.integers(40, 100), padded=st.booleans())
def test_batches_are_full(lengths: list[int], most: int, padded: bool) -> None:
    """The next text would not have fitted."""
    batches = list(batching.by_length(lengths, most, padded=padded))
    for batch, following in pairwise(batches):
        sizes = [lengths[place] for place in (*batch, following[0])]
        assert (len(sizes) * max(sizes) if padded else sum(sizes)) > most


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 29])
def test_parts_come_in_order(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """However many parts, each is tokenised once and handed out at its place."""
    monkeypatch.setattr(batching, "TEXTS_AT_ONCE", 4)
    texts = [f"{i}" for i in range(count)]
    seen: list[Sequence[str]] = []

    def tokenise(part: Sequence[str]) -> list[int]:
        seen.append(part)
        return [int(text) for text in part]

    got = [(part, ids) for part, ids in batching.ahead(tokenise, texts)]
    assert [i for _, ids in got for i in ids] == list(range(count))
    assert all(texts[part] == [f"{i}" for i in ids] for part, ids in got)
    assert len(seen) == len(got)
