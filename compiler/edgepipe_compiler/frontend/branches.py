"""Replaces ``If``, ``Loop`` and ``Scan`` by the operators of their bodies.

Conditions and iteration counts must be constant once shapes are known. Values that a body reads from
outside keep their names; values defined in a body are renamed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ..errors import CompileError
from . import graph as graphs
from .graph import Graph, Node

# Limit of an unrolled loop; more operators would take minutes to compile.
MOST_NODES = 2000
OPERATORS = ("If", "Loop", "Scan")
# Evaluates constant nodes of a graph and adds the results to its constants.
Fold = Callable[[Graph], object]


def inline(graph: Graph, fold: Fold) -> bool:
    """Replaces every If, Loop and Scan whose control flow is known. Returns whether there was one."""
    kept: list[Node] = []
    changed = False
    for node in graph.nodes:
        made = None
        if node.op in OPERATORS:
            # New names start with the name of the operator.
            named = replace(node, name=graphs.unused(graph, node.name))
        if node.op == "If":
            made = _taken(graph, named)
        elif node.op == "Loop":
            made = _unrolled(graph, named, fold)
        elif node.op == "Scan":
            made = _scanned(graph, named)
        changed |= made is not None
        kept.extend([node] if made is None else made)
    graph.nodes = kept
    graphs.make_names_unique(kept)
    return changed


def captured(graph: Graph) -> set[str]:
    """The values that bodies read from outside."""
    return {value for node in graph.nodes for body in _bodies(node) for value in _free(body)}


def check(graph: Graph) -> None:
    """Refuses control flow that ``inline`` could not replace."""
    for node in graph.nodes:
        if node.op == "If":
            reason = (
                "its condition depends on the data of each frame; export the network with the "
                "required branch only"
            )
        elif node.op == "Loop":
            reason = (
                "its iteration count is not constant; export the network with the loop unrolled"
            )
        elif node.op == "Scan" and graph.opset < 9:
            reason = "the form of opset 8 is not supported; convert the network to opset 9 or later"
        elif node.op == "Scan":
            reason = "its iteration count is unknown; export the network with the loop unrolled"
        elif _bodies(node):
            reason = "only If, Loop and Scan may have a body; export the network without it"
        else:
            continue
        raise CompileError(
            "unsupported_operator", f"failed to import the operator {node.op}: {reason}", node.name
        )


def _bodies(node: Node) -> list[onnx.GraphProto]:
    return [value for value in node.attributes.values() if isinstance(value, onnx.GraphProto)]


def _taken(graph: Graph, node: Node) -> list[Node] | None:
    """The branch that the constant condition selects."""
    condition = graph.constants.get(node.inputs[0])
    if condition is None:
        return None
    body = node.attributes["then_branch" if _truth(condition) else "else_branch"]
    nodes, results = _copy(graph, node, body, "", [])
    return nodes + _identities(node, results)


def _truth(array: np.ndarray) -> bool:
    return bool(array.reshape(-1)[0])


def _unrolled(graph: Graph, node: Node, fold: Fold) -> list[Node] | None:
    """One copy of the body for each iteration of a Loop; None if the iteration count is unknown."""
    body: onnx.GraphProto = node.attributes["body"]
    trips, condition, *states = [*node.inputs, "", ""][: max(2, len(node.inputs))]
    if any(value and value not in graph.constants for value in (trips, condition)):
        return None
    most = int(graph.constants[trips].reshape(-1)[0]) if trips else None
    going = _truth(graph.constants[condition]) if condition else True
    if len(body.node) * (most or 0) > MOST_NODES and _never_stops(body):
        _refuse_length(node, f"{most} iterations of {len(body.node)} operators")
    true = _constant(graph, f"{node.name}.true", np.array(True))
    nodes: list[Node] = []
    pieces: list[list[str]] = [[] for _ in body.output[1 + len(states) :]]
    count = 0
    while going and (most is None or count < most):
        number = _constant(graph, f"{node.name}.number{count}", np.array(count, np.int64))
        inner, results = _copy(graph, node, body, f".{count}", [number, true, *states])
        # The loop's condition may depend on its counters, so they are evaluated now.
        iteration = Graph(graph.name, graph.opset, [], [], inner, graph.constants, graph.tensors)
        fold(iteration)
        nodes += iteration.nodes
        if len(nodes) > MOST_NODES:
            _refuse_length(node, f"more than {count} iterations of {len(inner)} operators")
        again, *results = _sources(results, iteration.nodes)
        if again not in graph.constants:
            return None
        going = _truth(graph.constants[again])
        states, made = results[: len(states)], results[len(states) :]
        for piece, value in zip(pieces, made, strict=True):
            piece.append(value)
        count += 1
    if not count and any(node.outputs[len(states) :]):
        raise CompileError(
            "unsupported_operator",
            "failed to import the operator Loop: it runs zero iterations, so its outputs are empty; "
            "remove it from the network",
            node.name,
        )
    results = list(states)
    for place, piece in enumerate(pieces):
        joined, result = _stacked(graph, node, place, piece, 0)
        nodes += joined
        results.append(result)
    return nodes + _identities(node, results)


def _never_stops(body: onnx.GraphProto) -> bool:
    """Whether the body returns its condition unchanged or as a constant."""
    makers = {output: node for node in body.node for output in node.output}
    value = body.output[0].name
    while value in makers and makers[value].op_type in ("Identity", "Cast"):
        value = makers[value].input[0]
    constant = value in makers and makers[value].op_type == "Constant"
    return constant or value not in makers


def _sources(values: list[str], nodes: list[Node]) -> list[str]:
    """Looks through Identity nodes, so that constants are recognized."""
    behind = {node.outputs[0]: node.inputs[0] for node in nodes if node.op == "Identity"}

    def source(value: str) -> str:
        while value in behind:
            value = behind[value]
        return value

    return [source(value) for value in values]


def _scanned(graph: Graph, node: Node) -> list[Node] | None:
    """One copy of the body for each slice of the inputs of a Scan."""
    if graph.opset < 9:
        return None
    body: onnx.GraphProto = node.attributes["body"]
    count = node.attributes["num_scan_inputs"]
    states, scanned = node.inputs[:-count], node.inputs[-count:]
    known = [value in graph.constants or value in graph.tensors for value in scanned]
    if not all(known):
        return None
    attribute = node.attributes.get
    made = len(body.output) - len(states)
    axes_in = attribute("scan_input_axes", [0] * count)
    axes_out = attribute("scan_output_axes", [0] * made)
    backwards_in = attribute("scan_input_directions", [0] * count)
    backwards_out = attribute("scan_output_directions", [0] * made)
    trips = graph.tensor(scanned[0]).shape[axes_in[0]]
    if trips * len(body.node) > MOST_NODES:
        _refuse_length(node, f"{trips} iterations of {len(body.node)} operators")
    nodes: list[Node] = []
    pieces: list[list[str]] = [[] for _ in range(made)]
    for step in range(trips):
        slices = []
        for place, value in enumerate(scanned):
            index = trips - 1 - step if backwards_in[place] else step
            at = _constant(graph, f"{node.name}.at{index}", np.array(index, np.int64))
            slices.append(f"{node.name}.{step}.slice{place}")
            title = f"{node.name}.{step}.gather{place}"
            axis = {"axis": axes_in[place]}
            nodes.append(Node(title, "Gather", [value, at], slices[-1:], axis))
        inner, results = _copy(graph, node, body, f".{step}", [*states, *slices])
        nodes += inner
        states = results[: len(states)]
        for piece, value in zip(pieces, results[len(states) :], strict=True):
            piece.append(value)
    results = list(states)
    for place, piece in enumerate(pieces):
        ordered = piece[::-1] if backwards_out[place] else piece
        joined, result = _stacked(graph, node, place, ordered, axes_out[place])
        nodes += joined
        results.append(result)
    return nodes + _identities(node, results)


def _refuse_length(node: Node, length: str) -> None:
    raise CompileError(
        "unsupported_operator",
        f"failed to import the operator {node.op}: unrolled, it has {length}, more than "
        f"{MOST_NODES} operators; export the network with a shorter sequence",
        node.name,
    )


def _stacked(
    graph: Graph, node: Node, place: int, values: list[str], axis: int
) -> tuple[list[Node], str]:
    """Stacks the values of all iterations along a new axis."""
    nodes, rows = [], []
    for step, value in enumerate(values):
        rows.append(f"{node.name}.{step}.row{place}")
        inputs, attributes = [value], {"axes": [axis]}
        if graph.opset >= 13:
            axes = _constant(graph, f"{node.name}.axis{place}", np.array([axis], np.int64))
            inputs, attributes = [value, axes], {}
        nodes.append(Node(rows[-1], "Unsqueeze", inputs, rows[-1:], attributes))
    result = f"{node.name}.stacked{place}"
    nodes.append(Node(result, "Concat", rows, [result], {"axis": axis}))
    return nodes, result


def _identities(node: Node, results: list[str]) -> list[Node]:
    """Renames the results of a body to the outputs of the operator."""
    return [
        Node(f"{node.name}.out{place}", "Identity", [result], [output], {})
        for place, (result, output) in enumerate(zip(results, node.outputs, strict=False))
        if output
    ]


def _constant(graph: Graph, name: str, array: np.ndarray) -> str:
    graph.constants[name] = array
    return name


def _copy(
    graph: Graph, node: Node, body: onnx.GraphProto, tag: str, given: list[str]
) -> tuple[list[Node], list[str]]:
    """Copies the operators of a body under new names, and returns them with the names of its outputs.

    ``given`` are the values for its inputs.
    """
    used = {other.name for other in graph.nodes}
    names = {formal.name: actual for formal, actual in zip(body.input, given, strict=True)}
    prefix = f"{node.name}{tag}."
    read = {value for other in graph.nodes for value in other.inputs}
    fresh: set[str] = set()
    for item in body.initializer:
        names[item.name] = _constant(graph, prefix + item.name, numpy_helper.to_array(item))
    for proto in body.node:
        names.update((output, prefix + output) for output in proto.output if output)
    nodes = []
    for place, proto in enumerate(body.node):
        inner = graphs._node(_renamed(proto, names), place)
        inner.name = prefix + (
            proto.name.strip("/").replace("/", ".").replace(" ", "_") or str(place)
        )
        count = 1
        while inner.name in used:
            count += 1
            inner.name = f"{prefix}{place}_{count}"
        used.add(inner.name)
        for value in inner.inputs:
            array = graph.constants.get(value)
            new = array is not None and value not in read | fresh
            if new and array.dtype.kind == "f" and array.ndim > 0:
                inner.parameters += array.size
                fresh.add(value)
        nodes.append(inner)
    return nodes, [names.get(item.name, item.name) for item in body.output]


def _renamed(proto: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    """A copy of an operator with renamed inputs and outputs, including those of its bodies."""
    copy = onnx.NodeProto()
    copy.CopyFrom(proto)
    for values in (copy.input, copy.output):
        for place, value in enumerate(values):
            values[place] = names.get(value, value)
    for attribute in copy.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            _rename(attribute.g, names)
    return copy


def _rename(body: onnx.GraphProto, names: dict[str, str]) -> None:
    own = _defined(body)
    outer = {before: after for before, after in names.items() if before not in own}
    nodes = [_renamed(proto, outer) for proto in body.node]
    del body.node[:]
    body.node.extend(nodes)
    for item in body.output:
        item.name = outer.get(item.name, item.name)


def _defined(body: onnx.GraphProto) -> set[str]:
    """The values defined in a body."""
    made = {output for proto in body.node for output in proto.output}
    return made | {item.name for item in [*body.input, *body.initializer]}


def _free(body: onnx.GraphProto) -> Iterator[str]:
    """The values that a body reads from outside."""
    own = _defined(body)
    read: list[Any] = [item.name for item in body.output]
    for proto in body.node:
        read += proto.input
        for attribute in proto.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                read += _free(attribute.g)
    return (value for value in read if value and value not in own)
