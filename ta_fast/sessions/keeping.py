"""A promotion together with the tools that its session was given before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ta_fast.schemas import SchemaLoader
from ta_fast.types import PromotedTool, Promotion


def with_kept(
    promotion: Promotion, loader: SchemaLoader, delivered: Sequence[str], tools: Sequence[str]
) -> Promotion:
    """The promotion of this turn, and what it keeps, in the order of delivery.

    Args:
        promotion: Of this turn.
        loader: Of the schemas.
        delivered: Ids of the tools that earlier turns were given.
        tools: Ids of all that this turn may call, its promoted ones among them.
    """
    before = frozenset(delivered)
    now = {tool.id: tool for tool in promotion.tools}
    if len(tools) == len(now) and before.isdisjoint(tools):
        return promotion  # nothing was kept
    kept = loader.load([i for i in tools if i not in now], promotion.epoch)
    now |= {s.id: PromotedTool(s, None, pinned=False) for s in kept if s is not None}
    together = tuple(_delivered(now[i]) if i in before else now[i] for i in tools if i in now)
    tokens = sum(tool.schema.tokens for tool in together)
    return replace(promotion, tools=together, schema_tokens=tokens)


def _delivered(tool: PromotedTool) -> PromotedTool:
    return PromotedTool(tool.schema, tool.score, tool.pinned, tool.probability, delivered=True)
