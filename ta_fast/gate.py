"""The state gate: preconditions become clauses, clauses become gate classes.

A precondition is JSON over named facts::

    {"all_of": [...], "any_of": [...], "none_of": [...]}

where each item is a fact's name or a nested precondition; the keys given must all
hold. It is compiled to a disjunction of clauses, each a set of required and a set of
forbidden facts. Equal preconditions share one *gate class*. A turn's facts become its
allowed classes once and are remembered by the facts' value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import numpy as np

from ta_fast.errors import InvalidCatalog
from ta_fast.remembered import remembered
from ta_fast.types import I32, U32, JsonObject

MAX_CLAUSES = 64
"""Clauses that one precondition may compile to."""
MAX_DEPTH = 16
"""Levels that a precondition may be nested."""
MAX_ITEMS = 1024
"""Facts and nested preconditions that one precondition may hold."""
MAX_FACT_LENGTH = 256
_SHOWN = 80  # characters of a wrong value that a message quotes
REMEMBERED_STATES = 1024

READ_ONLY = "mode:read_only"
"""A session with this fact sees only tools annotated ``readOnlyHint: true``."""
NON_DESTRUCTIVE = "mode:non_destructive"
"""A session with this fact sees no tool that may destroy (MCP's default is that it may)."""
CLOSED_WORLD = "mode:closed_world"
"""A session with this fact sees only tools annotated ``openWorldHint: false``."""
MODES = frozenset({READ_ONLY, NON_DESTRUCTIVE, CLOSED_WORLD})

_KEYS = ("all_of", "any_of", "none_of")


class Clause(NamedTuple):
    """Holds when every fact of ``require`` and no fact of ``forbid`` holds."""

    require: frozenset[str]
    forbid: frozenset[str]

    def holds(self, facts: frozenset[str]) -> bool:
        """Whether the clause holds under ``facts``."""
        return self.require <= facts and not self.forbid & facts


Clauses = frozenset[Clause]
ALWAYS: Clauses = frozenset({Clause(frozenset(), frozenset())})


def compile_precondition(precondition: JsonObject | None, tool: str = "a tool") -> Clauses:
    """Clauses of one precondition; it holds when any of them does. None always holds.

    Args:
        precondition: JSON as in the module's docstring.
        tool: Named in errors.

    Raises:
        InvalidCatalog: malformed, nested too deeply (a cycle is), too large, or one
            that no state can satisfy.
    """
    if precondition is None:
        return ALWAYS
    clauses = _Compiler(tool).compile(precondition, negate=False, depth=1)
    if not clauses:
        raise InvalidCatalog(f"precondition of {tool} can never hold: {_short(precondition)}")
    return clauses


def restricted(clauses: Clauses, annotations: JsonObject, tool: str = "a tool") -> Clauses:
    """Add what MCP annotations forbid to restricted sessions (``MODES``).

    Defaults are MCP's: without annotations a tool may write, destroy and reach out.
    """
    read_only = annotations.get("readOnlyHint") is True
    destructive = not read_only and annotations.get("destructiveHint") is not False
    open_world = annotations.get("openWorldHint") is not False
    forbidden = frozenset(
        mode
        for mode, applies in (
            (READ_ONLY, not read_only),
            (NON_DESTRUCTIVE, destructive),
            (CLOSED_WORLD, open_world),
        )
        if applies
    )
    result = _simplify(Clause(c.require, c.forbid | forbidden) for c in clauses)
    if not result:
        raise InvalidCatalog(
            f"precondition of {tool} can never hold: it requires a mode that its "
            f"annotations exclude ({', '.join(sorted(forbidden))})"
        )
    return result


def mentioned_facts(clauses: Iterable[Clause]) -> frozenset[str]:
    """Every fact that the clauses require or forbid."""
    return frozenset(fact for clause in clauses for fact in clause.require | clause.forbid)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a state allows a tool or not, for an operator.

    ``missing`` and ``forbidding`` belong to the clause that is nearest to holding.
    """

    allowed: bool
    missing: tuple[str, ...] = ()
    forbidding: tuple[str, ...] = ()


def explain_clauses(clauses: Clauses, facts: frozenset[str]) -> Explanation:
    """Which facts stand between ``facts`` and the nearest clause."""
    gaps = [(sorted(c.require - facts), sorted(c.forbid & facts)) for c in clauses]
    missing, forbidding = min(gaps, key=lambda gap: (len(gap[0]) + len(gap[1]), gap))
    return Explanation(not missing and not forbidding, tuple(missing), tuple(forbidding))


class Gate:
    """The gate classes of one catalog epoch; immutable and thread-safe.

    Attributes:
        bits: Fact name to bit; only facts that some tool mentions have one.
        n_classes: Number of gate classes, G.
    """

    def __init__(self, classes: Sequence[Clauses]) -> None:
        facts = sorted(mentioned_facts(c for clauses in classes for c in clauses))
        self.bits: Mapping[str, int] = {fact: bit for bit, fact in enumerate(facts)}
        self.n_classes = len(classes)
        self._classes = tuple(classes)
        flat = [clause for clauses in classes for clause in sorted(clauses, key=_order)]
        self._require = self._table([clause.require for clause in flat])
        self._forbid = self._table([clause.forbid for clause in flat])
        self._first = np.cumsum([0, *(len(c) for c in classes)])[:-1]
        self.allowed = remembered(self._allowed, REMEMBERED_STATES)

    def _table(self, sets: Sequence[frozenset[str]]) -> U32:
        return np.array([self._words(facts) for facts in sets], dtype=np.uint32).reshape(
            len(sets), (len(self.bits) + 31) // 32
        )

    def _words(self, facts: frozenset[str]) -> U32:
        words = np.zeros((len(self.bits) + 31) // 32, dtype=np.uint32)
        for bit in (self.bits[fact] for fact in facts if fact in self.bits):
            words[bit >> 5] |= np.uint32(1 << (bit & 31))
        return words

    def _allowed(self, facts: frozenset[str]) -> U32:
        """Allowed classes of a state: uint32 ``[ceil(G/32)]``, bit g%32 of word g//32.

        Remembered by the facts' value; the array is read-only.
        """
        packed = np.zeros(4 * ((self.n_classes + 31) // 32), dtype=np.uint8)
        if self.n_classes:
            words = self._words(facts)
            holds = ~((self._require & ~words) | (self._forbid & words)).any(axis=1)
            bits = np.packbits(np.logical_or.reduceat(holds, self._first), bitorder="little")
            packed[: len(bits)] = bits
        allowed = packed.view("<u4").astype(np.uint32, copy=False)
        allowed.flags.writeable = False
        return allowed

    def explain(self, gate_class: int, facts: frozenset[str]) -> Explanation:
        """Which facts stand between a state and one gate class."""
        return explain_clauses(self._classes[gate_class], facts)


def build_gate(preconditions: Sequence[Clauses]) -> tuple[Gate, I32]:
    """Intern the compiled preconditions of N tools.

    Returns:
        The gate and the class of every tool, int32 ``[N]``, numbered by first appearance.
    """
    interned: dict[Clauses, int] = {}
    classes = np.fromiter(
        (interned.setdefault(clauses, len(interned)) for clauses in preconditions),
        dtype=np.int32,
        count=len(preconditions),
    )
    return Gate(list(interned)), classes


class _Compiler:
    """One precondition's compilation: counts items so that size is bounded."""

    def __init__(self, tool: str) -> None:
        self.tool = tool
        self.items = 0

    def compile(self, node: object, *, negate: bool, depth: int) -> Clauses:
        """Disjunctive normal form of a node, or of its negation (De Morgan)."""
        self.items += 1
        if depth > MAX_DEPTH:
            self.fail(f"is nested deeper than {MAX_DEPTH} levels or refers to itself")
        if self.items > MAX_ITEMS:
            self.fail(f"has more than {MAX_ITEMS} items")
        if isinstance(node, str):
            fact = frozenset({check_fact(node, f"precondition of {self.tool}")})
            none: frozenset[str] = frozenset()
            return frozenset({Clause(none, fact) if negate else Clause(fact, none)})
        if not isinstance(node, Mapping):
            self.fail(f"holds {_short(node)}; expected a fact's name or an object")
        parts = [self.part(key, node[key], negate, depth) for key in node]
        return self.disjoin(parts) if negate else self.conjoin(parts)

    def part(self, key: object, items: object, negate: bool, depth: int) -> Clauses:
        """One key of an object, with its list of items."""
        if key not in _KEYS:
            self.fail(f"has the key {_short(key)}; expected one of {', '.join(_KEYS)}")
        if isinstance(items, str) or not isinstance(items, Sequence):
            self.fail(f"has {key}: {_short(items)}; expected a list")
        inner = negate if key != "none_of" else not negate
        parts = [self.compile(item, negate=inner, depth=depth + 1) for item in items]
        # "any of" is a disjunction, the others conjunctions; negation swaps the two.
        return self.disjoin(parts) if (key == "any_of") != negate else self.conjoin(parts)

    def disjoin(self, parts: Sequence[Clauses]) -> Clauses:
        return self.bounded(clause for part in parts for clause in part)

    def conjoin(self, parts: Sequence[Clauses]) -> Clauses:
        result = ALWAYS
        for part in parts:
            result = self.bounded(
                Clause(a.require | b.require, a.forbid | b.forbid) for a in result for b in part
            )
        return result

    def bounded(self, clauses: Iterable[Clause]) -> Clauses:
        result = _simplify(clauses)
        if len(result) > MAX_CLAUSES:
            self.fail(f"compiles to more than {MAX_CLAUSES} clauses")
        return result

    def fail(self, problem: str) -> NoReturn:
        raise InvalidCatalog(f"precondition of {self.tool} {problem}")


def check_fact(name: object, where: str = "a fact") -> str:
    """The name itself, if it can name a fact: printable, 1 to 256 characters, not padded.

    Raises:
        InvalidCatalog: it cannot.
    """
    if not isinstance(name, str) or not name or name != name.strip() or not name.isprintable():
        raise InvalidCatalog(f"{where}: {_short(name)} is no fact's name; expected printable text")
    if len(name) > MAX_FACT_LENGTH:
        raise InvalidCatalog(
            f"{where}: a fact's name of {len(name)} characters; at most {MAX_FACT_LENGTH}"
        )
    return name


def _simplify(clauses: Iterable[Clause]) -> Clauses:
    """Drop clauses that contradict themselves or are implied by a weaker one.

    Weaker clauses come first, so what is kept stays; past the limit the rest is not looked at.
    """
    kept: list[Clause] = []
    for clause in sorted(set(clauses), key=lambda c: len(c.require) + len(c.forbid)):
        if clause.require & clause.forbid:
            continue
        if not any(k.require <= clause.require and k.forbid <= clause.forbid for k in kept):
            kept.append(clause)
        if len(kept) > MAX_CLAUSES:
            break
    return frozenset(kept)


def _order(clause: Clause) -> tuple[list[str], list[str]]:
    return sorted(clause.require), sorted(clause.forbid)


def _short(value: object) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = "a structure nested too deeply to print"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
