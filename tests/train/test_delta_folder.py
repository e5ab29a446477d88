"""A folder of changed weights is a model wherever ta_fast runs; torch is not needed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ta_fast.encoder import make_encoder
from ta_fast.encoder.model_folder import DELTA, read_model_folder
from ta_fast.errors import InvalidConfig
from tests.train.tiny_sets import write_base

TEXTS = ["open the pull requests", "list", "a request the list open a list", ""]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The model that is changed."""
    return write_base(tmp_path / "base")


def write_changed(folder: Path, base: Path, scale: float = 1.25) -> dict[str, np.ndarray]:
    """A folder with every layer of the base scaled, in float16; returns its weights."""
    weights = load_file(base / "model.safetensors")
    changed = {
        name: (scale * weight).astype(np.float16)
        for name, weight in weights.items()
        if "_embeddings." not in name
    }
    folder.mkdir()
    save_file(changed, folder / "delta.safetensors")
    digest = read_model_folder(base).digest()
    stated = {"base": str(base), "base_digest": digest, "weights": "delta.safetensors"}
    (folder / DELTA).write_text(json.dumps(stated))
    return changed


def test_changed_weights_replace_the_bases(tmp_path: Path, base: Path) -> None:
    """The vectors are those of one file with all the weights."""
    changed = write_changed(tmp_path / "new", base)
    shutil.copytree(base, tmp_path / "whole")
    weights = {**load_file(base / "model.safetensors"), **changed}
    save_file(weights, tmp_path / "whole" / "model.safetensors")
    expected = make_encoder(str(tmp_path / "whole")).encode(TEXTS)
    np.testing.assert_array_equal(make_encoder(str(tmp_path / "new")).encode(TEXTS), expected)


def test_the_name_tells_changes_apart(tmp_path: Path, base: Path) -> None:
    """Stored vectors are keyed by it: base, one change and another never mix."""
    write_changed(tmp_path / "a", base)
    write_changed(tmp_path / "b", base, 1.5)
    (tmp_path / "again").mkdir()
    write_changed(tmp_path / "again" / "a", base)
    names = [make_encoder(str(path)).name for path in (base, tmp_path / "a", tmp_path / "b")]
    assert len({name.partition(":")[2] for name in names}) == 3
    assert make_encoder(str(tmp_path / "again" / "a")).name == names[1]


def test_another_base_is_refused(tmp_path: Path, base: Path) -> None:
    """Weights that change one model are not laid over another."""
    write_changed(tmp_path / "new", base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-4}))
    with pytest.raises(InvalidConfig, match="trained from"):
        make_encoder(str(tmp_path / "new"))


def test_a_broken_folder_says_what_it_lacks(tmp_path: Path, base: Path) -> None:
    """The weights, what they change, or the manifest's entries."""
    folder = tmp_path / "new"
    write_changed(folder, base)
    whole = (folder / DELTA).read_text()
    for broken, message in {
        "{}": "expected texts base",
        whole.replace("delta.safetensors", "other"): "no other",
    }.items():
        (folder / DELTA).write_text(broken)
        with pytest.raises(InvalidConfig, match=message):
            make_encoder(str(folder))
    (folder / DELTA).write_text(whole)
    shutil.rmtree(base)
    with pytest.raises(InvalidConfig, match="neither a known name nor a folder"):
        make_encoder(str(folder))
