"""A small random BERT: its files, and its forward in plain NumPy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from ta_fast.types import F32

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "open", "pull", "request", "the", "a", "list", "##s"]
CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "hidden_size": 24,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 16,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}


def random_bert(config: Mapping[str, Any] = CONFIG) -> dict[str, F32]:
    """Weights of a small BERT, drawn at random, by their names in the file."""
    rng = np.random.default_rng(7)
    dim, inner = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (len(WORDS), dim),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], dim),
        "embeddings.token_type_embeddings.weight": (2, dim),
        "embeddings.LayerNorm": (dim,),
    }
    for layer in range(config["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}."
        for part in ("query", "key", "value"):
            shapes[f"{prefix}attention.self.{part}"] = (dim, dim)
        shapes[prefix + "attention.output.dense"] = (dim, dim)
        shapes[prefix + "intermediate.dense"] = (inner, dim)
        shapes[prefix + "output.dense"] = (dim, inner)
        shapes[prefix + "attention.output.LayerNorm"] = (dim,)
        shapes[prefix + "output.LayerNorm"] = (dim,)
    weights = {}
    for name, shape in shapes.items():
        if name.endswith(".weight"):
            weights[name] = rng.normal(size=shape)
        else:
            weights[name + ".weight"] = rng.normal(size=shape)
            weights[name + ".bias"] = rng.normal(size=shape[:1])
    return {name: array.astype(np.float32) for name, array in weights.items()}


def numpy_bert(w: Mapping[str, F32], ids: list[int], config: Mapping[str, Any] = CONFIG) -> F32:
    """Token vectors [S, D] of one text: BERT's forward as the paper states it, in float64."""

    def linear(name: str, x: F32) -> F32:
        return x @ w[name + ".weight"].T.astype(float) + w[name + ".bias"]

    def norm(name: str, x: F32) -> F32:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config["layer_norm_eps"])
        return scaled * w[name + ".weight"] + w[name + ".bias"]

    x = w["embeddings.word_embeddings.weight"][ids].astype(float)
    x += w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm("embeddings.LayerNorm", x + w["embeddings.token_type_embeddings.weight"][0])
    width = config["hidden_size"] // config["num_attention_heads"]
    for layer in range(config["num_hidden_layers"]):
        p = f"encoder.layer.{layer}."
        q, k, v = (linear(f"{p}attention.self.{part}", x) for part in ("query", "key", "value"))
        heads = []
        for start in range(0, config["hidden_size"], width):
            at = slice(start, start + width)
            score = q[:, at] @ k[:, at].T / math.sqrt(width)
            share = np.exp(score - score.max(-1, keepdims=True))
            heads.append(share / share.sum(-1, keepdims=True) @ v[:, at])
        attended = linear(p + "attention.output.dense", np.concatenate(heads, axis=1))
        x = norm(p + "attention.output.LayerNorm", x + attended)
        inner = linear(p + "intermediate.dense", x)
        inner = inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))) / 2
        x = norm(p + "output.LayerNorm", x + linear(p + "output.dense", inner))
    return x


def unit(x: F32) -> F32:
    """Rows of ``x`` divided by their lengths."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def word_tokenizer() -> Tokenizer:
    """A WordPiece tokenizer of `WORDS`, as BERT's."""
    vocab = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=WORDS[1]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def write_folder(path: Path, **changes: object) -> Path:
    """A model's folder without weights; ``changes`` replace entries of its config."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    word_tokenizer().save(str(path / "tokenizer.json"))
    return path


def write_bert(path: Path, **changes: object) -> Path:
    """A folder with the random BERT."""
    write_folder(path, **changes)
    save_file(random_bert(), path / "model.safetensors")
    return path


def write_pooling(path: Path, **config: object) -> None:
    """Say in ``path`` how the model pools."""
    (path / "1_Pooling").mkdir(exist_ok=True)
    (path / "1_Pooling" / "config.json").write_text(json.dumps(config))
