"""Variants of a case. In node tests everything is an input that real networks have as a constant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .cases import Case

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)
SIGNED = (TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64)
INVERSES = {**dict.fromkeys((*FLOATS, *SIGNED), "Neg"), TensorProto.BOOL: "Not"}


def of(case: Case) -> Iterator[Case]:
    """``as-is``; ``parameters``: constant parameters; ``but-first``: all inputs but the first constant;
    ``embedded`` in a network.
    """
    yield case
    if case.kind in ("real", "older", "file") or not all(
        isinstance(x, np.ndarray) for x in case.inputs.values()
    ):
        return
    names = list(case.inputs)
    parameters = [name for name in names if _is_parameter(case.inputs[name])]
    if len(parameters) == len(names):
        # A network needs at least one input.
        parameters = parameters[1:]
    frozen = _freeze(case, parameters, "parameters")
    seen = [parameters]
    if parameters:
        yield frozen
    if names[1:] and names[1:] not in seen:
        yield _freeze(case, names[1:], "but-first")
    # A function body surrounds its operators already.
    embedded = _embed(frozen) if "_expanded" not in case.name else None
    if embedded is not None:
        yield embedded


def _is_parameter(array: np.ndarray) -> bool:
    return array.dtype.kind not in "f" or array.ndim < 2


def _freeze(case: Case, names: list[str], variant: str) -> Case:
    """Turns the inputs ``names`` into initializers."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for name in names:
        model.graph.initializer.append(numpy_helper.from_array(case.inputs[name], name))
    kept = [item for item in model.graph.input if item.name not in names]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    # Before IR version 4, initializers had to be inputs as well.
    model.ir_version = max(model.ir_version, 4)
    inputs = {name: array for name, array in case.inputs.items() if name not in names}
    return replace(case, model=model, inputs=inputs, variant=variant)


def _embed(case: Case) -> Case | None:
    """Surrounds the operator with operators that cancel out, if the element type has such a pair."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    before: list[onnx.NodeProto] = []
    after: list[onnx.NodeProto] = []
    renamed = {}
    for item in graph.input:
        operator = INVERSES.get(item.type.tensor_type.elem_type)
        if operator and item.name in case.inputs:
            renamed[item.name] = f"{item.name}_given"
            before += _pair(operator, renamed[item.name], item.name)
            item.name = renamed[item.name]
    made = {name for node in graph.node for name in node.output}
    outputs = {}
    for item in graph.output:
        operator = INVERSES.get(item.type.tensor_type.elem_type)
        if operator and item.name in made:
            after += _pair(operator, item.name, f"{item.name}_result")
            outputs[item.name] = item.name = f"{item.name}_result"
    if not before and not after:
        return None
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    return replace(
        case,
        model=model,
        inputs={renamed.get(name, name): array for name, array in case.inputs.items()},
        outputs={outputs.get(name, name): array for name, array in case.outputs.items()},
        variant="embedded",
    )


def _pair(operator: str, source: str, result: str) -> list[onnx.NodeProto]:
    between = f"{source}_to_{result}"
    return [
        helper.make_node(operator, [source], [between], name=between),
        helper.make_node(operator, [between], [result], name=f"{between}_again"),
    ]
