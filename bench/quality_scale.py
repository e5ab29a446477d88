"""How Tool Attention holds as the catalog grows, and against poisoned descriptions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import fmean

from tqdm import tqdm

from bench.quality_bed import Bed, Row, all_turns
from ta_fast.attention import ToolAttention
from ta_fast.catalog import Catalog
from ta_fast.catalog.doctor import diagnose
from ta_fast.evaluate.testbed.distractors import make_distractors
from ta_fast.evaluate.testbed.exposure import ArrayTokens
from ta_fast.evaluate.testbed.measures import rho
from ta_fast.evaluate.testbed.methods import (
    ANY_SCORE,
    DEFAULT_CHOICE,
    Choice,
    make_attention,
    narrowed,
    promote,
    ungated,
)
from ta_fast.evaluate.testbed.poison import TRUSTED, Poison, make_poisons
from ta_fast.evaluate.testbed.tasks import TaskTurn
from ta_fast.evaluate.testbed.tools import SEED
from ta_fast.types import Source, Tool, Turn

SIZES = (10, 30, 60, 120, 300, 1_000, 3_000, 10_000)
QUICK_SIZES = (10, 60, 120, 300)


def scaling(bed: Bed) -> list[Row]:
    """Utilisation and recall as the catalog grows, over the tasks of one and several steps."""
    tasks = [task for task in bed.tasks if task.kind != "long"]
    turns = all_turns(tasks)
    sizes = tqdm(QUICK_SIZES if bed.quick else SIZES, desc="scaling", leave=False)
    return [_scaled(bed, size, turns) for size in sizes]


def _scaled(bed: Bed, size: int, turns: Sequence[TaskTurn]) -> Row:
    tools = _few(bed.tools, size) if size < len(bed.tools) else list(bed.tools)
    tools += make_distractors(size - len(tools))
    ids = {tool.id for tool in tools}
    wanted = [turn for turn in turns if set(turn.gold) <= ids]
    arrays = ArrayTokens(tools)
    attention = make_attention(tools, bed.encoder)
    ranked = promote(attention, wanted, Choice(threshold=ANY_SCORE))
    row: Row = {"tools": size, "turns": len(wanted)}
    everything = arrays.count(tuple(arrays.texts))
    row |= {"all": everything, "rho_all": rho(everything)}
    for name, choice in {"default": DEFAULT_CHOICE, "any": Choice(threshold=ANY_SCORE)}.items():
        shown = narrowed(ranked, arrays, choice)
        schemas, pool = (fmean(getattr(e, f"{kind}_tokens") for e in shown) for kind in _COUNTED)
        found = [set(t.gold) & set(e.ids) for t, e in zip(wanted, shown, strict=True)]
        recall = fmean(len(f) / len(t.gold) for t, f in zip(wanted, found, strict=True))
        row[name] = {"schemas": schemas, "pool": pool, "recall": recall}
        row[name] |= {"rho": rho(schemas + pool), "rho_without_pool": rho(schemas)}
    return row


_COUNTED = ("schema", "pool")


def _few(tools: Sequence[Tool], count: int) -> list[Tool]:
    """Some of the tools, each with those whose success it waits for."""
    by_id = {tool.id: tool for tool in tools}
    chosen: dict[str, Tool] = {}
    for tool in random.Random(SEED).sample(list(tools), len(tools)):  # noqa: S311
        needs = tool.precondition["all_of"] if tool.precondition else ()
        before = [by_id[n.removeprefix("seen:")] for n in needs if n.startswith("seen:")]
        for one in [*before, tool]:
            if len(chosen) < count or one.id in chosen:
                chosen[one.id] = one
    kept = set(chosen)
    return [tool for tool in tools if tool.id in kept and _complete(tool, kept)]


def _complete(tool: Tool, kept: set[str]) -> bool:
    needs = tool.precondition["all_of"] if tool.precondition else ()
    return all(n.removeprefix("seen:") in kept for n in needs if n.startswith("seen:"))


def poisons(bed: Bed) -> Row:
    """How many of fifty poisoned tools get promoted on the turns that they aim at."""
    poisoned = make_poisons(bed.tools, bed.tasks, bed.held_out)
    every = [*bed.tools, *(poison.tool for poison in poisoned)]
    catalog = Catalog()
    catalog.replace([Source("testbed", every)])
    catalog.embed(bed.encoder)
    index = catalog.snapshot(bed.encoder)
    vectors = index.matrix.vectors[index.matrix.rows.argsort()]
    found = diagnose(every, list(catalog.summaries().values()), vectors)
    flagged = {finding.tool_id: finding.problem for finding in found}
    rows = []
    for ranking in bed.rankings:
        for threshold in (DEFAULT_CHOICE.threshold, ANY_SCORE):
            for gated in (False, True):
                attention = make_attention(
                    every if gated else ungated(every), bed.encoder, ranking=ranking
                )
                rows.append(
                    {"ranking": ranking, "threshold": threshold, "gated": gated}
                    | _attacked(attention, poisoned, threshold)
                )
    own = {tool.id for tool in bed.tools}
    return {
        "count": len(poisoned),
        "from_trusted": sum(poison.tool.server == TRUSTED for poison in poisoned),
        "rows": rows,
        "flagged": sum(poison.tool.id in flagged for poison in poisoned),
        "flagged_by": sorted({flagged[p.tool.id] for p in poisoned if p.tool.id in flagged}),
        "flagged_of_ours": sum(tool in own for tool in flagged),
    }


def _attacked(attention: ToolAttention, poisoned: Sequence[Poison], threshold: float) -> Row:
    """Poisons promoted on any target turn, by kind, and the share of target turns."""
    ever: dict[str, int] = {}
    hits = aimed = 0
    for poison in poisoned:
        turns = [Turn(turn.intent, turn.facts, threshold=threshold) for turn in poison.turns]
        got = sum(poison.tool.id in p.ids for p in attention.before_models(turns))
        ever[poison.kind] = ever.get(poison.kind, 0) + (got > 0)
        hits, aimed = hits + got, aimed + len(turns)
    return {"promoted": sum(ever.values()), "by_kind": ever, "share_of_turns": hits / aimed}
