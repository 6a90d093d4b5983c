"""Graph work before units are formed: constants folded, batch norms folded, no-ops removed."""

from __future__ import annotations

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from . import graph as graphs
from . import operands, spelling
from .errors import CompileError
from .graph import Graph, Node

# Folding stops here: a constant of that size (in elements) is cheaper computed than stored.
LARGEST_FOLDED = 1 << 24


def simplify(graph: Graph) -> None:
    """Simplifies ``graph`` in place; afterwards every value has a static shape."""
    for _ in range(8):
        graphs.infer_shapes(graph)
        if not (_fold_constants(graph) | _remove_no_ops(graph)):
            break
    _drop_empty_inputs(graph)
    for node in graph.nodes:
        operands.check(graph, node)
    _fold_batch_norms(graph)
    _remove_dead(graph)
    graphs.infer_shapes(graph)
    spelling.unify(graph)
    graphs.infer_shapes(graph)
    _check_static(graph)


def _fold_constants(graph: Graph) -> bool:
    kept: list[Node] = []
    for node in graph.nodes:
        arrays = _evaluate(graph, node)
        if arrays is None:
            kept.append(node)
            continue
        graph.constants.update(zip(node.outputs, arrays, strict=False))
    changed = len(kept) != len(graph.nodes)
    graph.nodes = kept
    return changed


def _evaluate(graph: Graph, node: Node) -> list[np.ndarray] | None:
    if any(output in graph.outputs for output in node.outputs):
        return None
    if node.op == "Shape":
        tensor = graph.tensors.get(node.inputs[0])
        if tensor is None:
            return None
        start, end = node.attributes.get("start", 0), node.attributes.get("end")
        return [np.asarray(tensor.shape, np.int64)[start:end]]
    random = node.op.startswith("Random") or node.op in ("Multinomial", "Bernoulli")
    has_body = any(isinstance(value, onnx.GraphProto) for value in node.attributes.values())
    known = all(value in graph.constants for value in node.inputs if value)
    if not known or random or has_body or "." in node.op:
        return None
    outputs = [output for output in node.outputs if output in graph.tensors]
    if any(graph.tensors[output].elements > LARGEST_FOLDED for output in outputs):
        return None
    single = Graph("constant", graph.opset, [], [], [node], graph.constants, graph.tensors)
    model = graphs.submodel(single, [node], [], [])
    for output in node.outputs:
        model.graph.output.append(onnx.ValueInfoProto(name=output))
    try:
        return [np.asarray(array) for array in ReferenceEvaluator(model).run(None, {})]
    except Exception as error:  # The evaluator raises whatever its operators raise.
        raise CompileError(
            "unsupported_operator",
            f"failed to evaluate the constant operator {node.op}: {error}",
            node.name,
        ) from error


def _remove_no_ops(graph: Graph) -> bool:
    produced = {output for node in graph.nodes for output in node.outputs}
    renamed: dict[str, str] = {}
    kept: list[Node] = []

    def now(value: str) -> str:
        while value in renamed:
            value = renamed[value]
        return value

    for node in graph.nodes:
        node.inputs = [now(value) for value in node.inputs]
        if not _is_no_op(graph, node):
            kept.append(node)
            continue
        source, result = node.inputs[0], node.outputs[0]
        if result not in graph.outputs:
            renamed[result] = source
        elif source in produced and source not in graph.outputs:
            # The output of the network keeps its name, so what makes it has to take that name.
            renamed[source] = result
            for other in kept:
                other.inputs = [result if value == source else value for value in other.inputs]
                other.outputs = [result if value == source else value for value in other.outputs]
        else:
            kept.append(_copy(graph, node))
    changed = len(kept) != len(graph.nodes)
    graph.nodes = kept
    return changed


def _copy(graph: Graph, node: Node) -> Node:
    """An output that is an input, or two outputs that are the same, take an operator of their own."""
    tensor = graph.tensors.get(node.inputs[0])
    if tensor is None or np.dtype(tensor.dtype).kind not in "fiu":
        return node
    one = f"{node.outputs[0]}.one"
    graph.constants[one] = np.ones((), tensor.dtype)
    return Node(node.name, "Mul", [node.inputs[0], one], node.outputs[:1], {})


def _is_no_op(graph: Graph, node: Node) -> bool:
    if node.op == "Identity":
        return True
    if node.op == "Dropout":
        # In inference a dropout passes its input on; its mask is never read then.
        training = graph.constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
        return training is None or not bool(training)
    same = graph.tensors.get(node.inputs[0]) if node.inputs else None
    after = graph.tensors.get(node.outputs[0]) if node.outputs else None
    if node.op == "Pad" and len(node.inputs) > 1 and node.inputs[1] in graph.constants:
        return not graph.constants[node.inputs[1]].any()
    return node.op in ("Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand") and (
        same is not None and same == after
    )


def _drop_empty_inputs(graph: Graph) -> None:
    """An empty tensor stood for an absent input of Resize until ONNX allowed to leave it out."""
    for node in graph.nodes:
        if node.op == "Resize":
            empty = {name for name in node.inputs if name and 0 in graph.tensor(name).shape}
            node.inputs = ["" if name in empty else name for name in node.inputs]


def _fold_batch_norms(graph: Graph) -> None:
    """Folds a batch norm into the convolution before it; one that stands alone becomes scale and shift."""
    producers = {output: node for node in graph.nodes for output in node.outputs}
    readers = graph.consumers()
    kept: list[Node] = []
    for node in graph.nodes:
        if node.op != "BatchNormalization" or any(
            value not in graph.constants for value in node.inputs[1:5]
        ):
            kept.append(node)
            continue
        gamma, beta, mean, var = (graph.constants[value] for value in node.inputs[1:5])
        scale = (gamma / np.sqrt(var + node.attributes.get("epsilon", 1e-5))).astype(np.float32)
        shift = (beta - mean * scale).astype(np.float32)
        conv = producers.get(node.inputs[0])
        alone = len(readers.get(node.inputs[0], [])) == 1 and node.inputs[0] not in graph.outputs
        if (
            conv is not None
            and conv.op == "Conv"
            and alone
            and all(value in graph.constants for value in conv.inputs[1:] if value)
        ):
            _fold_into(graph, conv, node, scale, shift)
            producers[node.outputs[0]] = conv
        else:
            kept.extend(_scale_and_shift(graph, node, scale, shift))
    graph.nodes = kept


def _fold_into(graph: Graph, conv: Node, norm: Node, scale: np.ndarray, shift: np.ndarray) -> None:
    weight = graph.constants[conv.inputs[1]]
    bias = graph.constants[conv.inputs[2]] if len(conv.inputs) > 2 and conv.inputs[2] else 0.0
    names = [f"{norm.outputs[0]}.folded_weight", f"{norm.outputs[0]}.folded_bias"]
    graph.constants[names[0]] = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    graph.constants[names[1]] = (bias * scale + shift).astype(np.float32)
    conv.inputs = [conv.inputs[0], *names]
    conv.outputs = [norm.outputs[0]]
    conv.parameters += norm.parameters


def _scale_and_shift(graph: Graph, node: Node, scale: np.ndarray, shift: np.ndarray) -> list[Node]:
    rank = len(graph.tensors[node.inputs[0]].shape)
    names = [f"{node.outputs[0]}.scale", f"{node.outputs[0]}.shift", f"{node.outputs[0]}.scaled"]
    shape = (1, -1, *[1] * (rank - 2))
    graph.constants[names[0]] = scale.reshape(shape)
    graph.constants[names[1]] = shift.reshape(shape)
    return [
        Node(node.name, "Mul", [node.inputs[0], names[0]], [names[2]], {}, node.parameters),
        Node(f"{node.name}.shift", "Add", [names[2], names[1]], [node.outputs[0]], {}),
    ]


def _remove_dead(graph: Graph) -> None:
    alive = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(output in alive for output in node.outputs):
            alive.update(value for value in node.inputs if value)
            node.outputs = [output if output in alive else "" for output in node.outputs]
            # ONNX wants both outputs of TopK, read or not.
            fewest = 2 if node.op == "TopK" else 1
            while len(node.outputs) > fewest and not node.outputs[-1]:
                node.outputs.pop()
            kept.append(node)
    graph.nodes = kept[::-1]
    graph.constants = {name: array for name, array in graph.constants.items() if name in alive}


def _check_static(graph: Graph) -> None:
    for node in graph.nodes:
        _check_channels(graph, node)
        for output in node.outputs:
            if output and output not in graph.tensors:
                raise CompileError(
                    "dynamic_shape",
                    f"failed to find a fixed shape for {output!r}, the output of {node.op}: it depends "
                    "on the data; export the network with fixed shapes",
                    node.name,
                )
    made = {output for node in graph.nodes for output in node.outputs}
    for output in graph.outputs:
        if output not in made:
            what = "is also an input of it" if output in graph.inputs else "is made by no operator"
            raise CompileError(
                "invalid_onnx",
                f"failed to read the network {graph.name}: its output {output!r} {what}; remove it",
                output,
            )


def _check_channels(graph: Graph, node: Node) -> None:
    """What ONNX's shape inference lets pass: a convolution whose weights do not fit its input."""
    if node.op != "Conv" or node.inputs[0] not in graph.tensors:
        return
    source, weight = graph.tensor(node.inputs[0]).shape, graph.tensor(node.inputs[1]).shape
    groups = node.attributes.get("group", 1)
    if source[1] != weight[1] * groups or weight[0] % groups:
        raise CompileError(
            "invalid_onnx",
            f"failed to read the network {graph.name}: its Conv has weights of shape "
            f"{list(weight)} in {groups} groups for an input of shape {list(source)}",
            node.name,
        )
