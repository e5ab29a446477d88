"""Sessions in Redis, shared by any number of processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from ta_fast.errors import BackendUnavailable, InvalidCatalog, InvalidConfig, InvalidTurn
from ta_fast.gate import check_fact
from ta_fast.sessions import scripts
from ta_fast.sessions.history import History
from ta_fast.sessions.pipelined import Argument, Pipelined, Script
from ta_fast.sessions.store import (
    MAX_FACTS,
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

if TYPE_CHECKING:
    from redis.asyncio import Redis

TIMEOUT = 1.0
"""Seconds that a call may take."""
MAX_HISTORY = 1 << 20
"""Bytes of one session's history as JSON."""
_REMEMBERED_REPLIES = 1024

_MALFORMED = (TypeError, ValueError, RecursionError, InvalidCatalog)

_READ = Script(scripts.READ)
_UPDATE = Script(scripts.UPDATE)
_REPLACE_HISTORY = Script(scripts.REPLACE_HISTORY)
_FORGET = Script(scripts.FORGET)


class RedisStore:
    """Sessions in one Redis (or Valkey), 6.2 or later; not in a cluster.

    Redis is taken for one whom others write to as well: what it gives is checked. When it
    goes away, calls fail within ``timeout``; when it is back, they work again. Belongs to one
    event loop. Changes are atomic, whoever makes them.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, as redis-py reads it.
        ttl: Seconds since its last use after which a session is forgotten.
        limit: Sessions of one tenant; above it, the one not used for longest is forgotten.
        timeout: Seconds that a call may take.
        prefix: Begins the name of every key.

    Raises:
        BackendUnavailable: redis-py is not installed.
        InvalidConfig: a URL that redis-py cannot read; a ttl or limit that keeps nothing.
    """

    def __init__(
        self,
        url: str,
        *,
        ttl: float = TTL,
        limit: int = SESSIONS_PER_TENANT,
        timeout: float = TIMEOUT,
        prefix: str = "ta_fast",
    ) -> None:
        check_bounds(ttl, limit)
        client = _connect(url, timeout)
        self._redis = Pipelined(client, _without_password(url), timeout)
        self._bounds = (max(1, round(ttl * 1000)), limit)
        self._prefix = prefix

    async def read(self, key: SessionKey) -> SessionState:
        """See ``SessionStore``."""
        most = (MAX_FACTS + 1, MAX_HISTORY)
        reply = await self._redis.run(_READ, self._keys(key), *self._bounds, *most)
        try:
            names, history = reply
            return SessionState(_facts(frozenset(names)), _read_history(history or b""))
        except _MALFORMED as error:
            raise self._malformed(key, error) from error

    async def read_many(self, keys: Sequence[SessionKey]) -> list[SessionState]:
        """See ``SessionStore``; one round trip, more only above ``CALLS_AT_ONCE``."""
        return await asyncio.gather(*map(self.read, keys))

    async def update(
        self,
        key: SessionKey,
        *,
        grant: Iterable[str] = (),
        revoke: Iterable[str] = (),
        reach: Iterable[str] = (),
    ) -> frozenset[str]:
        """See ``SessionStore``."""
        change = check_change(grant, revoke, reach)
        names = (*change.revoke, *change.grant)
        arguments: list[Argument] = [*self._bounds, MAX_FACTS, len(change.revoke), *names]
        reply = await self._redis.run(_UPDATE, self._keys(key), *arguments)
        if isinstance(reply, int):
            raise too_many_facts(key, reply)
        try:
            return _facts(frozenset(reply))
        except _MALFORMED as error:
            raise self._malformed(key, error) from error

    async def replace_histories(self, changes: Sequence[HistoryChange]) -> list[bool]:
        """See ``SessionStore``.

        Raises:
            InvalidTurn: a new history takes more than ``MAX_HISTORY`` bytes.
        """
        return await asyncio.gather(*map(self._replace_history, changes))

    async def _replace_history(self, change: HistoryChange) -> bool:
        key, written = change.key, _write_history(change.new)
        if len(written) > MAX_HISTORY:
            raise InvalidTurn(
                f"the tools delivered to session {key.id!r} take {len(written)} bytes to "
                f"remember; expected at most {MAX_HISTORY}"
            )
        arguments = (*self._bounds, _write_history(change.old), written)
        return bool(await self._redis.run(_REPLACE_HISTORY, self._keys(key), *arguments) == 1)

    async def forget(self, key: SessionKey) -> None:
        """See ``SessionStore``."""
        await self._redis.run(_FORGET, self._keys(key))

    async def aclose(self) -> None:
        """See ``SessionStore``."""
        await self._redis.aclose()

    def _keys(self, key: SessionKey) -> tuple[str, str]:
        check_key(key)
        # Quoted, a name holds no colon: no two pairs of names give the same key.
        tenant = quote(key.tenant, safe="")
        session = quote(key.id, safe="")
        return f"{self._prefix}:session:{tenant}:{session}", f"{self._prefix}:sessions:{tenant}"

    def _malformed(self, key: SessionKey, error: Exception) -> BackendUnavailable:
        return BackendUnavailable(
            f"the session store holds no session under {self._keys(key)[0]!r}: {error}; "
            "forget the session to begin it again"
        )


def _connect(url: str, timeout: float) -> Redis:
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        message = "sessions in Redis need redis-py; install it with: pip install 'ta-fast[redis]'"
        raise BackendUnavailable(message) from error
    try:
        client = Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,  # Pipelined has one for everything
            socket_connect_timeout=timeout,
        )
    except ValueError as error:
        raise InvalidConfig(f"{_without_password(url)!r} is no URL of a Redis: {error}") from error
    if client.connection_pool.connection_kwargs.get("decode_responses"):
        raise InvalidConfig("a session store's URL asks for decode_responses; expected bytes")
    return client


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    # A password may also stand in the query.
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@lru_cache(maxsize=_REMEMBERED_REPLIES)
def _facts(names: frozenset[bytes]) -> frozenset[str]:
    """Facts from the fields of a session's hash; the same object for the same facts."""
    return intern_facts(frozenset(check_fact(name.decode()) for name in names if name))


def _write_history(history: History) -> bytes:
    if history == History():
        return b""
    return json.dumps([history.cuts, *history.tools], ensure_ascii=False).encode()


def _read_history(written: bytes) -> History:
    if not written:
        return History()
    value: Any = json.loads(written)
    match value:
        case [int(cuts), *tools] if all(isinstance(tool, str) for tool in tools):
            history = History(tuple(tools), cuts)
            # Histories are compared by their bytes, so there must be one way to write each.
            if _write_history(history) == written:
                return history
    raise ValueError(f"a history is {written[:80]!r}; expected [cuts, tool, ...]")
