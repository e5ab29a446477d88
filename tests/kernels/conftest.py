"""Without a GPU the kernels run in Triton's interpreter; Triton asks for it when imported."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

from tests.triton_interpreter import mend_interpreter


def _on_gpu() -> bool:
    if find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


ON_GPU = _on_gpu()
if not ON_GPU:
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mend Triton's interpreter where it stands in for a GPU."""
    if not ON_GPU:
        mend_interpreter(monkeypatch)
