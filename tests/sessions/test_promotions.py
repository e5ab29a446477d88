from __future__ import annotations

from itertools import count

import pytest

from ta_fast.errors import UnknownTool
from ta_fast.sessions import Promotions
from ta_fast.types import Promotion, Turn

LIMIT, PAGE = 1000, 10


def test_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are there at any time, and never a page more."""
    monkeypatch.setattr("ta_fast.sessions.promotions.REMEMBERED", LIMIT)
    made, turn = Promotions(), Turn("read")
    for number in range(3 * LIMIT):
        made.remember("t", "", "s", turn, Promotion(f"h-{number}", turn, 1, (), 0, 0, 0, 0, {}))
        assert min(number + 1, LIMIT) <= len(made) < LIMIT + PAGE
        assert made.recall("t", f"h-{max(0, number + 1 - LIMIT)}").session == "s"
    gone = next(number for number in count(3 * LIMIT - 1, -1) if not _known(made, number))
    assert 3 * LIMIT - 1 - gone == len(made)
    assert not any(_known(made, number) for number in range(gone))


def _known(made: Promotions, number: int) -> bool:
    try:
        made.recall("t", f"h-{number}")
    except UnknownTool:
        return False
    return True
