"""The one table of operations: routing follows it, and so does the OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from ta_fast.serve import bodies, endpoints
from ta_fast.serve.call import Call, Reply

SESSIONS = "/v1/sessions/"
Struct = type[msgspec.Struct]
Described = Mapping[int, Struct | str | None]
"""Statuses to the type of the body; a text is a media type, None is no body."""


class Parameter(NamedTuple):
    """One in the query or the path."""

    name: str
    where: str
    text: str
    many: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One method of one path.

    Attributes:
        method, path: What it answers to.
        run: Does it; its docstring is the summary.
        body: Type of the request's body; None for none.
        answers: What it answers if all is well.
        errors: What it may answer else, beside what its key and body can be refused with.
        public: It needs no key.
        parameters: In the query or the path.
    """

    method: str
    path: str
    run: Callable[[Call], Awaitable[Reply]]
    answers: Described
    body: Struct | None = None
    errors: tuple[int, ...] = ()
    public: bool = False
    parameters: tuple[Parameter, ...] = ()

    @property
    def statuses(self) -> tuple[int, ...]:
        """Every status of an error."""
        of_key = () if self.public else (401, 403, 503, 504)
        of_body = (400, 408, 413, 422) if self.body else ()
        return tuple(sorted({*self.errors, *of_key, *of_body}))


_CATALOG = Parameter("catalog", "query", "The catalog's name.")
_OF_SESSION = (
    Parameter("id", "path", "The session's id: printable, at most 256 characters."),
    _CATALOG,
)
_HEALTH: Described = {200: bodies.HealthAnswer, 503: bodies.HealthAnswer}

OPERATIONS = (
    Operation(
        "POST",
        "/v1/route",
        endpoints.route,
        {200: bodies.RouteAnswer},
        bodies.RouteBody,
        errors=(404, 429, 502),
    ),
    Operation(
        "POST",
        "/v1/check",
        endpoints.check,
        {200: bodies.CheckAnswer},
        bodies.CheckBody,
        errors=(404,),
    ),
    Operation(
        "POST",
        "/v1/succeeded",
        endpoints.succeeded,
        {200: bodies.FactsAnswer},
        bodies.SucceededBody,
        errors=(404,),
    ),
    Operation(
        "GET",
        f"{SESSIONS}{{id}}",
        endpoints.read_session,
        {200: bodies.FactsAnswer},
        errors=(400, 404, 422),
        parameters=_OF_SESSION,
    ),
    Operation(
        "POST",
        f"{SESSIONS}{{id}}",
        endpoints.change_session,
        {200: bodies.FactsAnswer},
        bodies.SessionBody,
        errors=(404,),
        parameters=_OF_SESSION,
    ),
    Operation(
        "DELETE",
        f"{SESSIONS}{{id}}",
        endpoints.forget_session,
        {204: None},
        errors=(400, 404, 422),
        parameters=_OF_SESSION,
    ),
    Operation(
        "GET",
        "/v1/tools",
        endpoints.tools,
        {200: bodies.ToolsAnswer, 304: None},
        errors=(400, 404),
        parameters=(
            Parameter("session", "query", "Its facts hold too."),
            _CATALOG,
            Parameter("fact", "query", "A fact that holds; may be given many times.", many=True),
        ),
    ),
    Operation(
        "POST",
        "/v1/catalog/reload",
        endpoints.reload,
        {200: bodies.EpochAnswer},
        bodies.ReloadBody,
        errors=(404,),
    ),
    Operation("GET", "/healthz", endpoints.health, _HEALTH, public=True),
    Operation("GET", "/readyz", endpoints.readiness, _HEALTH, public=True),
    Operation("GET", "/metrics", endpoints.metrics, {200: "text/plain"}),
    Operation("GET", "/openapi.json", endpoints.document, {200: "application/json"}, public=True),
)

Methods = Mapping[str, Operation]
NONE: Methods = MappingProxyType({})


def _paths() -> dict[str, dict[str, Operation]]:
    paths: dict[str, dict[str, Operation]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = operation
    return paths


PATHS = _paths()


def find(path: str) -> tuple[Methods, str]:
    """The operations of a path by method, and the session that it names."""
    if path.startswith(SESSIONS) and len(path) > len(SESSIONS):
        return PATHS[f"{SESSIONS}{{id}}"], path[len(SESSIONS) :]
    return ("{" not in path and PATHS.get(path)) or NONE, ""
