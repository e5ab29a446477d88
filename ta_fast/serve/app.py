"""The ASGI application: from a scope to an operation, and from whatever happens to an answer.

There is no framework in it. On one core, per request, a bare application took 29 us (uvicorn's
part included), the same with Starlette's router 35 us, and with a whole Starlette application
42 us; and what would be used of it is the look-up of twelve paths in a table that is there
anyway, for the OpenAPI document.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from time import perf_counter
from typing import Any

import msgspec

from ta_fast.errors import TaFastError
from ta_fast.serve.call import Call, ClientGone, Headers, Receive, Reply, failure
from ta_fast.serve.errors import Failure, Refused, malformed
from ta_fast.serve.keys import NOBODY
from ta_fast.serve.operations import OPERATIONS, Operation, find
from ta_fast.serve.service import Service
from ta_fast.serve.trace import Trace, read_trace

logger = logging.getLogger("ta_fast")

Scope = MutableMapping[str, Any]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

_DECODERS = {op: msgspec.json.Decoder(op.body) for op in OPERATIONS if op.body is not None}
_FAULT = Refused(500, "InternalError", "a fault of the server; its log tells of it by this trace")
_SLOW = Refused(408, "RequestTimeout", "the body did not arrive in time")
_LATE = Refused(504, "DeadlineExceeded", "there was no answer in time")
_CLIENT_GONE = 499
"""For metrics only."""


class App:
    """An ASGI application that serves a ``Service``; it begins and ends nothing itself."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            await self._exchange(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        headers: Headers = dict(scope["headers"])
        trace = read_trace(headers.get(b"traceparent"))
        methods, name = find(scope["path"])
        operation = methods.get(scope["method"])
        path = next(iter(methods.values())).path if methods else "other"
        method = scope["method"] if operation else "other"
        call = Call(self._service, NOBODY, None, name, scope["query_string"], headers, receive)
        status, replied = _CLIENT_GONE, False
        try:
            async with asyncio.timeout(self._service.settings.exchange):
                if operation is None:
                    reply = failure(_no_operation(scope, methods))
                else:
                    reply, trace = await self._traced(operation, call, trace)
                status, replied = reply.status, True
                await _send(send, reply, trace, close=self._service.leaving)
        except ClientGone:
            return
        except TimeoutError:
            if replied:  # the client does not read; without a whole answer the server hangs up
                return
            reading = operation is not None and operation.body is not None and call.body is None
            late = _SLOW if reading else _LATE
            status = late.status
            await _send(send, failure(late), trace, close=True)
        finally:
            self._service.metrics.request(method, path, status, perf_counter() - started)

    async def _traced(self, operation: Operation, call: Call, trace: Trace) -> tuple[Reply, Trace]:
        if self._service.spans is None:
            return await self._reply(operation, call, trace), trace
        with self._service.spans.span(f"{operation.method} {operation.path}", trace) as span:
            return await self._reply(operation, call, span), span

    async def _reply(self, operation: Operation, call: Call, trace: Trace) -> Reply:
        try:
            if not operation.public:
                call.key = self._service.keys.find(call.headers.get(b"authorization"))
            if operation.body is not None:
                body = await _read(call, self._service.settings.max_body)
                call.body = _DECODERS[operation].decode(body)
            return await operation.run(call)
        except (TaFastError, Refused, msgspec.MsgspecError) as error:
            return failure(error)
        except RecursionError:
            return failure(malformed("the body is nested too deeply"))
        except ClientGone:
            raise
        except Exception:
            logger.exception(
                "%s %s failed, trace %s", operation.method, operation.path, trace.trace
            )
            return failure(_FAULT)


def _no_operation(scope: Scope, methods: Mapping[str, Operation]) -> Failure:
    if not methods:
        return Refused(404, "NotFound", f"there is nothing at {scope['path'][:100]!r}")
    allowed = ", ".join(methods)
    message = f"{scope['method']} is not for this path; expected {allowed}"
    return Refused(405, "MethodNotAllowed", message, {b"allow": allowed.encode()})


async def _read(call: Call, most: int) -> bytes:
    """The request's body.

    Raises:
        Refused: 413, it is too large; what comes of it is not kept.
        ClientGone: there will be no more of it.
    """
    length = call.headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > most:
        raise _too_large(most)
    parts, size = [], 0
    while True:
        message = await call.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise _too_large(most)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(most: int) -> Refused:
    # Closed, as the rest of the body would have to be read before the next request.
    return Refused(413, "TooLarge", f"the body is over {most} bytes", {b"connection": b"close"})


async def _send(send: Send, reply: Reply, trace: Trace, *, close: bool) -> None:
    headers = [(b"traceparent", trace.header)]
    if reply.status not in (204, 304):
        headers.append((b"content-type", reply.media))
        headers.append((b"content-length", b"%d" % len(reply.body)))
    if reply.headers:
        headers += reply.headers.items()
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
