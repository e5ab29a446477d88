"""One request to an operation, and the reply to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from ta_fast.serve.errors import ErrorAnswer, Failure, error_body, error_headers, malformed
from ta_fast.serve.keys import Key
from ta_fast.serve.service import Service

JSON = b"application/json"

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Headers = dict[bytes, bytes]
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Call:
    """One request to an operation."""

    service: Service
    key: Key
    body: Any
    name: str
    query: bytes
    headers: Headers
    receive: Receive


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent back."""

    status: int
    body: bytes = b""
    headers: Mapping[bytes, bytes] | None = None
    media: bytes = JSON


def answer(body: msgspec.Struct, status: int = 200) -> Reply:
    """A JSON reply."""
    try:
        return Reply(status, _encode(body))
    except (OverflowError, RecursionError) as error:
        # Numbers and depths that could be read and cannot be written.
        raise malformed(f"the answer cannot be written as JSON: {error}") from error


def failure(error: Failure) -> Reply:
    """The reply to a request that failed."""
    body = error_body(error)
    return Reply(body.status, _encode(ErrorAnswer(body)), error_headers(error))


class ClientGone(Exception):  # noqa: N818 - no error, and told to nobody
    """The client hung up before its answer."""


@contextmanager
def cancelled_if_gone(receive: Receive) -> Iterator[None]:
    """Cancel what is awaited when the client hangs up: nobody computes for nobody."""
    waiter = asyncio.current_task()
    assert waiter is not None  # noqa: S101 - there is one in a coroutine

    def cancel(gone: asyncio.Future[Mapping[str, Any]]) -> None:
        if not gone.cancelled():
            waiter.cancel()

    # With the body read, the next message can only be that the client has gone.
    gone = asyncio.ensure_future(receive())
    gone.add_done_callback(cancel)
    try:
        yield
    except asyncio.CancelledError:
        if gone.done() and not gone.cancelled():
            waiter.uncancel()
            raise ClientGone from None
        raise
    finally:
        gone.remove_done_callback(cancel)
        gone.cancel()
