"""A BERT on the GPU: its weights, its working memory, and the launches of one forward."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ta_fast.encoder import triton_bert as op
from ta_fast.encoder.bert_graph import check_config
from ta_fast.errors import InvalidConfig
from ta_fast.types import JsonObject

Affine = tuple[Tensor, Tensor]
"""Weight and bias, of a linear layer ``[N, K]`` and ``[N]`` or of a layer norm ``[D]`` twice."""

_STEP = 16  # least side of a matrix product's tile


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: Affine
    mix: Affine
    mix_norm: Affine
    inner: Affine
    outer: Affine
    outer_norm: Affine


class GpuBert:
    """Packed token ids to unit vectors, at most ``max_tokens`` tokens at once.

    The layer is that of `ta_fast.encoder.bert_graph`. Weights and activations have ``dtype``,
    sums are float32.

    Args:
        weights: the tensors of ``model.safetensors``, by name.
        config: the model's ``config.json``.
        pooling: what turns a text's token vectors into one.
        max_tokens: rows of the working memory, 2 (6 D + I) bytes each in half precision.
        device: where to compute.
        dtype: of the weights and activations.

    Raises:
        InvalidConfig: a variant of BERT or a shape that these kernels are not for, or a weight
            is missing.
    """

    def __init__(
        self,
        weights: dict[str, Tensor],
        config: JsonObject,
        *,
        pooling: Literal["mean", "cls"],
        max_tokens: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        check_config(config)
        self.dim = int(config["hidden_size"])
        self._heads = int(config["num_attention_heads"])
        self._inner = int(config["intermediate_size"])
        _check_shape(self.dim, self._heads, self._inner)
        self._eps = float(config.get("layer_norm_eps", 1e-12))
        self._mean = pooling == "mean"
        self._device, self._dtype = device, dtype
        self._source = {name.removeprefix("bert."): tensor for name, tensor in weights.items()}
        try:
            self._read(int(config["num_hidden_layers"]))
        except KeyError as error:
            raise InvalidConfig(f"the BERT's weights have no tensor {error}") from error
        self._source.clear()
        widths = (self.dim, self.dim, 3 * self.dim, self.dim, self._inner)
        self._memory = [torch.zeros(max_tokens, w, device=device, dtype=dtype) for w in widths]

    def run(self, ids: Tensor, starts: Tensor, out: Tensor, *, longest: int) -> None:
        """Launch one forward on the current stream; nothing here waits for the device.

        Rows of ``ids`` that no text owns are computed and ignored, so that one graph serves
        any batch that fits into it.

        Args:
            ids: token ids, int32 ``[T]``, on the device.
            starts: int32 ``[B + 1]`` on the device; text b has the rows ``starts[b]`` to
                ``starts[b + 1]``. A text without rows gives zeros.
            out: float32 ``[B, D]``, overwritten.
            longest: no text has more tokens.
        """
        x, y, qkv, mixed, inner = (memory[: ids.shape[0]] for memory in self._memory)
        op.embed(ids, starts, self._tables, self._norm, x, eps=self._eps, longest=longest)
        for layer in self._layers:
            op.linear(x, *layer.qkv, qkv)
            op.attention(qkv, starts, mixed, heads=self._heads, longest=longest)
            op.linear(mixed, *layer.mix, y)
            op.add_norm(x, y, layer.mix_norm, x, eps=self._eps)
            op.linear(x, *layer.inner, inner, gelu=True)
            op.linear(inner, *layer.outer, y)
            op.add_norm(x, y, layer.outer_norm, x, eps=self._eps)
        op.pool(x, starts, out, mean=self._mean)

    def _read(self, layers: int) -> None:
        words = self._take("embeddings.word_embeddings.weight")
        # One text is one segment, so its segment's vector is a part of every position's.
        positions = self._take("embeddings.position_embeddings.weight")
        positions = positions + self._take("embeddings.token_type_embeddings.weight")[0]
        self._tables = (self._put(words), self._put(positions))
        self._norm = self._affine("embeddings.LayerNorm")
        self._layers = [self._layer(f"encoder.layer.{layer}.") for layer in range(layers)]

    def _layer(self, prefix: str) -> _Layer:
        return _Layer(
            qkv=self._qkv(prefix + "attention.self."),
            mix=self._affine(prefix + "attention.output.dense"),
            mix_norm=self._affine(prefix + "attention.output.LayerNorm"),
            inner=self._affine(prefix + "intermediate.dense"),
            outer=self._affine(prefix + "output.dense"),
            outer_norm=self._affine(prefix + "output.LayerNorm"),
        )

    def _qkv(self, prefix: str) -> Affine:
        parts = ("query", "key", "value")
        weight = torch.cat([self._take(f"{prefix}{part}.weight") for part in parts])
        bias = torch.cat([self._take(f"{prefix}{part}.bias") for part in parts])
        scale = math.log2(math.e) / math.sqrt(self.dim // self._heads)
        weight[: self.dim] *= scale
        bias[: self.dim] *= scale
        return self._put(weight), self._put(bias)

    def _affine(self, name: str) -> Affine:
        return self._put(self._take(name + ".weight")), self._put(self._take(name + ".bias"))

    def _take(self, name: str) -> Tensor:
        return self._source[name].float()

    def _put(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, self._dtype).contiguous()


def _check_shape(dim: int, heads: int, inner: int) -> None:
    width = dim // heads
    power_of_two = width >= _STEP and width & (width - 1) == 0
    if dim % _STEP or inner % _STEP or width * heads != dim or not power_of_two:
        message = (
            f"config.json: hidden_size {dim}, intermediate_size {inner}, {heads} heads; expected "
            "sizes that are multiples of 16 and heads of width 16, 32, 64, ..."
        )
        raise InvalidConfig(message)
