from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from ta_fast.evaluate.testbed.measures import Permits
from ta_fast.evaluate.testbed.tasks import (
    HELD_OUT,
    HELD_OUT_SEED,
    KINDS,
    LONG,
    Task,
    make_tasks,
)
from ta_fast.evaluate.testbed.tools import make_tools

TOOLS = make_tools()


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    """The 500 tasks."""
    return make_tasks(TOOLS)


def test_kinds_and_lengths(tasks: list[Task]) -> None:
    """500 tasks of three kinds; a long one has 15 to 40 turns."""
    assert Counter(task.kind for task in tasks) == KINDS
    assert sum(KINDS.values()) == 500
    lengths = {kind: [len(t.turns) for t in tasks if t.kind == kind] for kind in KINDS}
    assert set(lengths["single"]) == {1}
    assert max(lengths["several"]) <= 6
    assert min(lengths["long"]) >= LONG[0]
    assert max(lengths["long"]) <= LONG[1]
    assert any(length >= 30 for length in lengths["long"])


def test_the_same_seed_gives_the_same_tasks(tasks: list[Task]) -> None:
    """And the held-out tasks are others."""
    assert make_tasks(TOOLS) == tasks
    assert make_tasks(TOOLS, HELD_OUT, HELD_OUT_SEED)[0] != tasks[0]


def test_right_tools_are_permitted_on_their_turn(tasks: list[Task]) -> None:
    """The state permits every right tool, and some other tool is forbidden."""
    permits = Permits(TOOLS)
    for task in tasks:
        for turn in task.turns:
            permitted = permits.permitted(turn.facts)
            assert set(turn.gold) <= permitted, (task.id, turn)
            assert len(permitted) < len(TOOLS)


def test_state_changes_over_a_task(tasks: list[Task]) -> None:
    """A success leaves its mark; a plan is confirmed for one turn only."""
    for task in tasks:
        for before, now in pairwise(task.turns):
            assert {f"seen:{tool}" for tool in before.gold} <= now.facts
    confirmed = [t for task in tasks for t in task.turns if "milestone:plan_confirmed" in t.facts]
    needing = {t.id for t in TOOLS if "milestone" in str(t.precondition)}
    assert confirmed
    assert all(needing & set(turn.gold) for turn in confirmed)


def test_turns_without_a_tool_and_follow_ups(tasks: list[Task]) -> None:
    """Small talk needs no tool; a follow-up needs the one before, and its words do not say it."""
    for task in tasks:
        for before, now in pairwise(task.turns):
            assert (now.kind == "small_talk") == (now.gold == ())
            if now.kind == "follow_up":
                assert now.gold == before.gold
            assert before.intent in now.context


def test_every_tool_is_needed_and_words_vary(tasks: list[Task]) -> None:
    """No tool is left out, and intents hardly repeat."""
    turns = [turn for task in tasks for turn in task.turns]
    assert {tool for turn in turns for tool in turn.gold} == {tool.id for tool in TOOLS}
    assert len({turn.intent for turn in turns}) > 0.6 * len(turns)


def test_registers_change_words_alone(tasks: list[Task]) -> None:
    """The share of plain requests changes intents, not the tools, the states or the kinds."""
    plain, terse = make_tasks(TOOLS, plain=1.0), make_tasks(TOOLS, plain=0.0)
    half = make_tasks(TOOLS, plain=0.5)
    for task, *others in zip(tasks, plain, terse, half, strict=True):
        for turn, *said in zip(task.turns, *(other.turns for other in others), strict=True):
            assert all(
                (u.gold, u.facts, u.kind) == (turn.gold, turn.facts, turn.kind) for u in said
            )
            if turn.kind in ("follow_up", "small_talk"):
                assert {u.intent for u in said} == {turn.intent}
    ours, others = (
        [turn.intent for task in some for turn in task.turns if turn.kind == "one_tool"]
        for some in (half, plain)
    )
    same = sum(one == other for one, other in zip(ours, others, strict=True)) / len(ours)
    assert 0.45 < same < 0.55
