"""Many callers, one connection to Redis: calls that came while it was busy go together."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from hashlib import sha1
from typing import TYPE_CHECKING, Any, TypeAlias

from ta_fast.errors import BackendUnavailable

if TYPE_CHECKING:
    from redis.asyncio import Redis

Argument: TypeAlias = bytes | str | int
CALLS_AT_ONCE = 256


class Script:
    """A Lua script that the server may know already, by its hash."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


@dataclass(slots=True, eq=False)
class _Call:
    script: Script
    arguments: tuple[Argument, ...]
    reply: asyncio.Future[Any]

    def command(self, *, known: bool) -> tuple[Argument, ...]:
        by = ("EVALSHA", self.script.sha) if known else ("EVAL", self.script.text)
        return (*by, *self.arguments)


class Pipelined:
    """Runs scripts on a Redis. There is no timer: a call waits only while others are run.

    A connection that fails or is late is dropped, with all that is on it; the next call makes
    a new one. Nothing is sent twice, as a script that ran, and whose reply was lost, must not
    undo what others did since. Belongs to the event loop that uses it first.

    Args:
        client: Its own client, which retries nothing.
        name: Of the Redis, for messages.
        timeout: Seconds that a call may take, waiting included.
    """

    def __init__(self, client: Redis, name: str, timeout: float) -> None:
        self._client = client
        self._name = name
        self._timeout = timeout
        self._waiting: deque[_Call] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def run(self, script: Script, keys: tuple[str, ...], *arguments: Argument) -> Any:
        """The script's reply.

        Raises:
            BackendUnavailable: no reply in time, or an error instead of one.
        """
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise RuntimeError("this session store is another event loop's; make one for each")
        if self._closed:
            raise self._unavailable("it is closed")
        self._loop = loop
        call = _Call(script, (len(keys), *keys, *arguments), loop.create_future())
        self._waiting.append(call)
        if self._sender is None or self._sender.done():
            self._sender = loop.create_task(self._send_all())
        try:
            async with asyncio.timeout(self._timeout):
                return await call.reply
        except TimeoutError as error:
            raise self._unavailable(f"no reply within {self._timeout:g} s") from error

    async def _send_all(self) -> None:
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(CALLS_AT_ONCE, len(self._waiting)))]
            calls = [call for call in taken if not call.reply.done()]
            if calls:
                await self._send(calls)

    async def _send(self, calls: list[_Call]) -> None:
        exchange = asyncio.ensure_future(self._exchange(calls))
        why, cause = f"no reply within {self._timeout:g} s", None
        try:
            # `wait` comes back in time even if the client swallows its cancellation.
            await asyncio.wait([exchange], timeout=self._timeout)
            # Whatever a server that is no Redis makes the client stumble over.
            if exchange.done() and (cause := exchange.exception()) is not None:
                why = str(cause) or type(cause).__name__
        except asyncio.CancelledError:
            self._fail(calls, "it is closed")
            raise
        finally:
            exchange.cancel()
        self._fail(calls, why, cause)

    async def _exchange(self, calls: list[_Call]) -> None:
        from redis.exceptions import NoScriptError

        replies = await self._pipeline([call.command(known=True) for call in calls])
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again = await self._pipeline([calls[i].command(known=False) for i in unknown])
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        for call, reply in zip(calls, replies, strict=True):
            if isinstance(reply, Exception):
                self._fail([call], str(reply), reply)
            elif not call.reply.done():
                call.reply.set_result(reply)

    async def _pipeline(self, commands: list[tuple[Argument, ...]]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute(raise_on_error=False)

    def _fail(self, calls: list[_Call], why: str, cause: BaseException | None = None) -> None:
        for call in calls:
            if not call.reply.done():
                error = self._unavailable(why)
                error.__cause__ = cause
                call.reply.set_exception(error)

    def _unavailable(self, why: str) -> BackendUnavailable:
        return BackendUnavailable(f"the session store at {self._name} cannot be used: {why}")

    async def aclose(self) -> None:
        """Close the connection; calls under way end with an error."""
        self._closed = True
        if self._sender is not None and not self._sender.done():
            self._sender.cancel()
            await asyncio.wait([self._sender])
        self._fail(list(self._waiting), "it is closed")
        await self._client.aclose()
