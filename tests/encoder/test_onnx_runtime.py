"""The ONNX Runtime encoder: its graph for a GPU, run on a CPU where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file

from ta_fast.encoder import make_encoder
from ta_fast.encoder.bert_graph import BertGraph
from ta_fast.encoder.onnx_encoder import OnnxEncoder
from ta_fast.errors import BackendUnavailable, InvalidConfig
from tests.encoder.test_models import TEXTS, token_ids, write_onnx
from tests.encoder.tiny_bert import (
    CONFIG,
    WORDS,
    numpy_bert,
    random_bert,
    unit,
    write_bert,
    write_folder,
    write_pooling,
)

CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not CUDA, reason="needs onnxruntime-gpu and a CUDA device"),
        ],
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize(("fused", "cosine"), [(False, 1 - 1e-6), (True, 0.9995)])
def test_bert_equals_numpy_forward(
    tmp_path: Path, device: str, pooling: str, fused: bool, cosine: float
) -> None:
    """Both graphs, both poolings: near the plain forward in float64, whatever is beside a text."""
    folder = write_bert(tmp_path)
    write_pooling(folder, pooling_mode=pooling)
    hidden = [numpy_bert(random_bert(), token_ids(text)) for text in TEXTS]
    expected = unit(np.stack([x.mean(0) if pooling == "mean" else x[0] for x in hidden]))
    encoder = OnnxEncoder(folder, device=device, fused=fused)
    together = encoder.forward(encoder.tokenize(TEXTS))
    alone = np.concatenate([encoder.forward(encoder.tokenize([text])) for text in TEXTS])
    assert together.dtype == np.float32
    assert (together * expected).sum(1).min() > cosine
    assert (alone * expected).sum(1).min() > cosine
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_many_texts_keep_their_order(tmp_path: Path, device: str) -> None:
    """Parts, sorting by length and batches are not seen; progress adds up; none is none."""
    encoder = OnnxEncoder(write_bert(tmp_path), device=device, fused=device == "cuda")
    texts = [TEXTS[i % 5] for i in range(5000)]
    done: list[int] = []
    vectors = encoder.encode(texts, progress=done.append)
    once = encoder.encode(TEXTS)
    assert (vectors * once[np.arange(5000) % 5]).sum(1).min() > 1 - 1e-3
    assert sum(done) == 5000
    assert encoder.encode([]).shape == (0, 24)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("external", [False, True])
def test_onnx_file_in_half_precision(tmp_path: Path, device: str, external: bool) -> None:
    """An ONNX file of float16 token vectors, its weights inside or beside it, is pooled."""
    folder = write_folder(tmp_path, model_type="other")
    table = np.random.default_rng(3).normal(size=(len(WORDS), 512)).astype(np.float16)
    write_onnx(folder / "model.onnx", table)
    if external:
        model = onnx.load(folder / "model.onnx")
        (folder / "model.onnx").unlink()
        beside = {"save_as_external_data": True, "location": "model.onnx_data"}
        onnx.save_model(model, folder / "model.onnx", **beside)
        assert (folder / "model.onnx_data").stat().st_size >= table.nbytes
    expected = np.stack([table[token_ids(text)].astype(float).mean(0) for text in TEXTS])
    encoder = OnnxEncoder(folder, device=device)
    np.testing.assert_allclose(encoder.encode(TEXTS), unit(expected), atol=1e-6)


def test_corrupt_onnx_file(tmp_path: Path) -> None:
    """An ONNX file that is none, or has no token vectors, is refused by name."""
    folder = write_folder(tmp_path, model_type="other")
    (folder / "model.onnx").write_bytes(b"no model")
    with pytest.raises(InvalidConfig, match=r"model\.onnx"):
        OnnxEncoder(folder)
    write_onnx(folder / "model.onnx", np.zeros((len(WORDS), 5), np.float32))
    model = onnx.load(folder / "model.onnx")
    model.graph.output[0].type.tensor_type.shape.dim.pop()
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(InvalidConfig, match="expected token vectors"):
        OnnxEncoder(folder)


def test_graph_for_a_gpu(tmp_path: Path) -> None:
    """Its weights are float16, and each layer's attention is one operator."""
    weights = load_file(write_bert(tmp_path) / "model.safetensors")
    graph = BertGraph(weights, CONFIG, fused=True)
    kinds = [node.op_type for node in graph.model.graph.node]
    assert kinds.count("Attention") == CONFIG["num_hidden_layers"]
    assert {array.dtype for array in graph.weights.values()} == {np.dtype(np.float16)}


def test_name_says_the_precision(tmp_path: Path) -> None:
    """Vectors of the two graphs differ, so their names do."""
    folder = write_bert(tmp_path / "tiny")
    names = {OnnxEncoder(folder, fused=fused).name for fused in (False, True)}
    assert len(names) == 2


@pytest.mark.skipif(CUDA, reason="onnxruntime has CUDA here")
def test_without_cuda(tmp_path: Path) -> None:
    """Asked for where ONNX Runtime has no CUDA, it is unavailable and names the extra."""
    with pytest.raises(BackendUnavailable, match=r"not built for CUDA.*ta-fast\[gpu\]"):
        make_encoder(f"ort:{write_bert(tmp_path)}")
    with pytest.raises(InvalidConfig, match="'ort:NAME'"):
        make_encoder("ort:nonsense")


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="needs onnxruntime-gpu and a CUDA device")
def test_by_name(tmp_path: Path) -> None:
    """``ort:`` and a folder give the GPU's encoder under a name of its own."""
    encoder = make_encoder(f"ort:{write_bert(tmp_path / 'tiny')}")
    assert encoder.name.startswith("ort:tiny:float16:")
    assert (encoder.encode(["open"]) @ encoder.encode(["open"]).T).item() == pytest.approx(1)
