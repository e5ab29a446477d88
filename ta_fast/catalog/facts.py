"""What the preconditions of a catalog may say: the vocabulary of facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from ta_fast.errors import InvalidCatalog, did_you_mean
from ta_fast.gate import (
    MODES,
    Clauses,
    check_fact,
    compile_precondition,
    mentioned_facts,
    restricted,
)
from ta_fast.types import Tool

CLOSED_NAMESPACES = ("mode:", "seen:")
"""Facts that only ta_fast sets: one that nothing sets is a mistake."""


def compile_tool(tool: Tool) -> Clauses:
    """Clauses of a tool: its precondition and what its annotations forbid.

    Raises:
        InvalidCatalog: see ``compile_precondition``.
    """
    for fact in tool.provides:
        check_fact(fact, f"provides of {tool.id}")
    clauses = compile_precondition(tool.precondition, tool.id)
    return restricted(clauses, tool.annotations, tool.id)


def provided_facts(tool: Tool) -> frozenset[str]:
    """Facts that a successful call of the tool sets."""
    return frozenset({f"seen:{tool.id}", *tool.provides})


def check_preconditions(
    changed: Sequence[Tool], catalog: Callable[[], Iterable[Tool]], known: frozenset[str] | None
) -> None:
    """Refuse preconditions that name a fact which nothing can set.

    Args:
        changed: Tools whose preconditions are looked at.
        catalog: Gives every tool that the catalog will hold; their results set facts.
        known: Every fact that hosts may set. None leaves scopes, roles, milestones and
            the like open, and checks only ``mode:`` and ``seen:``.

    Raises:
        InvalidCatalog: names the tool, the fact and the nearest known fact.
    """
    for tool, problem in unsettable_facts(changed, catalog, known):
        raise InvalidCatalog(f"precondition of {tool.id} {problem}")


def unsettable_facts(
    gated: Iterable[Tool], catalog: Callable[[], Iterable[Tool]], known: frozenset[str] | None
) -> Iterator[tuple[Tool, str]]:
    """Each tool with each of its facts that nothing can set, as ``check_preconditions`` says."""
    gated = [tool for tool in gated if tool.precondition is not None]
    if not gated:
        return
    settable = MODES.union(known or (), *(provided_facts(tool) for tool in catalog()))
    for tool in gated:
        for fact in sorted(mentioned_facts(compile_precondition(tool.precondition, tool.id))):
            checked = known is not None or fact.startswith(CLOSED_NAMESPACES)
            if checked and fact not in settable:
                hint = did_you_mean(fact, sorted(settable))
                yield tool, f"names the unknown fact {fact!r}{hint}"
