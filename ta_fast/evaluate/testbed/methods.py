"""The methods that the paper compares, each as what it shows a model turn by turn.

B1 sends every schema. B2 sends the 30 tools most used in other tasks. B3 sends the ten tools
nearest to the intent, whatever the state. B4 is in ``cli_client.py``. Tool Attention is
``ToolAttention`` itself: the summary pool of what the state allows, and the promoted schemas. A
host may keep them callable on later turns, in a list that grows at its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from ta_fast.attention import ToolAttention
from ta_fast.catalog import Catalog
from ta_fast.encoder import Encoder
from ta_fast.evaluate.testbed.exposure import ArrayTokens, Exposure
from ta_fast.evaluate.testbed.measures import Permits
from ta_fast.evaluate.testbed.tasks import Task, TaskTurn
from ta_fast.sessions import History
from ta_fast.types import DEFAULT_THRESHOLD, DEFAULT_TOP_K, Promotion, Source, Tool, Turn

STATIC_TOOLS = 30
TURNS_AT_ONCE = 256
ANY_SCORE = -1.0
"""A threshold that every tool passes."""

Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Choice:
    """What Tool Attention lets its user choose.

    ``context`` embeds the words of the turns before together with the intent.
    """

    top_k: int = DEFAULT_TOP_K
    threshold: float = DEFAULT_THRESHOLD
    context: bool = False


DEFAULT_CHOICE = Choice()


def make_attention(tools: Sequence[Tool], encoder: Encoder, **options: Any) -> ToolAttention:
    """Tool Attention over these tools alone; ``options`` are those of ``ToolAttention``."""
    catalog = Catalog()
    catalog.replace([Source("testbed", tools)])
    return ToolAttention(catalog, encoder, **options)


def ungated(tools: Iterable[Tool]) -> list[Tool]:
    """The tools as if no state could forbid them, no mode either."""
    harmless = {"readOnlyHint": True, "openWorldHint": False}
    return [replace(tool, precondition=None, annotations=harmless) for tool in tools]


def promote(
    attention: ToolAttention,
    turns: Sequence[TaskTurn],
    choice: Choice = DEFAULT_CHOICE,
    progress: Progress | None = None,
) -> list[Promotion]:
    """The promotion of every turn."""
    promotions: list[Promotion] = []
    for start in range(0, len(turns), TURNS_AT_ONCE):
        part = turns[start : start + TURNS_AT_ONCE]
        promotions += attention.before_models([_turn(turn, choice) for turn in part])
        if progress:
            progress(len(part))
    return promotions


def _turn(turn: TaskTurn, choice: Choice) -> Turn:
    context = turn.context if choice.context else ""
    return Turn(
        turn.intent, turn.facts, top_k=choice.top_k, threshold=choice.threshold, context=context
    )


def narrowed(
    promotions: Sequence[Promotion], arrays: ArrayTokens, choice: Choice
) -> list[Exposure]:
    """What Tool Attention shows by a narrower choice than it was asked for, without asking again.

    The best k tools above a threshold begin the list of the best tools of any greater k.
    """
    exposures = []
    for promotion in promotions:
        best = promotion.tools[: choice.top_k]
        ids = tuple(t.id for t in best if t.score is not None and t.score >= choice.threshold)
        exposures.append(Exposure(ids, arrays.count(ids), promotion.pool_tokens))
    return exposures


def all_schemas(arrays: ArrayTokens, turns: Sequence[TaskTurn]) -> list[Exposure]:
    """B1: every schema on every turn."""
    ids = tuple(arrays.texts)
    return [Exposure(ids, arrays.count(ids))] * len(turns)


def most_used(tasks: Iterable[Task], count: int = STATIC_TOOLS) -> tuple[str, ...]:
    """The tools that other tasks need most often; of equals the first by id."""
    used = Counter(tool for task in tasks for turn in task.turns for tool in turn.gold)
    return tuple(sorted(used, key=lambda tool: (-used[tool], tool))[:count])


def static(arrays: ArrayTokens, turns: Sequence[TaskTurn], ids: Sequence[str]) -> list[Exposure]:
    """B2: the same few schemas on every turn."""
    return [Exposure(tuple(ids), arrays.count(ids))] * len(turns)


def nearest(
    without_gate: ToolAttention,
    arrays: ArrayTokens,
    turns: Sequence[TaskTurn],
    count: int = DEFAULT_TOP_K,
    progress: Progress | None = None,
) -> list[Exposure]:
    """B3: the schemas of the tools nearest to the intent; no gate, no threshold, no pool."""
    promotions = promote(without_gate, turns, Choice(count, ANY_SCORE), progress)
    return [Exposure(p.ids, arrays.count(p.ids)) for p in promotions]


def tool_attention(
    attention: ToolAttention,
    arrays: ArrayTokens,
    turns: Sequence[TaskTurn],
    choice: Choice = DEFAULT_CHOICE,
    progress: Progress | None = None,
) -> list[Exposure]:
    """Tool Attention: the summary pool, and the schemas of the promoted tools."""
    return narrowed(promote(attention, turns, choice, progress), arrays, choice)


def session_lists(
    tasks: Sequence[Task],
    exposures: Sequence[Exposure],
    arrays: ArrayTokens,
    permits: Permits,
    limit: int,
) -> list[Exposure]:
    """What a host shows that keeps a session's tools in one list, as ``History`` does.

    A turn sends what follows the part of the array that equals the array before: the new
    tools where the list only grew, more where a tool left it. The rest of the array is held.

    Args:
        tasks: The sessions.
        exposures: What is promoted on each of their turns, in order.
        arrays: Counts tokens.
        permits: What the states permit.
        limit: Tools in a list; one that would pass it is cut to the turn's promoted tools.
    """
    lists = []
    promoted = iter(exposures)
    for task in tasks:
        history = History()
        for turn in task.turns:
            now = next(promoted)
            permitted = permits.permitted(turn.facts)
            extended = history.extended(now.ids, permitted.__contains__, limit)
            same = _same(history.tools, extended.tools)
            held = arrays.count(extended.tools[:same])
            sent = arrays.count(extended.tools) - held
            lists.append(Exposure(extended.tools, sent, now.pool_tokens, held))
            history = extended
    return lists


def _same(before: Sequence[str], now: Sequence[str]) -> int:
    """How many tools at the beginning of two lists are the same."""
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, now, strict=False))
    )
