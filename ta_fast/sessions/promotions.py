"""Promotions that were made, remembered until their calls are checked."""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from ta_fast.errors import UnknownTool
from ta_fast.types import PromotedTool, Promotion, ToolSchema, Turn

if TYPE_CHECKING:
    from ta_fast.session import Session

REMEMBERED = 100_000
"""Promotions at least; the oldest go first."""
PAGES = 100
"""In so many parts they are forgotten."""


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
    """Remembers promotions by handle.

    In pages, each a dictionary that is thrown away whole: one of all, with as many that come as
    go, is rebuilt every 250,000 promotions, and memory moves by megabytes then.
    """

    def __init__(self) -> None:
        self._page = ceil(REMEMBERED / PAGES)
        self._pages: deque[dict[str, Made]] = deque([{}], 1 + ceil(REMEMBERED / self._page))

    def __len__(self) -> int:
        """Promotions remembered."""
        return sum(map(len, self._pages))

    def remember(
        self, tenant: str, catalog: str, session: str, turn: Turn, promotion: Promotion
    ) -> None:
        """Remember a promotion; ``turn`` is as it came, without the facts of its session."""
        schemas = tuple([tool.schema for tool in promotion.tools])
        facts, epoch = frozenset(turn.facts), promotion.epoch
        made = Made(tenant, catalog, session, facts, turn.session, epoch, schemas)
        page = self._pages[-1]
        page[promotion.handle] = made
        if len(page) == self._page:
            self._pages.append({})

    def recall(self, tenant: str, handle: str) -> Made:
        """What is remembered of a tenant's promotion.

        Raises:
            UnknownTool: the tenant has none of this handle, or it is forgotten.
        """
        made = next((page[handle] for page in reversed(self._pages) if handle in page), None)
        if made is None or made.tenant != tenant:
            raise UnknownTool(f"there is no promotion {handle!r}, or it is forgotten")
        return made
