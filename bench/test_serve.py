"""The service over loopback against a bare ASGI echo of the same bodies, on the same server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.load import Load, Report, cpu_of, run
from bench.load_server import made_up_attention
from ta_fast.gateway import KEPT

TOOLS = 200
SINGLE = Load(seconds=1.5, sample=0.02)
MANY = Load(seconds=1.5, connections=8, turns=100, sample=0.001)
ROUNDS = 3
LIMIT = 16.0
"""CPU time of a request of one turn over that of an echo, at most; 8 is usual."""
MANY_LIMIT = 4.0
"""CPU time of a turn among a hundred over that of an echo's request, at most; 2 is usual."""
MANY_KEPT_LIMIT = 10.0
"""The same where sessions keep tools, and answers hold six times as many."""
TAIL = 20.0
"""The 99th percentile at half the rate over that of an echo, or over a millisecond, at most."""


@contextmanager
def server(what: str, kept: int = KEPT) -> Iterator[tuple[str, int]]:
    """A server in a process of its own, ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bench.load_server", what, str(port)]
    command += ["--tools", str(TOOLS), "--kept", str(kept)]
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


def loaded(url: str, pid: int, load: Load) -> Report:
    """Load it, and check what it answered."""
    reference = made_up_attention(TOOLS) if load.sample else None
    report = run(url, load, reference, cpu=cpu_of(pid))
    assert not report.wrong
    assert set(report.statuses) == {"200"}
    return report


def measure(benchmark: BenchmarkFixture, load: Load, kept: int) -> float:
    """CPU time of a request over that of an echo, as a median of neighbours."""
    seconds = load.seconds if benchmark.enabled else 0.5
    load = replace(load, seconds=seconds)
    bare = replace(load, turns=1, connections=32, sample=0.0, churn=0.0)
    with server("route", kept) as ours, server("echo") as theirs:
        first = benchmark.pedantic(lambda: loaded(*ours, load), rounds=1)
        assert first.checked
        if not benchmark.enabled:
            return 0.0
        pairs = [(loaded(*ours, load), loaded(*theirs, bare)) for _ in range(ROUNDS)]
    ratio = median(mine.cpu / echo.cpu for mine, echo in pairs)
    mine, echo = pairs[-1]
    benchmark.extra_info["turns a second"] = round(mine.turns)
    benchmark.extra_info["p99 ms"] = round(mine.p99, 1)
    benchmark.extra_info["echoes a second"] = round(echo.requests)
    benchmark.extra_info["CPU us a request"] = round(mine.cpu)
    benchmark.extra_info["CPU ratio to an echo"] = round(ratio, 2)
    return ratio


@pytest.mark.parametrize("kept", [0, KEPT])
def test_requests_of_one_turn(benchmark: BenchmarkFixture, kept: int) -> None:
    """A turn over HTTP costs at most sixteen bare echoes of CPU."""
    assert measure(benchmark, SINGLE, kept) <= LIMIT


@pytest.mark.parametrize(("kept", "limit"), [(0, MANY_LIMIT), (KEPT, MANY_KEPT_LIMIT)])
def test_requests_of_a_hundred_turns(benchmark: BenchmarkFixture, kept: int, limit: float) -> None:
    """A turn among a hundred costs a few bare echoes of CPU; keeping tools, some more."""
    assert measure(benchmark, MANY, kept) / MANY.turns <= limit


def test_turns_at_half_the_rate(benchmark: BenchmarkFixture) -> None:
    """In an open loop at half the rate of the closed one, the tail is near an echo's."""
    load = SINGLE if benchmark.enabled else replace(SINGLE, seconds=0.5)
    rounds = ROUNDS if benchmark.enabled else 1
    with server("route") as ours, server("echo") as theirs:
        top = loaded(*ours, load)
        half = replace(load, rate=top.requests / 2, connections=256)
        bare = replace(half, sample=0.0, churn=0.0)
        benchmark.pedantic(lambda: loaded(*ours, half), rounds=1)
        pairs = [(loaded(*ours, half), loaded(*theirs, bare)) for _ in range(rounds)]
    mine, echo = min(pairs, key=lambda pair: pair[0].p99)
    benchmark.extra_info["rate"] = round(half.rate)
    benchmark.extra_info["p50, p99 ms"] = round(mine.p50, 2), round(mine.p99, 2)
    benchmark.extra_info["an echo's p50, p99 ms"] = round(echo.p50, 2), round(echo.p99, 2)
    assert not benchmark.enabled or mine.p99 <= TAIL * max(echo.p99, 1.0)
