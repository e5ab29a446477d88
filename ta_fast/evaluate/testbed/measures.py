"""Figures over turns: tokens, recall of the right tools, what the state forbids, utilisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from ta_fast.catalog.facts import compile_tool
from ta_fast.evaluate.testbed.exposure import Exposure
from ta_fast.evaluate.testbed.tasks import Task, TaskTurn, TurnKind
from ta_fast.types import Tool

TASK_TOKENS = 500
"""Parameter: tokens by which the conversation grows a turn. The paper does not give it; 15,000
at turn 30 is what its utilisation of B1, B2 and B3 implies."""
SYSTEM_TOKENS = 300
"""Parameter: tokens of the system prompt without tools."""
RHO_TURN = 30


@dataclass(frozen=True, slots=True)
class Outcome:
    """Means over the turns of all tasks.

    Attributes:
        first: Tool tokens of a turn for which nothing is cached.
        steady: Tool tokens without those that stay the same from turn to turn.
        reduction: ``1 - steady / B1``.
        resident: Tool tokens in the context without the pool: sent now, or kept from before.
        recall: Share of the right tools that are shown; turns without one do not count.
        recall_by: The same by kind of turn.
        whole: Share of the turns that show all of their right tools.
        shown: Tools shown a turn.
        right: Share of the shown tools that are right.
        forbidden: Share of the shown tools that the turn's state forbids.
        rho: Effective context utilisation at turn 30, None without sessions so long.
    """

    first: float
    steady: float
    reduction: float
    resident: float
    recall: float
    recall_by: dict[TurnKind, float]
    whole: float
    shown: float
    right: float
    forbidden: float
    rho: float | None


class Permits:
    """Says from the tools' own preconditions what a state permits; knows no index."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._clauses = {tool.id: compile_tool(tool) for tool in tools}
        self._known: dict[frozenset[str], frozenset[str]] = {}

    def permitted(self, facts: frozenset[str]) -> frozenset[str]:
        """Ids of the tools that a state permits."""
        if facts not in self._known:
            self._known[facts] = frozenset(
                tool
                for tool, clauses in self._clauses.items()
                if any(clause.holds(facts) for clause in clauses)
            )
        return self._known[facts]


def outcome(
    tasks: Sequence[Task], exposures: Sequence[Exposure], permits: Permits, everything: int
) -> Outcome:
    """Figures of one method.

    Args:
        tasks: The tasks.
        exposures: What the method shows on each of their turns, in order.
        permits: What the states permit.
        everything: Tokens of all schemas, B1.
    """
    turns = [turn for task in tasks for turn in task.turns]
    pairs = list(zip(turns, exposures, strict=True))
    recalls = [(turn, _recall(turn, shown)) for turn, shown in pairs if turn.gold]
    kinds = sorted({turn.kind for turn, _ in recalls})
    shown = sum(len(e.ids) for e in exposures)
    steady = fmean(e.schema_tokens for e in exposures)
    hits = sum(len(set(e.ids) & set(turn.gold)) for turn, e in pairs)
    barred = sum(len(set(e.ids) - permits.permitted(turn.facts)) for turn, e in pairs)
    return Outcome(
        first=fmean(e.schema_tokens + e.pool_tokens for e in exposures),
        steady=steady,
        reduction=1 - steady / everything,
        resident=fmean(e.schema_tokens + e.held_tokens for e in exposures),
        recall=fmean(recall for _, recall in recalls),
        recall_by={kind: fmean(r for turn, r in recalls if turn.kind == kind) for kind in kinds},
        whole=fmean(recall == 1 for _, recall in recalls),
        shown=shown / len(exposures),
        right=hits / shown if shown else 0.0,
        forbidden=barred / shown if shown else 0.0,
        rho=utilisation(tasks, exposures),
    )


def _recall(turn: TaskTurn, exposure: Exposure) -> float:
    return len(set(turn.gold) & set(exposure.ids)) / len(turn.gold)


def utilisation(
    tasks: Sequence[Task],
    exposures: Sequence[Exposure],
    per_turn: int = TASK_TOKENS,
    system: int = SYSTEM_TOKENS,
) -> float | None:
    """Mean of ``C_task / (C_task + C_tools + C_sys)`` at turn 30 of the sessions so long.

    Cached tokens count: a cache makes them cheaper, not fewer.
    """
    first = 0
    found = []
    for task in tasks:
        if len(task.turns) >= RHO_TURN:
            tools = exposures[first + RHO_TURN - 1].in_context
            found.append(rho(tools, per_turn, system))
        first += len(task.turns)
    return fmean(found) if found else None


def rho(tools: float, per_turn: int = TASK_TOKENS, system: int = SYSTEM_TOKENS) -> float:
    """Effective context utilisation at turn 30 for so many tool tokens in the context."""
    task = RHO_TURN * per_turn
    return task / (task + tools + system)


def churn(tasks: Sequence[Task], exposures: Sequence[Exposure]) -> tuple[float, float]:
    """How the shown set changes from a turn to the next within a session.

    Returns:
        Mean number of tools that were not shown on the turn before, and the mean share of
        the turns whose set is exactly that of the turn before.
    """
    first = 0
    new: list[int] = []
    for task in tasks:
        sets = [set(e.ids) for e in exposures[first : first + len(task.turns)]]
        new += [len(now - before) if now != before else -1 for before, now in pairwise(sets)]
        first += len(task.turns)
    return fmean(max(count, 0) for count in new), fmean(count < 0 for count in new)
