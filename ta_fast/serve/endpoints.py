"""The operations of the service: each from a checked request to an answer, and no logic."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qs

import msgspec
import numpy as np

from ta_fast.attention import ToolAttention
from ta_fast.calls import read_calls, rejection_message
from ta_fast.errors import TaFastError
from ta_fast.gateway import Gateway
from ta_fast.prompt import Form
from ta_fast.serve import bodies
from ta_fast.serve.errors import (
    ErrorAnswer,
    Failure,
    error_body,
    error_headers,
    malformed,
)
from ta_fast.serve.keys import Key
from ta_fast.serve.service import Service
from ta_fast.sessions import SessionKey
from ta_fast.types import Promotion, Rejection, Turn

JSON = b"application/json"
TEXT = b"text/plain; version=0.0.4; charset=utf-8"

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


async def route(call: Call) -> Reply:
    """Promote tools for one or many turns."""
    body: bodies.RouteBody = call.body
    gateway, key = call.service.gateway, call.key
    key.check_catalog(body.catalog)
    turns = [_turn(turn, call) for turn in body.turns]
    sessions = [turn.session for turn in body.turns]
    with _cancelled_if_gone(call.receive):
        results = await gateway.route(
            turns,
            sessions=sessions if any(sessions) else (),
            tenant=key.tenant,
            catalog=body.catalog,
            timeout=body.timeout,
        )
    if len(results) == 1 and isinstance(results[0], TaFastError):
        raise results[0]
    metrics, attention = call.service.metrics, gateway.attention(body.catalog)
    for promotion in results:
        if isinstance(promotion, Promotion):
            metrics.promotion(promotion, body.catalog)
    if body.form is None:
        return _route_answer(results, body, attention)
    # Counting a prompt's tokens takes milliseconds.
    return await asyncio.to_thread(_route_answer, results, body, attention)


def _route_answer(
    results: list[Promotion | TaFastError], body: bodies.RouteBody, attention: ToolAttention
) -> Reply:
    return answer(bodies.RouteAnswer([_result(each, body, attention) for each in results]))


def _turn(turn: bodies.TurnBody, call: Call) -> Turn:
    facts, settings = call.key.facts, call.service.settings
    if turn.facts:
        call.key.check_facts(turn.facts)
        facts = facts.union(turn.facts)
    return Turn(
        turn.intent,
        facts,
        top_k=settings.top_k if turn.top_k is None else turn.top_k,
        threshold=settings.threshold if turn.threshold is None else turn.threshold,
        context=turn.context,
    )


def _result(
    result: Promotion | TaFastError, body: bodies.RouteBody, attention: ToolAttention
) -> bodies.TurnAnswer:
    if isinstance(result, TaFastError):
        return bodies.TurnAnswer(error=error_body(result))
    prompt = body.form and attention.prompt(result, body.form, body.delivery)
    return bodies.TurnAnswer(bodies.promotion_answer(result, prompt))


class ClientGone(Exception):  # noqa: N818 - no error, and told to nobody
    """The client hung up before its answer."""


@contextmanager
def _cancelled_if_gone(receive: Receive) -> Iterator[None]:
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


async def check(call: Call) -> Reply:
    """Accept or reject the calls that a model made."""
    body: bodies.CheckBody = call.body
    if (body.calls is None) == (body.answer is None) or (body.answer and not body.form):
        raise malformed("expected either calls, or an answer and its form")
    if body.calls is not None:
        calls = [bodies.tool_call(each) for each in body.calls]
    else:
        try:
            calls = read_calls(body.answer, body.form or "openai", body.delivery)
        except (AttributeError, TypeError) as error:
            raise malformed(f"the answer is not of the form {body.form!r}: {error}") from error
    verdict = await call.service.gateway.check(body.handle, calls, tenant=call.key.tenant)
    return answer(
        bodies.CheckAnswer(
            [
                bodies.AcceptedAnswer(c.call.id, c.tool_id, c.server, c.name, dict(c.arguments))
                for c in verdict.accepted
            ],
            [_rejected(rejection, body.form) for rejection in verdict.rejected],
        )
    )


def _rejected(rejection: Rejection, form: Form | None) -> bodies.RejectedAnswer:
    result = msgspec.UNSET if form is None else rejection_message(rejection, form)
    return bodies.RejectedAnswer(
        rejection.call_id, rejection.reason, rejection.message, list(rejection.available), result
    )


async def succeeded(call: Call) -> Reply:
    """Set the facts that a promoted tool's success provides."""
    body: bodies.SucceededBody = call.body
    call.key.check_right("report")
    facts = await call.service.gateway.after_tool(body.handle, body.tool, tenant=call.key.tenant)
    return answer(bodies.FactsAnswer(sorted(facts)))


async def read_session(call: Call) -> Reply:
    """The facts of a session."""
    state = await call.service.gateway.sessions.read(_session(call))
    return answer(bodies.FactsAnswer(sorted(state.facts)))


async def change_session(call: Call) -> Reply:
    """Grant, revoke, reach."""
    body: bodies.SessionBody = call.body
    milestones = [f"milestone:{name}" for name in body.reach]
    call.key.check_facts((*body.grant, *body.revoke, *milestones))
    facts = await call.service.gateway.sessions.update(
        _session(call), grant=body.grant, revoke=body.revoke, reach=body.reach
    )
    return answer(bodies.FactsAnswer(sorted(facts)))


async def forget_session(call: Call) -> Reply:
    """Forget a session, whose facts the key must be allowed to revoke."""
    sessions, session = call.service.gateway.sessions, _session(call)
    call.key.check_facts((await sessions.read(session)).facts)
    await sessions.forget(session)
    return Reply(204)


def _session(call: Call) -> SessionKey:
    return SessionKey(call.key.tenant, call.name)


async def tools(call: Call) -> Reply:
    """The ids and the summary pool of what a state allows."""
    query = parse_qs(call.query.decode("latin-1"), max_num_fields=bodies.MAX_TURNS)
    catalog, session = query.get("catalog", [""])[0], query.get("session", [""])[0]
    given = query.get("fact", [])
    call.key.check_catalog(catalog)
    call.key.check_facts(given)
    gateway = call.service.gateway
    facts = call.key.facts.union(given)
    if session:
        facts |= (await gateway.sessions.read(SessionKey(call.key.tenant, session))).facts
    return _pool(gateway, catalog, facts, call.headers.get(b"if-none-match", b""))


def _pool(gateway: Gateway, catalog: str, facts: frozenset[str], known: bytes) -> Reply:
    snapshot = gateway.attention(catalog).snapshot
    index = snapshot.index
    allowed = index.gate.allowed(facts)
    state = blake2b(allowed.tobytes(), digest_size=8).hexdigest()
    tag = f'"{index.epoch}-{state}"'.encode()
    headers = {b"etag": tag, b"cache-control": b"private, no-cache"}
    tags = [each.strip().removeprefix(b"W/") for each in known.split(b",")]
    if tag in tags or known.strip() == b"*":
        return Reply(304, headers=headers)
    ids = [index.ids[row] for row in np.flatnonzero(index.allowed_rows(allowed))]
    pool = snapshot.pool_text(allowed.tobytes())
    body = _encode(bodies.ToolsAnswer(index.epoch, ids, pool))
    return Reply(200, body, headers)


async def reload(call: Call) -> Reply:
    """Follow a catalog to its present epoch."""
    catalog = call.body.catalog
    call.key.check_right("reload")
    call.key.check_catalog(catalog)
    epoch = await call.service.gateway.reload(catalog)
    call.service.count_tokens(catalog)
    return answer(bodies.EpochAnswer(epoch))


async def health(call: Call) -> Reply:
    """Whether turns make progress, and not just that a process answers."""
    service = call.service
    healthy = service.stalled <= service.settings.stalled
    return answer(bodies.HealthAnswer(service.state, service.stalled), 200 if healthy else 503)


async def readiness(call: Call) -> Reply:
    """Whether requests should be sent here."""
    service = call.service
    body = bodies.HealthAnswer(service.state, service.stalled)
    return answer(body, 200 if service.ready else 503)


async def metrics(call: Call) -> Reply:
    """Prometheus text."""
    call.key.check_right("metrics")
    return Reply(200, call.service.metrics_text().encode(), media=TEXT)


async def document(call: Call) -> Reply:  # noqa: ARG001 - every operation takes one
    """This document."""
    from ta_fast.serve.openapi import openapi_json  # made of the table that holds this function

    return Reply(200, openapi_json())
