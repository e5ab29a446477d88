"""Turns as they come in: what is refused, and what of them is read."""

from __future__ import annotations

from ta_fast.errors import InvalidTurn
from ta_fast.types import Turn


def check_turn(turn: Turn) -> None:
    """Refuse a turn that cannot be routed.

    Raises:
        InvalidTurn: names the value found and what was expected.
    """
    if not isinstance(turn.intent, str) or not turn.intent.strip():
        raise InvalidTurn(f"intent is {turn.intent!r}; expected text that is not empty")
    try:
        text_of(turn).encode()
    except UnicodeEncodeError as error:
        raise InvalidTurn(f"intent or context is not valid Unicode: {error.reason}") from error
    if isinstance(turn.top_k, bool) or not isinstance(turn.top_k, int) or turn.top_k <= 0:
        raise InvalidTurn(f"top_k is {turn.top_k!r}; expected a whole number from 1")
    if not isinstance(turn.threshold, (int, float)) or not -1 <= turn.threshold <= 1:
        raise InvalidTurn(f"threshold is {turn.threshold!r}; expected a number in [-1, 1]")
    if not isinstance(turn.facts, (frozenset, set)):
        raise InvalidTurn(f"facts is a {type(turn.facts).__name__}; expected a set of names")


def text_of(turn: Turn) -> str:
    """What of a turn is embedded."""
    # The intent comes first: what an encoder truncates is the old context.
    return f"{turn.intent}\n{turn.context}" if turn.context else turn.intent
