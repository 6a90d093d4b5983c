"""Node tests as older operator sets spell them.

The package tests each operator in its newest version. Many networks are of operator sets 7 to 17, in
which axes, bounds or pads were attributes. If the older version of an operator has an attribute with the name
of a newer version's input, the constant becomes that attribute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper

from . import variants
from .cases import OLDEST_OPSET, Case

# Cases per operator version.
EACH = 4
# Attributes that were renamed.
RENAMED = {"constant_value": "value", "K": "k", "input_mean": "mean", "input_var": "var"}
# Placeholder for an input that older versions require.
EMPTY = "empty"
VARIADIC = defs.OpSchema.FormalParameterOption.Variadic


def cases(shipped: Iterable[Case]) -> Iterator[Case]:
    """Cases of operator versions without a shipped case. Another implementation computes the outputs."""
    by_operator: dict[str, list[Case]] = {}
    for case in shipped:
        nodes = case.model.graph.node
        is_test = case.kind == "node" and "_expanded" not in case.name and not case.is_computed
        if is_test and not nodes[0].domain:
            by_operator.setdefault(case.operator, []).append(case)
    for operator, alike in by_operator.items():
        # float32 first: networks use it, and older versions support fewer types.
        alike.sort(key=lambda case: not _is_float32(case))
        newest = {_version(case) for case in alike}
        for version in versions(operator):
            if version not in newest:
                yield from _of_version(alike, version)


def _of_version(alike: list[Case], version: int) -> Iterator[Case]:
    made = 0
    for case in alike:
        older = _older(case, version)
        if older is not None:
            yield older
            made += 1
        if made == EACH:
            return


def _is_float32(case: Case) -> bool:
    return any(
        item.type.tensor_type.elem_type == TensorProto.FLOAT for item in case.model.graph.input
    )


def _opset(case: Case) -> int:
    return next(item.version for item in case.model.opset_import if not item.domain)


def _version(case: Case) -> int:
    return defs.get_schema(case.operator, _opset(case), "").since_version


def versions(operator: str) -> list[int]:
    """Versions of an operator in the supported operator sets, newest first."""
    found = sorted(
        schema.since_version
        for schema in defs.get_all_schemas_with_history()
        if schema.name == operator and not schema.domain and not schema.deprecated
    )
    following = [*found[1:], OLDEST_OPSET + 1]
    return [version for version, end in zip(found, following, strict=True) if end > OLDEST_OPSET][
        ::-1
    ]


def _older(case: Case, version: int) -> Case | None:
    """The case with its node in ``version``; None if that version cannot express it."""
    frozen = next((v for v in variants.of(case) if v.variant == "parameters"), case)
    (node,) = frozen.model.graph.node if len(frozen.model.graph.node) == 1 else (None,)
    if node is None:
        return None
    opset = max(version, OLDEST_OPSET)
    spelled = _spelled(node, defs.get_schema(node.op_type, _opset(case), ""),
                       defs.get_schema(node.op_type, opset, ""), frozen.model)  # fmt: skip
    if spelled is None:
        return None
    model = onnx.ModelProto()
    model.CopyFrom(frozen.model)
    model.graph.node[0].CopyFrom(spelled)
    kept = [item for item in model.graph.initializer if item.name in spelled.input]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    if EMPTY in spelled.input:
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.float32), EMPTY))
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    model.ir_version = 8
    try:
        onnx.checker.check_model(model)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return None
    return replace(
        frozen,
        name=f"{case.name}_opset{opset}",
        kind="older",
        model=model,
        is_computed=True,
        variant="as-is",
    )


def _spelled(
    node: onnx.NodeProto, newer: defs.OpSchema, older: defs.OpSchema, model: onnx.ModelProto
) -> onnx.NodeProto | None:
    if len(node.output) > len(older.outputs) and not _is_variadic(older.outputs):
        return None
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    attributes: dict[str, Any] = {}
    for item in node.attribute:
        if item.name in older.attributes:
            attributes[item.name] = helper.get_attribute_value(item)
        elif (
            item.SerializeToString()
            != newer.attributes[item.name].default_value.SerializeToString()
        ):
            return None
    if _is_variadic(newer.inputs):
        return helper.make_node(node.op_type, node.input, node.output, **attributes)
    given = {
        _common(parameter.name): value
        for parameter, value in zip(newer.inputs, node.input, strict=False)
        if value
    }
    inputs = [given.pop(_common(parameter.name), "") for parameter in older.inputs]
    for name, value in given.items():
        attribute = older.attributes.get(name)
        if attribute is None or value not in constants:
            return None
        array = constants[value]
        is_list = attribute.type in (defs.OpSchema.AttrType.INTS, defs.OpSchema.AttrType.FLOATS)
        if array.size:
            attributes[attribute.name] = array.reshape(-1).tolist() if is_list else array.item()
    while inputs and not inputs[-1]:
        inputs.pop()
    for place, parameter in enumerate(older.inputs[: len(inputs)]):
        if parameter.option == defs.OpSchema.FormalParameterOption.Single:
            inputs[place] = inputs[place] or EMPTY
    return helper.make_node(node.op_type, inputs, node.output, **attributes)


def _common(name: str) -> str:
    return RENAMED.get(name, name)


def _is_variadic(parameters: Iterable[defs.OpSchema.FormalParameter]) -> bool:
    return any(parameter.option == VARIADIC for parameter in parameters)
