"""The GPU encoder: a BERT's weights, texts packed without padding, launches as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from threading import Lock
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ta_fast.encoder.batching import ahead, by_length
from ta_fast.encoder.gpu_bert import GpuBert
from ta_fast.encoder.model_folder import ModelFolder
from ta_fast.encoder.packed import Packed
from ta_fast.encoder.tokenizer import TextTokenizer, token_count
from ta_fast.errors import BackendUnavailable, InvalidConfig
from ta_fast.types import F32
from ta_fast.vocabulary import Vocabulary

_GRAPHS = 256  # kept; each is a few hundred kilobytes


class GpuEncoder:
    """Unit vectors from a BERT's folder, on a GPU. Safe to call from several threads.

    A forward is replayed from a CUDA graph of its shape: tokens, texts and the longest text,
    each rounded up. A shape's first forward compiles and captures, and takes much longer.

    Args:
        model: a folder with ``model.safetensors`` of a BERT.
        device: ``cuda``, the current device. ``cpu`` works under ``TRITON_INTERPRET=1`` only.
        dtype: of the weights and activations; sums are float32.
        label: the readable part of the name.
        max_tokens: tokens of one forward at most, and of the working memory.

    Raises:
        BackendUnavailable: no such device.
        InvalidConfig: the folder's model cannot be run here.
    """

    def __init__(
        self,
        model: ModelFolder,
        *,
        device: str = "cuda",
        dtype: Literal["float16", "bfloat16", "float32"] = "float16",
        label: str = "gpu",
        max_tokens: int = 65_536,
    ) -> None:
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise BackendUnavailable(f"the GPU encoder needs {device!r}; torch sees no CUDA device")
        self._device = torch.device(device)
        self.max_length = model.max_length
        self.max_tokens = _round_up(max(max_tokens, model.max_length))
        self._bert = GpuBert(
            _load(model),
            model.config,
            pooling=model.pooling,
            max_tokens=self.max_tokens,
            device=self._device,
            dtype=getattr(torch, dtype),
        )
        self.dim = self._bert.dim
        self.name = f"{label}:{dtype}:{model.digest()[:16]}"
        self.tokenizer = TextTokenizer(model.tokenizer, model.max_length)
        # Ids, then starts: one copy to the device. A text has a token or more.
        size, ints = 2 * self.max_tokens + 1, {"dtype": torch.int32}
        self._host = torch.zeros(size, pin_memory=self._cuda, **ints)
        self._input = torch.zeros(size, device=self._device, **ints)
        self._output = torch.zeros(self.max_tokens, self.dim, device=self._device)
        self._graphs: dict[tuple[int, int, int], torch.cuda.CUDAGraph] = {}
        self._lock = Lock()

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
        vectors = np.empty((len(rows), self.dim), np.float32)
        for places in by_length(list(map(token_count, rows)), self.max_tokens, padded=False):
            vectors[places] = self.forward(self.pack([rows[place] for place in places]))
            if progress:
                progress(len(places))
        return vectors

    def tokenize(self, texts: Sequence[str]) -> Packed:
        """Texts to one packed batch, each cut to ``max_length`` tokens."""
        return self.pack(self.rows(texts))

    def pack(self, rows: Sequence[bytes]) -> Packed:
        """Lay texts end to end for ``on_device``; an empty one is one padding token that counts."""
        return Packed.of_rows(rows).filled()

    def forward(self, tokens: Packed) -> F32:
        """One batch of at most ``max_tokens`` tokens: float32 ``[B, D]``, unit rows."""
        with self._lock, self._current():
            vectors: F32 = self._forward(tokens).cpu().numpy()
        return vectors

    @contextmanager
    def on_device(self, tokens: Packed) -> Iterator[Tensor]:
        """The forward's vectors left on the device, ready in the current stream's order.

        The next forward overwrites them and its own input: other threads wait until the block
        ends, and the device must be done with them by then.
        """
        with self._lock, self._current():
            yield self._forward(tokens)

    def _current(self) -> AbstractContextManager[object]:
        """Triton launches on the thread's current device, which need not be this one."""
        return torch.cuda.device(self._device) if self._cuda else nullcontext()

    def _forward(self, tokens: Packed) -> Tensor:
        count, texts = len(tokens.ids), len(tokens)
        if texts == 0:
            return self._output[:0]
        if count > self.max_tokens:
            raise ValueError(f"{count} tokens; expected at most {self.max_tokens}")
        shape = _shape(count, texts, int(tokens.lengths.max()))
        total, slots, _ = shape
        host = self._host.numpy()
        host[:count] = tokens.ids
        host[total : total + texts + 1] = tokens.starts
        host[total + texts + 1 : total + slots + 1] = count
        if not self._cuda:
            self._launch(shape)
        elif graph := self._graphs.get(shape):
            graph.replay()
        else:
            self._launch(shape)  # compiles, which a capture cannot
            self._capture(shape)
        return self._output[:texts]

    @property
    def _cuda(self) -> bool:
        return str(self._device.type) == "cuda"

    def _launch(self, shape: tuple[int, int, int]) -> None:
        total, slots, longest = shape
        used = slice(0, total + slots + 1)
        self._input[used].copy_(self._host[used], non_blocking=True)
        ids, starts = self._input[:total], self._input[total : total + slots + 1]
        self._bert.run(ids, starts, self._output[:slots], longest=longest)

    def _capture(self, shape: tuple[int, int, int]) -> None:
        if len(self._graphs) == _GRAPHS:
            torch.cuda.synchronize(self._device)  # the oldest may be running
            self._graphs.pop(next(iter(self._graphs)))
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(self._device)  # torch's own is the first device's
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self._launch(shape)
        self._graphs[shape] = graph


def _shape(tokens: int, texts: int, longest: int) -> tuple[int, int, int]:
    """The shape of the graph that serves a batch: tokens, texts and the longest, rounded up."""
    total = _round_up(tokens)
    slots = min(total, 1 << (texts - 1).bit_length())
    return total, slots, 1 << max(4, (longest - 1).bit_length())


def _round_up(tokens: int) -> int:
    """The next multiple of 16, or of an eighth of the power of two below: few shapes, little lost.

    At most 12 % more than ``tokens``, and 15 tokens.
    """
    step = max(16, 1 << max(0, (tokens - 1).bit_length() - 4))
    return -(-tokens // step) * step


def _load(model: ModelFolder) -> dict[str, Tensor]:
    if model.weights.suffix != ".safetensors":
        message = f"{model.weights}: the GPU encoder runs a BERT's model.safetensors only"
        raise InvalidConfig(message)
    try:
        weights: dict[str, Tensor] = model.read_weights(load_file)
    except SafetensorError as error:
        raise InvalidConfig(f"{model.changed or model.weights}: {error}") from error
    return weights
