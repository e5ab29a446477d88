"""A folder of changed weights is a model: the same vectors from every encoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from ta_fast.encoder import Encoder, make_encoder  # noqa: E402
from ta_fast.encoder.model_folder import read_model_folder  # noqa: E402
from ta_fast.errors import InvalidConfig  # noqa: E402
from ta_fast.train.bert import Bert, DeviceTexts  # noqa: E402
from ta_fast.train.data import Texts  # noqa: E402
from ta_fast.train.folder import load_bert, write_delta, write_whole  # noqa: E402
from ta_fast.train.recipe import Recipe  # noqa: E402
from ta_fast.types import F32  # noqa: E402
from tests.encoder.tiny_bert import write_folder  # noqa: E402
from tests.train.tiny_sets import write_base  # noqa: E402

CPU = torch.device("cpu")
TEXTS = ["open the pull requests", "list", "a request the list open a list", "open open open"]


def changed_bert(base: Path) -> Bert:
    """The base with other layers, in float16's values."""
    bert = load_bert(read_model_folder(base), CPU)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in bert.trained().values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=draw)).copy_(weight.half())
    return bert


def write_changed(folder: Path, base: Path) -> Bert:
    """Write the changed model as a folder of changed weights."""
    bert = changed_bert(base)
    write_delta(folder, bert, str(base), read_model_folder(base).digest(), Recipe())
    return bert


def vectors(bert: Bert, encoder: Any) -> F32:
    """What training computes for `TEXTS`, tokenised by an encoder."""
    rows = [np.frombuffer(row, np.int32) for row in encoder.rows(TEXTS)]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    texts = DeviceTexts.put(Texts(np.concatenate(rows), starts), CPU)
    return np.asarray(bert.embed(texts, np.arange(len(rows))).numpy())


def test_onnx_encodes_what_was_trained(tmp_path: Path) -> None:
    """Base and changed weights together give training's vectors, under a name of their own."""
    base = write_base(tmp_path / "base")
    bert = write_changed(tmp_path / "new", base)
    encoder: Encoder = make_encoder(str(tmp_path / "new"))
    np.testing.assert_allclose(encoder.encode(TEXTS), vectors(bert, encoder), atol=1e-5)
    original = make_encoder(str(base))
    assert np.abs(encoder.encode(TEXTS) - original.encode(TEXTS)).max() > 1e-3
    assert encoder.name.partition(":")[2] != original.name.partition(":")[2]


def test_only_what_changed_is_stored_in_half(tmp_path: Path) -> None:
    """No embedding table is in the folder; every tensor is float16."""
    from safetensors.numpy import load_file

    base = write_base(tmp_path / "base")
    bert = write_changed(tmp_path / "new", base)
    stored = load_file(tmp_path / "new" / "delta.safetensors")
    assert set(stored) == set(bert.trained())
    assert not any("_embeddings." in name for name in stored)
    assert {array.dtype for array in stored.values()} == {np.dtype(np.float16)}


def test_a_prefixed_base_is_changed_too(tmp_path: Path) -> None:
    """Some files call every weight ``bert.``-something."""
    from safetensors.numpy import load_file, save_file

    base = write_base(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    save_file({f"bert.{name}": w for name, w in weights.items()}, base / "model.safetensors")
    bert = write_changed(tmp_path / "new", base)
    encoder = make_encoder(str(tmp_path / "new"))
    np.testing.assert_allclose(encoder.encode(TEXTS), vectors(bert, encoder), atol=1e-5)


def test_a_whole_folder_gives_the_same_vectors(tmp_path: Path) -> None:
    """It needs no base any more, and is never written over another folder."""
    base = write_base(tmp_path / "base")
    write_changed(tmp_path / "new", base)
    expected = make_encoder(str(tmp_path / "new")).encode(TEXTS)
    write_whole(read_model_folder(tmp_path / "new"), tmp_path / "whole")
    shutil.rmtree(base)
    np.testing.assert_array_equal(make_encoder(str(tmp_path / "whole")).encode(TEXTS), expected)
    with pytest.raises(InvalidConfig, match="exists already"):
        write_whole(read_model_folder(tmp_path / "whole"), tmp_path / "new")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_sentence_transformers_loads_the_whole_folder(tmp_path: Path) -> None:
    """And computes what ONNX Runtime does."""
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    base = write_base(tmp_path / "base")
    tokens = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}
    (base / "tokenizer_config.json").write_text(json.dumps(tokens))
    write_changed(tmp_path / "new", base)
    write_whole(read_model_folder(tmp_path / "new"), tmp_path / "whole")
    expected = make_encoder(str(tmp_path / "new")).encode(TEXTS)
    found = make_encoder(f"st:{tmp_path / 'whole'}").encode(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_gpu_encoder_reads_changed_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernels, interpreted in float32, give training's vectors."""
    triton = pytest.importorskip("triton", reason="triton is not installed")
    if not triton.knobs.runtime.interpret:
        pytest.skip("needs TRITON_INTERPRET=1")
    from safetensors.numpy import save_file

    from ta_fast.encoder.gpu_encoder import GpuEncoder
    from tests.encoder.tiny_bert import CONFIG, random_bert
    from tests.triton_interpreter import mend_interpreter

    mend_interpreter(monkeypatch)
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48}
    base = write_folder(tmp_path / "base", **sizes)
    save_file(random_bert({**CONFIG, **sizes}), base / "model.safetensors")
    bert = write_changed(tmp_path / "new", base)
    model = read_model_folder(tmp_path / "new")
    encoder = GpuEncoder(model, device="cpu", dtype="float32", max_tokens=64)
    np.testing.assert_allclose(encoder.encode(TEXTS), vectors(bert, encoder), atol=1e-5)
