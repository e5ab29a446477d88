"""A method's results remembered without a cycle: what holds them is freed with its last user."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar
from weakref import WeakMethod

F = TypeVar("F", bound=Callable[..., Any])


def remembered(method: F, size: int) -> F:
    """``lru_cache`` over a bound method, kept by its own object.

    A plain one is a cycle, and would keep an old epoch's index until the collector comes.
    """
    weak = WeakMethod(method)

    def call(*arguments: Any) -> Any:
        return weak()(*arguments)  # type: ignore[misc]  # its object is there: it asks

    return lru_cache(size)(call)  # type: ignore[return-value]
