"""Rewrites equivalent ONNX forms to one canonical form, so that a schedule rule supports one form.

1-D and 3-D windows become 2-D. A Gemm whose bias is not a plain row becomes separate operators. A channel
shuffle becomes a gather of channels, and a split with unused parts becomes slices.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import windows_3d
from .graph import Graph, Node, Tensor

WINDOWS = ("Conv", "ConvTranspose", "MaxPool", "AveragePool")


def unify(graph: Graph) -> None:
    """Rewrites the nodes of ``graph`` in place. Shapes must be inferred again afterwards."""
    _shuffles(graph)
    rewrite: dict[str, Callable[[Graph, Node], list[Node] | None]] = {
        "Gemm": _gemm,
        "Split": _split,
        "DepthToSpace": _depth_to_space,
        "SpaceToDepth": _space_to_depth,
        **dict.fromkeys(WINDOWS, _window),
    }
    nodes: list[Node] = []
    for node in graph.nodes:
        made = rewrite[node.op](graph, node) if node.op in rewrite else None
        nodes.extend([node] if made is None else made)
    graph.nodes = nodes


def _constant(graph: Graph, name: str, values: object) -> str:
    graph.constants[name] = np.asarray(values)
    return name


def _value(graph: Graph, name: str, shape: tuple[int, ...], dtype: str = "float32") -> str:
    """Declares a new value."""
    graph.tensors[name] = Tensor(shape, dtype)
    return name


def _gemm(graph: Graph, node: Node) -> list[Node] | None:
    """alpha A' B' + beta C. The schedule rule supports A B + c with a constant B and a row c."""
    attribute = node.attributes.get
    left, right, *rest = node.inputs
    bias = rest[0] if rest else ""
    columns = graph.tensor(node.outputs[0]).shape[1]
    dtype = graph.tensor(node.outputs[0]).dtype
    kind = np.dtype(dtype).type
    fixed = right in graph.constants
    array = graph.constants.get(bias)
    row = not bias or (array is not None and array.shape[-1:] in ((columns,), (1,), ()))
    row = row and (array is None or array.size == (array.shape[-1] if array.ndim else 1))
    if fixed and row and not attribute("transA", 0):
        return None
    made: list[Node] = []

    def turned(value: str) -> str:
        shape = graph.tensor(value).shape
        result = _value(graph, f"{node.outputs[0]}.{len(made)}", shape[::-1], dtype)
        made.append(
            Node(f"{node.name}.turned{len(made)}", "Transpose", [value], [result], {"perm": [1, 0]})
        )
        return result

    attributes = {"alpha": attribute("alpha", 1.0), "transB": attribute("transB", 0)}
    if attribute("transA", 0):
        left = turned(left)
    if not fixed:
        right = turned(right) if attributes.pop("transB") else right
    end = node.outputs[0]
    op = "Gemm" if fixed else "MatMul"
    scale = 1.0 if fixed else attributes.pop("alpha")
    inputs = [left, right, bias] if fixed and bias and row else [left, right]
    if len(inputs) == 3:
        attributes["beta"], bias = attribute("beta", 1.0), ""
    steps = [(op, inputs, attributes if fixed else {})]
    if scale != 1.0:
        steps.append(("Mul", [_constant(graph, f"{end}.alpha", kind(scale))], {}))
    if bias:
        if attribute("beta", 1.0) != 1.0:
            beta = _constant(graph, f"{end}.beta", kind(attribute("beta", 1.0)))
            scaled = _value(graph, f"{end}.bias", tuple(graph.tensor(bias).shape), dtype)
            made.append(Node(f"{node.name}.beta", "Mul", [bias, beta], [scaled], {}))
            bias = scaled
        steps.append(("Add", [bias], {}))
    before: list[str] = []
    for place, (kind, others, extra) in enumerate(steps):
        last = place == len(steps) - 1
        shape = tuple(graph.tensor(end).shape)
        result = end if last else _value(graph, f"{end}.sum{place}", shape, dtype)
        name = node.name if place == 0 else f"{node.name}.{kind.lower()}"
        parameters = node.parameters if place == 0 else 0
        made.append(Node(name, kind, [*before, *others], [result], extra, parameters))
        before = [result]
    return made


def _split(graph: Graph, node: Node) -> list[Node] | None:
    """A split with unused parts as slices."""
    source = graph.tensor(node.inputs[0]).shape
    axis = node.attributes.get("axis", 0) % len(source)
    sizes = node.attributes.get("split")
    if sizes is None and len(node.inputs) > 1 and node.inputs[1]:
        array = graph.constants.get(node.inputs[1])
        sizes = None if array is None else array.tolist()
    wanted = [name for name in node.outputs if name]
    count = node.attributes.get("num_outputs", len(node.outputs))
    if sizes is None:
        each = -(-source[axis] // count)
        sizes = [min(each, source[axis] - each * place) for place in range(count)]
    if len(wanted) == len(sizes):
        return None
    made, begin = [], 0
    for place, name in enumerate(node.outputs):
        end = begin + sizes[place]
        if name:
            made.append(_slice(graph, node, f"{node.name}.{place}", name, axis, begin, end))
        begin = end
    return made


def _slice(
    graph: Graph, node: Node, title: str, result: str, axis: int, begin: int, end: int
) -> Node:
    if graph.opset < 10:
        attributes = {"axes": [axis], "starts": [begin], "ends": [end]}
        return Node(title, "Slice", node.inputs[:1], [result], attributes)
    places = [
        _constant(graph, f"{result}.{what}", np.array([number], np.int64))
        for what, number in (("begin", begin), ("end", end), ("axis", axis))
    ]
    return Node(title, "Slice", [node.inputs[0], *places], [result], {})


def _reshape(graph: Graph, title: str, source: str, result: str, shape: tuple[int, ...]) -> Node:
    wanted = _constant(graph, f"{result}.shape", np.array(shape, np.int64))
    return Node(title, "Reshape", [source, wanted], [result], {})


def _window(graph: Graph, node: Node) -> list[Node] | None:
    """A 1-D or 3-D window as 2-D windows."""
    if graph.tensor(node.inputs[0]).dtype != "float32" or len(node.outputs) != 1:
        return None
    if node.op == "Conv":
        return _one_dimension(graph, node) or windows_3d.convolution(graph, node)
    if node.op in ("MaxPool", "AveragePool"):
        return _one_dimension(graph, node) or windows_3d.pooling(graph, node)
    return _one_dimension(graph, node)


def _one_dimension(graph: Graph, node: Node) -> list[Node] | None:
    """A 1-D window as a 2-D window of height 1."""
    source, result = graph.tensor(node.inputs[0]).shape, graph.tensor(node.outputs[0]).shape
    if len(source) != 3:
        return None
    inputs = list(node.inputs)
    attributes = dict(node.attributes)
    if node.op in ("Conv", "ConvTranspose"):
        weight = graph.constants.get(node.inputs[1])
        if weight is None:
            return None
        inputs[1] = _constant(graph, f"{node.outputs[0]}.weight", weight[:, :, None])
        attributes["kernel_shape"] = [1, weight.shape[2]]
    else:
        attributes["kernel_shape"] = [1, *attributes["kernel_shape"]]
    for name, first in (
        ("strides", 1),
        ("dilations", 1),
        ("output_padding", 0),
        ("output_shape", 1),
    ):
        if name in attributes:
            attributes[name] = [first, *attributes[name]]
    if "pads" in attributes:
        low, high = attributes["pads"]
        attributes["pads"] = [0, low, 0, high]
    high_source = _value(graph, f"{node.outputs[0]}.source", (*source[:2], 1, source[2]))
    high_result = _value(graph, f"{node.outputs[0]}.result", (*result[:2], 1, result[2]))
    inputs[0] = high_source
    return [
        _reshape(
            graph, f"{node.name}.rise", node.inputs[0], high_source, (*source[:2], 1, source[2])
        ),
        Node(node.name, node.op, inputs, [high_result], attributes, node.parameters),
        _reshape(graph, f"{node.name}.fall", high_result, node.outputs[0], tuple(result)),
    ]


def _moved(graph: Graph, node: Node, before: tuple[int, ...], order: list[int]) -> list[Node]:
    """Reshape, Transpose, Reshape."""
    end, dtype = node.outputs[0], graph.tensor(node.inputs[0]).dtype
    apart = _value(graph, f"{end}.apart", before, dtype)
    turned = _value(graph, f"{end}.turned", tuple(before[axis] for axis in order), dtype)
    return [
        _reshape(graph, f"{node.name}.apart", node.inputs[0], apart, before),
        Node(node.name, "Transpose", [apart], [turned], {"perm": order}),
        _reshape(graph, f"{node.name}.joined", turned, end, tuple(graph.tensor(end).shape)),
    ]


def _depth_to_space(graph: Graph, node: Node) -> list[Node] | None:
    n, c, h, w = graph.tensor(node.inputs[0]).shape
    size = node.attributes["blocksize"]
    mode = node.attributes.get("mode", b"DCR")
    if mode in (b"DCR", "DCR"):
        return _moved(graph, node, (n, size, size, c // size**2, h, w), [0, 3, 4, 1, 5, 2])
    return _moved(graph, node, (n, c // size**2, size, size, h, w), [0, 1, 4, 2, 5, 3])


def _space_to_depth(graph: Graph, node: Node) -> list[Node] | None:
    n, c, h, w = graph.tensor(node.inputs[0]).shape
    size = node.attributes["blocksize"]
    apart = (n, c, h // size, size, w // size, size)
    if node.attributes.get("mode", b"DCR") in (b"DCR", "DCR"):
        return _moved(graph, node, apart, [0, 3, 5, 1, 2, 4])
    return _moved(graph, node, apart, [0, 1, 3, 5, 2, 4])


def _shuffles(graph: Graph) -> None:
    """Reshape (n, g, c / g, h, w), Transpose of the groups, Reshape: becomes a gather of channels."""
    readers = graph.consumers()

    def follower(node: Node, op: str) -> Node | None:
        value = node.outputs[0]
        after = readers.get(value, [])
        alone = len(after) == 1 and value not in graph.outputs and after[0].inputs[0] == value
        return after[0] if alone and after[0].op == op else None

    gone: set[str] = set()
    made: dict[str, Node] = {}
    for first in graph.nodes:
        turn = follower(first, "Transpose") if first.op == "Reshape" else None
        last = follower(turn, "Reshape") if turn is not None else None
        if turn is None or last is None or first.inputs[0] in graph.constants:
            continue
        before = graph.tensor(first.inputs[0]).shape
        apart = graph.tensor(first.outputs[0]).shape
        after = graph.tensor(last.outputs[0]).shape
        swaps = list(turn.attributes.get("perm", ())) == [0, 2, 1, 3, 4]
        whole = before == after and len(before) == 4 and (apart[0], *apart[3:]) == (
            before[0], *before[2:],
        )  # fmt: skip
        if not swaps or not whole:
            continue
        order = np.arange(before[1]).reshape(apart[1:3]).T.reshape(-1)
        indices = _constant(graph, f"{last.outputs[0]}.order", order.astype(np.int64))
        made[last.name] = Node(
            turn.name, "Gather", [first.inputs[0], indices], last.outputs, {"axis": 1}
        )
        gone |= {first.name, turn.name}
    graph.nodes = [made.get(node.name, node) for node in graph.nodes if node.name not in gone]
