"""A BERT's weights, or any ONNX file, through ONNX Runtime, on a CPU or an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnxruntime import OrtValue
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ta_fast.encoder.batching import ahead, by_length
from ta_fast.encoder.bert_graph import BertGraph
from ta_fast.encoder.model_folder import ModelFolder, read_model_folder
from ta_fast.encoder.pooling import add_pooling, hidden_output
from ta_fast.encoder.tokenizer import TextTokenizer, Tokens, pad, token_count
from ta_fast.errors import BackendUnavailable, InvalidConfig
from ta_fast.types import F32
from ta_fast.vocabulary import Vocabulary

Device: TypeAlias = Literal["cpu", "cuda"]

_FOLDER_OF_WEIGHTS = "session.model_external_initializers_file_folder_path"
_CUDA = "CUDAExecutionProvider"
_PROVIDERS: dict[Device, list[Any]] = {
    "cpu": ["CPUExecutionProvider"],
    # TF32 would round the pooled vectors' lengths.
    "cuda": [(_CUDA, {"use_tf32": "0"}), "CPUExecutionProvider"],
}
# Padding counted. On a CPU a larger batch leaves the cache and is slower.
_TOKENS_PER_BATCH: dict[Device, int] = {"cpu": 512, "cuda": 65_536}


class OnnxEncoder:
    """Unit vectors from a model's folder. Safe to call from several threads.

    Args:
        folder: a model in sentence-transformers' layout, with ``model.safetensors`` of a
            BERT or an ONNX file.
        label: the readable part of the name; the rest is a digest of the model's files.
        device: ``cuda`` is the first GPU.
        fused: a BERT's graph for a GPU, in float16; an ONNX file is taken as it is.
        threads: threads of one forward on a CPU; 0 is one for each physical core.

    Raises:
        BackendUnavailable: ONNX Runtime cannot compute on that device.
        InvalidConfig: the folder holds no model that can be run here.
    """

    def __init__(
        self,
        folder: Path,
        *,
        label: str = "onnx",
        device: Device = "cpu",
        fused: bool = False,
        threads: int = 0,
    ) -> None:
        if device == "cuda" and _CUDA not in onnxruntime.get_available_providers():
            message = (
                f"onnxruntime {onnxruntime.__version__} is not built for CUDA; "
                "pip uninstall onnxruntime, then pip install 'ta-fast[gpu]'"
            )
            raise BackendUnavailable(message)
        model = read_model_folder(folder)
        self.max_length = model.max_length
        self._device: Device = device
        self.tokenizer = TextTokenizer(model.tokenizer, model.max_length)
        self._session = _session(model, device, threads, fused=fused)
        self._inputs = {node.name for node in self._session.get_inputs()}
        precision = ":float16" if fused else ""
        self.name = f"{label}{precision}:{model.digest()[:16]}"
        self.dim = int(self.forward(self.tokenize([""])).shape[1])

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> F32:
        """Encode texts into float32 ``[B, D]`` of unit rows; see `Encoder.encode`."""
        parts = [self.encode_rows(rows, progress=progress) for _, rows in ahead(self.rows, texts)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What the token ids spell."""
        return Vocabulary.from_pieces(self.tokenizer.pieces())

    def rows(self, texts: Sequence[str]) -> list[bytes]:
        """Token ids of each text, cut to ``max_length`` tokens; see `TokenEncoder.rows`."""
        return self.tokenizer.rows(texts)

    def encode_rows(
        self, rows: Sequence[bytes], *, progress: Callable[[int], None] | None = None
    ) -> F32:
        """Encode texts that are tokens already: float32 ``[B, D]`` of unit rows."""
        if len(rows) == 1 and progress is None:
            return self.forward(pad(rows))
        vectors = np.empty((len(rows), self.dim), np.float32)
        most = _TOKENS_PER_BATCH[self._device]
        for places in by_length(list(map(token_count, rows)), most, padded=True):
            vectors[places] = self.forward(pad([rows[place] for place in places]))
            if progress:
                progress(len(places))
        return vectors

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Texts to one padded batch, each cut to ``max_length`` tokens."""
        return pad(self.rows(texts))

    def forward(self, tokens: Tokens) -> F32:
        """One batch ``[B, S]`` through the model, pooled: float32 ``[B, D]``, unit rows."""
        if not len(tokens.ids):  # an axis of length 0 cannot be reshaped
            return np.empty((0, self.dim), np.float32)
        feed = {"input_ids": tokens.ids, "attention_mask": tokens.mask}
        if "token_type_ids" in self._inputs:
            feed["token_type_ids"] = np.zeros_like(tokens.ids)
        binding = self._session.io_binding()
        for name, array in feed.items():
            there = OrtValue.ortvalue_from_numpy(array, self._device)
            binding.bind_ortvalue_input(name, there)
        binding.bind_output("vectors", self._device)
        self._session.run_with_iobinding(binding)
        vectors: F32 = binding.copy_outputs_to_cpu()[0]
        return vectors


def _session(
    model: ModelFolder, device: Device, threads: int, *, fused: bool
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Waiting threads must not take the cores from the rest of the turn.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(_FOLDER_OF_WEIGHTS, str(model.weights.parent))
    if device == "cuda":
        onnxruntime.preload_dlls()  # those that torch's packages brought
        options.log_severity_level = 3  # it warns that shapes are computed on the host
    graph, weights = _read(model, fused=fused)
    add_pooling(graph, hidden_output(graph, model.weights), model.pooling)
    values = {name: OrtValue.ortvalue_from_numpy(array) for name, array in weights.items()}
    if values:
        options.add_external_initializers(list(values), list(values.values()))
    source, providers = graph.SerializeToString(), _PROVIDERS[device]
    try:
        session = onnxruntime.InferenceSession(source, options, providers=providers)
    except Exception as error:  # the runtime's errors have no common base
        raise InvalidConfig(f"{model.weights}: ONNX Runtime cannot load it: {error}") from error
    if device == "cuda" and _CUDA not in session.get_providers():  # it went to the CPU instead
        message = (
            f"onnxruntime {onnxruntime.__version__} sees no CUDA device, or not the CUDA "
            "libraries that it is built for; torch brings them: pip install 'ta-fast[gpu]'"
        )
        raise BackendUnavailable(message)
    return session


def _read(model: ModelFolder, *, fused: bool) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """The graph of token vectors, and the weights that it does not hold or find on disk."""
    try:
        if model.weights.suffix != ".safetensors":
            return onnx.load(model.weights, load_external_data=False), {}
        bert = BertGraph(model.read_weights(load_file), model.config, fused=fused)
    except (SafetensorError, DecodeError) as error:
        raise InvalidConfig(f"{model.changed or model.weights}: {error}") from error
    return bert.model, bert.weights
