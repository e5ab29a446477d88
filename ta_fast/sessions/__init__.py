"""Sessions of a gateway: facts of many agents, the tools each was delivered, and promotions."""

from ta_fast.sessions.history import MAX_DELIVERED, History
from ta_fast.sessions.keeping import Keeper, Promoted
from ta_fast.sessions.memory import MemoryStore
from ta_fast.sessions.promotions import Promotions
from ta_fast.sessions.redis_store import RedisStore
from ta_fast.sessions.store import (
    MAX_FACTS,
    NOTHING,
    SESSIONS_PER_TENANT,
    TTL,
    Addition,
    HistoryChange,
    SessionKey,
    SessionState,
    SessionStore,
    check_key,
    deliver,
)

__all__ = [
    "MAX_DELIVERED",
    "MAX_FACTS",
    "NOTHING",
    "SESSIONS_PER_TENANT",
    "TTL",
    "Addition",
    "History",
    "HistoryChange",
    "Keeper",
    "MemoryStore",
    "Promoted",
    "Promotions",
    "RedisStore",
    "SessionKey",
    "SessionState",
    "SessionStore",
    "check_key",
    "deliver",
]
