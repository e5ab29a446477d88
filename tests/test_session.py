import threading
from collections.abc import Mapping
from typing import Any

import pytest

from ta_fast import Session
from ta_fast.errors import InvalidCatalog


def test_grant_revoke_and_reach() -> None:
    """Facts hold from their grant to their revocation."""
    session = Session("s", ["role:oncall"])
    session.grant("scope:write", "scope:read")
    session.reach("plan_confirmed")
    session.revoke("scope:write", "never:granted")
    assert session.facts == {"role:oncall", "scope:read", "milestone:plan_confirmed"}


def test_predicates_follow_the_state() -> None:
    """A predicate's fact changes when the state does, and only then is it asked."""
    asked = []

    def rich(state: Mapping[str, Any]) -> bool:
        asked.append(dict(state))
        return bool(state["balance"] > 10)

    session = Session(state={"balance": 5}, predicates={"budget:left": rich})
    assert session.facts == frozenset()
    session.update(balance=50)
    assert session.facts == {"budget:left"}
    assert session.facts == {"budget:left"}
    assert asked == [{"balance": 5}, {"balance": 50}]


def test_predicate_that_raises_changes_nothing() -> None:
    """The error reaches the host; the session is as it was."""
    session = Session(
        state={"n": 1},
        predicates={"one": lambda s: s["n"] == 1, "inverse": lambda s: 1 / s["n"] > 0},
    )
    with pytest.raises(ZeroDivisionError):
        session.update(n=0)
    assert session.facts == {"one", "inverse"}
    session.update(n=-2)
    assert session.facts == frozenset()


def test_state_is_not_writable_by_predicates() -> None:
    """A predicate looks, it does not touch."""

    def meddle(state: Mapping[str, Any]) -> bool:
        state["x"] = 1  # type: ignore[index]
        return True

    with pytest.raises(TypeError):
        Session(state={}, predicates={"a": meddle})


def test_bad_fact_names_are_refused() -> None:
    """Names are checked where they come in."""
    with pytest.raises(InvalidCatalog):
        Session(facts=[""])
    session = Session()
    with pytest.raises(InvalidCatalog):
        session.grant("ok", "bad\n")
    assert session.facts == frozenset()


def test_threads_lose_no_fact() -> None:
    """Grants from many threads are all there."""
    session = Session()

    def grant(thread: int) -> None:
        for i in range(200):
            session.grant(f"f:{thread}:{i}")

    threads = [threading.Thread(target=grant, args=(t,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(session.facts) == 1600
