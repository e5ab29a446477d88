"""Pooling as a part of an ONNX graph: token vectors to one unit vector a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ta_fast.errors import InvalidConfig

_PREFIX = "ta_fast.pooling."


def add_pooling(model: onnx.ModelProto, hidden: str, pooling: Literal["mean", "cls"]) -> None:
    """Make float32 ``vectors [B, D]`` the only output of a model of token vectors.

    The operators used have one form in every version since opset 9.

    Args:
        model: has the input ``attention_mask [B, S]``; changed in place.
        hidden: the output ``[B, S, D]``, of any float type.
        pooling: the mean over a text's tokens, or its first token.
    """
    graph = model.graph

    def op(kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        out = out or f"{_PREFIX}{len(graph.node)}"
        graph.node.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def constant(name: str, value: object) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), _PREFIX + name))
        return _PREFIX + name

    row, column = constant("row", [0, 1, -1]), constant("column", [0, -1, 1])
    flat, least = constant("flat", [0, -1]), constant("least", np.finfo(np.float32).tiny)
    tokens = op("Cast", hidden, to=TensorProto.FLOAT)
    if pooling == "cls":
        pooled = op("Reshape", op("Gather", tokens, constant("first", 0), axis=1), row)
    else:  # the sum serves as the mean: the scale goes with the length
        mask = op("Cast", op("Reshape", "attention_mask", row), to=TensorProto.FLOAT)
        pooled = op("MatMul", mask, tokens)
    square = op("MatMul", pooled, op("Reshape", pooled, column))
    length = op("Max", op("Sqrt", square), least)
    op("Reshape", op("Div", pooled, length), flat, out="vectors")
    del graph.output[:]
    vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", "dim"])
    graph.output.append(vectors)


def hidden_output(model: onnx.ModelProto, weights: Path) -> str:
    """The output that holds token vectors; InvalidConfig where there is none."""
    shapes = {node.name: len(node.type.tensor_type.shape.dim) for node in model.graph.output}
    for name, rank in shapes.items():
        if rank == len("BSD"):
            return str(name)
    message = f"{weights}: outputs of rank {shapes}; expected token vectors [batch, tokens, D]"
    raise InvalidConfig(message)
