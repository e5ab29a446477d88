"""Texts that lie end to end are the same texts."""

from __future__ import annotations

import numpy as np
import pytest

from ta_fast.encoder.packed import Packed
from ta_fast.encoder.tokenizer import as_row

IDS = [[1, 2, 3], [4], [5, 6], [], [7, 8, 9, 10], []]


def listed(packed: Packed) -> list[list[int]]:
    """The ids of each text."""
    return [np.frombuffer(row, np.int32).tolist() for row in packed.rows()]


PACKED = Packed.of_rows([as_row(ids) for ids in IDS])


def test_rows_go_in_and_come_out() -> None:
    """Empty ones too, and no rows at all."""
    assert listed(PACKED) == IDS
    assert PACKED.lengths.tolist() == [3, 1, 2, 0, 4, 0]
    assert len(PACKED) == 6
    nothing = Packed.of_rows([])
    assert (len(nothing), nothing.rows(), len(nothing.filled())) == (0, [], 0)


def test_an_empty_text_is_a_token_of_padding() -> None:
    """On a device every text has a vector."""
    filled = PACKED.filled()
    assert listed(filled) == [ids or [0] for ids in IDS]
    assert filled.filled() is filled
    assert filled.ids.dtype == filled.starts.dtype == np.int32


def test_some_of_the_texts() -> None:
    """In any order, again, or none."""
    assert listed(PACKED.take(np.array([2, 0, 3, 0, 4]))) == [IDS[i] for i in (2, 0, 3, 0, 4)]
    assert listed(PACKED.take(np.zeros(0, np.intp))) == []


@pytest.mark.parametrize("tokens", [4, 5, 6, 7, 9, 10])
def test_parts_of_so_many_tokens(tokens: int) -> None:
    """In order, each text once, no part too large."""
    parts = list(PACKED.split(tokens))
    assert [ids for _, part in parts for ids in listed(part)] == IDS
    assert [text for where, _ in parts for text in range(6)[where]] == list(range(6))
    assert all(len(part.ids) <= tokens for _, part in parts)
