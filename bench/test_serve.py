"""The service over loopback against a bare ASGI echo of the same bodies, on the same server."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.load import Load, Report, cpu_of, run
from bench.load_process import TOOLS, server
from bench.load_report import fairness
from bench.load_server import made_up_attention
from ta_fast.gateway import KEPT

SINGLE = Load(seconds=1.5, sample=0.02)
MANY = Load(seconds=1.5, connections=8, turns=100, sample=0.001)
ROUNDS = 3
LIMIT = 16.0
"""CPU time of a request of one turn over that of an echo, at most; 9 is usual."""
MANY_LIMIT = 4.0
"""CPU time of a turn among a hundred over that of an echo's request, at most; 1.4 is usual."""
MANY_KEPT_LIMIT = 5.0
"""The same where sessions keep tools, and answers hold four times as many; 2.3 is usual."""
UNFAIR = 2.0
"""A quiet tenant's 99th percentile beside one that asks fifty times as often, over that alone."""
TAIL = 20.0
"""The 99th percentile at half the rate over that of an echo, or over a millisecond, at most."""


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


def test_a_quiet_tenant_beside_a_loud_one(benchmark: BenchmarkFixture) -> None:
    """Who asks fifty times as often at most doubles the other's tail."""
    seconds, rounds = (3.0, ROUNDS) if benchmark.enabled else (0.3, 1)
    found = benchmark.pedantic(lambda: fairness(40.0, seconds, rounds), rounds=1)
    assert found["beside"]["requests"] > 0
    benchmark.extra_info["p99 ms"] = found["alone"]["p99"], found["beside"]["p99"]
    assert not benchmark.enabled or found["ratio of p99"] <= UNFAIR
