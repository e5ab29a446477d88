"""uvicorn with bounds on what comes before and after a request's body, and with a slow goodbye.

By itself uvicorn waits for ever for a request's head, keeps one of any size, and holds a closed
connection for as long as its client does not read. The body and the answer are bounded by ``App``.
"""

from __future__ import annotations

import asyncio
import gc
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ta_fast.serve.service import Service

MAX_HEAD = 64 * 1024
"""Bytes of a request line and headers."""
HEAD_SECONDS = 10.0
"""For a head to arrive, the first included; and for a closed connection's last bytes to go."""
GOODBYE = 0.3
"""Seconds between the end of listening and the end of quiet connections."""
COLLECT_TICKS = 6000
"""Tenths of seconds between collections of old garbage; see ``quiet_collector``."""


def quiet_collector() -> None:
    """Keep the garbage collector from stopping the service for long.

    Remembered promotions are many and hold no cycles, yet every collection of the oldest
    generation looks at all of them: 80 ms after some seconds of load, and more later. What lives
    as long as the process is never looked at again, and the oldest generation by the clock. So
    is the youngest, once a second: where as many promotions are forgotten as are remembered, its
    count stands still, and it would hold all of them when it is looked at. By its count it is
    looked at only beyond what requests of a hundred turns hold while they are answered.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 1_000_000)


class BoundedProtocol(HttpToolsProtocol):
    """One connection. ``sweep`` is to be called about once a second."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head = 0
        self._in_head = True
        self._quiet: float | None = None

    def on_message_begin(self) -> None:
        """A head begins."""
        self._head, self._in_head = 0, True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """It is whole."""
        self._in_head, self._quiet = False, None
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Bytes came; too many of them in a head end the connection."""
        super().data_received(data)
        if self._in_head:
            self._head += len(data)
            if self._head > MAX_HEAD and not self.transport.is_closing():
                self.send_400_response("The request's head is too large.")

    def shutdown(self) -> None:
        """The server ends: what is on its way on a quiet connection gets its 503 still."""
        self.loop.call_later(GOODBYE, super().shutdown)

    def sweep(self, now: float) -> None:
        """End a connection that has been in a head, or closing, for too long."""
        if not (self._in_head or self.transport.is_closing()):
            self._quiet = None
        elif self._quiet is None:
            self._quiet = now
        elif now - self._quiet > HEAD_SECONDS:
            self.transport.abort()


class DrainingServer(uvicorn.Server):
    """Says goodbye before it goes; made in its event loop."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """A signal: lose readiness now, stop a little later; at the second, stop now."""
        first = not self._service.leaving
        self._loop.call_soon_threadsafe(self._leave if first else self.stop)

    def _leave(self) -> None:
        self._service.state = "leaving"
        self._loop.call_later(self._service.settings.leave, self.stop)

    def stop(self) -> None:
        """Take no new turns, answer those that were accepted, and end."""
        self._service.state = "draining"
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if counter % COLLECT_TICKS == COLLECT_TICKS - 1:
            gc.collect()
        if counter % 10 == 0:
            gc.collect(0)
            now = self._loop.time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedProtocol):
                    connection.sweep(now)
        return await super().on_tick(counter)
