"""The kernels of Hopper GPUs compile where there is none, and fit a multiprocessor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="triton is not installed")
ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not triton.__version__.startswith("3.6."), reason="they are for Triton 3.6")
def test_they_use_the_matrix_unit_and_spill_no_register():
    """A register that is spilt, or a copy too many, would halve their speed and change nothing."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    env = {**os.environ, "PYTHONPATH": paths, "TRITON_INTERPRET": "0"}
    command = [sys.executable, "-m", "tests.kernels.compile_for_hopper"]
    said = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout.splitlines()[-1])
    assert len(found) == 6
    for kernel in found:
        assert kernel["products"] == 2 * 384 // 16, kernel
        assert kernel["stack"] == 0, kernel
        assert kernel["shared"] <= 227 * 1024, kernel
