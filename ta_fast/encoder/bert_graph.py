"""A BERT's weights as an ONNX graph, in standard operators, built in memory.

The layer is that of Devlin et al., "BERT" (arXiv 1810.04805): embeddings, then for each
layer self-attention and a feed-forward network, each with a residual and a layer norm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ta_fast.errors import InvalidConfig
from ta_fast.types import F32, JsonObject

_OPSET = 20  # the first with Gelu
_IR_VERSION = 9  # that opset's own
_TOKENS = ("batch", "tokens")
_ONNX_RUNTIME = "com.microsoft"  # the runtime's own operators


class BertGraph:
    """The graph and its weights, apart, so that the weights are not copied through protobuf.

    ``fused`` is for a GPU: weights and activations are float16, and attention is one operator
    of ONNX Runtime's own; otherwise they are float32, and every operator is of the standard.

    ``model`` takes int64 ``input_ids [B, S]`` and ``attention_mask [B, S]`` and gives
    ``last_hidden_state [B, S, D]``; its initializers are external and named as in ``weights``.

    Raises:
        InvalidConfig: a variant of BERT that this graph is not, or a weight is missing.
    """

    def __init__(self, weights: dict[str, F32], config: JsonObject, *, fused: bool = False) -> None:
        check_config(config)
        self._fused = fused
        self._dtype = np.dtype(np.float16 if fused else np.float32)
        self._onnx_dtype = helper.np_dtype_to_tensor_dtype(self._dtype)
        self.weights: dict[str, NDArray[Any]] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._source = {name.removeprefix("bert."): array for name, array in weights.items()}
        self._eps = float(config.get("layer_norm_eps", 1e-12))
        self._dim = int(config["hidden_size"])
        self._heads = int(config["num_attention_heads"])
        try:
            hidden, mask = self._embeddings(), self._mask()
            # The slice of the positions hides that its length is the tokens'. Said here, the
            # runtime fuses each residual with its norm: faster on a GPU, slower on a CPU.
            shapes = [self._shaped(hidden)] if fused else []
            for layer in range(int(config["num_hidden_layers"])):
                hidden = self._layer(f"encoder.layer.{layer}.", hidden, mask)
        except KeyError as error:
            raise InvalidConfig(f"the BERT's weights have no tensor {error}") from error
        self._op("Identity", hidden, out="last_hidden_state")
        self.model = self._finish(shapes)

    def _embeddings(self) -> str:
        prefix = "embeddings."
        positions = self._take(prefix + "position_embeddings.weight")
        # One text is one segment, so its segment's vector is a part of every position's.
        positions = positions + self._take(prefix + "token_type_embeddings.weight")[0]
        words = self._keep("words", self._take(prefix + "word_embeddings.weight"))
        length = self._op("Shape", "input_ids", start=1, end=2)
        zero, one = self._constant("zero", [0]), self._constant("one", [1])
        here = self._op("Slice", self._keep("positions", positions), zero, length, zero, one)
        summed = self._op("Add", self._op("Gather", words, "input_ids"), here)
        return self._norm(prefix + "LayerNorm", summed)

    def _mask(self) -> str:
        """Float ``[B, 1, 1, S]``: 0 where a token is, a huge negative number at padding.

        Fused, the length of each text instead, int32 ``[B]``; padding comes last.
        """
        one = self._constant("one", [1])
        if self._fused:
            lengths = self._op("ReduceSum", "attention_mask", one, keepdims=0)
            return self._op("Cast", lengths, to=TensorProto.INT32)
        lowered = self._op("Cast", self._op("Sub", "attention_mask", one), to=TensorProto.FLOAT)
        lowered = self._op("Mul", lowered, self._constant("huge", np.array([1e30], np.float32)))
        return self._op("Unsqueeze", lowered, self._constant("mask_axes", [1, 2]))

    def _layer(self, prefix: str, hidden: str, mask: str) -> str:
        attended = self._linear(
            prefix + "attention.output.dense",
            self._attention(prefix + "attention.self.", hidden, mask),
        )
        hidden = self._norm(
            prefix + "attention.output.LayerNorm", self._op("Add", attended, hidden)
        )
        inner = self._op("Gelu", self._linear(prefix + "intermediate.dense", hidden))
        outer = self._linear(prefix + "output.dense", inner)
        return self._norm(prefix + "output.LayerNorm", self._op("Add", outer, hidden))

    def _attention(self, prefix: str, hidden: str, mask: str) -> str:
        """``softmax(Q K^T / sqrt(d) + mask) V`` by head, one product for Q, K and V."""
        name, parts = prefix + "qkv", [f"{prefix}{part}." for part in ("query", "key", "value")]
        weight = np.concatenate([self._take(part + "weight") for part in parts])
        bias = np.concatenate([self._take(part + "bias") for part in parts])
        if self._fused:
            kept = self._keep(name + ".weight", weight.T), self._keep(name + ".bias", bias)
            how: dict[str, Any] = {"num_heads": self._heads, "domain": _ONNX_RUNTIME}
            return self._op("Attention", hidden, *kept, mask, **how)
        scale = np.float32((self._dim // self._heads) ** -0.5)
        weight[: self._dim] *= scale  # the queries', so that the scores need no product
        bias[: self._dim] *= scale
        projected = self._affine(name, hidden, weight, bias)
        query, key, value = self._split(projected)
        scores = self._op(
            "MatMul", self._by_head(query, [0, 2, 1, 3]), self._by_head(key, [0, 2, 3, 1])
        )
        shares = self._op("Softmax", self._op("Add", scores, mask), axis=-1)
        mixed = self._op("MatMul", shares, self._by_head(value, [0, 2, 1, 3]))
        flat = self._constant("flat", [0, 0, self._dim])
        return self._op("Reshape", self._op("Transpose", mixed, perm=[0, 2, 1, 3]), flat)

    def _by_head(self, x: str, perm: list[int]) -> str:
        heads = self._constant("heads", [0, 0, self._heads, self._dim // self._heads])
        return self._op("Transpose", self._op("Reshape", x, heads), perm=perm)

    def _split(self, x: str) -> list[str]:
        outputs = [f"{x}.{part}" for part in ("query", "key", "value")]
        self._nodes.append(helper.make_node("Split", [x], outputs, axis=-1, num_outputs=3))
        return outputs

    def _linear(self, name: str, x: str) -> str:
        return self._affine(name, x, self._take(name + ".weight"), self._take(name + ".bias"))

    def _affine(self, name: str, x: str, weight: F32, bias: F32) -> str:
        product = self._op("MatMul", x, self._keep(name + ".weight", weight.T))
        return self._op("Add", product, self._keep(name + ".bias", bias))

    def _norm(self, name: str, x: str) -> str:
        weight = self._keep(name + ".weight", self._take(name + ".weight"))
        bias = self._keep(name + ".bias", self._take(name + ".bias"))
        return self._op("LayerNormalization", x, weight, bias, epsilon=self._eps)

    def _take(self, name: str) -> F32:
        return self._source[name].astype(np.float32, copy=False)

    def _keep(self, name: str, array: F32) -> str:
        self.weights[name] = np.ascontiguousarray(array, self._dtype)
        return name

    def _constant(self, name: str, values: list[int] | NDArray[Any]) -> str:
        self._constants[name] = numpy_helper.from_array(np.asarray(values), name)
        return name

    def _op(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        out = out or f"{kind}.{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def _shaped(self, name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, self._onnx_dtype, [*_TOKENS, self._dim])

    def _finish(self, shapes: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self._nodes,
            "bert",
            [
                helper.make_tensor_value_info("input_ids", TensorProto.INT64, _TOKENS),
                helper.make_tensor_value_info("attention_mask", TensorProto.INT64, _TOKENS),
            ],
            [self._shaped("last_hidden_state")],
            [*self._constants.values(), *map(_external, self.weights, self.weights.values())],
            value_info=shapes,
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_ONNX_RUNTIME, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


def _external(name: str, array: NDArray[Any]) -> onnx.TensorProto:
    """A weight whose data the session is handed beside the graph."""
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = TensorProto(name=name, dims=array.shape, data_type=kind)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="in memory")
    return tensor


def check_config(config: JsonObject) -> None:
    """Refuse a variant of BERT that is not built here; InvalidConfig names what was found."""
    expected = {
        "model_type": ("bert", None),
        "hidden_act": ("gelu", "gelu"),
        "position_embedding_type": ("absolute", "absolute"),
    }
    for key, (value, default) in expected.items():
        found = config.get(key, default)
        if found != value:
            raise InvalidConfig(f"config.json: {key} is {found!r}; expected {value!r}")
