"""What a gateway remembers of its sessions, and what keeps it.

A session is named by its tenant and its id. It begins with its first change and is forgotten
when nobody has used it for the store's ttl, or when its tenant uses too many others. A session
that is forgotten, or never was, has no facts: what *restricts* an agent, like
``mode:read_only``, belongs into every turn's own facts, where it cannot expire.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from math import inf
from typing import NamedTuple, Protocol

from ta_fast.errors import InvalidConfig, InvalidTurn, Overloaded
from ta_fast.gate import check_fact
from ta_fast.sessions.history import MAX_DELIVERED, History

MAX_FACTS = 1024
"""Facts of one session."""
MAX_NAME = 256
"""Characters of a tenant's name or a session's id."""
SESSIONS_PER_TENANT = 100_000
TTL = 3600.0
"""Seconds since its last use after which a session is forgotten."""
_REMEMBERED_VALUES = 1024
_ATTEMPTS = 64


class SessionKey(NamedTuple):
    """Names a session: ids of different tenants have nothing to do with each other."""

    tenant: str
    id: str


class SessionState(NamedTuple):
    """What is known of a session.

    ``facts`` is one object for equal facts, so that looking up their allowed classes costs
    next to nothing.
    """

    facts: frozenset[str] = frozenset()
    history: History = History()


NOTHING = SessionState()
"""The state of a session that is not known."""


class Change(NamedTuple):
    """Facts to set and to withdraw, checked; no fact is in both."""

    grant: frozenset[str]
    revoke: frozenset[str]


class HistoryChange(NamedTuple):
    """The history of a session as it was read, and as it is to be."""

    key: SessionKey
    old: History
    new: History


class Addition(NamedTuple):
    """What one turn adds to its session's list.

    Attributes:
        key: Its session.
        history: As the session was read; that of the store counts if it has changed.
        promoted: Ids of the turn's promoted tools.
        permitted: Whether the catalog still has a tool and the state allows it.
    """

    key: SessionKey
    history: History
    promoted: Collection[str]
    permitted: Callable[[str], bool]


class SessionStore(Protocol):
    """Keeps sessions. Every method is atomic, and every use starts a session's ttl again.

    A key that can name no session is refused with ``InvalidTurn``, by a change at the latest.
    All raise ``BackendUnavailable`` when the store cannot be reached in time. A change is then
    made or not made; it is safe to make it again.
    """

    async def read(self, key: SessionKey) -> SessionState:
        """What is known of a session."""
        ...

    async def read_many(self, keys: Sequence[SessionKey]) -> list[SessionState]:
        """The same of several sessions, in order; each is read atomically, not all at once."""
        ...

    async def update(
        self,
        key: SessionKey,
        *,
        grant: Iterable[str] = (),
        revoke: Iterable[str] = (),
        reach: Iterable[str] = (),
    ) -> frozenset[str]:
        """Change a session's facts; it begins if it is not known.

        Args:
            key: The session.
            grant: Facts that hold from now on; those that a tool ``provides`` as well.
            revoke: Facts that hold no more, even if they are granted here too.
            reach: Milestones; each grants ``milestone:<name>``.

        Returns:
            The facts that hold now.

        Raises:
            InvalidCatalog: a name that can name no fact.
            InvalidTurn: the session would have more than ``MAX_FACTS``. Nothing was changed.
        """
        ...

    async def replace_histories(self, changes: Sequence[HistoryChange]) -> list[bool]:
        """Set each session's history if it is still the old one; says of each whether it was."""
        ...

    async def forget(self, key: SessionKey) -> None:
        """Forget a session."""
        ...

    async def aclose(self) -> None:
        """Let go of what the store holds; calls under way end with an error."""
        ...


async def deliver(
    store: SessionStore, turns: Sequence[Addition], limit: int = MAX_DELIVERED
) -> list[History]:
    """The lists of tools to deliver with some turns, remembered; see ``History.extended``.

    Turns of one session follow each other, in the order given.

    Args:
        store: Where the lists are remembered.
        turns: What each of them adds.
        limit: Tools in a list.

    Raises:
        Overloaded: other turns of the same session kept changing it.
    """
    delivered = [turn.history for turn in turns]
    histories = {turn.key: turn.history for turn in turns}
    places: dict[SessionKey, list[int]] = {}
    for i, turn in enumerate(turns):
        places.setdefault(turn.key, []).append(i)
    for _ in range(_ATTEMPTS):
        changes = []
        for key, of_session in places.items():
            new = old = histories[key]
            for i in of_session:
                new = delivered[i] = new.extended(turns[i].promoted, turns[i].permitted, limit)
            if new is not old:
                changes.append(HistoryChange(key, old, new))
        done = await store.replace_histories(changes)
        places = {c.key: places[c.key] for c, ok in zip(changes, done, strict=True) if not ok}
        if not places:
            return delivered
        states = await store.read_many(list(places))
        histories = {key: state.history for key, state in zip(places, states, strict=True)}
    key = next(iter(places))
    raise Overloaded(f"session {key.id!r} has too many turns at once; its list kept changing")


def check_key(key: SessionKey) -> None:
    """Refuse a key that can name no session.

    Raises:
        InvalidTurn: an empty id; a name that is too long or not printable.
    """
    if not key.id:
        raise InvalidTurn("a session's id is empty; expected printable text")
    for what, name in (("tenant", key.tenant), ("session's id", key.id)):
        if len(name) > MAX_NAME or not name.isprintable():
            raise InvalidTurn(
                f"a {what} of {len(name)} characters that begins {name[:20]!r}; "
                f"expected at most {MAX_NAME}, all printable"
            )


def check_bounds(ttl: float, limit: int) -> None:
    """Refuse bounds that would keep nothing, or everything for ever.

    Raises:
        InvalidConfig: a ttl that is not positive and finite, a limit below 1.
    """
    if not 0 < ttl < inf or limit < 1:
        raise InvalidConfig(
            f"sessions with ttl {ttl} and limit {limit}; expected seconds above 0 and 1 or more"
        )


def check_change(grant: Iterable[str], revoke: Iterable[str], reach: Iterable[str]) -> Change:
    """The change that a host asks for.

    Raises:
        InvalidCatalog: a name that can name no fact.
    """
    revoked = frozenset(map(check_fact, revoke))
    milestones = (f"milestone:{name}" for name in reach)
    granted = frozenset(map(check_fact, (*grant, *milestones)))
    return Change(granted - revoked, revoked)


def too_many_facts(key: SessionKey, found: int) -> InvalidTurn:
    """The error of a session that would have more than ``MAX_FACTS``."""
    return InvalidTurn(f"session {key.id!r} would have {found} facts; expected at most {MAX_FACTS}")


@lru_cache(maxsize=_REMEMBERED_VALUES)
def intern_facts(facts: frozenset[str]) -> frozenset[str]:
    """The same object for equal facts: its hash is known, and it is compared by identity."""
    return facts
