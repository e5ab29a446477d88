"""The CPU encoder: a BERT's fp32 weights, or any ONNX file, through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ta_fast.encoder.bert_graph import BertGraph
from ta_fast.encoder.model_folder import ModelFolder, read_model_folder
from ta_fast.encoder.tokenizer import I64, TextTokenizer, Tokens, pad, token_count
from ta_fast.errors import InvalidConfig
from ta_fast.types import F32

_TOKENS_PER_BATCH = 512  # padding counted; a larger batch leaves the cache and is slower
_TEXTS_AT_ONCE = 4096  # tokenised together and sorted by length, so that memory is bounded


class OnnxEncoder:
    """Unit vectors from a model's folder, on the CPU. Safe to call from several threads.

    Args:
        folder: a model in sentence-transformers' layout, with ``model.safetensors`` of a
            BERT or an ONNX file.
        label: the readable part of the name; the rest is a digest of the model's files.
        threads: threads of one forward; 0 is one for each physical core.

    Raises:
        InvalidConfig: the folder holds no model that can be run here.
    """

    def __init__(self, folder: Path, *, label: str = "onnx", threads: int = 0) -> None:
        model = read_model_folder(folder)
        self.max_length = model.max_length
        self._pooling = model.pooling
        self._tokenizer = TextTokenizer(model.tokenizer, model.max_length)
        self._session = _session(model, threads)
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._output = _hidden_output(self._session, model.weights)
        self.name = f"{label}:{model.digest()[:16]}"
        self.dim = int(self.forward(self.tokenize([""])).shape[1])

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> F32:
        """Encode texts into float32 ``[B, D]`` of unit rows; see `Encoder.encode`."""
        if len(texts) == 1 and progress is None:
            return self.forward(self.tokenize(texts))
        vectors = np.empty((len(texts), self.dim), np.float32)
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            rows = self._tokenizer.rows(texts[start : start + _TEXTS_AT_ONCE])
            for places in _batches([token_count(row) for row in rows]):
                batch = pad([rows[place] for place in places])
                vectors[[start + place for place in places]] = self.forward(batch)
                if progress:
                    progress(len(places))
        return vectors

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Texts to one padded batch, each cut to ``max_length`` tokens."""
        return pad(self._tokenizer.rows(texts))

    def forward(self, tokens: Tokens) -> F32:
        """One batch ``[B, S]`` through the model, pooled: float32 ``[B, D]``, unit rows."""
        feed = {"input_ids": tokens.ids, "attention_mask": tokens.mask}
        if "token_type_ids" in self._inputs:
            feed["token_type_ids"] = np.zeros_like(tokens.ids)
        (hidden,) = self._session.run([self._output], feed)
        return _pool(hidden.astype(np.float32, copy=False), tokens.mask, self._pooling)


def _pool(hidden: F32, mask: I64, pooling: Literal["mean", "cls"]) -> F32:
    """Token vectors ``[B, S, D]`` to unit vectors ``[B, D]``."""
    if pooling == "cls":
        pooled = hidden[:, 0]
    else:  # the sum serves as the mean: the scale goes with the norm
        pooled = (mask[:, None, :].astype(np.float32) @ hidden)[:, 0]
    norms = np.sqrt(np.einsum("bd,bd->b", pooled, pooled))[:, None]
    unit: F32 = pooled / np.maximum(norms, np.finfo(np.float32).tiny)
    return unit


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows by falling length, in batches of at most `_TOKENS_PER_BATCH` tokens."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    start = 0
    while start < len(order):
        longest = max(1, lengths[order[start]])
        stop = start + max(1, _TOKENS_PER_BATCH // longest)
        yield order[start:stop]
        start = stop


def _session(model: ModelFolder, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Waiting threads must not take the cores from the rest of the turn.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source: str | bytes = str(model.weights)
    if model.weights.suffix == ".safetensors":
        try:
            graph = BertGraph(load_file(model.weights), model.config)
        except SafetensorError as error:
            raise InvalidConfig(f"{model.weights}: {error}") from error
        values = map(onnxruntime.OrtValue.ortvalue_from_numpy, graph.weights.values())
        options.add_external_initializers(list(graph.weights), list(values))
        source = graph.model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors have no common base
        raise InvalidConfig(f"{model.weights}: ONNX Runtime cannot load it: {error}") from error


def _hidden_output(session: onnxruntime.InferenceSession, weights: Path) -> str:
    shapes = {node.name: node.shape for node in session.get_outputs()}
    for name, shape in shapes.items():
        if len(shape) == len("BSD"):
            return str(name)
    message = f"{weights}: outputs {shapes}; expected token vectors [batch, tokens, D]"
    raise InvalidConfig(message)
