"""The process: starts, serves, drains.

Measured on two cores shared with the load generator, a bare ASGI echo: uvicorn with httptools
and uvloop 19,600 requests/s, granian 13,700, hypercorn 5,600; uvicorn with h11 3,400.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import ceil
from typing import TYPE_CHECKING

from ta_fast.errors import BackendUnavailable
from ta_fast.gateway import Gateway
from ta_fast.serve.app import App
from ta_fast.serve.service import Service, logger

if TYPE_CHECKING:
    import uvicorn

KEEP_ALIVE = 60
"""Seconds that an idle connection is kept."""


def serve(open_gateway: Callable[[], Gateway], service: Service, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    The port is open from the start: until the gateway is there, requests get 503. After a
    signal readiness goes first, then new turns are refused, and accepted ones are answered. A
    second signal ends the waiting for load balancers.

    Args:
        open_gateway: Makes the gateway, in a thread, as this may take long.
        service: What is served.
        host: Address to listen on.
        port: And its port.

    Raises:
        BackendUnavailable: uvicorn, httptools or uvloop is not installed.
        TaFastError: what ``open_gateway`` raised.
        SystemExit: the port cannot be had.
    """
    try:
        import httptools  # noqa: F401 - uvicorn would take the slow one without a word
        import uvicorn
        import uvloop
    except ImportError as error:
        raise BackendUnavailable(
            f"{error.name} is not installed; install it with: pip install 'ta-fast[serve]'"
        ) from error
    from ta_fast.serve.uvicorn_server import BoundedProtocol

    config = uvicorn.Config(
        App(service),
        host,
        port,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=ceil(service.settings.drain),
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(open_gateway, service, config))


async def _serve(
    open_gateway: Callable[[], Gateway], service: Service, config: uvicorn.Config
) -> None:
    from ta_fast.serve.uvicorn_server import DrainingServer

    server = DrainingServer(config, service)
    starting = asyncio.create_task(_start(open_gateway, service))
    starting.add_done_callback(lambda task: server.stop() if _failed(task) else None)
    await server.serve()
    service.state = "draining"
    gateway = await starting
    await gateway.aclose(service.settings.drain)


async def _start(open_gateway: Callable[[], Gateway], service: Service) -> Gateway:
    from ta_fast.serve.uvicorn_server import quiet_collector

    gateway = await asyncio.to_thread(open_gateway)
    service.begin(gateway)
    quiet_collector()
    logger.info("ready")
    return gateway


def _failed(task: asyncio.Task[Gateway]) -> bool:
    return task.cancelled() or task.exception() is not None
