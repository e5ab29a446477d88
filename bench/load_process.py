"""``bench.load_server`` in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ta_fast.gateway import KEPT

TOOLS = 200


@contextmanager
def server(what: str, kept: int = KEPT, tenants: Sequence[str] = ()) -> Iterator[tuple[str, int]]:
    """Its URL and process id, as soon as it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bench.load_server", what, str(port)]
    command += ["--tools", str(TOOLS), "--kept", str(kept)]
    command += ["--tenants", *tenants] if tenants else []
    # One thread of BLAS: others would wait, spinning, for a core that the load generator has.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment["OPENBLAS_NUM_THREADS"] = "1"
    with subprocess.Popen(command, env=environment) as process:  # noqa: S603 - our own
        try:
            _wait(port)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.kill()


def _wait(port: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
                if connection.recv(1024)[9:12] == b"200":
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise TimeoutError("the server did not become ready")
