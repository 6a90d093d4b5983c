"""Simplifies the graph before units are formed: folds constants and batch norms, removes no-ops."""

from __future__ import annotations

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from ..errors import CompileError
from . import batch_norms, branches, canonical, decompositions, operand_shapes, wide_integers
from . import graph as graphs
from .graph import Graph, Node

# Limit of folding, in elements: 1 GiB of float32.
LARGEST_FOLDED = 1 << 28
# Their output shapes depend on input values.
BY_VALUE = {"NonZero", "NonMaxSuppression", "Unique", "Compress", "Range", "Loop", "Scan", "If"}


def simplify(graph: Graph) -> None:
    """Simplifies ``graph`` in place. Afterwards every value has a static shape. Raises ``CompileError``."""
    _constant_outputs(graph)
    changed = True
    while changed:
        graphs.infer_shapes(graph)
        changed = _fold_constants(graph) | _remove_no_ops(graph) | _fold_empty(graph)
        changed |= branches.inline(graph, _fold_constants) | decompositions.apply(graph)
    _remove_dead(graph)
    branches.check(graph)
    _drop_empty_inputs(graph)
    for node in graph.nodes:
        operand_shapes.check(graph, node)
    batch_norms.fold(graph)
    _remove_dead(graph)
    graphs.infer_shapes(graph)
    _check_static(graph)
    wide_integers.reduce(graph)
    canonical.unify(graph)
    graphs.infer_shapes(graph)
    _check_static(graph)


def _constant_outputs(graph: Graph) -> None:
    """Copies weights that are network outputs, so that each output is produced by a node."""
    for output in graph.outputs:
        if output in graph.constants:
            source = f"{output}.constant"
            graph.constants[source] = graph.constants.pop(output)
            for node in graph.nodes:
                node.inputs = [source if value == output else value for value in node.inputs]
            graph.nodes.append(Node(output, "Identity", [source], [output], {}))


def _fold_constants(graph: Graph) -> bool:
    kept: list[Node] = []
    changed = False
    for node in graph.nodes:
        arrays = _evaluate(graph, node)
        if arrays is None:
            kept.append(node)
            continue
        changed = True
        graph.constants.update(zip(node.outputs, arrays, strict=False))
    graph.nodes = kept
    _constant_outputs(graph)
    return changed


def _fold_empty(graph: Graph) -> bool:
    """Makes results without elements constants: there is nothing to compute in each frame."""
    kept: list[Node] = []
    for node in graph.nodes:
        results = [graph.tensors.get(name) for name in node.outputs if name]
        is_copy = node.op == "Identity" and node.outputs[0] in graph.outputs
        if (
            is_copy
            or graphs.has_body(node)
            or any(tensor is None or 0 not in tensor.shape for tensor in results)
        ):
            kept.append(node)
            continue
        operand_shapes.check(graph, node)
        for name in filter(None, node.outputs):
            tensor = graph.tensors[name]
            graph.constants[name] = np.zeros(tensor.shape, tensor.dtype)
    changed = len(kept) < len(graph.nodes)
    graph.nodes = kept
    _constant_outputs(graph)
    return changed


def _evaluate(graph: Graph, node: Node) -> list[np.ndarray] | None:
    """Values of a node with constant inputs, or of a shape query; otherwise None."""
    if node.op in ("Shape", "Size"):
        source = node.inputs[0]
        if source not in graph.constants and source not in graph.tensors:
            return None
        shape = graph.tensor(source).shape
        if node.op == "Size":
            return [np.asarray(int(np.prod(shape, dtype=np.int64)), np.int64)]
        start, end = node.attributes.get("start", 0), node.attributes.get("end")
        return [np.asarray(shape, np.int64)[start:end]]
    has_body = any(isinstance(value, onnx.GraphProto) for value in node.attributes.values())
    known = all(value in graph.constants for value in node.inputs if value)
    is_copy = node.op == "Identity" and node.outputs[0] in graph.outputs
    if not known or has_body or is_copy or "." in node.op or _is_random(graph, node):
        return None
    elements = [graph.tensors[name].elements for name in node.outputs if name in graph.tensors]
    if max(elements, default=0) > LARGEST_FOLDED:
        raise CompileError(
            "unsupported_operator",
            f"failed to evaluate the constant operator {node.op}: its result has {max(elements):,} "
            "elements; export the network with smaller constants",
            node.name,
        )
    single = Graph("constant", graph.opset, [], [], [node], graph.constants, graph.tensors)
    model = graphs.submodel(single, [node], [], [])
    for output in node.outputs:
        if output:
            model.graph.output.append(onnx.ValueInfoProto(name=output))
    results = iter(_run(model, node))
    return [np.asarray(next(results)) if output else np.zeros(()) for output in node.outputs]


def _is_random(graph: Graph, node: Node) -> bool:
    if node.op == "Dropout":
        return not _passes_on(graph, node)
    return node.op.startswith("Random") or node.op in ("Multinomial", "Bernoulli")


def _run(model: onnx.ModelProto, node: Node) -> list[np.ndarray]:
    """Runs a model without inputs, in ONNX's evaluator or else in ONNX Runtime."""
    try:
        with np.errstate(all="ignore"):
            return ReferenceEvaluator(model).run(None, {})
    except Exception as error:  # Operators of the evaluator raise any type.
        reason = error
    try:
        from . import reference

        return reference.session(model.SerializeToString()).run(None, {})
    except Exception as error:
        first = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
        raise CompileError(
            "unsupported_operator",
            f"failed to evaluate the constant operator {node.op}: {first}; replace it in the network with "
            "its value",
            node.name,
        ) from error


def _remove_no_ops(graph: Graph) -> bool:
    produced = {output for node in graph.nodes for output in node.outputs}
    renamed: dict[str, str] = {}
    kept: list[Node] = []
    captured = branches.captured(graph)

    def now(value: str) -> str:
        while value in renamed:
            value = renamed[value]
        return value

    for node in graph.nodes:
        node.inputs = [now(value) for value in node.inputs]
        if not _is_no_op(graph, node) or captured & {*node.inputs[:1], *node.outputs}:
            kept.append(node)
            continue
        source, result = node.inputs[0], node.outputs[0]
        if len(node.outputs) > 1 and node.outputs[1]:
            # An inactive dropout keeps every element.
            kept.extend(_mask(graph, node))
        if result not in graph.outputs:
            renamed[result] = source
        elif source in produced and source not in graph.outputs:
            # A network output keeps its name, so its producer is renamed.
            renamed[source] = result
            for other in kept:
                other.inputs = [result if value == source else value for value in other.inputs]
                other.outputs = [result if value == source else value for value in other.outputs]
        else:
            # An output that equals an input, a constant or another output is copied.
            kept.append(Node(node.name, "Identity", [source], [result], {}))
    changed = [node.op for node in kept] != [node.op for node in graph.nodes]
    graph.nodes = kept
    return changed


def _mask(graph: Graph, node: Node) -> list[Node]:
    source, mask = graph.tensors.get(node.inputs[0]), node.outputs[1]
    if source is None:
        return []
    kind = bool if graph.opset >= 12 else np.dtype(source.dtype)
    if mask not in graph.outputs:
        graph.constants[mask] = np.ones(source.shape, kind)
        return []
    graph.constants[f"{mask}.kept"] = np.ones(source.shape, kind)
    return [Node(f"{node.name}.mask", "Identity", [f"{mask}.kept"], [mask], {})]


def _passes_on(graph: Graph, node: Node) -> bool:
    """Whether a dropout is inactive, as always in inference."""
    if len(node.inputs) < 3 or not node.inputs[2]:
        return True
    training, ratio = (graph.constants.get(value) for value in (node.inputs[2], node.inputs[1]))
    if not node.inputs[1]:
        ratio = np.float32(0.5)
    return training is not None and (not training.any() or (ratio is not None and not ratio.any()))


def _is_no_op(graph: Graph, node: Node) -> bool:
    if node.op == "Identity":
        return True
    if node.op == "Dropout":
        return _passes_on(graph, node)
    same = graph.tensors.get(node.inputs[0]) if node.inputs else None
    after = graph.tensors.get(node.outputs[0]) if node.outputs else None
    if same is None or same != after:
        return False
    if node.op == "Pad" and len(node.inputs) > 1 and node.inputs[1] in graph.constants:
        return not graph.constants[node.inputs[1]].any()
    return node.op in (
        "Cast", "CastLike", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand",
    )  # fmt: skip


def _drop_empty_inputs(graph: Graph) -> None:
    """Removes empty tensors, which represented absent inputs of Resize in old operator sets."""
    for node in graph.nodes:
        if node.op == "Resize":
            empty = {name for name in node.inputs if name and 0 in graph.tensor(name).shape}
            node.inputs = ["" if name in empty else name for name in node.inputs]


def _remove_dead(graph: Graph) -> None:
    alive = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(output in alive for output in node.outputs):
            alive.update(value for value in node.inputs if value)
            node.outputs = [output if output in alive else "" for output in node.outputs]
            # ONNX requires both outputs of TopK.
            fewest = 2 if node.op == "TopK" else 1
            while len(node.outputs) > fewest and not node.outputs[-1]:
                node.outputs.pop()
            kept.append(node)
    graph.nodes = kept[::-1]
    graph.constants = {name: array for name, array in graph.constants.items() if name in alive}


def _has_computed_shape(graph: Graph, node: Node) -> bool:
    """Whether an input with extents or indices is computed at run time."""
    return any(
        value in graph.tensors and np.dtype(graph.tensors[value].dtype).kind in "iu"
        for value in node.inputs[1:]
        if value not in graph.constants
    )


def _check_static(graph: Graph) -> None:
    for node in graph.nodes:
        for output in node.outputs:
            if output and output not in graph.tensors:
                raise CompileError(
                    "dynamic_shape",
                    f"failed to infer a static shape for {output!r}, an output of {node.op}: "
                    + (
                        "it depends on the data of each frame; end the network before this operator"
                        if node.op in BY_VALUE or _has_computed_shape(graph, node)
                        else "ONNX cannot infer it; replace the operator"
                    ),
                    node.name,
                )
    made = {output for node in graph.nodes for output in node.outputs}
    for output in graph.outputs:
        if output not in made:
            what = (
                "is also an input" if output in graph.inputs else "is not produced by any operator"
            )
            raise CompileError(
                "invalid_onnx",
                f"failed to read the network {graph.name}: output {output!r} {what}; remove it",
                output,
            )
