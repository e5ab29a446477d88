"""What every measurement of the report shares: the testbed, made once, and its encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any

import numpy as np
from tqdm import tqdm

from ta_fast.attention import ToolAttention
from ta_fast.encoder import Encoder, shows_tokens
from ta_fast.evaluate.testbed.exposure import ArrayTokens, Exposure
from ta_fast.evaluate.testbed.measures import Permits, outcome
from ta_fast.evaluate.testbed.methods import (
    ANY_SCORE,
    Choice,
    make_attention,
    narrowed,
    promote,
    ungated,
)
from ta_fast.evaluate.testbed.tasks import (
    HELD_OUT,
    HELD_OUT_SEED,
    KINDS,
    PLAIN_SHARE,
    Task,
    TaskTurn,
    make_tasks,
)
from ta_fast.evaluate.testbed.tools import SEED, make_tools
from ta_fast.types import F32, Promotion, Tool

Row = dict[str, Any]
READINGS = {"as people ask": PLAIN_SHARE, "all terse": 0.0}
"""The tasks' readings: the share of requests in the plain register. The first is the main one."""
MAIN, HARD = READINGS
QUICK = 5  # a quick run has one task of so many


class RememberingEncoder:
    """An encoder that encodes a text once in a run, and is otherwise the one that it wraps."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[Any, F32] = {}

    def __getattr__(self, name: str) -> Any:
        if name in ("on_device", "_encoder"):  # vectors have to pass by here
            raise AttributeError(name)
        found = getattr(self._encoder, name)
        return partial(self._remembered, found) if name == "encode_rows" else found

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> F32:
        """Unit vectors, float32 ``[B, D]``."""
        if progress:
            progress(len(texts))
        return self._remembered(self._encoder.encode, texts)

    def _remembered(self, encode: Callable[[Any], F32], inputs: Sequence[Any]) -> F32:
        """Vectors of texts, or of the bytes of their token ids."""
        new = [one for one in dict.fromkeys(inputs) if one not in self._known]
        if new or not inputs:
            self._known.update(zip(new, vectors := encode(new), strict=True))
        return np.stack([self._known[one] for one in inputs]) if inputs else vectors


class Bed:
    """The testbed's tools, tasks and methods."""

    def __init__(self, encoder: Encoder, quick: bool) -> None:
        self.encoder = encoder
        self.quick = quick
        self.rankings = ("dense", "hybrid") if shows_tokens(encoder) else ("dense",)
        self.ranking = self.rankings[-1]  # as "auto" chooses
        self.tools = make_tools()
        self.tasks = self.read(MAIN)
        self.held_out = self.read(MAIN, held_out=True)
        self.arrays = ArrayTokens(self.tools)
        self.permits = Permits(self.tools)
        self.ids = tuple(self.arrays.texts)
        self.everything = self.arrays.count(self.ids)
        self._attentions: dict[tuple[str, bool], ToolAttention] = {}
        self._promotions: dict[tuple[str, str, bool, bool, bool], list[Promotion]] = {}

    @cached_property
    def turns(self) -> list[TaskTurn]:
        """Every turn of the tasks, in order."""
        return all_turns(self.tasks)

    def attention(self, ranking: str = "", *, gated: bool = True) -> ToolAttention:
        """Tool Attention over the tools, with the gate or without."""
        ranking = ranking or self.ranking
        if (ranking, gated) not in self._attentions:
            tools = self.tools if gated else ungated(self.tools)
            made = make_attention(tools, self.encoder, ranking=ranking)
            self._attentions[ranking, gated] = made
        return self._attentions[ranking, gated]

    def ranked(
        self,
        ranking: str = "",
        reading: str = MAIN,
        *,
        gated: bool = True,
        held_out: bool = False,
        context: bool = False,
    ) -> list[Promotion]:
        """Every turn's allowed tools, best first: what each choice of k and threshold cuts."""
        ranking = ranking or self.ranking
        key = (ranking, reading, gated, held_out, context)
        if key not in self._promotions:
            tasks = self.read(reading, held_out=held_out)
            choice = Choice(len(self.tools), ANY_SCORE, context)
            with bar(f"{ranking}, {reading}", all_turns(tasks)) as advance:
                attention = self.attention(ranking, gated=gated)
                self._promotions[key] = promote(attention, all_turns(tasks), choice, advance.update)
        return self._promotions[key]

    def read(self, reading: str, *, held_out: bool = False) -> list[Task]:
        """The tasks in one of their readings."""
        counts = {kind: count // QUICK if self.quick else count for kind, count in KINDS.items()}
        which = (HELD_OUT, HELD_OUT_SEED) if held_out else (counts, SEED)
        return make_tasks(self.tools, *which, plain=READINGS[reading])

    def row(
        self, method: str, exposures: Sequence[Exposure], tasks: Sequence[Task] | None = None
    ) -> Row:
        """A method's figures."""
        figures = outcome(tasks or self.tasks, exposures, self.permits, self.everything)
        return {"method": method, **asdict(figures)}

    def cut(self, promotions: Sequence[Promotion], choice: Choice) -> list[Exposure]:
        """What a choice shows of ranked tools."""
        return narrowed(promotions, self.arrays, choice)


def all_turns(tasks: Sequence[Task]) -> list[TaskTurn]:
    """The tasks' turns, in order."""
    return [turn for task in tasks for turn in task.turns]


def bar(what: str, items: Sequence[Any]) -> Any:
    """A progress bar over so many items."""
    return tqdm(total=len(items), desc=what, leave=False, delay=1)


def summaries_of(tools: Sequence[Tool]) -> list[str]:
    """The tools' summaries, as a catalog writes them."""
    from ta_fast.catalog.summaries import summarize

    return [summarize(tool) for tool in tools]
