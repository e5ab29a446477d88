"""Sessions of a gateway: the facts of many agents, and the tools each was delivered."""

from ta_fast.sessions.history import MAX_DELIVERED, History
from ta_fast.sessions.memory import MemoryStore
from ta_fast.sessions.redis_store import RedisStore
from ta_fast.sessions.store import (
    MAX_FACTS,
    SESSIONS_PER_TENANT,
    TTL,
    SessionKey,
    SessionState,
    SessionStore,
    deliver,
)

__all__ = [
    "MAX_DELIVERED",
    "MAX_FACTS",
    "SESSIONS_PER_TENANT",
    "TTL",
    "History",
    "MemoryStore",
    "RedisStore",
    "SessionKey",
    "SessionState",
    "SessionStore",
    "deliver",
]
