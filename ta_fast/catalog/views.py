"""The texts whose vectors, averaged, are a tool's embedding.

An intent names a thing, describes what is to be done, or brings the arguments. One text holds
all three badly, so each has a view of its own: the summary with its name in words, the
summary without the name, and the name with the parameters. The embedding is the mean of their
unit vectors, scaled to length 1: one vector a tool, nothing more at a turn.
docs/architecture.md has the figures.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from ta_fast.lexicon import parameters, spaced
from ta_fast.types import F32

if TYPE_CHECKING:
    from ta_fast.types import Tool

VIEWS = 3
_MOST_PARAMETERS = 16
_MOST_CHARACTERS = 1500
"""Of a view: more than the longest summary, less than an encoder's limit."""


def views(tool: Tool, summary: str) -> tuple[str, ...]:
    """The three texts of one tool; where one would be empty another stands in for it."""
    words = spaced(tool.name).strip() or tool.name
    rest = summary.removeprefix(tool.name)
    named = words + rest if rest != summary else summary
    names = (spaced(name).strip() for name, _ in parameters(tool.input_schema))
    arguments = ", ".join(islice(filter(None, names), _MOST_PARAMETERS))
    texts = named, rest.strip(": ") or named, f"{words}: {arguments}"
    return tuple(" ".join(text.split())[:_MOST_CHARACTERS] for text in texts)


def combined(vectors: F32, tools: int) -> F32:
    """Unit vectors ``[tools, D]`` from those of all views, ``[tools * VIEWS, D]``."""
    mean = vectors.reshape(tools, VIEWS, -1).sum(axis=1)
    norms = np.sqrt(np.einsum("nd,nd->n", mean, mean))[:, None]
    unit: F32 = mean / np.maximum(norms, np.finfo(np.float32).tiny)
    return unit
