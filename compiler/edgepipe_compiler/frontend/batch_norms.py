"""Batch normalization: folded into the preceding convolution, or rewritten as arithmetic."""

from __future__ import annotations

import numpy as np

from ..errors import CompileError
from .graph import Graph, Node, Tensor


def fold(graph: Graph) -> None:
    """Replaces every BatchNormalization of ``graph``. Shapes must be inferred again afterwards."""
    producers = {output: node for node in graph.nodes for output in node.outputs}
    readers = graph.consumers()
    kept: list[Node] = []
    for node in graph.nodes:
        if node.op != "BatchNormalization":
            kept.append(node)
            continue
        _check(graph, node)
        constant = all(value in graph.constants for value in node.inputs[1:5])
        if _is_training(graph, node):
            kept.extend(_by_batch(graph, node))
        elif not constant:
            kept.extend(_normalize(graph, node, *node.inputs[3:5], node.outputs[0]))
        else:
            scale, shift = _scale_and_shift(graph, node)
            conv = producers.get(node.inputs[0])
            alone = (
                len(readers.get(node.inputs[0], [])) == 1 and node.inputs[0] not in graph.outputs
            )
            if (
                conv is not None
                and alone
                and scale.ndim == 1
                and _has_constant_weights(graph, conv)
            ):
                _fold_into(graph, conv, node, scale, shift)
                producers[node.outputs[0]] = conv
            else:
                kept.extend(_multiply_and_add(graph, node, scale, shift))
    graph.nodes = kept


def _spatial(graph: Graph, node: Node) -> bool:
    """Whether statistics are per channel. Before operator set 9 they could be per element."""
    return bool(graph.opset >= 9 or node.attributes.get("spatial", 1))


def _is_training(graph: Graph, node: Node) -> bool:
    return graph.opset >= 14 and bool(node.attributes.get("training_mode", 0))


def _check(graph: Graph, node: Node) -> None:
    source = graph.tensor(node.inputs[0]).shape
    wanted = tuple(source[1:2] if _spatial(graph, node) else source[1:])
    for value in node.inputs[1:5]:
        shape = tuple(graph.tensor(value).shape)
        if len(source) < 2 or shape != wanted:
            raise CompileError(
                "invalid_onnx",
                f"failed to read the network {graph.name}: input {value!r} of a BatchNormalization has shape "
                f"{list(shape)}, expected {list(wanted)} for data of shape {list(source)}; export "
                "the network again",
                node.name,
            )


def _has_constant_weights(graph: Graph, conv: Node) -> bool:
    return conv.op == "Conv" and all(value in graph.constants for value in conv.inputs[1:] if value)


def _scale_and_shift(graph: Graph, node: Node) -> tuple[np.ndarray, np.ndarray]:
    gamma, beta, mean, var = (graph.constants[value] for value in node.inputs[1:5])
    kind = np.dtype(graph.tensor(node.inputs[0]).dtype)
    scale = (gamma / np.sqrt(var + node.attributes.get("epsilon", 1e-5))).astype(kind)
    return scale, (beta - mean * scale).astype(kind)


def _fold_into(graph: Graph, conv: Node, norm: Node, scale: np.ndarray, shift: np.ndarray) -> None:
    weight = graph.constants[conv.inputs[1]]
    bias = graph.constants[conv.inputs[2]] if len(conv.inputs) > 2 and conv.inputs[2] else 0.0
    names = [f"{norm.outputs[0]}.folded_weight", f"{norm.outputs[0]}.folded_bias"]
    graph.constants[names[0]] = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    graph.constants[names[1]] = (bias * scale + shift).astype(scale.dtype)
    conv.inputs = [conv.inputs[0], *names]
    conv.outputs = [norm.outputs[0]]
    conv.parameters += norm.parameters


def _multiply_and_add(graph: Graph, node: Node, scale: np.ndarray, shift: np.ndarray) -> list[Node]:
    rank = len(graph.tensors[node.inputs[0]].shape)
    names = [f"{node.outputs[0]}.{what}" for what in ("scale", "shift", "scaled")]
    shape = (1, *scale.shape, *[1] * (rank - 1 - scale.ndim))
    graph.constants[names[0]] = scale.reshape(shape)
    graph.constants[names[1]] = shift.reshape(shape)
    return [
        Node(node.name, "Mul", [node.inputs[0], names[0]], [names[2]], {}, node.parameters),
        Node(f"{node.name}.shift", "Add", [names[2], names[1]], node.outputs[:1], {}),
    ]


def _normalize(graph: Graph, node: Node, mean: str, variance: str, result: str) -> list[Node]:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias with computed statistics."""
    source = graph.tensor(node.inputs[0])
    kind = np.dtype(source.dtype)
    made: list[Node] = []

    def op(kind_of: str, inputs: list[str], name: str | None = None) -> str:
        value = name or f"{result}.norm{len(made)}"
        title = node.name if not made else f"{node.name}.{kind_of.lower()}{len(made)}"
        parameters = 0 if made else node.parameters
        made.append(Node(title, kind_of, inputs, [value], {}, parameters))
        return value

    def constant(what: str, values: object) -> str:
        graph.constants[f"{result}.{what}"] = np.asarray(values)
        return f"{result}.{what}"

    def along(value: str) -> str:
        """Reshapes a statistic of each channel for broadcasting against (n, c, ...)."""
        shape = tuple(graph.tensor(value).shape)
        full = (1, *shape, *[1] * (len(source.shape) - 1 - len(shape)))
        if len(shape) == len(source.shape):
            return value
        if value in graph.constants:
            return constant(f"{value}.full", graph.constants[value].reshape(full))
        shaped = op("Reshape", [value, constant(f"{value}.shape", np.array(full, np.int64))])
        graph.tensors[shaped] = Tensor(full, source.dtype)
        return shaped

    epsilon = constant("epsilon", np.array(node.attributes.get("epsilon", 1e-5), kind))
    centred = op("Sub", [node.inputs[0], along(mean)])
    deviation = op("Sqrt", [op("Add", [along(variance), epsilon])])
    scaled = op("Mul", [op("Div", [centred, deviation]), along(node.inputs[1])])
    op("Add", [scaled, along(node.inputs[2])], result)
    return made


def _by_batch(graph: Graph, node: Node) -> list[Node]:
    """Training mode: normalizes by the statistics of the current frame, as the standard requires."""
    source = graph.tensor(node.inputs[0])
    kind, rank = np.dtype(source.dtype), len(source.shape)
    axes = [axis for axis in range(rank) if axis != 1]
    result = node.outputs[0]
    names = {what: f"{result}.{what}" for what in ("mean", "centred", "square", "variance", "axes")}
    reduced, attributes = [], {"axes": axes, "keepdims": 1}
    if graph.opset >= 18:
        graph.constants[names["axes"]] = np.array(axes, np.int64)
        reduced, attributes = [names["axes"]], {"keepdims": 1}
    made = [
        Node(f"{node.name}.mean", "ReduceMean", [node.inputs[0], *reduced], [names["mean"]], attributes),
        Node(f"{node.name}.centred", "Sub", [node.inputs[0], names["mean"]], [names["centred"]], {}),
        Node(f"{node.name}.square", "Mul", [names["centred"]] * 2, [names["square"]], {}),
        Node(f"{node.name}.variance", "ReduceMean", [names["square"], *reduced], [names["variance"]],
             dict(attributes)),
    ]  # fmt: skip
    statistic = Tensor((1, source.shape[1], *[1] * (rank - 2)), source.dtype)
    graph.tensors.update({names["mean"]: statistic, names["variance"]: statistic})
    made += _normalize(graph, node, names["mean"], names["variance"], result)
    momentum = node.attributes.get("momentum", 0.9)
    running = zip(node.outputs[1:3], node.inputs[3:5], ("mean", "variance"), strict=False)
    for value, before, what in running:
        if value:
            made += _running(graph, node, value, before, names[what], kind.type(momentum))
    return made


def _running(
    graph: Graph, node: Node, value: str, before: str, batch: str, momentum: np.floating
) -> list[Node]:
    """The running statistic: before × momentum + batch × (1 − momentum)."""
    names = {what: f"{value}.{what}" for what in ("keep", "take", "shape", "old", "new", "flat")}
    graph.constants[names["keep"]] = np.array(momentum)
    graph.constants[names["take"]] = np.array(type(momentum)(1) - momentum)
    graph.constants[names["shape"]] = np.array([-1], np.int64)
    steps = [
        ("Reshape", [batch, names["shape"]], names["flat"]),
        ("Mul", [names["flat"], names["take"]], names["new"]),
        ("Mul", [before, names["keep"]], names["old"]),
        ("Add", [names["old"], names["new"]], value),
    ]
    return [
        Node(f"{node.name}.{value}{place}", op, inputs, [made], {})
        for place, (op, inputs, made) in enumerate(steps)
    ]
