"""The network as a graph of ONNX operators with static shapes.

Everything before lowering works on this graph: it is independent of the target, its names are the
names in the ONNX file, and any piece of it can be turned back into an ONNX model (``submodel``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, inliner, numpy_helper, shape_inference

from .errors import CompileError

# Operators whose result has the shape of their first input, and for which ONNX infers none or fails.
SAME_SHAPE = ("GroupNormalization", "MeanVarianceNormalization")
# Initializers up to this many elements take part in shape inference (shapes, axes, scales).
SMALL = 4096


@dataclass(frozen=True)
class Tensor:
    """Shape and element type of a value."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return self.elements * np.dtype(self.dtype).itemsize


@dataclass
class Node:
    """An operator. ``parameters`` counts the learnable weights it brought into the network."""

    name: str
    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    parameters: int = 0


@dataclass
class Graph:
    """Operators in topological order, constants by name, and the tensor of every value."""

    name: str
    opset: int
    inputs: list[str]
    outputs: list[str]
    nodes: list[Node]
    constants: dict[str, np.ndarray]
    tensors: dict[str, Tensor]
    aliases: dict[str, str] = field(default_factory=dict)

    def consumers(self) -> dict[str, list[Node]]:
        """Nodes that read each value."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                if value:
                    readers.setdefault(value, []).append(node)
        return readers

    def tensor(self, value: str) -> Tensor:
        """Tensor of a value or constant."""
        if value in self.constants:
            array = self.constants[value]
            return Tensor(tuple(array.shape), array.dtype.name)
        return self.tensors[value]


def dtype_name(element_type: int) -> str:
    """Name of an ONNX element type as numpy spells it."""
    return np.dtype(helper.tensor_dtype_to_np_dtype(element_type)).name


def load(path: Path) -> onnx.ModelProto:
    """Reads an ONNX file, external data included."""
    try:
        head = path.open("rb").read(2)
    except OSError as error:
        raise CompileError(
            "not_onnx", f"failed to read the network {path}: {error.strerror}"
        ) from error
    try:
        model = onnx.load(str(path))
    except DecodeError as error:
        # A model begins with field 1, its IR version, a small number.
        begins_well = len(head) == 2 and head[0] == 0x08 and 1 <= head[1] <= 32
        if begins_well:
            raise CompileError(
                "truncated_onnx",
                f"failed to read the network {path}: it begins as an ONNX file but is cut off or "
                f"damaged ({error}); copy it again and compare its sha256",
            ) from error
        raise CompileError(
            "not_onnx", f"failed to read the network {path}: it is no ONNX file ({error})"
        ) from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise CompileError(
            "truncated_onnx", f"failed to read the data of the network {path}: {error}"
        ) from error
    if not model.HasField("graph") or not model.graph.output:
        kind = "truncated_onnx" if head[:1] == b"\x08" else "not_onnx"
        raise CompileError(
            kind, f"failed to read the network {path}: it holds no whole graph; copy it again"
        )
    if not model.opset_import:
        # The operator set follows the graph in the file.
        raise CompileError(
            "truncated_onnx",
            f"failed to read the network {path}: its end is missing; copy it again",
        )
    return model


def from_model(model: onnx.ModelProto, name: str) -> Graph:
    """Builds the graph. The weights are moved out of ``model``, so that they are in memory once."""
    if model.functions:
        model = inliner.inline_local_functions(model)
    constants = _take_constants(model, name)
    opset = next(
        (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0
    )
    if opset < 7:
        raise CompileError(
            "invalid_onnx",
            f"failed to read the network {name}: opset {opset} is older than 7; convert it with "
            "onnx.version_converter",
        )
    inputs = [item for item in model.graph.input if item.name not in constants]
    tensors = {item.name: _static_tensor(item, name) for item in inputs}
    _check(model, constants, name)
    nodes = [_node(proto, index) for index, proto in enumerate(model.graph.node)]
    _make_names_unique(nodes)
    graph = Graph(
        name=name,
        opset=opset,
        inputs=[item.name for item in inputs],
        outputs=[item.name for item in model.graph.output],
        nodes=nodes,
        constants=constants,
        tensors=tensors,
    )
    _count_parameters(graph)
    return graph


def _take_constants(model: onnx.ModelProto, name: str) -> dict[str, np.ndarray]:
    constants: dict[str, np.ndarray] = {}
    for item in model.graph.initializer:
        try:
            constants[item.name] = numpy_helper.to_array(item)
        except (ValueError, TypeError) as error:
            raise CompileError(
                "truncated_onnx",
                f"failed to read the weight {item.name!r} of the network {name}: {error}; copy the "
                "file again and compare its sha256",
            ) from error
        item.ClearField("raw_data")
        item.ClearField("float_data")
    del model.graph.initializer[:]
    return constants


def _check(model: onnx.ModelProto, constants: dict[str, np.ndarray], name: str) -> None:
    """ONNX's own check, of a copy in which the weights are inputs and outputs may lack a shape."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    given = {item.name for item in bare.graph.input}
    for value, array in constants.items():
        if value not in given:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            bare.graph.input.append(helper.make_tensor_value_info(value, kind, array.shape))
    for item in bare.graph.output:
        if item.type.HasField("tensor_type") and not item.type.tensor_type.HasField("shape"):
            item.type.tensor_type.shape.SetInParent()
    for node in bare.graph.node:
        # The check rejects opset 18's, which ONNX took back for the shape of its scale; networks have it.
        if node.op_type == "GroupNormalization":
            node.op_type = "Sum"
            del node.attribute[:]
    try:
        onnx.checker.check_model(bare)
    except onnx.checker.ValidationError as error:
        text = str(error).strip()
        unknown = "No Op registered for" in text
        kind = "unsupported_operator" if unknown else "invalid_onnx"
        raise CompileError(
            kind, f"failed to check the network {name}: {text}", _node_in(model, text)
        ) from error


def _node_in(model: onnx.ModelProto, text: str) -> str | None:
    return next((node.name for node in model.graph.node if node.name and node.name in text), None)


def _static_tensor(item: onnx.ValueInfoProto, name: str) -> Tensor:
    kind = item.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    shown = [dim.dim_param or str(dim.dim_value or "?") for dim in kind.shape.dim]
    if not kind.HasField("shape") or any(dim is None or dim <= 0 for dim in dims):
        raise CompileError(
            "dynamic_shape",
            f"failed to read the network {name}: its input {item.name!r} has the shape "
            f"[{', '.join(shown)}], but every extent must be a fixed number; fix it, for example with "
            "onnx.tools.update_model_dims or the exporter's option",
            item.name,
        )
    return Tensor(tuple(int(dim) for dim in dims if dim is not None), dtype_name(kind.elem_type))


def has_body(node: Node) -> bool:
    """Whether an attribute of the node is a graph."""
    return any(isinstance(value, onnx.GraphProto) for value in node.attributes.values())


def _node(proto: onnx.NodeProto, index: int) -> Node:
    attributes = {item.name: helper.get_attribute_value(item) for item in proto.attribute}
    name = proto.name or (proto.output[0] if proto.output else "") or f"node{index}"
    return Node(
        name=name.strip("/").replace("/", ".").replace(" ", "_"),
        op=proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}",
        inputs=list(proto.input),
        outputs=list(proto.output),
        attributes=attributes,
    )


def _make_names_unique(nodes: list[Node]) -> None:
    seen: set[str] = set()
    for node in nodes:
        base, count = node.name, 1
        while node.name in seen:
            count += 1
            node.name = f"{base}_{count}"
        seen.add(node.name)


def _count_parameters(graph: Graph) -> None:
    """Counts each float weight once, at its first reader; running statistics are not learnable."""
    counted: set[str] = set()
    for node in graph.nodes:
        learnable = node.inputs[1:3] if node.op == "BatchNormalization" else node.inputs
        for value in learnable:
            array = graph.constants.get(value)
            is_weight = array is not None and array.dtype.kind == "f" and array.ndim > 0
            if is_weight and value not in counted:
                node.parameters += array.size
                counted.add(value)


def infer_shapes(graph: Graph) -> None:
    """Fills ``graph.tensors``; what stays unknown is left out. Strict inference refuses to go on behind a
    value of unknown type, so nodes that depend on one wait."""
    waiting: set[str] = set()
    nodes, known = [], list(graph.inputs)
    for node in graph.nodes:
        if node.op in SAME_SHAPE and node.inputs[0] in graph.tensors:
            graph.tensors[node.outputs[0]] = graph.tensors[node.inputs[0]]
        if node.op in SAME_SHAPE and node.outputs[0] in graph.tensors:
            known.append(node.outputs[0])
        elif node.op in SAME_SHAPE or has_body(node) or waiting.intersection(node.inputs):
            waiting.update(node.outputs)
        else:
            nodes.append(node)
    waiting.discard("")
    model = submodel(graph, nodes, known, [], large_constants=False)
    try:
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError as error:
        text = str(error).strip()
        raise CompileError(
            "invalid_onnx",
            f"failed to infer the shapes of the network {graph.name}: {text}",
            next((node.name for node in graph.nodes if f"name: {node.name}" in text), None),
        ) from error
    for item in inferred.graph.value_info:
        kind = item.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
        if kind.HasField("shape") and kind.elem_type and all(dim is not None for dim in dims):
            shape = tuple(int(dim) for dim in dims if dim is not None)
            graph.tensors[item.name] = Tensor(shape, dtype_name(kind.elem_type))


def submodel(
    graph: Graph,
    nodes: Iterable[Node],
    inputs: Iterable[str],
    outputs: Iterable[str],
    large_constants: bool = True,
) -> onnx.ModelProto:
    """An ONNX model of some nodes. Without large constants these become inputs."""
    nodes = list(nodes)
    used = dict.fromkeys(value for node in nodes for value in node.inputs if value)
    initializers, extra = [], []
    for value in used:
        array = graph.constants.get(value)
        if array is None:
            continue
        if large_constants or array.size <= SMALL:
            initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), value))
        else:
            extra.append(value)
    protos = []
    for node in nodes:
        domain, _, op = node.op.rpartition(".")
        protos.append(
            helper.make_node(
                op, node.inputs, node.outputs, name=node.name, domain=domain, **node.attributes
            )
        )
    built = helper.make_graph(
        protos,
        "part",
        [_info(graph, value) for value in [*inputs, *extra]],
        [_info(graph, value) for value in outputs],
        initializers,
    )
    model = helper.make_model(built, opset_imports=[helper.make_opsetid("", graph.opset)])
    model.ir_version = 8
    return model


def _info(graph: Graph, value: str) -> onnx.ValueInfoProto:
    tensor = graph.tensor(value)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return helper.make_tensor_value_info(value, kind, list(tensor.shape))
