"""HTTP/1.1 in as little time as Python needs, so that a load generator is not what is measured."""

from __future__ import annotations

import asyncio
from typing import cast


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bytes]]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready."""
        self.transport = cast(asyncio.Transport, transport)

    def request(self, head: bytes, body: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send one; gives the status and the body."""
        self._answer = asyncio.get_running_loop().create_future()
        length = b"content-length: %d\r\n\r\n" % len(body)
        self.transport.write(head + length + body)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """A part of the answer."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        whole = end + 4 + (int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0)
        if len(self._buffer) >= whole:
            body, self._buffer = self._buffer[end + 4 : whole], self._buffer[whole:]
            self._answer.set_result((int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        """No answer will come."""
        if hasattr(self, "_answer") and not self._answer.done():
            self._answer.set_exception(ConnectionError(str(exc or "closed")))
