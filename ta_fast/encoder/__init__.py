"""Text to unit vectors: the Encoder protocol and the encoders behind it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeGuard, cast

from ta_fast.encoder.model_folder import SHIPPED
from ta_fast.errors import BackendUnavailable, InvalidConfig
from ta_fast.types import F32
from ta_fast.vocabulary import Vocabulary

__all__ = ["Encoder", "TokenEncoder", "make_encoder", "shows_tokens"]


class Encoder(Protocol):
    """Text to unit vectors. Several threads may call one encoder at once."""

    @property
    def name(self) -> str:
        """Identity of the vectors: differs whenever the vectors could differ.

        Stored embeddings are keyed by it, so it covers the weights, the tokenizer,
        the pooling and the precision.
        """
        ...

    @property
    def dim(self) -> int:
        """Length D of a vector."""
        ...

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> F32:
        """Encode any number of texts; batching is the encoder's own business.

        A text longer than the model's limit is cut to it. The vector of a text does
        not depend on the texts beside it (within 1e-3 cosine).

        Args:
            texts: B texts; B may be 0, a text may be empty.
            progress: called after each batch with the number of texts just done.

        Returns:
            float32 ``[B, D]``; each row has length 1.
        """
        ...


class TokenEncoder(Encoder, Protocol):
    """An encoder that shows its tokens: hybrid scores are made of them.

    One that also has ``encode_rows(rows)``, float32 ``[B, D]``, spares a second tokenising.
    """

    @property
    def vocabulary(self) -> Vocabulary:
        """What its token ids spell."""
        ...

    def rows(self, texts: Sequence[str]) -> list[bytes]:
        """Token ids of each text, special tokens included, as the bytes of their int32."""
        ...


def shows_tokens(encoder: Encoder) -> TypeGuard[TokenEncoder]:
    """Whether an encoder is a ``TokenEncoder``."""
    return hasattr(encoder, "vocabulary") and hasattr(encoder, "rows")


def make_encoder(name: str = SHIPPED, device: str = "") -> Encoder:
    """Make the encoder that ``name`` says.

    Args:
        name: ``minilm-tools`` (all-MiniLM-L6-v2 trained to find tools, which is shipped),
            ``minilm`` (the original, whose weights both take from the installed package, else
            from the Hugging Face cache or hub), a model's folder, a Hugging Face name
            ``org/model``, ``st:NAME_OR_FOLDER`` for sentence-transformers, or ``gpu:`` or
            ``ort:`` and one of the first four for the GPU: a BERT by our own kernels, or
            what the CPU runs through ONNX Runtime; ``gpu`` alone is ``gpu:minilm-tools``.
        device: Where it computes: ``cpu``, ``cuda`` or ``cuda:NUMBER``; "" is where its name
            says, and of several GPUs the current one.

    Raises:
        BackendUnavailable: a package, the weights or the device are absent; says how to get them.
        InvalidConfig: no such name, a model that this encoder cannot run, or a device that
            it does not compute on.
    """
    if name.startswith("st:"):
        _check_device(name, device, r"cpu|cuda(:\d+)?", "cpu, cuda or cuda:NUMBER")
        module, named = _import("ta_fast.encoder.sentence_transformer", "st"), name[len("st:") :]
        _check_there(device)
        return cast("Encoder", module.SentenceTransformerEncoder(named, device=device or None))
    if name == "gpu" or name.startswith("gpu:"):
        _check_device(name, device, r"cuda(:\d+)?", "cuda or cuda:NUMBER")
        return _gpu_encoder(name.removeprefix("gpu").removeprefix(":") or SHIPPED, device or "cuda")
    if name.startswith("ort:"):
        _check_device(name, device, "cuda(:0)?", "cuda: ONNX Runtime is given the first GPU")
        module, name = _import("ta_fast.encoder.onnx_encoder", "gpu"), name.removeprefix("ort:")
        on_gpu = {"label": f"ort:{_label(name)}", "device": "cuda", "fused": True}
        return cast("Encoder", module.OnnxEncoder(_folder(name), **on_gpu))
    _check_device(name, device, "cpu", f"cpu; on a GPU it is 'gpu:{name}'")
    module = _import("ta_fast.encoder.onnx_encoder", "cpu")
    return cast("Encoder", module.OnnxEncoder(_folder(name), label=_label(name)))


def _gpu_encoder(name: str, device: str) -> Encoder:
    module = _import("ta_fast.encoder.gpu_encoder", "gpu")
    from ta_fast.encoder.model_folder import read_model_folder

    _check_there(device)
    model, label = read_model_folder(_folder(name)), f"gpu:{_label(name)}"
    return cast("Encoder", module.GpuEncoder(model, label=label, device=device))


def _check_device(name: str, device: str, pattern: str, expected: str) -> None:
    if device and not re.fullmatch(pattern, device):
        raise InvalidConfig(f"encoder {name!r} on device {device!r}; expected {expected}")


def _check_there(device: str) -> None:
    """Refuse a GPU of a number that torch does not see; to see none at all has a word elsewhere."""
    import torch

    number, count = device.partition(":")[2], torch.cuda.device_count()
    if number and int(number) >= count:
        raise BackendUnavailable(f"device {device!r}: torch sees {count} CUDA devices")


def _folder(name: str) -> Path:
    from ta_fast.encoder.model_folder import named_folder

    return named_folder(name)


def _label(name: str) -> str:
    if name not in ("minilm", SHIPPED) and _is_folder(name):
        return Path(name).expanduser().resolve().name
    return name


def _is_folder(name: str) -> bool:
    return name != "" and Path(name).expanduser().is_dir()


def _import(module: str, extra: str) -> ModuleType:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        message = f"the package {error.name!r} is not installed; pip install 'ta-fast[{extra}]'"
        raise BackendUnavailable(message) from error
