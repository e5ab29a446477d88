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
        additions = [
            Addition(
                turn.key,
                turn.history,
                [tool.schema.id for tool in turn.promotion.tools],
                self._permitted(turn.allowed.tobytes()),
            )
            for turn in turns
        ]
        histories = await deliver(store, additions, limit)
        pairs = list(zip(turns, histories, strict=True))
        try:
            made = [_tools_of(*pair, self._tools.__getitem__) for pair in pairs]
        except KeyError:  # one is not loaded yet, and its source may be slow
            ids = {tool_id for history in histories for tool_id in history.tools}
            await asyncio.to_thread(self._load, list(ids.difference(self._tools)))
            made = [_tools_of(*pair, self._tools.get) for pair in pairs]
        return list(map(_extended, turns, made))

    def _permits(self, allowed: bytes) -> Callable[[str], bool]:
        return _Permitted(self._classes, int.from_bytes(allowed, sys.byteorder)).__getitem__

    def _load(self, ids: Sequence[str]) -> None:
        """Load tools, so far as they can be loaded."""
        for schema in self._loader.load(ids, self._epoch):
            if schema is not None:
                self._tools[schema.id] = PromotedTool(schema, None, pinned=False, delivered=True)


def _tools_of(
    turn: Promoted, history: History, known: Callable[[str], PromotedTool | None]
) -> list[PromotedTool | None]:
    """A turn's tools, those included that its session keeps; None for what is not known."""
    ids, before = history.tools, turn.history.tools
    tools = list(map(known, ids))
    for tool in turn.promotion.tools:
        tool_id = tool.schema.id
        tools[ids.index(tool_id)] = _delivered(tool) if tool_id in before else tool
    return tools


def _extended(turn: Promoted, tools: list[PromotedTool | None]) -> Promotion:
    """A turn's promotion with other tools, without those that their source does not have."""
    made, found = turn.promotion, tuple(filter(None, tools))
    return Promotion(
        made.handle,
        made.turn,
        made.epoch,
        found,
        made.allowed,
        made.gated,
        made.pool_tokens,
        sum([tool.schema.tokens for tool in found]),
        made.seconds,
        made.fit,
        made.abstained,
    )


def _delivered(tool: PromotedTool) -> PromotedTool:
    return PromotedTool(tool.schema, tool.score, tool.pinned, tool.probability, delivered=True)
