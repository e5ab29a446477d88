"""Promotions together with the tools that their sessions were given before."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ta_fast.catalog import ToolIndex
from ta_fast.remembered import remembered
from ta_fast.schemas import SchemaLoader
from ta_fast.sessions.history import History
from ta_fast.sessions.store import Addition, SessionKey, SessionStore, deliver
from ta_fast.types import U32, PromotedTool, Promotion

REMEMBERED_STATES = 128


class Promoted(NamedTuple):
    """A turn of a session that was promoted tools.

    Attributes:
        promotion: Its promotion.
        allowed: Its allowed gate classes.
        key: Its session.
        history: As the session was read.
    """

    promotion: Promotion
    allowed: U32
    key: SessionKey
    history: History


class _Permitted(dict[str, bool]):
    """Whether one epoch has a tool and one state allows it; worked out when first asked."""

    def __init__(self, classes: Mapping[str, int], allowed: int) -> None:
        self._classes = classes
        self._allowed = allowed

    def __missing__(self, tool: str) -> bool:
        gate_class = self._classes.get(tool)
        permits = self[tool] = gate_class is not None and self._allowed >> gate_class & 1 == 1
        return permits


class Keeper:
    """Keeps tools of one epoch in sessions.

    A kept tool is one object for all promotions that hold it.

    Args:
        index: The epoch's tools.
        loader: Of their schemas.
    """

    def __init__(self, index: ToolIndex, loader: SchemaLoader) -> None:
        self._epoch = index.epoch
        self._loader = loader
        self._classes = dict(zip(index.ids, index.classes.tolist(), strict=True))
        self._permitted = remembered(self._permits, REMEMBERED_STATES)
        self._tools: dict[str, PromotedTool] = {}

    async def keep(
        self, store: SessionStore, turns: Sequence[Promoted], limit: int
    ) -> list[Promotion]:
        """The turns' promotions, each with what its session keeps, in the order of delivery.

        What is delivered is remembered; see ``deliver``, and for what it raises.

        Args:
            store: Where it is remembered.
            turns: Of any sessions.
            limit: Tools that a session keeps.
        """
        promoted = [{tool.schema.id: tool for tool in turn.promotion.tools} for turn in turns]
        additions = [
            Addition(turn.key, turn.history, ids, self._permitted(turn.allowed.tobytes()))
            for turn, ids in zip(turns, promoted, strict=True)
        ]
        histories = await deliver(store, additions, limit)
        lacking = set().union(*[history.tools for history in histories]).difference(self._tools)
        if lacking:  # their source may be slow
            await asyncio.to_thread(self._load, list(lacking))
        return [self._extended(*each) for each in zip(turns, promoted, histories, strict=True)]

    def _permits(self, allowed: bytes) -> Callable[[str], bool]:
        return _Permitted(self._classes, int.from_bytes(allowed, sys.byteorder)).__getitem__

    def _load(self, ids: Sequence[str]) -> None:
        """Load tools, so far as they can be loaded."""
        for schema in self._loader.load(ids, self._epoch):
            if schema is not None:
                self._tools[schema.id] = PromotedTool(schema, None, pinned=False, delivered=True)

    def _extended(
        self, turn: Promoted, promoted: dict[str, PromotedTool], history: History
    ) -> Promotion:
        """One turn's promotion, with what is kept of its session's list."""
        made, before = turn.promotion, frozenset(turn.history.tools)
        if len(history.tools) == len(promoted) and not before:
            return made
        for tool_id in before.intersection(promoted):
            promoted[tool_id] = _delivered(promoted[tool_id])
        # None for one that its source does not have any more, or that does not answer.
        found = map(promoted.get, history.tools, map(self._tools.get, history.tools))
        tools = tuple([tool for tool in found if tool is not None])
        return Promotion(
            made.handle,
            made.turn,
            made.epoch,
            tools,
            made.allowed,
            made.gated,
            made.pool_tokens,
            sum([tool.schema.tokens for tool in tools]),
            made.seconds,
            made.fit,
            made.abstained,
        )


def _delivered(tool: PromotedTool) -> PromotedTool:
    return PromotedTool(tool.schema, tool.score, tool.pinned, tool.probability, delivered=True)
