"""What ``bench.load`` loads: ``python -m bench.load_server route|echo PORT [--tools N]``.

``route`` is the service with made-up tools and a trivial encoder; ``echo`` is a bare ASGI
application on the same server that answers with its request's body.
"""

from __future__ import annotations

import argparse
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Any
from zlib import crc32

import numpy as np

from bench.common import SYSTEMS, made_up_tools
from ta_fast import Catalog, Tool, ToolAttention
from ta_fast.engine import Engine
from ta_fast.gateway import KEPT, Gateway
from ta_fast.types import F32, Source

WRITES = ("create", "update", "delete", "archive", "assign", "merge")
FACTS = tuple(f"scope:{system.lower()}:{way}" for system in SYSTEMS for way in ("read", "write"))
_RANDOM = random.Random(2)  # noqa: S311 - the same roles every time
ROLES = tuple(frozenset(_RANDOM.sample(FACTS, 6)) for _ in range(64))
"""What a session may do: thousands of sessions share a few states."""


class TrivialEncoder:
    """Costs nothing: one of 4,096 random unit vectors, by the text's checksum."""

    name, dim = "trivial", 64

    def __init__(self) -> None:
        vectors = np.random.default_rng(1).standard_normal((4096, self.dim), np.float32)
        self._vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode(
        self,
        texts: Sequence[str],
        *,
        progress: Callable[[int], None] | None = None,  # noqa: ARG002 - of the protocol
    ) -> F32:
        """Unit vectors, float32 ``[B, D]``."""
        return self._vectors[[crc32(text.encode()) & 4095 for text in texts]]


def made_up_attention(tools: int, catalog_file: str = ":memory:") -> ToolAttention:
    """Tools that need their system's read or write scope, over a trivial encoder."""
    made = []
    for row in made_up_tools(tools):
        verb, _, _ = str(row["name"]).partition("_")
        way = "write" if verb in WRITES else "read"
        made.append(
            Tool(
                str(row["id"]),
                str(row["name"]),
                str(row["description"]),
                row["inputSchema"],  # type: ignore[arg-type]
                str(row["server"]),
                precondition={"all_of": [f"scope:{row['server']}:{way}"]},
            )
        )
    catalog = Catalog(catalog_file)
    catalog.replace([Source("made up", made)])
    return ToolAttention(catalog, TrivialEncoder(), scorer="numpy")


def open_gateway(tools: int, kept: int) -> Gateway:
    """One catalog, one device."""
    attention = made_up_attention(tools)
    return Gateway({"": attention}, Engine(), [TrivialEncoder()], kept=kept)


async def echo(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """The bare application."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message.get("more_body"):
            break
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve until a signal."""
    import uvicorn

    from ta_fast.serve import Key, Keys, Service, serve

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["route", "echo"])
    parser.add_argument("port", type=int)
    parser.add_argument("--tools", type=int, default=200)
    parser.add_argument("--kept", type=int, default=KEPT, help="tools that a session keeps")
    parser.add_argument("--tenants", nargs="*", help="each has its name as its key")
    args = parser.parse_args()
    logging.getLogger("ta_fast").setLevel(logging.WARNING)
    if args.what == "route":
        keys = args.tenants and [
            Key(sha256(name.encode()).hexdigest(), name, may_set=("*",)) for name in args.tenants
        ]
        service = Service(Keys(keys))
        serve(lambda: open_gateway(args.tools, args.kept), service, "127.0.0.1", args.port)
        return
    uvicorn.run(
        echo,  # type: ignore[arg-type]
        host="127.0.0.1",
        port=args.port,
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
