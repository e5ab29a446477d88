"""The testbed's tasks: what a person asks turn by turn, the right tools, and the state.

Three kinds: a single step, several steps, and sessions of 15 to 40 turns. The words are fixed
in this folder's TOML files, in two registers, and each request draws its own. A session's state
starts with the scopes that it needs and some of the others; a success sets the facts that a
tool provides; a plan is confirmed for the one turn that needs it. So every right tool is
permitted on its turn, and what else is, changes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from ta_fast.catalog.facts import compile_tool, provided_facts
from ta_fast.evaluate.testbed.tools import SEED, Register, intents, table
from ta_fast.gate import READ_ONLY, explain_clauses
from ta_fast.types import Tool

TaskKind: TypeAlias = Literal["single", "several", "long"]
TurnKind: TypeAlias = Literal["one_tool", "two_tools", "follow_up", "small_talk"]

KINDS: dict[TaskKind, int] = {"single": 200, "several": 200, "long": 100}
"""How many tasks of each kind there are: 500."""
HELD_OUT: dict[TaskKind, int] = {"single": 40, "several": 40, "long": 20}
"""As many more, by another seed, are for choosing what a method may choose."""
HELD_OUT_SEED = SEED + 1
PLAIN_SHARE = 1.0
"""Share of the requests that are in the plain register; the others are terse.

By rule, not by choice: with it plain all-MiniLM-L6-v2 on "name: description" has as nearly as
can be the recall among five that it has on public sets; ``bench/quality_registers.py``.
"""
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
    kind: TurnKind = "one_tool"
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
    plain: float = PLAIN_SHARE,
) -> list[Task]:
    """Tasks over the testbed's tools; the same for the same seed.

    Args:
        tools: From ``make_tools``.
        counts: Tasks of each kind.
        seed: Of every choice.
        plain: Share of the requests in the plain register. The tasks are the same otherwise.
    """
    by_id = {tool.id: tool for tool in tools}
    rng = random.Random(seed)  # noqa: S311 - no secret
    starts = _shuffled(list(by_id), counts["single"], rng)
    chains = [[word.replace(".", "__") for word in row.split()] for row in table("tasks")["chains"]]
    tasks = [
        _task(f"single-{i}", "single", _joined([gold], rng), by_id, plain, rng)
        for i, gold in enumerate(starts)
    ]
    tasks += [
        _task(f"several-{i}", "several", _joined(chain, rng), by_id, plain, rng)
        for i, chain in enumerate(_shuffled(chains, counts["several"], rng))
    ]
    tasks += [
        _task(f"long-{i}", "long", _session(chains, rng), by_id, plain, rng)
        for i in range(counts["long"])
    ]
    return tasks


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
        if turns and turns[-1][1] == "one_tool" and rng.random() < _JOINED:
            turns[-1] = ((*turns[-1][0], tool), "two_tools")
        else:
            turns.append(((tool,), "one_tool"))
    return turns


def _session(chains: Sequence[Sequence[str]], rng: random.Random) -> list[_Asked]:
    """Chains after one another with other turns between; a length between those of ``LONG``."""
    turns: list[_Asked] = []
    length = rng.randint(*LONG)
    while len(turns) < length:
        for asked in _joined(rng.choice(chains), rng):
            turns.append(asked)
            chance = rng.random()
            if chance < _FOLLOW_UP and asked[1] == "one_tool":
                turns.append((asked[0], "follow_up"))
            elif chance > 1 - _SMALL_TALK:
                turns.append(((), "small_talk"))
    return turns[:length]


def _task(
    name: str,
    kind: TaskKind,
    asked: Sequence[_Asked],
    tools: Mapping[str, Tool],
    plain: float,
    rng: random.Random,
) -> Task:
    facts = _first_facts([tools[i] for gold, _ in asked for i in gold], tools, kind, rng)
    words = _Words(plain, rng)
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

    def __init__(self, plain: float, rng: random.Random) -> None:
        self.plain = plain
        self.rng = rng
        self.values: dict[str, str] = {}

    def said(self, gold: Sequence[str], kind: TurnKind) -> str:
        """What the person says on a turn."""
        if kind in ("follow_up", "small_talk"):
            return self.filled(self.rng.choice(table("tasks")[kind]))
        return self.intent(gold)

    def intent(self, gold: Sequence[str]) -> str:
        """One of the ways to ask for the tools, with values, sometimes with words around it."""
        asked = [self.request(tool) for tool in gold]
        if len(asked) > 1:
            joined = self.rng.choice(table("tasks")["joined"])
            return str(joined).format(first=_ended(asked[0]), second=asked[1])
        if self.rng.random() < _CHATTY:
            return self.filled(self.rng.choice(table("tasks")["chatty"]), intent=_ended(asked[0]))
        return asked[0]

    def request(self, tool: str) -> str:
        """One way to ask for a tool; the same draws whatever the share of registers is."""
        register: Register = "plain" if self.rng.random() < self.plain else "terse"
        return self.filled(self.rng.choice(intents(register)[tool]))

    def filled(self, text: str, **more: str) -> str:
        """A text with its slots filled."""
        for slot, choices in table("tasks")["slots"].items():
            if slot not in self.values or self.rng.random() < _NEW_VALUE:
                self.values[slot] = self.rng.choice(choices)
        return text.format(**self.values, **more)


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
