"""Sessions in this process's memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic

from ta_fast.sessions.store import (
    MAX_FACTS,
    NOTHING,
    SESSIONS_PER_TENANT,
    TTL,
    HistoryChange,
    SessionKey,
    SessionState,
    check_bounds,
    check_change,
    check_key,
    intern_facts,
    too_many_facts,
)

_SWEEPS_PER_TTL = 4


@dataclass(slots=True, eq=False)
class _Entry:
    state: SessionState
    used: float


class MemoryStore:
    """Sessions in memory, gone with the process; for any threads and event loops.

    Args:
        ttl: Seconds since its last use after which a session is forgotten.
        limit: Sessions of one tenant; above it, the one not used for longest is forgotten. So
            no tenant pushes out another's.
        clock: Gives seconds.

    Raises:
        InvalidConfig: a ttl or limit that keeps nothing.
    """

    def __init__(
        self,
        *,
        ttl: float = TTL,
        limit: int = SESSIONS_PER_TENANT,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        check_bounds(ttl, limit)
        self._ttl = ttl
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        # Of each tenant, in the order of last use.
        self._tenants: dict[str, OrderedDict[str, _Entry]] = {}
        self._sweep_at = clock() + ttl / _SWEEPS_PER_TTL

    def __len__(self) -> int:
        """Sessions held, those included that have expired but take memory still."""
        with self._lock:
            return sum(map(len, self._tenants.values()))

    async def read(self, key: SessionKey) -> SessionState:
        """See ``SessionStore``; about half a microsecond."""
        with self._lock:
            return self._use(key, self._clock())

    async def read_many(self, keys: Sequence[SessionKey]) -> list[SessionState]:
        """See ``SessionStore``."""
        with self._lock:
            now = self._clock()
            return [self._use(key, now) for key in keys]

    async def update(
        self,
        key: SessionKey,
        *,
        grant: Iterable[str] = (),
        revoke: Iterable[str] = (),
        reach: Iterable[str] = (),
    ) -> frozenset[str]:
        """See ``SessionStore``."""
        check_key(key)
        change = check_change(grant, revoke, reach)
        with self._lock:
            now = self._clock()
            state = self._use(key, now)
            facts = intern_facts((state.facts - change.revoke) | change.grant)
            if len(facts) > MAX_FACTS:
                raise too_many_facts(key, len(facts))
            self._set(key, SessionState(facts, state.history), now)
            return facts

    async def replace_histories(self, changes: Sequence[HistoryChange]) -> list[bool]:
        """See ``SessionStore``."""
        for change in changes:
            check_key(change.key)
        with self._lock:
            now = self._clock()
            return [self._replace_history(change, now) for change in changes]

    def _replace_history(self, change: HistoryChange, now: float) -> bool:
        state = self._use(change.key, now)
        if state.history is not change.old and state.history != change.old:
            return False
        self._set(change.key, SessionState(state.facts, change.new), now)
        return True

    async def forget(self, key: SessionKey) -> None:
        """See ``SessionStore``."""
        with self._lock:
            self._remove(key)

    async def aclose(self) -> None:
        """See ``SessionStore``; nothing is held."""

    def _use(self, key: SessionKey, now: float) -> SessionState:
        tenant, session = key
        sessions = self._tenants.get(tenant)
        if sessions is None or (entry := sessions.get(session)) is None:
            return NOTHING
        if entry.used + self._ttl < now:
            self._remove(key)
            return NOTHING
        entry.used = now
        sessions.move_to_end(session)
        return entry.state

    def _set(self, key: SessionKey, state: SessionState, now: float) -> None:
        """Put a state in place; the session has been used just now, if it was there."""
        if now >= self._sweep_at:
            self._sweep(now)
        if state == NOTHING:
            self._remove(key)
            return
        sessions = self._tenants.setdefault(key.tenant, OrderedDict())
        if (entry := sessions.get(key.id)) is not None:
            entry.state = state
            return
        if len(sessions) >= self._limit:
            sessions.popitem(last=False)
        sessions[key.id] = _Entry(state, now)

    def _remove(self, key: SessionKey) -> None:
        sessions = self._tenants.get(key.tenant, OrderedDict())
        sessions.pop(key.id, None)
        if not sessions:
            self._tenants.pop(key.tenant, None)

    def _sweep(self, now: float) -> None:
        """Free the memory of all that has expired."""
        self._sweep_at = now + self._ttl / _SWEEPS_PER_TTL
        for tenant, sessions in list(self._tenants.items()):
            while sessions and next(iter(sessions.values())).used + self._ttl < now:
                sessions.popitem(last=False)
            if not sessions:
                del self._tenants[tenant]
