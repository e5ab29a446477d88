"""Names tools that will retrieve badly, or never: what an operator should look at.

No description, a cryptic name, a near-duplicate: a better summary in the overrides file
helps. A precondition that waits for a removed tool never holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from ta_fast.catalog.facts import unsettable_facts
from ta_fast.types import F32, Tool

Problem: TypeAlias = Literal["no_description", "cryptic_name", "near_duplicate", "unknown_fact"]
Severity: TypeAlias = Literal["warning", "note"]

NEAR_DUPLICATE = 0.95
"""Least cosine of two summaries that intents hardly tell apart.

Measured with all-MiniLM-L6-v2 on three labelled sets: a right tool that has such a
neighbour comes first for 18, 29 and 10 % of the intents; one that has none, for 49, 57
and 23 %.
"""

_BLOCK_ROWS = 1_024  # rows of the similarity matrix held at once

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_a-zA-Z]+")
_ONSET = re.compile(
    r"[aeiouy]|[bcdfghjklmnpqrstvwxz]y?[aeiouy]|"
    r"(?:bl|br|ch|chr|cl|cr|dr|dw|fl|fr|gh|gl|gn|gr|kh|kl|kn|kr|ph|phr|pl|pr|ps|qu|rh|sc|sch|scr|sh|"
    r"shr|sk|sl|sm|sn|sp|sph|spl|spr|sq|st|str|sv|sw|sy|th|thr|tr|ts|tw|wh|wr)[aeiouy]"
)
_SHORTEST_WORD = 3
_TELLING_NAME = 2  # readable words; a description may repeat such a name and still be found
_FEW_WORDS = 5  # of a description that does not make up for a cryptic name
_FILLER = frozenset(
    re.findall(
        r"\w+",
        "a an and api call calls command default description empty endpoint for function in is it "
        "method missing na no none null of on operation placeholder tbd test the this to todo tool "
        "undefined unknown use used",
    )
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem of one tool.

    ``detail`` says it to a person; ``other`` is the near-duplicate's id. A ``note`` is
    for a cryptic name whose description makes up for it: measured, such tools are found
    about as well as others.
    """

    tool_id: str
    problem: Problem
    detail: str
    severity: Severity = "warning"
    other: str | None = None


def diagnose(tools: Sequence[Tool], summaries: Sequence[str], vectors: F32) -> list[Finding]:
    """Find tools that will retrieve badly or never, in the order of the tools.

    Args:
        tools: The catalog's tools, N of them.
        summaries: The summary of each tool.
        vectors: The unit vectors of the summaries, ``[N, D]``.
    """
    found = [finding for tool in tools for finding in _of_one(tool)]
    found += _near_duplicates(tools, summaries, vectors)
    for tool, problem in unsettable_facts(tools, lambda: tools, None):
        found.append(Finding(tool.id, "unknown_fact", f"its precondition {problem}"))
    position = {tool.id: index for index, tool in enumerate(tools)}
    return sorted(found, key=lambda finding: position[finding.tool_id])


def _of_one(tool: Tool) -> Iterator[Finding]:
    """What can be said without the other tools. The operator's summary counts as a description."""
    text = tool.description if tool.summary is None else tool.summary
    parts = _WORD.findall(tool.name)
    readable = sum(map(_is_readable, parts))
    said = {word.lower() for word in _WORD.findall(text)} - _FILLER
    said -= {part.lower() for part in parts}
    if not text.strip():
        yield Finding(tool.id, "no_description", "there is no description")
    elif not said and readable < _TELLING_NAME:
        detail = f"the description says nothing beyond the name: {text.strip()[:80]!r}"
        yield Finding(tool.id, "no_description", detail)
    if not readable:
        detail = f"no part of the name {tool.name[:80]!r} reads as a word"
        severity: Severity = "warning" if len(said) < _FEW_WORDS else "note"
        yield Finding(tool.id, "cryptic_name", detail, severity)


def _is_readable(part: str) -> bool:
    """Whether a part of a name looks like a word; scripts other than Latin always do."""
    if not part.isascii():
        return True
    return len(part) >= _SHORTEST_WORD and _ONSET.match(part.lower()) is not None


def _near_duplicates(
    tools: Sequence[Tool], summaries: Sequence[str], vectors: F32
) -> Iterator[Finding]:
    """For each tool its nearest other one, where that is a near-duplicate."""
    for start in range(0, len(tools), _BLOCK_ROWS):
        rows = np.arange(start, min(start + _BLOCK_ROWS, len(tools)))
        cosines = vectors[rows] @ vectors.T
        cosines[rows - start, rows] = -np.inf
        nearest = cosines.argmax(axis=1)
        best = cosines[rows - start, nearest]
        for row in rows[best >= NEAR_DUPLICATE]:
            other = int(nearest[row - start])
            same = summaries[row] == summaries[other]
            how = "the same summary as" if same else f"cosine {best[row - start]:.3f} to"
            other_id = tools[other].id
            yield Finding(tools[row].id, "near_duplicate", f"{how} {other_id!r}", other=other_id)
