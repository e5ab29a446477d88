"""Which tools a session was delivered, in the order of their first appearance.

Providers cache a prompt up to the first byte that differs, and tools stand at its front. So
a delivered list should only grow at its end; and it must not grow for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

MAX_DELIVERED = 64
"""Tools in a delivered list, unless one turn alone is promoted more."""


class History(NamedTuple):
    """The list delivered last.

    Attributes:
        tools: Ids, in the order of their first appearance since the last boundary.
        cuts: How often the list did not just grow at its end, and broke the prompt cache.
    """

    tools: tuple[str, ...] = ()
    cuts: int = 0

    def extended(
        self,
        promoted: Collection[str],
        permitted: Callable[[str], bool],
        limit: int = MAX_DELIVERED,
    ) -> History:
        """The list for a turn: what was there, and what is new at its end.

        A tool that is permitted no more is gone at once. A list that would pass the limit is
        cut down to what this turn is promoted: one break of the cache, and room to grow again.

        Args:
            promoted: Ids of this turn's promoted tools; all of them will be in the list.
            permitted: Whether the catalog still has a tool and the state allows it.
            limit: Tools in the list; more only if as many are promoted.
        """
        kept = dict.fromkeys(filter(permitted, self.tools))
        wanted = dict.fromkeys(promoted)
        tools = tuple(kept | wanted)
        if len(tools) > limit:
            # In the old order, so that as much of the front as can be stays the same.
            tools = tuple(tool for tool in tools if tool in wanted)
        if tools == self.tools:
            return self
        grew = tools[: len(self.tools)] == self.tools
        return History(tools, self.cuts + (not grew))
