"""The network as a graph of ONNX operators with static shapes.

The graph is independent of the target and keeps the names of the ONNX file. Any part of it can be converted
back to an ONNX model (``submodel``).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from ..errors import CompileError
from . import onnx_file, pool_shapes

# Their result has the shape of the first input, but ONNX's shape inference fails on them.
SAME_SHAPE = ("GroupNormalization", "MeanVarianceNormalization")
# Larger initializers are left out of shape inference.
SMALL = 4096
# 4 GiB of float32; kernels index with 32 bits.
MOST_ELEMENTS = 1 << 30
UNKNOWN_TYPE = "expected to have type but instead is null"


@dataclass(frozen=True)
class Tensor:
    """Shape and element type of a value."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return self.elements * np.dtype(self.dtype).itemsize


@dataclass
class Node:
    """An operator. ``parameters`` counts its learnable weights."""

    name: str
    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    parameters: int = 0


@dataclass
class Graph:
    """Operators in topological order, constants by name, and shape and type of every value."""

    name: str
    opset: int
    inputs: list[str]
    outputs: list[str]
    nodes: list[Node]
    constants: dict[str, np.ndarray]
    tensors: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)

    def consumers(self) -> dict[str, list[Node]]:
        """Nodes that read each value."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                if value:
                    readers.setdefault(value, []).append(node)
        return readers

    def tensor(self, value: str) -> Tensor:
        """Shape and type of a value or constant."""
        if value in self.constants:
            array = self.constants[value]
            return Tensor(tuple(array.shape), array.dtype.name)
        return self.tensors[value]


def dtype_name(element_type: int) -> str:
    """numpy name of an ONNX element type. Raises ``CompileError`` if ONNX has no such type."""
    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(element_type)).name
    except (KeyError, TypeError, ValueError) as error:
        raise CompileError(
            "invalid_onnx",
            f"failed to read the network: ONNX has no element type {element_type}; export it again",
        ) from error


Shapes = Mapping[str, Sequence[int]]


def from_model(model: onnx.ModelProto, name: str, shapes: Shapes | None = None) -> Graph:
    """Builds the graph.

    ``shapes`` sets input shapes by name. Weights are moved out of ``model``, so that memory holds them
    once.
    """
    model = onnx_file.prepare(model, name)
    constants = _take_constants(model, name)
    notes: list[str] = []
    inputs = [item for item in model.graph.input if item.name not in constants]
    tensors = _input_tensors(inputs, shapes or {}, name, notes)
    onnx_file.check(model, constants, name)
    with onnx_file.asking_onnx(name, "read"):
        nodes = [_node(proto, index) for index, proto in enumerate(model.graph.node)]
    make_names_unique(nodes)
    graph = Graph(
        name=name,
        opset=onnx_file.opset_of(model),
        inputs=[item.name for item in inputs],
        outputs=[item.name for item in model.graph.output],
        nodes=nodes,
        constants=constants,
        tensors=tensors,
        notes=notes,
    )
    _count_parameters(graph)
    return graph


def _take_constants(model: onnx.ModelProto, name: str) -> dict[str, np.ndarray]:
    constants: dict[str, np.ndarray] = {}
    for item in model.graph.initializer:
        try:
            constants[item.name] = numpy_helper.to_array(item)
        except (ValueError, TypeError, KeyError) as error:
            raise CompileError(
                "truncated_onnx",
                f"failed to read the weight {item.name!r} of the network {name}: {error}; copy the "
                "file again and compare its sha256",
            ) from error
        item.ClearField("raw_data")
        item.ClearField("float_data")
    del model.graph.initializer[:]
    return constants


def _input_tensors(
    items: list[onnx.ValueInfoProto], shapes: Shapes, name: str, notes: list[str]
) -> dict[str, Tensor]:
    """Shapes and types of the inputs. ``shapes`` sets dynamic extents; a dynamic batch becomes 1."""
    failed = f"failed to read the network {name}: "
    names = [item.name for item in items]
    for wanted in shapes:
        if wanted not in names:
            known = ", ".join(repr(item) for item in names)
            raise CompileError(
                "unknown_input",
                f"{failed}`shapes` names an unknown input {wanted!r}; the inputs are {known}",
                wanted,
            )
    tensors: dict[str, Tensor] = {}
    advice: dict[str, list[int]] = {}
    open_inputs: list[str] = []
    for item in items:
        kind = item.type.tensor_type
        known = kind.HasField("shape")
        dims = [dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim]
        shown = ", ".join(dim.dim_param or str(dim.dim_value or "?") for dim in kind.shape.dim)
        fixed = shapes.get(item.name)
        if fixed is not None:
            fits = len(fixed) == len(dims) and all(
                dim in (None, extent) for dim, extent in zip(dims, fixed, strict=True)
            )
            if known and not fits:
                raise CompileError(
                    "unknown_input",
                    f"{failed}`shapes` sets input {item.name!r} to {list(fixed)}, but the file "
                    f"has [{shown}]; correct `shapes`",
                    item.name,
                )
            dims = list(fixed)
        elif dims and dims[0] is None and None not in dims[1:] and not _is_empty(item):
            dims[0] = 1
            notes.append(
                f"input {item.name!r} has the dynamic shape [{shown}] in the file; using {dims}. "
                f"For another batch size, set `shapes: {{ {_yaml(item.name)}: {[2, *dims[1:]]} }}` "
                "in the network's YAML file"
            )
        elif not known or None in dims:
            # A common image size, for the suggestion.
            usual = [1, 3, 224, 224]
            advice[item.name] = [
                dim or (usual[place] if len(dims) == 4 else 1) for place, dim in enumerate(dims)
            ] or usual
            open_inputs.append(
                f"input {item.name!r} has "
                + (f"the dynamic shape [{shown}]" if known else "no shape")
            )
            continue
        extents = tuple(int(dim) for dim in dims if dim is not None)
        _check_size(name, item.name, extents)
        tensors[item.name] = Tensor(extents, dtype_name(kind.elem_type))
    if open_inputs:
        line = ", ".join(f"{_yaml(item)}: {dims}" for item, dims in advice.items())
        raise CompileError(
            "dynamic_shape",
            f"{failed}{', '.join(open_inputs)}; set every dimension in the network's YAML file, for example "
            f"`shapes: {{ {line} }}`",
            next(iter(advice)),
        )
    return tensors


def _is_empty(item: onnx.ValueInfoProto) -> bool:
    """Whether the first extent is 0, which is an empty tensor and not a dynamic batch."""
    first = item.type.tensor_type.shape.dim[0]
    return bool(first.HasField("dim_value") and first.dim_value == 0)


def _yaml(name: str) -> str:
    """A name as a YAML key."""
    return name if re.fullmatch(r"[A-Za-z_][\w./-]*", name) else json.dumps(name)


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


def unused(graph: Graph, base: str) -> str:
    """``base``, extended until no value name starts with it and a dot."""
    known = {*graph.inputs, *graph.constants, *graph.tensors}
    known.update(value for node in graph.nodes for value in node.outputs)
    while any(value.startswith(f"{base}.") for value in known):
        base += "_"
    return base


def make_names_unique(nodes: list[Node]) -> None:
    """Numbers nodes with duplicate names: units and cuts refer to nodes by name."""
    seen: set[str] = set()
    for node in nodes:
        base, count = node.name, 1
        while node.name in seen:
            count += 1
            node.name = f"{base}_{count}"
        seen.add(node.name)


def _count_parameters(graph: Graph) -> None:
    """Counts each float weight once, at its first reader. Running statistics are not learnable."""
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
    """Fills ``graph.tensors``; unknown shapes stay absent.

    Strict inference fails behind a value of unknown type, so nodes that depend on one are deferred.
    """
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
    tensors = _inferred(graph, model)
    before = {name: graph.tensors[name].shape for name in known}
    while pool_shapes.correct_pools(model, before | {name: t.shape for name, t in tensors.items()}):
        tensors = _inferred(graph, model)
    graph.tensors.update(tensors)


def _inferred(graph: Graph, model: onnx.ModelProto) -> dict[str, Tensor]:
    try:
        with onnx_file.asking_onnx(graph.name, "infer the shapes of"):
            inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except CompileError as error:
        lines = [line for line in str(error.__cause__).splitlines() if "(op_type:" in line]
        if lines and all(UNKNOWN_TYPE in line for line in lines):
            # ONNX infers no type for an operator before it. Unknown shapes are reported later.
            inferred = shape_inference.infer_shapes(model, data_prop=True)
        else:
            text = str(error.__cause__)
            named = (node.name for node in graph.nodes if f"name: {node.name})" in text)
            error.node = next(named, None)
            raise
    tensors = {}
    for item in inferred.graph.value_info:
        kind = item.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
        if kind.HasField("shape") and kind.elem_type and all(dim is not None for dim in dims):
            shape = tuple(int(dim) for dim in dims if dim is not None)
            _check_size(graph.name, item.name, shape)
            tensors[item.name] = Tensor(shape, dtype_name(kind.elem_type))
    return tensors


def _check_size(network: str, value: str, shape: tuple[int, ...]) -> None:
    failed = f"failed to read the network {network}: value {value!r} has shape {list(shape)}"
    if min(shape, default=0) < 0:
        raise CompileError("invalid_onnx", f"{failed}; correct the negative dimension", value)
    if math.prod(shape) > MOST_ELEMENTS:
        raise CompileError(
            "unsupported_operator",
            f"{failed}, more than the supported {MOST_ELEMENTS:,} elements; correct the shapes",
            value,
        )


def submodel(
    graph: Graph,
    nodes: Iterable[Node],
    inputs: Iterable[str],
    outputs: Iterable[str],
    large_constants: bool = True,
) -> onnx.ModelProto:
    """An ONNX model of ``nodes``. Without ``large_constants``, large constants become inputs."""
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
        proto = helper.make_node(op, node.inputs, node.outputs, name=node.name, domain=domain)
        proto.attribute.extend(
            _attribute(graph, node, name, value) for name, value in node.attributes.items()
        )
        protos.append(proto)
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


def _attribute(graph: Graph, node: Node, name: str, value: object) -> onnx.AttributeProto:
    """An attribute. An empty list has no element type, so the operator's schema provides it."""
    if isinstance(value, list | tuple) and not value:
        schema = onnx.defs.get_schema(node.op, graph.opset)
        return helper.make_attribute(name, value, attr_type=schema.attributes[name].type.value)
    return helper.make_attribute(name, value)


def _info(graph: Graph, value: str) -> onnx.ValueInfoProto:
    tensor = graph.tensor(value)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return helper.make_tensor_value_info(value, kind, list(tensor.shape))
