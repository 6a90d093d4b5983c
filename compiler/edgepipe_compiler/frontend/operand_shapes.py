"""Checks operand shapes and types that ONNX's shape inference does not check.

A kernel that used such an operand would read out of bounds.
"""

from __future__ import annotations

from collections.abc import Iterable

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
    if node.op in BROADCAST:
        _broadcast(graph, node)
    elif node.op == "Clip":
        _one_type(graph, node, node.inputs)
    elif node.op in ("Conv", "ConvTranspose"):
        _convolution(graph, node)
    elif node.op == "InstanceNormalization":
        source = _shape(graph, node.inputs[0])
        if source is not None and len(source) >= 2:
            _expect(
                graph, node, range(1, len(node.inputs)), (source[1],), "one element per channel"
            )
    elif node.op == "GroupNormalization":
        source = _shape(graph, node.inputs[0])
        if source is not None:
            groups = node.attributes["num_groups"]
            if groups < 1 or source[1] % groups:
                _refuse(
                    node,
                    f"{groups} groups do not divide {source[1]} channels",
                    "num_groups",
                )
            wanted = source[1] if graph.opset >= 21 else groups
            _expect(
                graph,
                node,
                (1, 2),
                (wanted,),
                "one element per channel (per group before opset 21)",
            )
    elif node.op == "LayerNormalization":
        source = _shape(graph, node.inputs[0])
        if source is not None:
            axis = node.attributes.get("axis", -1) % max(1, len(source))
            _fits(graph, node, (1, 2), source[axis:])


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
