"""Expands operators that the ONNX standard defines by a function body."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import defs, helper

from .graph import Graph, Node, _node, unused

# Operators with neither a schedule rule nor a decomposition here.
EXPANDED = {
    "Attention", "CausalConvWithState", "RotaryEmbedding", "RMSNormalization",
    "SwiGLU", "HannWindow", "HammingWindow", "BlackmanWindow",
}  # fmt: skip


def expanded(graph: Graph, node: Node) -> list[Node] | None:
    """The operators of the function body of ``node``; None to keep the node."""
    if node.op not in EXPANDED:
        return None
    body = _body(graph, node)
    if body is None:
        return None
    prefix = f"{unused(graph, node.outputs[0] or node.name)}."
    names = {"": ""}
    for place, formal in enumerate(body.input):
        names[formal] = node.inputs[place] if place < len(node.inputs) else ""
    results = dict(zip(body.output, node.outputs, strict=False))
    for proto in body.node:
        for output in proto.output:
            names.setdefault(output, results.get(output) or prefix + output)
    given = _attributes(node, body)
    nodes = []
    for place, proto in enumerate(body.node):
        copy = onnx.NodeProto()
        copy.CopyFrom(proto)
        del copy.attribute[:]
        for attribute in proto.attribute:
            if not attribute.ref_attr_name:
                copy.attribute.append(attribute)
            elif attribute.ref_attr_name in given:
                value = given[attribute.ref_attr_name]
                copy.attribute.append(helper.make_attribute(attribute.name, value))
        inner = _node(copy, place)
        inner.name = f"{node.name}.{place}" if place else node.name
        inner.inputs = [names[value] for value in proto.input]
        inner.outputs = [names[value] for value in proto.output]
        nodes.append(inner)
    nodes[0].parameters = node.parameters
    return nodes


def _body(graph: Graph, node: Node) -> onnx.FunctionProto | None:
    """The function body for the network's opset; None if there is none with the same meaning."""
    schema = defs.get_schema(node.op, graph.opset)
    proto = helper.make_node(node.op, node.inputs, node.outputs, **node.attributes)
    types = [_type(graph, value) for value in node.inputs]
    versions = schema.context_dependent_function_opset_versions or schema.function_opset_versions
    fitting = [version for version in versions if version <= graph.opset]
    if not fitting:
        return None
    version = max(fitting)
    if schema.has_context_dependent_function:
        content = schema.get_context_dependent_function_with_opset_version(
            version, proto.SerializeToString(), types
        )
    else:
        content = schema.get_function_with_opset_version(version)
    body = onnx.FunctionProto.FromString(content)
    # Since opset 18 only element types have changed.
    for inner in body.node if version < 18 else ():
        before = defs.get_schema(inner.op_type, version, inner.domain).since_version
        if defs.get_schema(inner.op_type, graph.opset, inner.domain).since_version != before:
            return None
    return body


def _type(graph: Graph, value: str) -> bytes:
    if not value:
        return onnx.TypeProto().SerializeToString()
    tensor = graph.tensor(value)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return helper.make_tensor_type_proto(kind, tensor.shape).SerializeToString()


def _attributes(node: Node, body: onnx.FunctionProto) -> dict[str, object]:
    """Attributes of the node, with defaults."""
    given = {item.name: helper.get_attribute_value(item) for item in body.attribute_proto}
    schema = defs.get_schema(node.op)
    for name, item in schema.attributes.items():
        if item.default_value.type:
            given[name] = helper.get_attribute_value(item.default_value)
    return given | node.attributes
