"""Any model of sentence-transformers; the extra ``[st]``, which brings torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from ta_fast.encoder.model_folder import DELTA, SHIPPED, named_folder, read_model_folder
from ta_fast.encoder.tokenizer import as_row, listed
from ta_fast.errors import BackendUnavailable, InvalidConfig
from ta_fast.types import F32
from ta_fast.vocabulary import Vocabulary

_TEXTS_AT_ONCE = 1024  # between two reports of progress
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class SentenceTransformerEncoder:
    """Unit vectors from a model that sentence-transformers can load.

    Args:
        model: a Hugging Face name or a folder, also one that holds only what training changed;
            ``minilm-tools`` and ``minilm`` are the installed ones.
        device: torch's name of a device; None lets sentence-transformers choose.

    Raises:
        BackendUnavailable: the model cannot be loaded.
        InvalidConfig: a folder of changed weights does not fit its base.
    """

    def __init__(self, model: str, *, device: str | None = None) -> None:
        there = named_folder(model) if model in ("minilm", SHIPPED) else Path(model).expanduser()
        folder = read_model_folder(there) if (there / DELTA).is_file() else None
        path = folder.path if folder else there
        try:
            self._model = SentenceTransformer(
                str(path) if model and path.is_dir() else model, device=device
            )
        except (OSError, ValueError) as error:
            message = f"sentence-transformers cannot load {model!r}: {error}"
            raise BackendUnavailable(message) from error
        if folder and folder.changed:
            _change(self._model, folder.changed)
        # A tokenizer keeps its truncation in itself, so calls must not overlap.
        self._lock = Lock()
        self.name = f"st:{model}:{_digest(self._model)[:16]}"
        self.dim = int(self._encode([""]).shape[1])

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> F32:
        """Encode texts into float32 ``[B, D]`` of unit rows; see `Encoder.encode`."""
        parts = [np.empty((0, self.dim), np.float32)]
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            part = texts[start : start + _TEXTS_AT_ONCE]
            parts.append(self._encode(part))
            if progress:
                progress(len(part))
        return np.concatenate(parts)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What the token ids spell; AttributeError where the model has no such tokenizer."""
        return Vocabulary.from_pieces(listed(self._model.tokenizer.get_vocab()))

    def rows(self, texts: Sequence[str]) -> list[bytes]:
        """Token ids of each text; see `TokenEncoder.rows`."""
        readable = [_LONE_SURROGATE.sub("\ufffd", text) for text in texts]
        limit = self._model.max_seq_length
        with self._lock:
            found = self._model.tokenizer(readable, truncation=True, max_length=limit)
        return [as_row(ids) for ids in found["input_ids"]]

    def _encode(self, texts: Sequence[str]) -> F32:
        readable = [_LONE_SURROGATE.sub("\ufffd", text) for text in texts]
        with self._lock:
            vectors = self._model.encode(
                readable, normalize_embeddings=True, show_progress_bar=False
            )
        return np.asarray(vectors, np.float32)


def _change(model: SentenceTransformer, weights: Path) -> None:
    """Put the changed weights of a BERT in place of the base's."""
    try:
        changed = {name: tensor.float() for name, tensor in load_file(weights).items()}
    except (OSError, SafetensorError) as error:
        raise InvalidConfig(f"{weights}: {error}") from error
    unknown = model[0].auto_model.load_state_dict(changed, strict=False).unexpected_keys
    if unknown:
        raise InvalidConfig(f"{weights}: {unknown[0]!r} is no weight of the base")


def _digest(model: SentenceTransformer) -> str:
    """SHA-256 over the modules' settings, the prompts, the tokenizer and every weight."""
    settings = repr((model, model.max_seq_length, model.prompts, model.default_prompt_name))
    total = hashlib.sha256(settings.encode())
    if backend := getattr(model.tokenizer, "backend_tokenizer", None):
        total.update(backend.to_str().encode())
    for name, tensor in sorted(model.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()
