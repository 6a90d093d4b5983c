"""Units: the smallest pieces that a cut can separate. The same for every target.

A unit is an anchor (convolution, matrix product, pooling, ...) and the element-wise operators that only it
feeds: bias, activation, and a residual addition whose other operand is already available.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import CompileError
from .graph import Graph, Node

ELEMENTWISE = {
    "Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu",
    "Add", "Sub", "Mul", "Div", "Neg", "Abs", "Sqrt", "Exp", "Log", "Pow", "Reciprocal", "Erf",
    "Gelu", "Mish", "Swish", "Softplus", "Softsign", "Selu", "Celu", "ThresholdedRelu", "Min",
    "Max", "Sum", "Mean", "Floor", "Ceil",
}  # fmt: skip
SHAPE_ONLY = {"Flatten", "Reshape", "Squeeze", "Unsqueeze"}
# Limit of operators between a fork and its join.
LONGEST = 12
PRODUCTS = {"Gemm", "MatMul"}
RECURRENT = {"LSTM", "GRU", "RNN"}


@dataclass
class Unit:
    """Nodes in order. ``inputs`` and ``outputs`` are the values that cross its border."""

    name: str
    nodes: list[Node]
    inputs: list[str]
    outputs: list[str]

    @property
    def operators(self) -> list[str]:
        """ONNX operators of its nodes."""
        return [node.op for node in self.nodes]

    @property
    def parameters(self) -> int:
        """Number of learnable weights."""
        return sum(node.parameters for node in self.nodes)


def form(graph: Graph) -> list[Unit]:
    """Groups the nodes of a simplified graph into units, in topological order."""
    readers = graph.consumers()
    available = set(graph.inputs) | set(graph.constants)
    taken: set[str] = set()
    units: list[Unit] = []
    for node in graph.nodes:
        if node.name in taken:
            continue
        group = [node]
        if node.op in SHAPE_ONLY:
            group += _product_after(graph, readers, node)
        _extend(graph, readers, available, group)
        taken.update(member.name for member in group)
        available.update(output for member in group for output in member.outputs)
        units.append(_unit(graph, readers, group))
    if not units:
        raise CompileError(
            "invalid_onnx",
            f"failed to import the network {graph.name}: it has no operators; export it again",
        )
    return units


def macs(graph: Graph, unit: Unit) -> int:
    """Multiply-adds of one inference in convolutions, matrix products and recurrent layers."""
    total = 0
    for node in unit.nodes:
        if node.op == "Conv":
            weight = graph.tensor(node.inputs[1]).shape
            total += graph.tensor(node.outputs[0]).elements * int(np.prod(weight[1:]))
        elif node.op == "ConvTranspose":
            weight = graph.tensor(node.inputs[1]).shape
            total += graph.tensor(node.inputs[0]).elements * int(np.prod(weight[1:]))
        elif node.op in PRODUCTS:
            first = graph.tensor(node.inputs[0]).shape
            inner = first[0] if node.attributes.get("transA") else first[-1]
            total += graph.tensor(node.outputs[0]).elements * inner
        elif node.op in RECURRENT:
            steps = int(np.prod(graph.tensor(node.inputs[0]).shape[:2]))
            total += steps * sum(graph.tensor(name).elements for name in node.inputs[1:3])
    return total


def _product_after(graph: Graph, readers: dict[str, list[Node]], node: Node) -> list[Node]:
    """The matrix product after a flatten, if it is the only reader and its weights are constant."""
    value = node.outputs[0]
    after = readers.get(value, [])
    alone = len(after) == 1 and value not in graph.outputs
    is_product = alone and after[0].op in PRODUCTS and after[0].inputs[0] == value
    if is_product and all(other in graph.constants for other in after[0].inputs[1:]):
        return [after[0]]
    return []


def _extend(
    graph: Graph, readers: dict[str, list[Node]], available: set[str], group: list[Node]
) -> None:
    """Appends the element-wise operators that follow the group's last output."""
    while len(group[-1].outputs) == 1:
        value = group[-1].outputs[0]
        inside = {output for member in group for output in member.outputs}
        after = readers.get(value, [])
        if value in graph.outputs or not after or group[-1].op in SHAPE_ONLY:
            return
        follower = after if len(after) == 1 else _rejoining(graph, readers, available, value)
        if not follower:
            return
        for node in follower:
            if not _fits(node, available, inside):
                return
            if graph.tensor(node.outputs[0]).shape != graph.tensor(value).shape:
                return
            inside.update(node.outputs)
        group.extend(follower)


def _fits(node: Node, available: set[str], inside: set[str]) -> bool:
    """Whether an element-wise node reads only values that are available."""
    return node.op in ELEMENTWISE and all(
        not value or value in available or value in inside for value in node.inputs
    )


def _rejoining(
    graph: Graph, readers: dict[str, list[Node]], available: set[str], value: str
) -> list[Node]:
    """The element-wise operators between a fork at ``value`` and its join, as in x * sigmoid(x); empty if
    the fork does not join.
    """
    order = {node.name: place for place, node in enumerate(graph.nodes)}
    waiting = {node.name: node for node in readers[value]}
    inside, taken = {value}, []
    while waiting and len(taken) < LONGEST:
        node = waiting.pop(min(waiting, key=order.__getitem__))
        if not _fits(node, available, inside) or len(node.outputs) != 1:
            return []
        taken.append(node)
        if not waiting:
            return taken
        if node.outputs[0] in graph.outputs:
            return []
        inside.add(node.outputs[0])
        waiting.update((reader.name, reader) for reader in readers.get(node.outputs[0], []))
    return []


def between(
    name: str, nodes: list[Node], others: list[Node], outputs: set[str], graph: Graph
) -> Unit:
    """The part of a unit with some of its ``nodes``. Outputs are ``outputs`` and what ``others`` read."""
    made = [output for node in nodes for output in node.outputs if output]
    read = [value for node in nodes for value in node.inputs if value]
    inputs = [value for value in read if value not in graph.constants and value not in made]
    wanted = outputs | {value for node in others for value in node.inputs}
    return Unit(
        name, nodes, list(dict.fromkeys(inputs)), [value for value in made if value in wanted]
    )


def _unit(graph: Graph, readers: dict[str, list[Node]], group: list[Node]) -> Unit:
    names = {node.name for node in group}
    made = [output for node in group for output in node.outputs if output]
    inputs = [
        value
        for node in group
        for value in node.inputs
        if value and value not in graph.constants and value not in made
    ]
    outputs = [
        value
        for value in made
        if value in graph.outputs
        or any(reader.name not in names for reader in readers.get(value, []))
    ]
    anchor = next((node for node in group if node.op not in SHAPE_ONLY), group[0])
    return Unit(anchor.name, group, list(dict.fromkeys(inputs)), outputs)
