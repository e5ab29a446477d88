"""The benches for GPUs can be imported wherever what they measure is installed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[1] / "bench").glob("gpu_*.py"))
COMMANDS = [file.stem for file in FILES if "def main(" in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_has_a_main(name: str):
    """No name that a bench takes from the product has gone."""
    for needed in ("torch", "triton", "sentence_transformers"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    assert callable(import_module(f"bench.{name}").main)
