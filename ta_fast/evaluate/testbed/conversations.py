"""Whole requests of 30-turn sessions under each delivery, token by token, for the cache.

A request is the tools array, the system prompt with the summary pool, and the messages, in the
order in which providers put them together (Anthropic documents tools, system, messages). What
the model and the tools answered is made up, the same for every delivery.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from ta_fast.attention import ToolAttention
from ta_fast.evaluate.testbed.caches import CacheRule, PrefixCache
from ta_fast.evaluate.testbed.exposure import ArrayTokens
from ta_fast.evaluate.testbed.measures import RHO_TURN, TASK_TOKENS, Permits
from ta_fast.evaluate.testbed.methods import Choice, promote
from ta_fast.evaluate.testbed.tasks import Task
from ta_fast.prompt import Delivery, Prompt
from ta_fast.sessions import History
from ta_fast.tokens import encoding
from ta_fast.types import I32, PromotedTool, Promotion
from ta_fast.wire import compact_json


@dataclass(frozen=True, slots=True)
class Way:
    """How a session learns of tools.

    Attributes:
        delivery: As ``ta_fast.prompt`` has it; None sends all schemas, B1.
        new_only: A definition is given once in a session, not whenever its tool is promoted.
        one_pool: The first turn's pool stays for the session. It names only what was
            allowed then, and a tool that is allowed later is promoted all the same.
        limit: The tools array is the session's list of so many tools at most; 0: the
            promoted tools.
    """

    delivery: Delivery | None
    new_only: bool = False
    one_pool: bool = False
    limit: int = 0


WAYS = {
    "all schemas": Way(None),
    "filter": Way("filter"),
    "frozen": Way("frozen"),
    "reference": Way("reference"),
    "frozen, new only": Way("frozen", new_only=True),
    "reference, new only": Way("reference", new_only=True),
    "filter, one pool": Way("filter", one_pool=True),
    "frozen, new only, one pool": Way("frozen", new_only=True, one_pool=True),
    "reference, new only, one pool": Way("reference", new_only=True, one_pool=True),
    "filter, session list, one pool": Way("filter", one_pool=True, limit=16),
}
"""The three deliveries as ta_fast renders them, and what a host can make of them. And B1."""
SYSTEM = (
    "You are an assistant of a software company. You work with its repositories, tickets, "
    "databases, files and channels through tools. Say briefly what you did and what you found. "
    "Ask before you change what others depend on, and never guess an identifier.\n"
)
_WORDS = ("done", "found", "entry", "value", "status", "owner", "since", "result", "total", "open")

Request: TypeAlias = list[str]
"""A request's texts in the order of the prompt; a token never reaches across two of them."""


@dataclass(frozen=True, slots=True)
class Bill:
    """Means a turn over the sessions of one way of delivery.

    Attributes:
        tokens: Tokens sent.
        hit: Share of all tokens that were read from the cache.
        billed: Price in ordinary tokens.
        last: Tokens in the context of the last turn.
    """

    tokens: float
    hit: float
    billed: float
    last: float


def bill(sessions: Sequence[Sequence[Request]], rule: CacheRule) -> Bill:
    """Send the requests of each session through a cache of its own."""
    bills = []
    for session in sessions:
        cache = PrefixCache(rule)
        bills.append([cache.request(_ids(request)) for request in session])
    every = [one for session in bills for one in session]
    tokens = sum(one.tokens for one in every)
    return Bill(
        tokens=tokens / len(every),
        hit=sum(one.read for one in every) / tokens,
        billed=sum(one.price for one in every) / len(every),
        last=sum(session[-1].tokens for session in bills) / len(bills),
    )


def long_sessions(tasks: Sequence[Task], count: int) -> list[Task]:
    """The first tasks of at least 30 turns, cut to 30."""
    long = [task for task in tasks if len(task.turns) >= RHO_TURN]
    return [replace(task, turns=task.turns[:RHO_TURN]) for task in long[:count]]


def session_requests(
    way: Way,
    tasks: Sequence[Task],
    attention: ToolAttention,
    arrays: ArrayTokens,
    permits: Permits,
    choice: Choice,
) -> Iterator[list[Request]]:
    """The requests of each session, turn by turn."""
    for task in tasks:
        promotions = promote(attention, task.turns, choice)
        if way.limit:
            promotions = _listed(task, promotions, permits, way.limit)
        parts = list(_parts(way, attention, promotions, arrays))
        if way.one_pool:
            parts = [replace(part, pool=parts[0].pool) for part in parts]
        yield _requests(task, parts)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What one turn says about tools: before the messages, and right before the user's."""

    tools: str
    pool: str
    messages: str


def _requests(task: Task, parts: Sequence[_Parts]) -> list[Request]:
    requests: list[Request] = []
    history: list[str] = []
    for number, (turn, part) in enumerate(zip(task.turns, parts, strict=True)):
        history += [text for text in (part.messages, turn.intent) if text]
        requests.append([part.tools, SYSTEM + part.pool, *history])
        history.append(_answer(f"{task.id} {number}", turn.intent))
    return requests


def _listed(
    task: Task, promotions: Sequence[Promotion], permits: Permits, limit: int
) -> list[Promotion]:
    """The same promotions with all the tools of the session's list."""
    history = History()
    known: dict[str, PromotedTool] = {}
    listed = []
    for turn, promotion in zip(task.turns, promotions, strict=True):
        known |= {tool.id: tool for tool in promotion.tools}
        permitted = permits.permitted(turn.facts)
        history = history.extended(promotion.ids, permitted.__contains__, limit)
        listed.append(replace(promotion, tools=tuple(known[tool] for tool in history.tools)))
    return listed


def _parts(
    way: Way, attention: ToolAttention, promotions: Sequence[Promotion], arrays: ArrayTokens
) -> Iterator[_Parts]:
    if way.delivery is None:
        yield from [_Parts(arrays.text(tuple(arrays.texts)), "", "")] * len(promotions)
        return
    defined: set[str] = set()
    for number, promotion in enumerate(promotions):
        tools = tuple(t for t in promotion.tools if not way.new_only or t.id not in defined)
        defined.update(promotion.ids)
        # The handle differs from run to run; one that does not keeps the figures the same.
        shown = replace(promotion, tools=tools, handle=f"turn-{number:02d}")
        prompt = attention.prompt(shown, "anthropic", way.delivery)
        messages = prompt.messages if tools or not way.new_only else []
        yield _seen(prompt, messages, shown, way.delivery, arrays)


def _seen(
    prompt: Prompt,
    messages: Sequence[object],
    shown: Promotion,
    delivery: Delivery,
    arrays: ArrayTokens,
) -> _Parts:
    """The text that the model sees: deferred definitions only where they are referred to."""
    if delivery != "reference":
        text = compact_json(messages) if messages else ""
        return _Parts(compact_json(prompt.tools), prompt.pool, text)
    loader = [tool for tool in prompt.tools if not tool.get("defer_loading")]
    text = compact_json(messages) + arrays.text(shown.ids) if messages else ""
    return _Parts(compact_json(loader), prompt.pool, text)


def _answer(seed: str, intent: str) -> str:
    """Made-up text of model and tools: with the intent about ``TASK_TOKENS`` tokens."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    words = " ".join(rng.choice(_WORDS) for _ in range(TASK_TOKENS))
    tokens = TASK_TOKENS - len(encoding().encode_ordinary(intent))
    return encoding().decode(encoding().encode_ordinary(words)[:tokens])


@lru_cache(maxsize=20_000)
def _text_ids(text: str) -> I32:
    return np.array(encoding().encode_ordinary(text), dtype=np.int32)


def _ids(request: Request) -> I32:
    return np.concatenate([_text_ids(text) for text in request])
