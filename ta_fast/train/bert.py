"""A BERT for training, in plain torch: as in `ta_fast.encoder.bert_graph`, with dropout.

Plain torch and not sentence-transformers' trainer: a batch here is 64 queries against up to
576 tools of one catalog, each the mean of three texts, with a lexical score in the logits.
The trainer's losses take columns of single texts, so model, batches and loss would all have
to be replaced; what is left is an AdamW loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as fn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from ta_fast.train.data import Texts
from ta_fast.types import JsonObject

FROZEN = ("embeddings.word_", "embeddings.position_", "embeddings.token_type_", "pooler.")
"""Weights that training leaves as they are."""
_LEAST_PADDED = 32
_ALIGNED = 8  # tokens; attention is faster on such widths
_ATTENTION = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
# Not cuDNN's: it plans each new shape for a tenth of a second, and nearly every batch is one.
_ROOMY = 48 << 30
"""Bytes of free GPU memory from which a batch's activations are kept for the way back."""


@dataclass(frozen=True, slots=True, eq=False)
class DeviceTexts:
    """Padded ids int32 ``[n, S]`` on a device; the lengths ``[n]`` there and on the host."""

    ids: Tensor
    lengths: Tensor
    host_lengths: NDArray[np.int64]

    @classmethod
    def put(cls, texts: Texts, device: torch.device) -> DeviceTexts:
        """Pad texts and bring them to the device; an empty one is a token of padding."""
        sizes = np.diff(texts.starts)
        lengths = np.maximum(sizes, 1)
        padded = np.zeros((len(sizes), int(lengths.max(initial=1))), np.int32)
        padded[np.arange(padded.shape[1]) < sizes[:, None]] = texts.ids
        return cls(
            torch.from_numpy(padded).to(device), torch.from_numpy(lengths).to(device), lengths
        )


class Bert:
    """Weights on a device, and the way from token ids to unit vectors.

    Args:
        weights: By their names in ``model.safetensors``, without a prefix.
        config: The model's ``config.json``.
        pooling: ``mean`` or ``cls``.
        device: Where to compute: bfloat16 products in training on CUDA, float32 otherwise.
    """

    def __init__(
        self, weights: dict[str, Tensor], config: JsonObject, pooling: str, device: torch.device
    ) -> None:
        self.device, self.config, self.pooling = device, config, pooling
        self.weights = {
            name: tensor.to(device, torch.float32, copy=True).requires_grad_(
                not name.startswith(FROZEN)
            )
            for name, tensor in weights.items()
            if tensor.is_floating_point() and not name.startswith("pooler.")
        }
        self._eps = float(config.get("layer_norm_eps", 1e-12))
        self._heads = int(config["num_attention_heads"])
        self._layers = int(config["num_hidden_layers"])
        cuda = device.type == "cuda"
        self._chunk = 1 << 18 if cuda else 1 << 12  # tokens of one forward, padding counted
        self._recompute = not (cuda and torch.cuda.mem_get_info(device)[0] > _ROOMY)

    def copy(self) -> Bert:
        """The same weights, apart."""
        weights = {name: tensor.detach() for name, tensor in self.weights.items()}
        return Bert(weights, self.config, self.pooling, self.device)

    def trained(self) -> dict[str, Tensor]:
        """What training changes, by name."""
        return {name: tensor for name, tensor in self.weights.items() if tensor.requires_grad}

    def encode(self, texts: DeviceTexts, places: NDArray[np.int64], dropout: float) -> Tensor:
        """Unit vectors ``[len(places), D]`` of some texts, with gradients."""
        order, vectors = [], []
        auto = torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")
        with auto:
            for part, width in _buckets(texts.host_lengths[places], self._chunk):
                at = torch.from_numpy(places[part]).to(self.device)
                inputs = texts.ids[at, :width].long(), texts.lengths[at], dropout
                order.append(part)
                if self._recompute:
                    vectors.append(checkpoint(self._forward, *inputs, use_reentrant=False))
                else:
                    vectors.append(self._forward(*inputs))
        back = torch.from_numpy(np.argsort(np.concatenate(order))).to(self.device)
        return torch.cat(vectors)[back]

    def embed(self, texts: DeviceTexts, places: NDArray[np.int64]) -> Tensor:
        """Unit vectors ``[len(places), D]`` in float32, as they are served."""
        vectors = self.weights["embeddings.LayerNorm.weight"].new_empty(
            len(places), int(self.config["hidden_size"])
        )
        with torch.no_grad():
            for part, width in _buckets(texts.host_lengths[places], self._chunk):
                at = torch.from_numpy(places[part]).to(self.device)
                found = self._forward(texts.ids[at, :width].long(), texts.lengths[at], 0.0)
                vectors[torch.from_numpy(part).to(self.device)] = found
        return vectors

    def _forward(self, ids: Tensor, lengths: Tensor, dropout: float) -> Tensor:
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        hidden = self._embeddings(ids, dropout)
        for layer in range(self._layers):
            hidden = self._layer(f"encoder.layer.{layer}.", hidden, mask[:, None, None], dropout)
        if self.pooling == "cls":
            return fn.normalize(hidden[:, 0].float(), dim=-1)
        # The direction of the sum is that of the mean.
        return fn.normalize((hidden.float() * mask[..., None]).sum(dim=1), dim=-1)

    def _embeddings(self, ids: Tensor, dropout: float) -> Tensor:
        words = fn.embedding(ids, self.weights["embeddings.word_embeddings.weight"])
        positions = self.weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        segment = self.weights["embeddings.token_type_embeddings.weight"][0]
        return fn.dropout(self._norm("embeddings.LayerNorm", words + positions + segment), dropout)

    def _layer(self, prefix: str, hidden: Tensor, mask: Tensor, dropout: float) -> Tensor:
        parts = (prefix + f"attention.self.{part}" for part in ("query", "key", "value"))
        query, key, value = (self._by_head(self._linear(part, hidden)) for part in parts)
        with sdpa_kernel(_ATTENTION):
            mixed = fn.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, dropout_p=dropout
            )
        mixed = mixed.transpose(1, 2).flatten(2)
        attended = fn.dropout(self._linear(prefix + "attention.output.dense", mixed), dropout)
        hidden = self._norm(prefix + "attention.output.LayerNorm", hidden + attended)
        inner = fn.gelu(self._linear(prefix + "intermediate.dense", hidden))
        outer = fn.dropout(self._linear(prefix + "output.dense", inner), dropout)
        return self._norm(prefix + "output.LayerNorm", hidden + outer)

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self._heads, -1)).transpose(1, 2)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return fn.linear(x, self.weights[name + ".weight"], self.weights[name + ".bias"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weights[name + ".weight"], self.weights[name + ".bias"]
        return fn.layer_norm(x, weight.shape, weight, bias, self._eps)


def _buckets(lengths: NDArray[np.int64], chunk: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Places of texts of about one length, and that length: 32, 64, 128, ... or the longest."""
    order = np.argsort(lengths, kind="stable")
    ordered, first = lengths[order], 0
    while first < len(order):
        width = _LEAST_PADDED
        while width < ordered[first]:
            width *= 2
        last = int(np.searchsorted(ordered, width, side="right"))
        last = min(last, first + max(1, chunk // width))
        yield order[first:last], -(-int(ordered[last - 1]) // _ALIGNED) * _ALIGNED
        first = last


def unit_mean(vectors: Tensor, count: int) -> Tensor:
    """Unit vectors ``[n, D]`` of the sums of ``count`` neighbours each, ``[n * count, D]``."""
    return fn.normalize(vectors.unflatten(0, (-1, count)).sum(dim=1), dim=-1)
