"""A small service, in this process or in one of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2

from ta_fast import Catalog, Tool, ToolAttention
from ta_fast.engine import Engine, Limits
from ta_fast.gateway import Gateway
from ta_fast.serve import App, Key, Keys, Service, Settings, serve
from ta_fast.testing import HashingEncoder
from ta_fast.types import F32, Source

ROOT = Path(__file__).parents[2]
SCHEMA = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}
TOOLS = (
    Tool("mail__send", "send", "Send an email.", SCHEMA, "mail", provides=("milestone:sent",)),
    Tool("mail__read", "read", "Read an email.", server="mail"),
    Tool(
        "repo__push",
        "push",
        "Push a branch.",
        server="repo",
        precondition={"all_of": ["scope:repo:write"], "none_of": ["freeze:repo"]},
    ),
)
ALICE = Key(
    sha256(b"alice").hexdigest(),
    "acme",
    may_set=("scope:repo:*", "milestone:plan"),
    rights=frozenset(("report", "reload", "metrics")),
)
BOB = Key(sha256(b"bob").hexdigest(), "other", catalogs=frozenset(("",)))
EVE = Key(sha256(b"eve").hexdigest(), "acme", frozenset(("freeze:repo",)))


class SlowEncoder(HashingEncoder):
    """Takes its time where a text says so, and breaks where it says so."""

    def encode(self, texts: Sequence[str], **options: Any) -> F32:
        if any("slow" in text for text in texts):
            time.sleep(0.05)
        if any("poison" in text for text in texts):
            raise RuntimeError("poison")
        return super().encode(texts, **options)


def open_gateway(limits: Limits | None = None) -> Gateway:
    """Three tools behind an engine."""
    catalog, encoder = Catalog(":memory:"), SlowEncoder()
    catalog.replace([Source("here", TOOLS)])
    return Gateway({"": ToolAttention(catalog, encoder)}, Engine(limits=limits), [encoder])


@dataclass
class Client:
    """Calls an app without a network; ``bearer`` is whose key it has."""

    runner: asyncio.Runner
    service: Service
    http: httpx2.AsyncClient

    def __call__(
        self, method: str, path: str, json: object = None, bearer: str = "alice", **more: Any
    ) -> httpx2.Response:
        headers = {"authorization": f"Bearer {bearer}", **more.pop("headers", {})}
        options = {"headers": headers, **more, **({} if json is None else {"json": json})}
        return self.runner.run(self.http.request(method, path, **options))

    def route(self, *turns: dict[str, Any], bearer: str = "alice", **more: Any) -> Any:
        """The results of some turns, which must be answered."""
        answer = self("POST", "/v1/route", {"turns": turns, **more}, bearer)
        assert answer.status_code == 200, answer.text
        return answer.json()["results"]


@contextmanager
def client(
    keys: Keys | None = None,
    settings: Settings | None = None,
    limits: Limits | None = None,
    gateway: Gateway | None = None,
) -> Iterator[Client]:
    """A service that is ready."""
    service = Service(keys or Keys((ALICE, BOB, EVE)), settings)
    transport = httpx2.ASGITransport(App(service))
    with asyncio.Runner() as runner:
        http = httpx2.AsyncClient(transport=transport, base_url="http://here")
        gateway = gateway or open_gateway(limits)
        runner.run(_begin(service, gateway))
        try:
            yield Client(runner, service, http)
        finally:
            runner.run(gateway.aclose())


async def _begin(service: Service, gateway: Gateway) -> None:
    service.begin(gateway)


@dataclass
class Process:
    """A service in a process of its own."""

    port: int
    process: subprocess.Popen[bytes]

    def connect(self) -> socket.socket:
        """A connection that waits for at most ten seconds."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def get(self, path: str) -> int:
        """The status of a GET."""
        return httpx2.get(f"http://127.0.0.1:{self.port}{path}", timeout=10).status_code

    def route(self, intent: str) -> httpx2.Response:
        """Route one turn."""
        body = {"turns": [{"intent": intent, "threshold": -1}]}
        return httpx2.post(f"http://127.0.0.1:{self.port}/v1/route", json=body, timeout=20)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def paths() -> str:
    """For a process that imports what this one does."""
    return os.pathsep.join(map(str, (ROOT, ROOT / "kernels")))


@contextmanager
def process(wait: bool = True) -> Iterator[Process]:
    """Start one, without keys; it is killed in the end if it has not ended.

    Without ``wait`` it takes a second to open its gateway.
    """
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": paths()}
    command = [sys.executable, __file__, str(port), "0" if wait else "1"]
    with subprocess.Popen(command, env=environment) as running:
        served = Process(port, running)
        try:
            if wait:
                _until_ready(served)
            yield served
        finally:
            running.kill()


def _until_ready(served: Process) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if served.get("/readyz") == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.05)
    raise TimeoutError("the service did not become ready")


def main(port: int, opening: float) -> None:
    """Serve with short times; the gateway takes ``opening`` seconds."""

    def slowly() -> Gateway:
        time.sleep(opening)
        return open_gateway()

    settings = Settings(leave=0.5, drain=10, exchange=2)
    serve(slowly, Service(Keys(None), settings), "127.0.0.1", port)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
