"""The testbed's tasks: what a person asks turn by turn, the right tools, and the state.

Three kinds: a single step, several steps, and sessions of 15 to 40 turns. The words are fixed
in this folder's TOML files. A session's state starts with the scopes that it needs and some of
the others; a success sets the facts that a tool provides; a plan is confirmed for the one turn
that needs it. So every right tool is permitted on its turn, and what else is, changes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, TypeVar

from ta_fast.catalog.facts import compile_tool, provided_facts
from ta_fast.evaluate.testbed.tools import SEED, intents, table
from ta_fast.gate import READ_ONLY, explain_clauses
from ta_fast.types import Tool

TaskKind: TypeAlias = Literal["single", "several", "long"]
TurnKind: TypeAlias = Literal["plain", "joined", "follow_up", "small_talk"]

KINDS: dict[TaskKind, int] = {"single": 200, "several": 200, "long": 100}
"""How many tasks of each kind there are: 500."""
HELD_OUT: dict[TaskKind, int] = {"single": 40, "several": 40, "long": 20}
"""As many more, by another seed, are for choosing what a method may choose."""
HELD_OUT_SEED = SEED + 1
SPOKEN = {
    "github": "GitHub",
    "filesystem": "file system",
    "database": "database",
    "slack": "Slack",
    "web": "web",
    "jira": "Jira",
}
"""What a person calls a server."""
LONG = (15, 40)
"""Least and most turns of a long session."""
_CHATTY, _JOINED, _FOLLOW_UP, _SMALL_TALK = 0.4, 0.1, 0.06, 0.05  # shares of turns
_EXTRA_SCOPE, _READ_ONLY, _NEW_VALUE = 0.5, 0.3, 0.3
_REMEMBERED = 2  # earlier intents that are a turn's context
_MILESTONE = "milestone:"
_T = TypeVar("_T")
_Asked: TypeAlias = tuple[tuple[str, ...], TurnKind]


@dataclass(frozen=True, slots=True)
class TaskTurn:
    """One turn: the person's words, the tools that are right, and the facts that hold.

    ``gold`` is empty where no tool is right. ``context`` has the words of the turns before.
    """

    intent: str
    gold: tuple[str, ...]
    facts: frozenset[str]
    kind: TurnKind = "plain"
    context: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """A session of one turn or of many."""

    id: str
    kind: TaskKind
    turns: tuple[TaskTurn, ...]


def make_tasks(
    tools: Sequence[Tool],
    counts: Mapping[TaskKind, int] = KINDS,
    seed: int = SEED,
    *,
    kinds_said: bool = False,
) -> list[Task]:
    """Tasks over the testbed's tools; the same for the same seed.

    Args:
        tools: From ``make_tools``.
        counts: Tasks of each kind.
        seed: Of every choice.
        kinds_said: The person says what a value is: "ticket PAY-412", not "PAY-412". The
            tasks are the same otherwise.
    """
    kinds = table("tasks")["kinds"] if kinds_said else {}
    by_id = {tool.id: tool for tool in tools}
    rng = random.Random(seed)  # noqa: S311 - no secret
    starts = _shuffled(list(by_id), counts["single"], rng)
    chains = [[word.replace(".", "__") for word in row.split()] for row in table("tasks")["chains"]]
    tasks = [
        _task(f"single-{i}", "single", _joined([gold], rng), by_id, kinds, rng)
        for i, gold in enumerate(starts)
    ]
    tasks += [
        _task(f"several-{i}", "several", _joined(chain, rng), by_id, kinds, rng)
        for i, chain in enumerate(_shuffled(chains, counts["several"], rng))
    ]
    tasks += [
        _task(f"long-{i}", "long", _session(chains, rng), by_id, kinds, rng)
        for i in range(counts["long"])
    ]
    return tasks


def with_services(tasks: Sequence[Task]) -> list[Task]:
    """The same tasks, where the person says which service is meant: "Jira: what is ... about?".

    Turns that continue the one before stay as they are.
    """
    return [replace(task, turns=tuple(map(_with_service, task.turns))) for task in tasks]


def _with_service(turn: TaskTurn) -> TaskTurn:
    if turn.kind not in ("plain", "joined"):
        return turn
    services = dict.fromkeys(SPOKEN[tool.partition("__")[0]] for tool in turn.gold)
    return replace(turn, intent=f"{' and '.join(services)}: {turn.intent}")


def _shuffled(items: Sequence[_T], count: int, rng: random.Random) -> list[_T]:
    """``count`` items, each about as often as any other."""
    chosen: list[_T] = []
    while len(chosen) < count:
        chosen += rng.sample(items, min(len(items), count - len(chosen)))
    return chosen


def _joined(chain: Sequence[str], rng: random.Random) -> list[_Asked]:
    """What is asked turn by turn: one tool each, sometimes two in one turn."""
    turns: list[_Asked] = []
    for tool in chain:
        if turns and turns[-1][1] == "plain" and rng.random() < _JOINED:
            turns[-1] = ((*turns[-1][0], tool), "joined")
        else:
            turns.append(((tool,), "plain"))
    return turns


def _session(chains: Sequence[Sequence[str]], rng: random.Random) -> list[_Asked]:
    """Chains after one another with other turns between; a length between those of ``LONG``."""
    turns: list[_Asked] = []
    length = rng.randint(*LONG)
    while len(turns) < length:
        for asked in _joined(rng.choice(chains), rng):
            turns.append(asked)
            chance = rng.random()
            if chance < _FOLLOW_UP and asked[1] == "plain":
                turns.append((asked[0], "follow_up"))
            elif chance > 1 - _SMALL_TALK:
                turns.append(((), "small_talk"))
    return turns[:length]


def _task(
    name: str,
    kind: TaskKind,
    asked: Sequence[_Asked],
    tools: Mapping[str, Tool],
    kinds: Mapping[str, str],
    rng: random.Random,
) -> Task:
    facts = _first_facts([tools[i] for gold, _ in asked for i in gold], tools, kind, rng)
    words = _Words(kinds, rng)
    turns: list[TaskTurn] = []
    for gold, turn_kind in asked:
        wanted = [tools[tool] for tool in gold]
        facts = facts.union(*(_missing(tool, facts) for tool in wanted))
        context = "\n".join(turn.intent for turn in turns[-_REMEMBERED:][::-1])
        turns.append(TaskTurn(words.said(gold, turn_kind), gold, facts, turn_kind, context))
        # A confirmation is for one plan; what a success provides stays.
        facts = frozenset(fact for fact in facts if not fact.startswith(_MILESTONE))
        facts = facts.union(*(provided_facts(tool) for tool in wanted))
    return Task(name, kind, tuple(turns))


class _Words:
    """The words of one session: values stay for some turns, as in a conversation."""

    def __init__(self, kinds: Mapping[str, str], rng: random.Random) -> None:
        self.kinds = kinds
        self.rng = rng
        self.values: dict[str, str] = {}

    def said(self, gold: Sequence[str], kind: TurnKind) -> str:
        """What the person says on a turn."""
        if kind in ("follow_up", "small_talk"):
            return self.filled(self.rng.choice(table("tasks")[kind]))
        return self.intent(gold)

    def intent(self, gold: Sequence[str]) -> str:
        """One of the ways to ask for the tools, with values, sometimes with words around it."""
        asked = [self.filled(self.rng.choice(intents()[tool])) for tool in gold]
        if len(asked) > 1:
            joined = self.rng.choice(table("tasks")["joined"])
            return str(joined).format(first=_ended(asked[0]), second=asked[1])
        if self.rng.random() < _CHATTY:
            return self.filled(self.rng.choice(table("tasks")["chatty"]), intent=_ended(asked[0]))
        return asked[0]

    def filled(self, text: str, **more: str) -> str:
        """A text with its slots filled."""
        for slot, choices in table("tasks")["slots"].items():
            if slot not in self.values or self.rng.random() < _NEW_VALUE:
                self.values[slot] = self.rng.choice(choices)
        said = {
            slot: f"{self.kinds[slot]} {value}" if slot in self.kinds else value
            for slot, value in self.values.items()
        }
        return text.format(**said, **more)


def _ended(text: str) -> str:
    return text if text[-1] in ".?!" else f"{text}."


def _first_facts(
    needed: Sequence[Tool], tools: Mapping[str, Tool], kind: TaskKind, rng: random.Random
) -> frozenset[str]:
    """The scopes that the task needs and half of the others; sometimes only reading."""
    scopes = {fact for tool in needed for fact in _needs(tool) if fact.startswith("scope:")}
    others = {fact for tool in tools.values() for fact in _needs(tool)} - scopes
    for fact in sorted(others):
        if fact.startswith("scope:") and rng.random() < _EXTRA_SCOPE:
            scopes.add(fact)
    reads = all(tool.annotations.get("readOnlyHint") for tool in needed)
    if reads and kind != "long" and rng.random() < _READ_ONLY:
        scopes.add(READ_ONLY)
    return frozenset(scopes)


def _needs(tool: Tool) -> Sequence[str]:
    return tool.precondition["all_of"] if tool.precondition else ()


def _missing(tool: Tool, facts: frozenset[str]) -> frozenset[str]:
    """What has to hold besides ``facts`` before the tool is permitted."""
    return frozenset(explain_clauses(compile_tool(tool), facts).missing)
