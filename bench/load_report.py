"""Every figure of the service in one run: ``python -m bench.load_report``.

Starts ``bench.load_server`` and a bare ASGI echo on the same server, one after the other, and
loads both with the same bodies: one turn a request and a hundred, in a closed loop; one turn a
request at ``--rate`` in an open loop. Then two tenants: how a quiet one fares alone, and beside
one that asks fifty times as often. ``--json FILE`` writes it all down.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import sys
from dataclasses import replace
from importlib.metadata import version
from os import cpu_count
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from bench.load import Generator, Load, Report, cpu_of, run
from bench.load_process import TOOLS, server
from bench.load_server import made_up_attention
from ta_fast.gateway import KEPT

QUIET, LOUD = "quiet", "loud"
TIMES = 50
"""How much more the loud tenant asks."""
PACKAGES = ("uvicorn", "httptools", "uvloop", "msgspec", "numpy")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=2000.0, help="of the open loop")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    one = Load(seconds=args.seconds)
    half = replace(one, rate=args.rate, connections=256)
    many = replace(one, connections=8, turns=100, sample=0.0005)
    loads = {"one turn": one, f"one turn at {args.rate:g}/s": half, "a hundred turns": many}
    found: dict[str, Any] = {
        "command": f"python -m {Path(__file__).parent.name}.load_report " + " ".join(sys.argv[1:]),
        "machine": {"cpu": _cpu(), "cores": cpu_count()},
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "tools": TOOLS,
    }
    for kept in (KEPT, 0):
        found[f"kept {kept}"] = {
            name: _beside_echo(load, kept, args.rounds) for name, load in loads.items()
        }
    found["fairness"] = fairness(args.rate / TIMES, args.seconds, args.rounds)
    print(json.dumps(found, indent=2))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


def _beside_echo(load: Load, kept: int, rounds: int) -> dict[str, Any]:
    """Medians of both, in turns."""
    reference, bare = made_up_attention(TOOLS), replace(load, sample=0.0, churn=0.0)
    pairs = []
    with server("route", kept) as (url, pid), server("echo") as (echo_url, echo_pid):
        run(url, replace(load, seconds=1.0))
        for _ in range(rounds):
            ours = run(url, load, reference, cpu=cpu_of(pid))
            if ours.wrong or set(ours.statuses) != {"200"}:
                raise SystemExit(f"wrong answers: {ours.statuses} {ours.wrong[:3]}")
            pairs.append((ours, run(echo_url, bare, cpu=cpu_of(echo_pid))))
    return {
        "service": _medians([ours for ours, _ in pairs]),
        "echo": _medians([echo for _, echo in pairs]),
        "requests a second over those of the echo": round(
            median(ours.requests / echo.requests for ours, echo in pairs), 3
        ),
        "checked": sum(ours.checked for ours, _ in pairs),
    }


def _medians(reports: list[Report]) -> dict[str, float]:
    names = ("requests", "turns", "p50", "p99", "p999", "cpu")
    return {name: round(median(getattr(r, name) for r in reports), 2) for name in names}


def fairness(rate: float, seconds: float, rounds: int) -> dict[str, Any]:
    """The quiet tenant's times, in milliseconds: alone, and beside the loud one."""
    quiet = Load(seconds=seconds, sessions=200, connections=64, rate=rate, sample=0.0)
    # The loud one begins before and ends after.
    loud = replace(quiet, rate=rate * TIMES, seconds=seconds + 1.0, connections=256)
    alone, beside = [], []
    with server("route", tenants=(QUIET, LOUD)) as (url, _):
        for _ in range(rounds):
            alone += _together(url, {QUIET: quiet})
            beside += _together(url, {QUIET: quiet, LOUD: loud})[:1]
    ratio = median(b.p99 / a.p99 for a, b in zip(alone, beside, strict=True))
    return {
        "quiet requests a second": rate,
        "loud requests a second": rate * TIMES,
        "alone": _medians(alone),
        "beside": _medians(beside),
        "ratio of p99": round(ratio, 2),
    }


def _together(url: str, loads: dict[str, Load]) -> list[Report]:
    async def both() -> list[Report]:
        generators = [Generator(url, load, None, key, lambda: 0.0) for key, load in loads.items()]
        return await asyncio.gather(*(generator.run() for generator in generators))

    gc.collect()
    gc.freeze()  # a pause of this process would be taken for one of the service
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(both())


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
