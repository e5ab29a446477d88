"""Queries as turns of a conversation: the text that is embedded when a turn has a context.

``text_of`` puts the intent first and the context after it, on lines of their own; the context
is what the host makes of earlier messages, of its plan and of what tools returned. A model
that only saw single sentences takes all lines for one request.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ta_fast.evaluate import Query
from ta_fast.train.aims import table
from ta_fast.turns import text_of
from ta_fast.types import Turn

_MOST = 200  # characters of an earlier message
_SHARES = {"asked": 4, "seen": 3, "said": 2, "done": 2, "back": 1}
"""How often the context is earlier requests, a tool's answer, the assistant's, or a plan; and
how often the turn only points back at the request before it."""


@dataclass(frozen=True, slots=True)
class Past:
    """An earlier turn: what was asked, and the name of the tool that served it."""

    asked: str
    tool: str


def in_conversation(query: str, past: Sequence[Past], rng: random.Random) -> str:
    """A query's served text as a turn after others; its gold tools stay right.

    Args:
        query: What the turn wants.
        past: The turns before, latest first; at least one.
        rng: Draws; the same state gives the same text.
    """
    phrases, last = table()["turns"], past[0]
    kind = rng.choices(list(_SHARES), list(_SHARES.values()))[0]
    slots = {"asked": _cut(last.asked), "tool": last.tool, "n": str(rng.randint(2, 40))}
    if kind == "back":
        return text_of(Turn(rng.choice(phrases["back"]), context=_lines(query, last.asked)))
    intent = query if kind == "asked" else rng.choice(phrases["next"]).format(now=query, **slots)
    if kind == "asked":
        context = _lines(*(one.asked for one in past))
    elif kind == "done":
        context = rng.choice(phrases["done"]).format(now=_cut(query), **slots)
    else:
        line = rng.choice(phrases[kind]).format(**slots)
        context = _lines(line, f"User: {last.asked}" if kind == "said" else last.asked)
    return text_of(Turn(intent, context=context))


def conversations(queries: Sequence[Query], names: dict[str, str], rng: random.Random) -> list[str]:
    """Each query as a turn after one or two others of its set, which may be of any topic.

    Args:
        queries: Of one set.
        names: Name of each tool by its id.
        rng: Draws.
    """
    pasts = [Past(query.text, names.get(_first(query), "search")) for query in queries]
    return [
        in_conversation(query.text, rng.sample(pasts, min(len(pasts), rng.choice((1, 2)))), rng)
        for query in queries
    ]


def _first(query: Query) -> str:
    return min((min(group) for group in query.gold), default="")


def _lines(*texts: str) -> str:
    return "\n".join(_cut(text) for text in texts)


def _cut(text: str) -> str:
    return " ".join(text.split())[:_MOST]
