"""The operations of the service: each from a checked request to an answer, and no logic."""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from urllib.parse import parse_qs

import msgspec
import numpy as np

from ta_fast.attention import ToolAttention
from ta_fast.calls import read_calls, rejection_message
from ta_fast.errors import TaFastError
from ta_fast.prompt import Form
from ta_fast.serve import bodies
from ta_fast.serve.call import Call, Reply, answer, cancelled_if_gone
from ta_fast.serve.errors import error_body, malformed
from ta_fast.sessions import SessionKey, SessionStore
from ta_fast.types import Promotion, Rejection, Turn

TEXT = b"text/plain; version=0.0.4; charset=utf-8"


async def route(call: Call) -> Reply:
    """Promote tools for one or many turns."""
    body: bodies.RouteBody = call.body
    gateway, key = call.service.gateway, call.key
    key.check_catalog(body.catalog)
    turns = [_turn(turn, call) for turn in body.turns]
    sessions = [turn.session for turn in body.turns]
    with cancelled_if_gone(call.receive):
        results = await gateway.route(
            turns,
            sessions=sessions if any(sessions) else (),
            tenant=key.tenant,
            catalog=body.catalog,
            timeout=body.timeout,
        )
    if len(results) == 1 and isinstance(results[0], TaFastError):
        raise results[0]
    metrics, attention = call.service.metrics, gateway.catalog(body.catalog).attention
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


async def check(call: Call) -> Reply:
    """Accept or reject the calls that a model made."""
    body: bodies.CheckBody = call.body
    call.key.check_catalog(body.catalog)
    if (body.calls is None) == (body.answer is None) or (body.answer and not body.form):
        raise malformed("expected either calls, or an answer and its form")
    if body.calls is not None:
        calls = [bodies.tool_call(each) for each in body.calls]
    else:
        try:
            calls = read_calls(body.answer, body.form or "openai", body.delivery)
        except (AttributeError, TypeError) as error:
            raise malformed(f"the answer is not of the form {body.form!r}: {error}") from error
    whose = {"tenant": call.key.tenant, "catalog": body.catalog}
    verdict = await call.service.gateway.check(body.handle, calls, **whose)
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
    call.key.check_catalog(body.catalog)
    whose = {"tenant": call.key.tenant, "catalog": body.catalog}
    facts = await call.service.gateway.after_tool(body.handle, body.tool, **whose)
    return answer(bodies.FactsAnswer(sorted(facts)))


async def read_session(call: Call) -> Reply:
    """The facts of a session."""
    sessions, session = _session(call)
    return answer(bodies.FactsAnswer(sorted((await sessions.read(session)).facts)))


async def change_session(call: Call) -> Reply:
    """Grant, revoke, reach."""
    body: bodies.SessionBody = call.body
    sessions, session = _session(call)
    milestones = [f"milestone:{name}" for name in body.reach]
    call.key.check_facts((*body.grant, *body.revoke, *milestones))
    facts = await sessions.update(session, grant=body.grant, revoke=body.revoke, reach=body.reach)
    return answer(bodies.FactsAnswer(sorted(facts)))


async def forget_session(call: Call) -> Reply:
    """Forget a session, whose facts the key must be allowed to revoke."""
    sessions, session = _session(call)
    call.key.check_facts((await sessions.read(session)).facts)
    await sessions.forget(session)
    return Reply(204)


def _session(call: Call) -> tuple[SessionStore, SessionKey]:
    """The session that the path names, and where the catalog in the query keeps it."""
    catalog = _query(call).get("catalog", [""])[0]
    call.key.check_catalog(catalog)
    return call.service.gateway.catalog(catalog).sessions, SessionKey(call.key.tenant, call.name)


def _query(call: Call) -> dict[str, list[str]]:
    try:
        return parse_qs(call.query.decode("latin-1"), max_num_fields=bodies.MAX_TURNS)
    except ValueError as error:
        raise malformed(f"the query cannot be read: {error}") from error


async def tools(call: Call) -> Reply:
    """The ids and the summary pool of what a state allows."""
    query = _query(call)
    catalog, session = query.get("catalog", [""])[0], query.get("session", [""])[0]
    given = query.get("fact", [])
    call.key.check_catalog(catalog)
    call.key.check_facts(given)
    here = call.service.gateway.catalog(catalog)
    facts = call.key.facts.union(given)
    if session:
        facts |= (await here.sessions.read(SessionKey(call.key.tenant, session))).facts
    return _pool(here.attention, facts, call.headers.get(b"if-none-match", b""))


def _pool(attention: ToolAttention, facts: frozenset[str], known: bytes) -> Reply:
    snapshot = attention.snapshot
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
    return Reply(200, answer(bodies.ToolsAnswer(index.epoch, ids, pool)).body, headers)


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
