"""Counts learnable parameters and multiply-adds of any ONNX model with static shapes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, shape_inference

# Larger constants take part in shape inference by shape only.
_SMALL = 4096
# Inputs with learnable weights, by operator; running statistics are not learnable.
_LEARNABLE = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
}


@dataclass(frozen=True)
class Counts:
    """Parameters and multiply-adds of one run of the model, including its batch."""

    parameters: int
    macs: int


def count(model: onnx.ModelProto) -> Counts:
    """Counts weights and biases of convolutions, matrix products and normalizations, and multiply-adds of
    convolutions and matrix products.

    A shared weight counts once. A bias added after a ``MatMul`` with a constant counts as part of the
    product. Bodies of ``If``, ``Loop`` and ``Scan`` are skipped. Raises ``ValueError`` if a required shape
    is unknown.
    """
    constants = {item.name: tuple(item.dims) for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = tuple(node.attribute[0].t.dims)
    shapes = {**_shapes(model), **constants}
    learnt: set[str] = set()
    products: set[str] = set()
    macs = 0
    for node in model.graph.node:
        places = _LEARNABLE.get(node.op_type, ())
        learnt.update(node.input[i] for i in places if i < len(node.input))
        if node.op_type == "MatMul" and any(name in constants for name in node.input):
            products.add(node.output[0])
        if node.op_type == "Add" and any(name in products for name in node.input):
            learnt.update(name for name in node.input if len(constants.get(name, ())) == 1)
        macs += _macs(node, shapes)
    parameters = sum(_elements(constants[name]) for name in learnt if name in constants)
    return Counts(parameters, macs)


def _elements(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _macs(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type == "Conv":
        weight = _shape(node, node.input[1], shapes)
        return _elements(_shape(node, node.output[0], shapes)) * _elements(weight[1:])
    if node.op_type == "ConvTranspose":
        weight = _shape(node, node.input[1], shapes)
        return _elements(_shape(node, node.input[0], shapes)) * _elements(weight[1:])
    if node.op_type in ("Gemm", "MatMul"):
        first = _shape(node, node.input[0], shapes)
        transposed = any(item.name == "transA" and item.i for item in node.attribute)
        inner = first[0] if transposed else first[-1]
        return _elements(_shape(node, node.output[0], shapes)) * inner
    return 0


def _shape(node: onnx.NodeProto, value: str, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    if value not in shapes:
        raise ValueError(
            f"failed to count the multiply-adds of node {node.name!r} ({node.op_type}): "
            f"the shape of {value!r} is not fixed; give every input a static shape"
        )
    return shapes[value]


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    inferred = shape_inference.infer_shapes(skeleton(model), data_prop=True)
    shapes = {}
    for item in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        tensor = item.type.tensor_type
        # Without the field the rank itself is unknown; an empty one is a scalar.
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shapes[item.name] = tuple(d.dim_value for d in tensor.shape.dim)
    return shapes


def skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with large constants as inputs: inference would copy them several times."""
    bare = onnx.ModelProto(ir_version=model.ir_version)
    bare.opset_import.extend(model.opset_import)
    bare.functions.extend(model.functions)
    graph = bare.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    declared = {item.name for item in model.graph.input}
    for item in model.graph.initializer:
        if _elements(tuple(item.dims)) <= _SMALL:
            graph.initializer.append(item)
        elif item.name not in declared:
            info = helper.make_tensor_value_info(item.name, item.data_type, list(item.dims))
            graph.input.append(info)
    return bare
