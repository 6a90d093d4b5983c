"""Replaces operators without a schedule rule by operators that have one.

Each function takes a node with known input shapes. It returns replacement nodes that are valid in the
network's opset, or None to keep the node. Shapes are inferred again afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import Unsupported
from . import einsum, function_bodies, resize_coordinates
from .graph import Graph, Node, make_names_unique
from .node_builder import NodeBuilder

# Added to a norm before dividing: a norm of 0 gives 0 and not NaN, as in ONNX Runtime.
SMALLEST = np.finfo(np.float32).tiny


def apply(graph: Graph) -> bool:
    """Replaces all supported nodes. Returns whether anything changed."""
    changed = False
    nodes: list[Node] = []
    for node in graph.nodes:
        made = _replaced(graph, node)
        changed |= made is not None
        nodes.extend([node] if made is None else made)
    graph.nodes = nodes
    make_names_unique(nodes)
    return changed


def _replaced(graph: Graph, node: Node) -> list[Node] | None:
    known = [value for value in node.inputs if value]
    if any(value not in graph.constants and value not in graph.tensors for value in known):
        return None
    if node.op in KNOWN:
        return KNOWN[node.op](graph, node)
    return function_bodies.expanded(graph, node)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _constant(graph: Graph, node: Node, place: int) -> list[int] | None:
    """A constant integer input; None if it is absent or computed."""
    name = node.inputs[place] if len(node.inputs) > place else ""
    array = graph.constants.get(name)
    return None if array is None else [int(value) for value in array.reshape(-1)]


def _lp_normalization(graph: Graph, node: Node) -> list[Node] | None:
    x = node.inputs[0]
    steps = NodeBuilder(graph, node)
    axis = node.attributes.get("axis", -1) % len(graph.tensor(x).shape)
    if node.attributes.get("p", 2) == 1:
        norm = steps.reduce("ReduceSum", steps.op("Abs", x), [axis])
    else:
        norm = steps.op("Sqrt", steps.reduce("ReduceSum", steps.op("Mul", x, x), [axis]))
    least = steps.constant(np.array(SMALLEST, graph.tensor(x).dtype))
    steps.op("Div", x, steps.op("Max", norm, least))
    return steps.end()


def _mean_variance_normalization(graph: Graph, node: Node) -> list[Node] | None:
    """(x - mean) / (deviation + 1e-9).

    The variance is the mean of squared differences. The standard's E[x²] - E[x]² loses precision.
    """
    x = node.inputs[0]
    steps = NodeBuilder(graph, node)
    axes = [axis % len(graph.tensor(x).shape) for axis in node.attributes.get("axes", (0, 2, 3))]
    centered = steps.op("Sub", x, steps.reduce("ReduceMean", x, axes))
    variance = steps.reduce("ReduceMean", steps.op("Mul", centered, centered), axes)
    least = steps.constant(np.array(1e-9, graph.tensor(x).dtype))
    steps.op("Div", centered, steps.op("Add", steps.op("Sqrt", variance), least))
    return steps.end()


def _center_crop_pad(graph: Graph, node: Node) -> list[Node] | None:
    shape = graph.tensor(node.inputs[0]).shape
    wanted = _constant(graph, node, 1)
    if wanted is None:
        return None
    axes = [axis % len(shape) for axis in node.attributes.get("axes", range(len(shape)))]
    steps = NodeBuilder(graph, node)
    begin, end, low, high = ([0] * len(shape) for _ in range(4))
    end[:] = shape
    for axis, extent in zip(axes, wanted, strict=True):
        if extent < shape[axis]:
            begin[axis] = (shape[axis] - extent) // 2
            end[axis] = begin[axis] + extent
        low[axis] = max(0, extent - shape[axis]) // 2
        high[axis] = max(0, extent - shape[axis]) - low[axis]
    x = steps.slice(node.inputs[0], begin, end)
    steps.pad(x, low, high)
    return steps.end()


def _column_to_image(graph: Graph, node: Node) -> list[Node] | None:
    """Col2Im: sums overlapping blocks, as a transposed convolution whose weights are one-hot."""
    image, block = (_constant(graph, node, place) for place in (1, 2))
    if image is None or block is None or len(image) > 2:
        return None
    rank = len(image)
    batch, rows, _ = graph.tensor(node.inputs[0]).shape
    count = int(np.prod(block))
    channels = rows // count
    attribute = node.attributes.get
    dilations, strides = attribute("dilations", [1] * rank), attribute("strides", [1] * rank)
    pads = attribute("pads", [0] * 2 * rank)
    reach = [(b - 1) * d + 1 for b, d in zip(block, dilations, strict=True)]
    padded = [image[axis] + pads[axis] + pads[rank + axis] for axis in range(rank)]
    moves = [(padded[axis] - reach[axis]) // strides[axis] for axis in range(rank)]
    # Pixels that no block covers.
    rest = [padded[axis] - reach[axis] - moves[axis] * strides[axis] for axis in range(rank)]
    steps = NodeBuilder(graph, node)
    x = steps.reshape(node.inputs[0], [batch, rows, *(move + 1 for move in moves)])
    dtype = graph.tensor(node.inputs[0]).dtype
    picks = np.eye(count, dtype=dtype).reshape(count, 1, *block)
    weights = steps.constant(np.tile(picks, (channels, *[1] * (rank + 1))))
    x = steps.op(
        "ConvTranspose", x, weights, group=channels, kernel_shape=block, strides=list(strides),
        dilations=list(dilations),
    )  # fmt: skip
    x = steps.pad(x, [0] * (rank + 2), [0, 0, *rest])
    ends = [pads[axis] + image[axis] for axis in range(rank)]
    steps.slice(x, [0, 0, *pads[:rank]], [batch, channels, *ends])
    return steps.end()


def _affine_grid(graph: Graph, node: Node) -> list[Node] | None:
    """The constant matrix of grid coordinates times the transposed matrices."""
    size = _constant(graph, node, 1)
    if size is None:
        return None
    batch, _, *image = size
    corners = node.attributes.get("align_corners", 0)

    def places(extent: int) -> np.ndarray:
        if corners:
            return np.linspace(-1, 1, extent) if extent > 1 else np.zeros(1)
        return (np.arange(extent) * 2 + 1) / extent - 1

    grids = np.meshgrid(*(places(extent) for extent in image), indexing="ij")
    base = np.stack([*grids[::-1], np.ones_like(grids[0])], axis=-1)
    steps = NodeBuilder(graph, node)
    dtype = graph.tensor(node.inputs[0]).dtype
    flat = steps.constant(base.reshape(1, -1, len(image) + 1).astype(dtype))
    x = steps.op("MatMul", flat, steps.op("Transpose", node.inputs[0], perm=[0, 2, 1]))
    steps.reshape(x, [batch, *image, len(image)])
    return steps.end()


def _reverse_sequence(graph: Graph, node: Node) -> list[Node] | None:
    lengths = _constant(graph, node, 1)
    if lengths is None:
        return None
    shape = graph.tensor(node.inputs[0]).shape
    time, batch = node.attributes.get("time_axis", 0), node.attributes.get("batch_axis", 1)
    steps = NodeBuilder(graph, node)
    parts = []
    groups = [lengths] if len(set(lengths)) == 1 else [[length] for length in lengths]
    for place, group in enumerate(groups):
        begin, end = [0] * len(shape), list(shape)
        if len(groups) > 1:
            begin[batch], end[batch] = place, place + 1
        order = np.arange(shape[time])
        order[: group[0]] = order[: group[0]][::-1]
        x = steps.slice(node.inputs[0], begin, end)
        parts.append(steps.op("Gather", x, steps.constant(order), axis=time))
    if len(parts) > 1:
        steps.op("Concat", *parts, axis=batch)
    return steps.end()


def _resize(graph: Graph, node: Node) -> list[Node] | None:
    """Nearest-neighbour resizing of types other than float32, as a gather along each axis."""
    source, result = graph.tensor(node.inputs[0]), graph.tensors.get(node.outputs[0])
    if source.dtype == "float32" or result is None:
        return None
    try:
        resized = resize_coordinates.resolve(graph, node)
    except Unsupported:
        return None
    if not resized.nearest:
        return None
    steps = NodeBuilder(graph, node)
    x = node.inputs[0]
    for axis in range(len(source.shape)):
        if not resized.copies(axis):
            x = steps.op("Gather", x, steps.constant(resized.nearest_map(axis)), axis=axis)
    return steps.end() if x != node.inputs[0] else None


def _cast_like(graph: Graph, node: Node) -> list[Node] | None:
    """Reads only the type of the second input, so that a constant input stays constant."""
    steps = NodeBuilder(graph, node)
    steps.cast(node.inputs[0], graph.tensor(node.inputs[1]).dtype)
    return steps.end()


def _power(graph: Graph, node: Node) -> list[Node] | None:
    """Casts base and exponent to one floating-point type; the result has the type of the base."""
    base, exponent = (graph.tensor(name).dtype for name in node.inputs)
    if base == exponent and base.startswith("float"):
        return None
    steps = NodeBuilder(graph, node)
    if base.startswith("float"):
        steps.op("Pow", node.inputs[0], steps.cast(node.inputs[1], base))
    else:
        # float64 represents integers up to 2**53 exactly.
        wide = [steps.cast(name, "float64") for name in node.inputs]
        steps.cast(steps.op("Pow", *wide), base)
    return steps.end()


def _window(graph: Graph, node: Node) -> list[Node] | None:
    """Replaces ``auto_pad`` by explicit pads."""
    automatic = _text(node.attributes.get("auto_pad", "NOTSET"))
    result = graph.tensors.get(node.outputs[0])
    if automatic == "NOTSET" or result is None:
        return None
    source = graph.tensor(node.inputs[0]).shape
    rank = len(source) - 2
    kernel = node.attributes.get("kernel_shape")
    if kernel is None:
        kernel = graph.tensor(node.inputs[1]).shape[2:]
    begin, end = [0] * rank, [0] * rank
    for axis in range(rank):
        if automatic == "VALID":
            break
        stride, dilation = (_each(node, name)[axis] for name in ("strides", "dilations"))
        reach = (kernel[axis] - 1) * dilation + 1
        total = max(0, (result.shape[2 + axis] - 1) * stride + reach - source[2 + axis])
        begin[axis] = total // 2 if automatic == "SAME_UPPER" else total - total // 2
        end[axis] = total - begin[axis]
    return [_with_pads(node, node.outputs, [*begin, *end])]


def _each(node: Node, name: str) -> Sequence[int]:
    """An attribute with one number per axis of a window."""
    return node.attributes.get(name) or (1,) * 3


def _with_pads(node: Node, outputs: list[str], pads: list[int]) -> Node:
    gone = ("auto_pad", "output_shape")
    attributes = {name: value for name, value in node.attributes.items() if name not in gone}
    attributes["pads"] = pads
    return Node(node.name, node.op, node.inputs, outputs, attributes, node.parameters)


def _transposed(graph: Graph, node: Node) -> list[Node] | None:
    """Replaces ``auto_pad`` and ``output_shape`` by explicit pads.

    Results that no window reaches get the bias.
    """
    automatic = _text(node.attributes.get("auto_pad", "NOTSET"))
    result = graph.tensors.get(node.outputs[0])
    shape = node.attributes.get("output_shape")
    if (automatic == "NOTSET" and not shape) or result is None:
        return None
    source, weight = graph.tensor(node.inputs[0]).shape, graph.tensor(node.inputs[1]).shape
    rank = len(source) - 2
    # ONNX infers fewer axes if output_shape is smaller than the input.
    extents = shape or result.shape[2:]
    begin, end = [0] * rank, [0] * rank
    more = list(node.attributes.get("output_padding") or [0] * rank)
    for axis in range(rank):
        stride, dilation = (_each(node, name)[axis] for name in ("strides", "dilations"))
        reach = (weight[2 + axis] - 1) * dilation + 1
        total = stride * (source[2 + axis] - 1) + more[axis] + reach - extents[axis]
        if total < 0:
            more[axis] -= total
            total = 0
        begin[axis] = total // 2 if automatic == "SAME_UPPER" else total - total // 2
        end[axis] = total - begin[axis]
    made = _with_pads(node, node.outputs, [*begin, *end])
    if any(more):
        made.attributes["output_padding"] = more
    return [made]


def _concat(graph: Graph, node: Node) -> list[Node] | None:
    """Makes a negative axis positive: before operator set 11, ONNX infers no shape for it."""
    axis = node.attributes.get("axis", 1)
    if axis >= 0:
        return None
    axis += len(graph.tensor(node.inputs[0]).shape)
    attributes = {**node.attributes, "axis": axis}
    return [Node(node.name, "Concat", node.inputs, node.outputs, attributes, node.parameters)]


def _slice(graph: Graph, node: Node) -> list[Node] | None:
    """Makes negative axes of a Slice positive: before operator set 10 they were an attribute."""
    axes = node.attributes.get("axes", ())
    if all(axis >= 0 for axis in axes):
        return None
    rank = len(graph.tensor(node.inputs[0]).shape)
    attributes = {**node.attributes, "axes": [axis % rank for axis in axes]}
    return [Node(node.name, "Slice", node.inputs, node.outputs, attributes, node.parameters)]


KNOWN: dict[str, Callable[[Graph, Node], list[Node] | None]] = {
    "LpNormalization": _lp_normalization,
    "MeanVarianceNormalization": _mean_variance_normalization,
    "CenterCropPad": _center_crop_pad,
    "Concat": _concat,
    "Slice": _slice,
    "Col2Im": _column_to_image,
    "AffineGrid": _affine_grid,
    "ReverseSequence": _reverse_sequence,
    "Einsum": einsum.decompose,
    "CastLike": _cast_like,
    "Pow": _power,
    "Resize": _resize,
    "Upsample": _resize,
    "ConvTranspose": _transposed,
    **dict.fromkeys(("Conv", "MaxPool", "AveragePool", "LpPool"), _window),
}
