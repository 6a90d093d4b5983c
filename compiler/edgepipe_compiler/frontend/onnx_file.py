"""Reads ONNX files and normalizes models: complete, sorted, checked.

Accepts what ONNX Runtime accepts beyond the standard: unsorted nodes, linked data files, old operator sets.
Refuses what ONNX Runtime refuses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import external_data_helper, helper, inliner, numpy_helper, version_converter

from ..errors import CompileError

# No tensor has more axes; ONNX's shape inference crashes on large ones.
MOST_AXES = 64
# Older operator sets are converted to this one.
OLDEST_OPSET = 7
# ONNX and ONNX Runtime differ about other values of these attributes than 0 and 1.
FLAGS = {"interleaved", "largest", "noop_with_empty_axes", "sorted", "training_mode"}


@contextlib.contextmanager
def asking_onnx(name: str, what: str) -> Iterator[None]:
    """Converts exceptions of ONNX's library into ``CompileError``.

    It raises many types for damaged files: names that are not UTF-8, attributes of the wrong type,
    undefined values.
    """
    try:
        yield
    except (CompileError, MemoryError):
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
        text = " ".join(lines)[:400].rstrip(" .") or type(error).__name__
        raise CompileError(
            "invalid_onnx", f"failed to {what} the network {name}: {text}; export it again"
        ) from error


def load(path: Path) -> onnx.ModelProto:
    """Reads an ONNX file and its external data; both may be symbolic links.

    Raises ``CompileError`` of kind ``not_onnx``, ``truncated_onnx`` or ``invalid_onnx``.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CompileError(
            "not_onnx", f"failed to read the network {path}: {error.strerror}; check the path"
        ) from error
    head = content[:2]
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        # A model starts with field 1, the IR version, which is small.
        begins_well = len(head) == 2 and head[0] == 0x08 and 1 <= head[1] <= 32
        if begins_well:
            raise CompileError(
                "truncated_onnx",
                f"failed to read the network {path}: the file is truncated or "
                f"damaged ({error}); copy it again and compare its sha256",
            ) from error
        raise CompileError(
            "not_onnx",
            f"failed to read the network {path}: it is not an ONNX file ({error}); specify an .onnx file",
        ) from error
    if not model.HasField("graph") or not model.graph.output:
        kind = "truncated_onnx" if head[:1] == b"\x08" else "not_onnx"
        raise CompileError(
            kind,
            f"failed to read the network {path}: it has no complete graph; copy the file again",
        )
    if not model.opset_import:
        # The operator set is stored after the graph.
        raise CompileError(
            "truncated_onnx",
            f"failed to read the network {path}: its end is missing; copy the file again",
        )
    for tensor in tensors_of(model):
        if external_data_helper.uses_external_data(tensor):
            _read_external(tensor, path)
    return model


def content_of(model: onnx.ModelProto, name: str) -> bytes:
    """Serializes a model with its weights."""
    try:
        return model.SerializeToString()
    except (ValueError, EncodeError) as error:
        raise CompileError(
            "unsupported_operator",
            f"failed to write the network {name}: it exceeds the 2 GiB that an ONNX "
            "file can hold; use a smaller network",
        ) from error


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All stored tensors of a model, including those of subgraphs and functions."""
    yield from _tensors_of_graph(model.graph)
    for function in model.functions:
        yield from _tensors_of_nodes(function.node)


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: list[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for graph in (attribute.g, *attribute.graphs):
                yield from _tensors_of_graph(graph)


def _read_external(tensor: onnx.TensorProto, path: Path) -> None:
    """Reads the values of a tensor from a file next to the model."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    place = PurePosixPath(location)
    failed = f"failed to read the weight {tensor.name!r} of the network {path}"
    if not location or place.is_absolute() or ".." in place.parts or "\0" in location:
        raise CompileError(
            "invalid_onnx",
            f"{failed}: its data file {location!r} is not below the model's folder; save "
            "the network with its data next to it",
            tensor.name or None,
        )
    data = path.parent / location
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
        if offset < 0:
            raise ValueError(f"offset {offset}")
        with data.open("rb") as file:
            file.seek(offset)
            values = file.read(length)
    except ValueError as error:
        raise CompileError(
            "invalid_onnx",
            f"{failed}: invalid offset or length in {data} ({error}); save the network again",
            tensor.name,
        ) from error
    except OSError as error:
        raise CompileError(
            "truncated_onnx",
            f"{failed}: {data}: {error.strerror}; copy the file next to the model",
            tensor.name or None,
        ) from error
    needed = _stored_bytes(tensor)
    if needed is not None and len(values) != needed:
        raise CompileError(
            "truncated_onnx",
            f"{failed}: {data} holds {len(values)} of its {needed} bytes; copy the file again",
            tensor.name or None,
        )
    tensor.raw_data = values
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def _stored_bytes(tensor: onnx.TensorProto) -> int | None:
    """Size of a tensor's values in bytes; None for element types smaller than a byte."""
    try:
        size = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
    except (KeyError, TypeError, ValueError):
        return None
    bits = {onnx.TensorProto.INT4, onnx.TensorProto.UINT4, onnx.TensorProto.FLOAT4E2M1}
    if tensor.data_type in bits or min(tensor.dims, default=0) < 0:
        return None
    return size * int(np.prod(tensor.dims, dtype=np.int64))


def prepare(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Inlines functions, makes sparse weights dense, sorts nodes, and converts old operator sets."""
    with asking_onnx(name, "read"):
        _check_text(model, name)
        for node in model.graph.node:
            if not node.op_type:
                raise _invalid(name, "a node has no operator; export it again", node.name)
        _refuse_duplicates(model, name)
        if model.functions:
            model = inliner.inline_local_functions(model)
        _check_nodes(model.graph.node, opset_of(model), name)
        _densify(model.graph, name)
        model = _upgrade(model, name)
        _sort(model.graph, name)
    return model


def _check_text(model: onnx.ModelProto, name: str) -> None:
    """Refuses names that are not UTF-8: ONNX's library fails on them when it formats messages."""
    graph = model.graph
    names: list[str | bytes] = []
    for node in graph.node:
        values = [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [*values, *(item.name for item in node.attribute)]
    for item in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        names.append(item.name)
    # protobuf returns bytes if it cannot decode a string.
    wrong = next((item for item in names if isinstance(item, bytes)), None)
    if wrong is not None:
        raise _invalid(name, f"the name {wrong!r} is not UTF-8; export it again")


def _invalid(name: str, reason: str, node: str | None = None) -> CompileError:
    return CompileError("invalid_onnx", f"failed to read the network {name}: {reason}", node)


def _refuse_duplicates(model: onnx.ModelProto, name: str) -> None:
    graph = model.graph
    lists = {
        "nodes": [node.name for node in graph.node if node.name],
        "inputs": [item.name for item in graph.input],
        "outputs": [item.name for item in graph.output],
        "weights": [item.name for item in graph.initializer],
        "values": [value for node in graph.node for value in node.output if value],
    }
    for what, names in lists.items():
        seen: set[str] = set()
        for item in names:
            if item in seen:
                raise _invalid(name, f"duplicate name {item!r} among its {what}; rename one", item)
            seen.add(item)


def _densify(graph: onnx.GraphProto, name: str) -> None:
    for sparse in graph.sparse_initializer:
        title = sparse.values.name
        try:
            values, indices = (
                numpy_helper.to_array(sparse.values),
                numpy_helper.to_array(sparse.indices),
            )
            dense = np.zeros(tuple(sparse.dims), values.dtype)
            if indices.ndim == 2:
                dense[tuple(indices.T)] = values
            else:
                dense.reshape(-1)[indices] = values
        except (ValueError, IndexError, TypeError) as error:
            raise _invalid(
                name, f"its sparse weight {title!r} is invalid ({error}); export it again", title
            ) from error
        graph.initializer.append(numpy_helper.from_array(dense, title))
    del graph.sparse_initializer[:]


def opset_of(model: onnx.ModelProto) -> int:
    """Version of ONNX's own operator set; 0 if the model does not import it."""
    versions = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    return max(versions, default=0)


def _upgrade(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    opset = opset_of(model)
    foreign = next((node for node in model.graph.node if node.domain not in ("", "ai.onnx")), None)
    if opset < 1 and foreign is not None:
        raise CompileError(
            "unsupported_operator",
            f"failed to read the network {name}: its operator {foreign.op_type} belongs to the domain "
            f"{foreign.domain}, not to the ONNX standard; export the network without it",
            foreign.name or (foreign.output[0] if foreign.output else None),
        )
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise _invalid(
            name,
            f"operator set {opset} is not supported (newest: {newest}); export it with an older "
            "one",
        )
    if opset >= OLDEST_OPSET or not any(
        node.domain in ("", "ai.onnx") for node in model.graph.node
    ):
        return model
    if opset < 1:
        raise _invalid(name, "it does not name its ONNX operator set; export it again")
    try:
        _name_axes(model)
        return version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as error:  # The converter raises several types.
        text = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise _invalid(
            name,
            f"cannot convert operator set {opset} to {OLDEST_OPSET} ({text}); export it with a "
            "newer one",
        ) from error


def _name_axes(model: onnx.ModelProto) -> None:
    """Replaces the ``axis`` attribute of broadcasting operators, which existed before operator set 7, by
    Unsqueeze. The converter of onnx 1.23 gets it wrong: a bias of channels becomes [C, 1, 1, 1].
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    ranks = {item.name: len(item.dims) for item in model.graph.initializer}
    for item in (*inferred.input, *inferred.value_info, *inferred.output):
        if item.type.tensor_type.HasField("shape"):
            ranks[item.name] = len(item.type.tensor_type.shape.dim)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        axis = attributes.get("axis") if attributes.get("broadcast") else None
        if node.op_type == "PRelu":
            axis = 1
        if axis is not None and len(node.input) == 2 and node.op_type != "Gemm":
            first, second = node.input
            if first not in ranks or second not in ranks:
                raise ValueError(f"the rank of an operand of {node.op_type} is unknown")
            after = ranks[first] - axis % max(ranks[first], 1) - ranks[second]
            if ranks[second] and after > 0 and not (node.op_type == "PRelu" and ranks[second] > 1):
                axes = list(range(ranks[second], ranks[second] + after))
                aligned = f"{node.output[0]}.operand"
                nodes.append(helper.make_node("Unsqueeze", [second], [aligned], axes=axes))
                node.input[1] = aligned
        kept = [item for item in node.attribute if item.name not in ("broadcast", "axis")]
        if "broadcast" in attributes and node.op_type != "Gemm":
            del node.attribute[:]
            node.attribute.extend(kept)
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _captured(node: onnx.NodeProto) -> set[str]:
    """Values that a node reads: its inputs, and what its subgraphs read from outside."""
    read = {value for value in node.input if value}
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            inside = {item.name for item in (*graph.input, *graph.initializer)}
            inside |= {value for inner in graph.node for value in inner.output}
            for inner in graph.node:
                read |= _captured(inner) - inside
            read |= {item.name for item in graph.output} - inside
    return read


def _sort(graph: onnx.GraphProto, name: str) -> None:
    """Sorts the nodes topologically. A valid order is kept."""
    made = {value: place for place, node in enumerate(graph.node) for value in node.output if value}
    waits = [{made[value] for value in _captured(node) if value in made} for node in graph.node]
    if all(max(before, default=-1) < place for place, before in enumerate(waits)):
        return
    order: list[int] = []
    state = [0] * len(waits)  # 0: not visited, 1: on the stack, 2: placed
    for first in range(len(waits)):
        stack = [first]
        while stack:
            place = stack[-1]
            if state[place] == 0:
                state[place] = 1
                for before in sorted(waits[place], reverse=True):
                    if state[before] == 1:
                        node = graph.node[before]
                        title = node.name or node.output[0]
                        raise _invalid(
                            name,
                            f"node {title!r} depends on its own output; export it again",
                            title,
                        )
                    if state[before] == 0:
                        stack.append(before)
            else:
                stack.pop()
                if state[place] == 1:
                    state[place] = 2
                    order.append(place)
    nodes = [onnx.NodeProto.FromString(graph.node[place].SerializeToString()) for place in order]
    del graph.node[:]
    graph.node.extend(nodes)


def check(model: onnx.ModelProto, constants: dict[str, np.ndarray], name: str) -> None:
    """Runs ONNX's checker on a copy in which weights are inputs and outputs may lack a shape."""
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
        # The checker rejects the withdrawn version of opset 18, which networks use.
        if node.op_type == "GroupNormalization":
            node.op_type = "Sum"
            del node.attribute[:]
    try:
        with asking_onnx(name, "check"):
            onnx.checker.check_model(bare)
    except CompileError as refusal:
        text = str(refusal.__cause__).strip()
        node = _node_in(model, text)
        if "No Op registered for" not in text:
            refusal.node = node
            raise
        raise CompileError(
            "unsupported_operator",
            f"failed to check the network {name}: {text.splitlines()[0]}; replace it with operators of the "
            "ONNX standard",
            node,
        ) from refusal


def _check_nodes(nodes: Iterable[onnx.NodeProto], opset: int, name: str) -> None:
    """Refuses nodes that pass ONNX's checker, but fail or crash its shape inference or ONNX Runtime."""
    for node in nodes:
        wrong = _absent_operand(node, opset) or _fault(node)
        if wrong is not None:
            title = node.name or next(iter(node.output), "")
            raise _invalid(name, f"the {node.op_type} {title!r}: {wrong}; correct it", title)
        for item in node.attribute:
            for graph in (item.g, *item.graphs):
                _check_nodes(graph.node, opset, name)


def _absent_operand(node: onnx.NodeProto, opset: int) -> str | None:
    """An operand without a name in a list of any length, in which ONNX has no optional operands."""
    if "" not in node.input or node.domain not in ("", "ai.onnx"):
        return None
    try:
        formal = onnx.defs.get_schema(node.op_type, opset).inputs
    except onnx.defs.SchemaError:  # The checker reports unknown operators.
        return None
    if not formal or formal[-1].option != onnx.defs.OpSchema.FormalParameterOption.Variadic:
        return None
    first = len(formal) - 1
    if "" not in node.input[first:]:
        return None
    return f"operand {list(node.input).index('', first)} is missing"


def _fault(node: onnx.NodeProto) -> str | None:
    for item in node.attribute:
        match node.op_type, item.name:
            case _, ("axis" | "batch_dims") if abs(item.i) > MOST_AXES:
                return f"{item.name} {item.i} is out of range"
            case _, name if name in FLAGS and item.i not in (0, 1):
                return f"{name} is {item.i}, expected 0 or 1"
            case "GatherND", "batch_dims" if item.i < 0:
                return f"batch_dims {item.i} is negative"
            case "Einsum", "equation" if not item.s.isascii():
                return f"equation {item.s!r} is not ASCII"
            case "Split", "num_outputs" if item.i != len(node.output):
                return f"num_outputs is {item.i} for {len(node.output)} outputs"
            case "Scan", "num_scan_inputs" if not 1 <= item.i <= len(node.input):
                return f"num_scan_inputs is {item.i} for {len(node.input)} inputs"
    return None


def _node_in(model: onnx.ModelProto, text: str) -> str | None:
    return next((node.name for node in model.graph.node if node.name and node.name in text), None)
