"""The one table of what a client is told when a request fails."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from types import MappingProxyType

import msgspec

from ta_fast.errors import BackendUnavailable, Overloaded, TaFastError

STATUSES: Mapping[int, str] = MappingProxyType(
    {
        400: "MalformedRequest: no JSON, or options that do not go together",
        401: "Unauthorized: no key, or one that is not known",
        403: "Forbidden: the key does not allow it",
        404: "UnknownTool, NotFound: no such tool, promotion, catalog or path",
        405: "MethodNotAllowed",
        408: "RequestTimeout: the body did not arrive in time",
        409: "ToolNotPromoted: the tool exists and is allowed, but was not promoted",
        413: "TooLarge: the body is over the limit",
        422: "InvalidTurn, InvalidArguments, InvalidRequest: JSON that is not as described",
        429: "Overloaded: too many turns are waiting; Retry-After says when to come again",
        500: "InternalError: a fault of the server, which its log tells of",
        502: "SchemaUnavailable: a full schema could not be loaded",
        503: "BackendUnavailable: starting, draining, or something needed is absent",
        504: "DeadlineExceeded: no answer in time",
    }
)
"""What each status means; the OpenAPI document takes its words from here."""

RETRY_AFTER = 1.0
"""Seconds, where the error itself names none."""


class Refused(Exception):  # noqa: N818 - named by what went wrong, as in ta_fast.errors
    """A request that fails before ta_fast sees it; never leaves the transport.

    Attributes:
        status: One of ``STATUSES``.
        name: The error's name on the wire.
        headers: To be sent along.
    """

    def __init__(
        self, status: int, name: str, message: str, headers: Mapping[bytes, bytes] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.name = name
        self.headers = headers or {}


class ErrorBody(msgspec.Struct, frozen=True):
    """Why there is no answer: the error's name, and what was found and expected."""

    type: str
    message: str
    status: int


class ErrorAnswer(msgspec.Struct, frozen=True):
    """The body of every answer that is an error."""

    error: ErrorBody


Failure = TaFastError | Refused | msgspec.MsgspecError


def error_body(error: Failure) -> ErrorBody:
    """An error as it is told to a client."""
    if isinstance(error, msgspec.ValidationError):
        return ErrorBody("InvalidRequest", str(error), 422)
    if isinstance(error, msgspec.MsgspecError):
        return ErrorBody("MalformedRequest", f"the body is no JSON: {error}", 400)
    name = error.name if isinstance(error, Refused) else type(error).__name__
    return ErrorBody(name, str(error), error.status)


def error_headers(error: Failure) -> Mapping[bytes, bytes]:
    """The headers that go with it."""
    if isinstance(error, Overloaded | BackendUnavailable):
        return {b"retry-after": retry_after(getattr(error, "retry_after", RETRY_AFTER))}
    return error.headers if isinstance(error, Refused) else {}


def retry_after(seconds: float) -> bytes:
    """Whole seconds, rounded up."""
    return b"%d" % max(1, ceil(seconds))


def malformed(message: str) -> Refused:
    """A request that cannot be read."""
    return Refused(400, "MalformedRequest", message)


def forbidden(message: str) -> Refused:
    """Something that the key does not allow."""
    return Refused(403, "Forbidden", message)


def unavailable(message: str) -> Refused:
    """Nothing can be answered now."""
    headers = {b"retry-after": retry_after(RETRY_AFTER)}
    return Refused(503, "BackendUnavailable", message, headers)
