"""The benches of the engine run small where there is no GPU, and their answers are right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.common import default_encoder

ROOT = Path(__file__).parents[1]


def ran(module: str, out: Path, *options: str) -> dict[str, Any]:
    """What a bench wrote; it must not have failed."""
    command = [sys.executable, "-m", module, *options]
    subprocess.run(command, cwd=ROOT, check=True, timeout=110, capture_output=True)  # noqa: S603
    found: dict[str, Any] = json.loads(out.read_text())
    return found


SMALL = ("--device", "cpu", "--tools", "200", "--sessions", "50", "--seconds", "1")


def test_sessions(tmp_path: Path) -> None:
    """Closed and open loop, dense and hybrid: answers are those of each turn alone."""
    default_encoder()
    found = ran("bench.gpu_engine", out := tmp_path / "out.json", *SMALL, "--out", str(out))
    for kind in ("dense", "hybrid"):
        for phase in ("closed", "open"):
            assert found[kind][phase]["turns_per_s"] > 0
            assert not found[kind][phase]["errors"]
        assert found[kind]["answers"]["checked"] > 0
        assert found[kind]["answers"]["wrong"] == 0
        assert "MainThread" in found[kind]["where"]["samples"]


def test_two_devices(tmp_path: Path) -> None:
    """Requests of many turns on one device and on two, read by a process for each."""
    default_encoder()
    small = (*SMALL, "--devices", "cpu,cpu", "--bulk", "128", "--kinds", "hybrid")
    small += ("--tokenisers", "1")
    found = ran("bench.gpu_engine", out := tmp_path / "out.json", *small, "--out", str(out))
    many = found["hybrid"]["route_many"]
    assert set(many["turns_per_s"]) == {"1", "2"}
    assert many["answers"]["wrong"] == 0


def test_threads(tmp_path: Path) -> None:
    """Texts read here and by processes, dense and hybrid: every figure is there."""
    default_encoder()
    small = ("--seconds", "0.2", "--sizes", "128", "--sessions", "50")
    found = ran("bench.engine_threads", out := tmp_path / "out.json", *small, "--out", str(out))
    for kind in ("dense", "hybrid"):
        for where in ("here", "processes"):
            figures = found[kind][where]
            assert set(figures) == {"one_by_one", "128_on_one", "128_on_two"}
            assert all(figure["turns_per_s"] > 0 for figure in figures.values())
            assert all(figure["cpu_us_per_turn"]["all"] > 0 for figure in figures.values())
