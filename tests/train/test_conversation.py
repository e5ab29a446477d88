"""Queries as turns: the served form, the request still in it, reproducible."""

from __future__ import annotations

import random

from ta_fast.evaluate import Query
from ta_fast.train.conversation import Past, conversations, in_conversation

PAST = [Past("list the open pull requests", "list_pulls"), Past("who is on call?", "get_rota")]
QUERY = "send the report to Ana"


def drawn(seed: int) -> random.Random:
    """Draws of a seed."""
    return random.Random(seed)  # noqa: S311


def test_a_turn_has_the_request_and_what_was_before() -> None:
    """Several lines as ``text_of`` joins them; the request mostly first, at times in the past."""
    made = [in_conversation(QUERY, PAST, drawn(seed)) for seed in range(200)]
    assert made == [in_conversation(QUERY, PAST, drawn(seed)) for seed in range(200)]
    assert all(QUERY in text and "\n" in text and "{asked" not in text for text in made)
    first = sum(QUERY in text.splitlines()[0] for text in made)
    assert 150 < first < 200
    assert any(text == f"{QUERY}\n{PAST[0].asked}\n{PAST[1].asked}" for text in made)
    assert any("list_pulls" in text for text in made)


def test_earlier_messages_are_cut_and_one_query_is_enough() -> None:
    """A long message must not fill the encoder's window; braces are only text."""
    long = Past("x " * 2000 + "{0}", "t")
    assert all(len(in_conversation("{a} b", [long], drawn(seed))) < 900 for seed in range(60))
    only = [Query("q", "{a} b", (frozenset({"gone"}),))]
    assert "{a} b" in conversations(only, {}, drawn(0))[0]
