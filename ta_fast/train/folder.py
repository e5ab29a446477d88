"""What training leaves: a folder with the changed weights, or a whole model."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ta_fast.encoder.model_folder import DELTA, ModelFolder
from ta_fast.errors import InvalidConfig
from ta_fast.train.bert import Bert
from ta_fast.train.recipe import Recipe

_WEIGHTS = "delta.safetensors"


def load_bert(model: ModelFolder, device: torch.device) -> Bert:
    """A folder's BERT, for training.

    Raises:
        InvalidConfig: it has an ONNX file only.
    """
    if model.weights.suffix != ".safetensors":
        raise InvalidConfig(f"{model.weights}: expected a BERT's model.safetensors to train")
    weights = model.read_weights(load_file)
    named = {name.removeprefix("bert."): weight for name, weight in weights.items()}
    return Bert(named, model.config, model.pooling, device)


def write_delta(out: Path, bert: Bert, base: str, digest: str, recipe: Recipe) -> None:
    """Write the changed weights in float16, and what they change, as a model's folder.

    Args:
        out: The folder, made where it is absent.
        bert: The trained model.
        base: The original's name, as ``make_encoder`` takes it.
        digest: Of the original's folder.
        recipe: Told beside them.
    """
    out.mkdir(parents=True, exist_ok=True)
    halves = {
        name: weight.detach().to("cpu", torch.float16).contiguous()
        for name, weight in bert.trained().items()
    }
    save_file(halves, out / _WEIGHTS)
    stated = {"base": base, "base_digest": digest, "weights": _WEIGHTS, "recipe": asdict(recipe)}
    (out / DELTA).write_text(json.dumps(stated, indent=1) + "\n", encoding="utf-8")


def write_whole(model: ModelFolder, out: Path) -> None:
    """Write a folder with all weights, for sentence-transformers and others.

    Args:
        model: A folder of changed weights.
        out: The folder, which must not exist.

    Raises:
        InvalidConfig: ``out`` exists.
    """
    if out.exists():
        raise InvalidConfig(f"{out} exists already; expected a new folder")
    shutil.copytree(
        model.path, out, ignore=shutil.ignore_patterns("*.safetensors", "onnx*", "*.bin")
    )
    original: dict[str, Tensor] = load_file(model.weights)
    changed = {} if model.changed is None else load_file(model.changed)
    whole = {
        name: changed.get(name.removeprefix("bert."), weight).to(weight.dtype).contiguous()
        for name, weight in original.items()
    }
    save_file(whole, out / model.weights.name, metadata={"format": "pt"})
