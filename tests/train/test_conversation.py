"""Queries as turns: the served form, the request still in it, reproducible."""

from __future__ import annotations

import random
from pathlib import Path

from ta_fast.evaluate import Query, read_queries
from ta_fast.train.conversation import Past, conversations, in_conversation, write_turns
from ta_fast.types import Tool

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


def test_a_set_of_turns_keeps_ids_and_gold(tmp_path: Path) -> None:
    """Only the texts differ; equivalent tools and queries without gold stay as they are."""
    queries = [
        Query("one", QUERY, (frozenset({"a", "b"}), frozenset({"c"}))),
        Query("two", "hello", ()),
    ]
    write_turns(queries, [Tool(i, i) for i in "abc"], tmp_path / "x_turns")
    again = read_queries(tmp_path / "x_turns" / "queries.jsonl", "abc")
    assert [(query.id, query.gold) for query in again] == [(q.id, q.gold) for q in queries]
    assert all("\n" in query.text for query in again)
