from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from ta_fast.evaluate.testbed.caches import Billed, CacheRule, PrefixCache, common_prefix
from ta_fast.evaluate.testbed.conversations import (
    WAYS,
    bill,
    long_sessions,
    session_requests,
)
from ta_fast.evaluate.testbed.exposure import ArrayTokens
from ta_fast.evaluate.testbed.measures import Permits
from ta_fast.evaluate.testbed.methods import ANY_SCORE, Choice, make_attention
from ta_fast.evaluate.testbed.tasks import make_tasks
from ta_fast.evaluate.testbed.tools import make_tools
from ta_fast.testing import HashingEncoder
from ta_fast.tokens import count_tokens
from ta_fast.types import I32

RULE = CacheRule(minimum=4, block=2, read=0.1, write=1.25, ttl=2)
TOOLS = make_tools()
ARRAYS = ArrayTokens(TOOLS)
SESSIONS = long_sessions(make_tasks(TOOLS, {"single": 0, "several": 0, "long": 6}), 1)
CHOICE = Choice(3, ANY_SCORE)


def ids(*tokens: int) -> I32:
    """A request."""
    return np.array(tokens, dtype=np.int32)


def test_a_growing_prompt_reads_what_it_sent_before() -> None:
    """Seven tokens: six are written. Nine that begin alike: six are read, two written."""
    cache = PrefixCache(RULE)
    assert cache.request(ids(1, 2, 3, 4, 5, 6, 7)) == Billed(7, 0, 6, 6 * 1.25 + 1)
    second = cache.request(ids(1, 2, 3, 4, 5, 6, 7, 8, 9))
    assert (second.read, second.written) == (6, 2)
    assert second.price == pytest.approx(0.6 + 2.5 + 1)


def test_only_whole_blocks_of_the_common_prefix_are_read() -> None:
    """Five tokens in common are two blocks; the rest is new."""
    cache = PrefixCache(RULE)
    cache.request(ids(1, 2, 3, 4, 5, 6))
    second = cache.request(ids(1, 2, 3, 4, 5, 0))
    assert (second.read, second.written) == (4, 2)


def test_below_the_least_length_nothing_is_kept_or_read() -> None:
    """Three tokens are not cached; three in common are not read."""
    cache = PrefixCache(RULE)
    assert cache.request(ids(1, 2, 3)) == Billed(3, 0, 0, 3)
    assert cache.request(ids(1, 2, 3)).read == 0
    cache.request(ids(1, 2, 3, 4))
    assert cache.request(ids(1, 2, 3, 0)).read == 0


def test_a_prefix_dies_when_it_is_not_used() -> None:
    """It lives for two further requests, and each use lengthens its life."""
    ours, other = ids(1, 2, 3, 4), ids(9, 9, 9, 9)
    cache = PrefixCache(RULE)
    cache.request(ours)
    cache.request(other)
    assert cache.request(ours).read == 4  # used: lives on
    cache.request(other)
    assert cache.request(ours).read == 4
    cache.request(other)
    cache.request(ids(8, 8, 8, 8))
    assert cache.request(ours).read == 0


def test_an_older_branch_is_still_there() -> None:
    """A prompt that leaves the last one's path reads what it shares with an older one."""
    cache = PrefixCache(RULE)
    cache.request(ids(1, 2, 3, 4, 5, 6))
    cache.request(ids(1, 2, 3, 4, 7, 8))
    assert cache.request(ids(1, 2, 3, 4, 5, 6)).read == 6


def test_common_prefix() -> None:
    """Up to the first difference, or the shorter one's end."""
    assert common_prefix(ids(1, 2, 3), ids(1, 2, 4)) == 2
    assert common_prefix(ids(1, 2), ids(1, 2, 4)) == 2
    assert common_prefix(ids(5), ids(6)) == 0


@pytest.fixture(scope="module")
def requests() -> dict[str, list[list[list[str]]]]:
    """The requests of one session of 30 turns, by delivery."""
    attention = make_attention(TOOLS, HashingEncoder(256))
    return {
        name: list(session_requests(way, SESSIONS, attention, ARRAYS, Permits(TOOLS), CHOICE))
        for name, way in WAYS.items()
    }


def test_requests_hold_what_the_delivery_says(
    requests: dict[str, list[list[list[str]]]],
) -> None:
    """The tools array: all, the promoted, or always the same; the user's words come last."""
    for way, sessions in requests.items():
        (session,) = sessions
        assert len(session) == 30
        assert [request[-1] for request in session] == [turn.intent for turn in SESSIONS[0].turns]
        arrays = {request[0] for request in session}
        assert (len(arrays) == 1) == (not way.startswith("filter"))
    assert requests["all schemas"][0][0][0] == ARRAYS.text(tuple(ARRAYS.texts))
    assert "defer_loading" not in requests["reference"][0][0][0]


def test_one_pool_stays_for_the_session(requests: dict[str, list[list[list[str]]]]) -> None:
    """The state changes the pool; a host may keep the first one, and nothing else differs."""
    (changing,), (kept,) = requests["filter"], requests["filter, one pool"]
    assert len({request[1] for request in changing}) > 1
    assert {request[1] for request in kept} == {changing[0][1]}
    assert [r[:1] + r[2:] for r in changing] == [r[:1] + r[2:] for r in kept]


def test_a_session_list_keeps_what_was_promoted(
    requests: dict[str, list[list[list[str]]]],
) -> None:
    """Each array holds the turn's promoted tools, and at most as many as the limit says."""
    (alone,), (listed,) = requests["filter"], requests["filter, session list, one pool"]
    longer = 0
    for mine, theirs in zip(alone, listed, strict=True):
        names, kept = ({tool["name"] for tool in json.loads(each[0])} for each in (mine, theirs))
        assert names <= kept
        assert len(kept) <= WAYS["filter, session list, one pool"].limit
        longer += len(kept) > len(names)
    assert longer > 20


def test_messages_only_grow(requests: dict[str, list[list[list[str]]]]) -> None:
    """A request begins with the messages of the one before, whatever the delivery."""
    for (session,) in requests.values():
        for before, now in pairwise(session):
            assert now[2 : len(before)] == before[2:]


def test_new_only_defines_a_tool_once(requests: dict[str, list[list[list[str]]]]) -> None:
    """Every promotion's definitions in "frozen", each definition once in "new only"."""
    every, once = ("\n".join(requests[way][0][-1]) for way in ("frozen", "frozen, new only"))
    names = [name for name in ARRAYS.texts if f'\\"name\\":\\"{name}\\"' in every]
    assert len(names) > 10
    assert all(once.count(f'\\"name\\":\\"{name}\\"') == 1 for name in names)
    assert sum(every.count(f'\\"name\\":\\"{name}\\"') for name in names) == 30 * CHOICE.top_k


def test_bill_adds_up(requests: dict[str, list[list[list[str]]]]) -> None:
    """Without a cache the price is the tokens; a stable array is read, a changing one is not."""
    for way in WAYS:
        never = bill(requests[way], CacheRule(minimum=10**9))
        assert never.billed == never.tokens
        assert never.hit == 0
    last = requests["all schemas"][0][-1]
    found = bill(requests["all schemas"], CacheRule())
    assert found.last == sum(map(count_tokens, last))
    assert found.hit > 0.9
    assert bill(requests["filter"], CacheRule()).hit < 0.1
