"""The soak's own judgement, and a soak of seconds."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from bench.soak import Fit, Soak

SECONDS = np.arange(900)


def wander(seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Memory that goes up and down and always comes back, much like the second before."""
    steps, at = np.random.default_rng(seed).standard_normal(len(SECONDS)), 0.0
    found = []
    for step in steps.tolist():
        at = 0.95 * at + step
        found.append(100 + at)
    return np.array(found)


def test_a_slope_within_noise_is_flat() -> None:
    """Memory that wanders is flat in nearly all cases."""
    assert sum(Fit.of(wander(seed)).flat for seed in range(50)) >= 48


def test_a_leak_is_not_flat() -> None:
    """Half a per cent a minute beyond the noise is found, and its size is right."""
    for seed in range(10):
        fit = Fit.of(wander(seed) + 0.5 / 60 * SECONDS * 10)
        assert not fit.flat
        assert fit.slope == pytest.approx(5.0, rel=0.2)
        assert fit.standard_error < 1.0


def test_a_soak_of_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns are answered without an error while the catalog changes, with all stores full."""
    small = {"KEPT_SESSIONS": 20, "LOADED": 1 << 14, "FIRST": 200, "BACKLOG": 100}
    for name, value in (small | {"REMEMBERED": 500}).items():
        monkeypatch.setattr(f"bench.soak.{name}", value)
    monkeypatch.setattr("ta_fast.sessions.promotions.REMEMBERED", 500)
    soak = Soak(tmp_path, 60)
    found = asyncio.run(soak.run(3.0, 0.3))
    assert soak.full()
    assert found["errors"] == {}
    assert found["swaps"] >= 2
    assert found["turns"] > 100
    assert found["memory"]["seconds"] >= 2
