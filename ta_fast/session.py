"""The facts of one session, as its host and the results of its tools set them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from ta_fast.gate import check_fact

Predicate: TypeAlias = Callable[[Mapping[str, Any]], bool]
"""Says from a session's state whether a fact holds."""


class Session:
    """The facts of one session; thread-safe.

    A fact holds because it was granted, or because the predicate registered under its
    name says so. Predicates are asked when the state changes, not on every turn; one
    that raises leaves the session as it was and the error reaches the caller.

    Args:
        id: The session's name in the event log.
        facts: Facts that hold from the start.
        state: What the predicates look at.
        predicates: Fact name to predicate over the state.

    Raises:
        InvalidCatalog: a name that can name no fact.
    """

    def __init__(
        self,
        id: str = "",  # noqa: A002 - the field's own word
        facts: Iterable[str] = (),
        state: Mapping[str, Any] | None = None,
        predicates: Mapping[str, Predicate] | None = None,
    ) -> None:
        self.id = id
        self._lock = threading.Lock()
        self._predicates = {check_fact(name): p for name, p in (predicates or {}).items()}
        self._granted = frozenset(check_fact(fact) for fact in facts)
        self._state = dict(state or {})
        self._derived = self._ask(self._state)

    def _ask(self, state: Mapping[str, Any]) -> frozenset[str]:
        view = MappingProxyType(state)
        return frozenset(name for name, holds in self._predicates.items() if holds(view))

    @property
    def facts(self) -> frozenset[str]:
        """The facts that hold now."""
        with self._lock:
            return self._granted | self._derived

    def grant(self, *facts: str) -> None:
        """Let facts hold from now on."""
        checked = frozenset(check_fact(fact) for fact in facts)
        with self._lock:
            self._granted |= checked

    def revoke(self, *facts: str) -> None:
        """Withdraw granted facts; a predicate's fact changes only with the state."""
        with self._lock:
            self._granted -= frozenset(facts)

    def reach(self, milestone: str) -> None:
        """Grant ``milestone:<name>``."""
        self.grant(f"milestone:{milestone}")

    def update(self, **state: Any) -> None:
        """Change the state and ask every predicate again."""
        with self._lock:
            changed = {**self._state, **state}
            self._derived = self._ask(changed)
            self._state = changed
