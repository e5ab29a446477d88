"""Promotions that were made, remembered until their calls are checked."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from ta_fast.errors import UnknownTool
from ta_fast.types import PromotedTool, Promotion, ToolSchema, Turn

if TYPE_CHECKING:
    from ta_fast.session import Session

REMEMBERED = 100_000
"""Promotions; the oldest go first."""


class Made(NamedTuple):
    """What is remembered of a promotion: no more than its checks need, as there are many.

    Attributes:
        tenant, catalog, session: Whose it is, of what, and its session's id in the store.
        facts: The turn's own, without those that its session had then.
        here: The turn's session in this process, if any.
        epoch, schemas: Of the promotion.
    """

    tenant: str
    catalog: str
    session: str
    facts: frozenset[str]
    here: Session | None
    epoch: int
    schemas: tuple[ToolSchema, ...]

    def promotion(self, handle: str, facts: frozenset[str] = frozenset()) -> Promotion:
        """The promotion as far as its calls are checked, with what its session's facts are now."""
        turn = Turn("", self.facts | facts, self.here)
        tools = tuple(PromotedTool(schema, None, pinned=False) for schema in self.schemas)
        return Promotion(handle, turn, self.epoch, tools, 0, 0, 0, 0, {})


class Promotions:
    """Remembers promotions by handle."""

    def __init__(self) -> None:
        self._made: OrderedDict[str, Made] = OrderedDict()

    def remember(
        self, tenant: str, catalog: str, session: str, turn: Turn, promotion: Promotion
    ) -> None:
        """Remember a promotion; ``turn`` is as it came, without the facts of its session."""
        schemas = tuple([tool.schema for tool in promotion.tools])
        facts, epoch = frozenset(turn.facts), promotion.epoch
        made = Made(tenant, catalog, session, facts, turn.session, epoch, schemas)
        self._made[promotion.handle] = made
        if len(self._made) > REMEMBERED:
            self._made.popitem(last=False)

    def recall(self, tenant: str, handle: str) -> Made:
        """What is remembered of a tenant's promotion.

        Raises:
            UnknownTool: the tenant has none of this handle, or it is forgotten.
        """
        made = self._made.get(handle)
        if made is None or made.tenant != tenant:
            raise UnknownTool(f"there is no promotion {handle!r}, or it is forgotten")
        return made
