"""Checks operand shapes and types that ONNX's shape inference does not check.

A kernel that used such an operand would read out of bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from ..errors import CompileError
from .graph import Graph, Node

# Their operands broadcast to the result.
BROADCAST = {
    "Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "Sum", "Mean", "PRelu", "Where", "Equal",
    "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Xor", "BitShift", "BitwiseAnd",
    "BitwiseOr", "BitwiseXor",
}  # fmt: skip


def check(graph: Graph, node: Node) -> None:
    """Refuses a node with an operand of a wrong shape or type. Unknown shapes pass."""
    if node.op in CHECKS:
        CHECKS[node.op](graph, node)


def _shape(graph: Graph, name: str) -> tuple[int, ...] | None:
    known = name in graph.constants or name in graph.tensors
    return tuple(graph.tensor(name).shape) if known else None


def _refuse(node: Node, what: str, which: str) -> None:
    raise CompileError(
        "invalid_onnx",
        f"failed to read the {node.op} {node.name!r}: {what}; correct {which} in the network",
        node.name,
    )


def _expect(
    graph: Graph, node: Node, places: Iterable[int], wanted: tuple[int, ...], meaning: str
) -> None:
    for place in places:
        name = node.inputs[place] if place < len(node.inputs) else ""
        shape = _shape(graph, name) if name else None
        if shape is not None and shape != wanted:
            _refuse(
                node,
                f"operand {name!r} has shape {list(shape)}, expected {list(wanted)}, {meaning}",
                "the operand's shape",
            )


def _fits(graph: Graph, node: Node, places: Iterable[int], wanted: tuple[int, ...]) -> None:
    """Refuses operands that do not broadcast to ``wanted``."""
    for place in places:
        name = node.inputs[place] if place < len(node.inputs) else ""
        shape = _shape(graph, name) if name else None
        if shape is not None and not _broadcasts(shape, wanted):
            # Some exporters write a slope per channel without the axes after it.
            channels = node.op == "PRelu" and len(wanted) > 2 and shape == wanted[1:2]
            remedy = [*shape, *[1] * (len(wanted) - 2)]
            _refuse(
                node,
                f"operand {name!r} of shape {list(shape)} does not broadcast to {list(wanted)}",
                f"the shape to {remedy}" if channels else "the operand's shape",
            )


def _broadcasts(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, wanted) == wanted
    except ValueError:
        return False


def _broadcast(graph: Graph, node: Node) -> None:
    result = _shape(graph, node.inputs[0] if node.op == "PRelu" else node.outputs[0])
    if result is not None:
        _fits(graph, node, range(len(node.inputs)), result)
    if node.op == "Pow":
        return
    _one_type(graph, node, node.inputs[1:] if node.op == "Where" else node.inputs)


def _clip(graph: Graph, node: Node) -> None:
    _one_type(graph, node, node.inputs)


def _one_type(graph: Graph, node: Node, values: Iterable[str]) -> None:
    known = [name for name in values if name in graph.constants or name in graph.tensors]
    types = sorted({graph.tensor(name).dtype for name in known})
    if len(types) > 1:
        _refuse(node, f"its operands have different types: {' and '.join(types)}", "the types")


def _convolution(graph: Graph, node: Node) -> None:
    source, weight = _shape(graph, node.inputs[0]), _shape(graph, node.inputs[1])
    if source is None or weight is None:
        return
    groups = node.attributes.get("group", 1)
    turned = node.op == "ConvTranspose"
    if len(source) != len(weight) or len(source) < 3 or groups < 1:
        fits = False
    elif turned:
        fits = source[1] == weight[0] and weight[0] % groups == 0
    else:
        fits = source[1] == weight[1] * groups and weight[0] % groups == 0
    if not fits:
        _refuse(
            node,
            f"weights of shape {list(weight)} in {groups} groups do not match the input of shape "
            f"{list(source)}",
            "the weights or the preceding operator",
        )
    made = weight[1] * groups if turned else weight[0]
    _expect(graph, node, (2,), (made,), "one element per output channel")
    kernel = node.attributes.get("kernel_shape")
    if kernel is not None and tuple(kernel) != weight[2:]:
        _refuse(
            node,
            f"kernel_shape {list(kernel)} differs from the weights' {list(weight[2:])}",
            "kernel_shape",
        )
    result = _shape(graph, node.outputs[0])
    if result is not None and 0 in result and 0 not in source:
        _refuse(
            node,
            f"its result of shape {list(result)} for the input of shape {list(source)} is empty",
            "kernel_shape, pads or the input's shape",
        )


def _product(graph: Graph, node: Node) -> None:
    """ONNX does not compare the operands of a Gemm before operator set 11."""
    first, second = (_shape(graph, name) for name in node.inputs[:2])
    if first is None or second is None:
        return
    fits = bool(first and second)
    left, right = first, second
    if node.op == "Gemm":
        fits = len(first) == len(second) == 2
        left = first[::-1] if node.attributes.get("transA", 0) else first
        right = second[::-1] if node.attributes.get("transB", 0) else second
    if not fits or left[-1] != right[-2:][0]:
        _refuse(
            node,
            f"operands of shapes {list(first)} and {list(second)} do not match",
            "the weights or the preceding operator",
        )
    if node.op == "Gemm":
        _fits(graph, node, (2,), (left[0], right[1]))


def _reshaped(graph: Graph, node: Node) -> None:
    """ONNX compares the numbers of elements only if the new shape contains -1."""
    before, after = _shape(graph, node.inputs[0]), _shape(graph, node.outputs[0])
    if before is not None and after is not None and math.prod(before) != math.prod(after):
        _refuse(
            node,
            f"the input of shape {list(before)} has {math.prod(before):,} elements, the result of shape "
            f"{list(after)} has {math.prod(after):,}",
            "the new shape or the preceding operator",
        )


def _instance_normalization(graph: Graph, node: Node) -> None:
    source = _shape(graph, node.inputs[0])
    if source is not None and len(source) >= 2:
        _expect(graph, node, range(1, len(node.inputs)), (source[1],), "one element per channel")


def _group_normalization(graph: Graph, node: Node) -> None:
    source = _shape(graph, node.inputs[0])
    if source is None:
        return
    groups = node.attributes["num_groups"]
    if groups < 1 or source[1] % groups:
        _refuse(node, f"{groups} groups do not divide {source[1]} channels", "num_groups")
    wanted = source[1] if graph.opset >= 21 else groups
    meaning = "one element per channel (per group before opset 21)"
    _expect(graph, node, (1, 2), (wanted,), meaning)


def _layer_normalization(graph: Graph, node: Node) -> None:
    source = _shape(graph, node.inputs[0])
    if source is not None:
        axis = node.attributes.get("axis", -1) % max(1, len(source))
        _fits(graph, node, (1, 2), source[axis:])


def _recurrent(graph: Graph, node: Node) -> None:
    source, recurrence = _shape(graph, node.inputs[0]), _shape(graph, node.inputs[2])
    if source is None or recurrence is None:
        return
    if len(source) != 3 or len(recurrence) != 3:
        _refuse(
            node,
            f"the input has shape {list(source)} and the recurrence weights have {list(recurrence)}, "
            "expected 3 axes each",
            "the operands' shapes",
        )
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[node.op]
    directions = 2 if node.attributes.get("direction") in (b"bidirectional", "bidirectional") else 1
    hidden = node.attributes.get("hidden_size", recurrence[2])
    batch_first = node.attributes.get("layout", 0) == 1
    batch = source[0 if batch_first else 1]
    state = (batch, directions, hidden) if batch_first else (directions, batch, hidden)
    rows = gates * hidden
    weights = "one row per gate of each hidden element, one column per"
    for place, wanted, meaning in (
        (1, (directions, rows, source[2]), f"{weights} input element"),
        (2, (directions, rows, hidden), f"{weights} hidden element"),
        (3, (directions, 2 * rows), "two biases per gate of each hidden element"),
        (4, (batch,), "one length per sequence"),
        (5, state, "one state per direction and sequence"),
        (6, state, "one state per direction and sequence"),
        (7, (directions, 3 * hidden), "three peepholes per hidden element"),
    ):
        _expect(graph, node, (place,), wanted, meaning)


def _depth_to_space(graph: Graph, node: Node) -> None:
    source, size = _shape(graph, node.inputs[0]), node.attributes["blocksize"]
    if source is None:
        return
    divided = source[1:2] if node.op == "DepthToSpace" else source[2:]
    divisor = size**2 if node.op == "DepthToSpace" else size
    if len(source) != 4 or size < 1 or any(extent % divisor for extent in divided):
        _refuse(
            node,
            f"blocksize {size} does not fit the input of shape {list(source)}",
            "blocksize or the input's shape",
        )


def _elements(graph: Graph, node: Node) -> None:
    """Indices may be fewer than the elements along each other axis, but not more."""
    source, indices = _shape(graph, node.inputs[0]), _shape(graph, node.inputs[1])
    if source is None or indices is None:
        return
    axis = node.attributes.get("axis", 0) % max(1, len(source))
    fits = len(source) == len(indices) and all(
        place == axis or extent <= most
        for place, (extent, most) in enumerate(zip(indices, source, strict=True))
    )
    if not fits:
        _refuse(
            node,
            f"indices of shape {list(indices)} do not fit data of shape {list(source)}",
            "the indices' shape",
        )
    if node.op != "GatherElements":
        _expect(graph, node, (2,), indices, "the shape of the indices")


def _gather_nd(graph: Graph, node: Node) -> None:
    source, indices = _shape(graph, node.inputs[0]), _shape(graph, node.inputs[1])
    count = node.attributes.get("batch_dims", 0)
    if source is not None and indices is not None and source[:count] != indices[:count]:
        _refuse(
            node,
            f"the first {count} dimensions of the data's shape {list(source)} and the indices' shape "
            f"{list(indices)} differ",
            "the indices' shape",
        )


def _scatter_nd(graph: Graph, node: Node) -> None:
    source, indices = _shape(graph, node.inputs[0]), _shape(graph, node.inputs[1])
    if source is None or not indices:
        return
    if indices[-1] > len(source):
        _refuse(
            node,
            f"indices of shape {list(indices)} do not fit data of shape {list(source)}",
            "the indices' shape",
        )
    wanted = (*indices[:-1], *source[indices[-1] :])
    _expect(graph, node, (2,), wanted, "one element or slice per index")


CHECKS: dict[str, Callable[[Graph, Node], None]] = {
    **dict.fromkeys(BROADCAST, _broadcast),
    "Clip": _clip,
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolution),
    **dict.fromkeys(("Gemm", "MatMul"), _product),
    "Reshape": _reshaped,
    "InstanceNormalization": _instance_normalization,
    "GroupNormalization": _group_normalization,
    "LayerNormalization": _layer_normalization,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _depth_to_space),
    **dict.fromkeys(("GatherElements", "Scatter", "ScatterElements"), _elements),
    "GatherND": _gather_nd,
    "ScatterND": _scatter_nd,
}
