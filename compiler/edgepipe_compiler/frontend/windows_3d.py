"""3-D convolution and pooling as 2-D operators.

A convolution gathers the slices that each result reads and sums them as channels of an image. A pooling
reduces rows and columns first, then the depth.
"""

from __future__ import annotations

import numpy as np

from .graph import Graph, Node
from .node_builder import NodeBuilder


def convolution(graph: Graph, node: Node) -> list[Node] | None:
    """A Conv on (n, c, d, h, w); None for other ranks or computed weights."""
    source, result = graph.tensor(node.inputs[0]).shape, graph.tensor(node.outputs[0]).shape
    weight = graph.constants.get(node.inputs[1])
    if len(source) != 5 or weight is None or _padding(node) is None:
        return None
    n, c, _, height, width = source
    made, inside, kd, kh, kw = weight.shape
    after = result[2]
    stride, dilation = (_three(node, name, 1) for name in ("strides", "dilations"))
    pads = _padding(node) or [0] * 6
    steps = NodeBuilder(graph, node, node.op)
    x = node.inputs[0]
    if pads[0] or pads[3]:
        x = steps.pad(x, [0, 0, pads[0], 0, 0], [0, 0, pads[3], 0, 0])
    seen = np.arange(after)[:, None] * stride[0] + np.arange(kd) * dilation[0]
    places = steps.constant(seen.reshape(-1).astype(np.int64))
    x = steps.op("Gather", x, places, axis=2)
    x = steps.reshape(x, (n, c, after, kd, height, width))
    x = steps.op("Transpose", x, perm=[0, 2, 1, 3, 4, 5])
    x = steps.reshape(x, (n * after, c * kd, height, width))
    flat = steps.constant(weight.reshape(made, inside * kd, kh, kw))
    x = steps.op(
        "Conv",
        x,
        flat,
        *node.inputs[2:],
        kernel_shape=[kh, kw],
        strides=list(stride[1:]),
        dilations=list(dilation[1:]),
        pads=[*pads[1:3], *pads[4:6]],
        group=node.attributes.get("group", 1),
    )
    x = steps.reshape(x, (n, after, made, *result[3:]))
    steps.op("Transpose", x, perm=[0, 2, 1, 3, 4])
    return steps.end()


def pooling(graph: Graph, node: Node) -> list[Node] | None:
    """A MaxPool or AveragePool on (n, c, d, h, w); None if it is not separable."""
    source, result = graph.tensor(node.inputs[0]).shape, graph.tensor(node.outputs[0]).shape
    pads = _padding(node)
    if len(source) != 5 or pads is None or len(node.outputs) != 1:
        return None
    attributes = node.attributes
    counted = not any(pads) or attributes.get("count_include_pad", 0)
    if node.op == "AveragePool" and (attributes.get("ceil_mode", 0) or not counted):
        return None
    kernel = attributes["kernel_shape"]
    stride, dilation = (_three(node, name, 1) for name in ("strides", "dilations"))
    kept = {
        name: attributes[name] for name in ("ceil_mode", "count_include_pad") if name in attributes
    }
    n, c, depth, *_ = source
    steps = NodeBuilder(graph, node, node.op)

    def pool(x: str, axes: tuple[int, ...], fill: int) -> str:
        window = {
            "kernel_shape": [kernel[axis] for axis in axes] + [1] * fill,
            "strides": [stride[axis] for axis in axes] + [1] * fill,
            "pads": [pads[axis] for axis in axes] + [0] * fill
            + [pads[3 + axis] for axis in axes] + [0] * fill,
        }  # fmt: skip
        if any(dilation[axis] != 1 for axis in axes):
            window["dilations"] = [dilation[axis] for axis in axes] + [1] * fill
        return steps.op(node.op, x, **window, **kept)

    x = steps.reshape(node.inputs[0], (n, c * depth, *source[3:]))
    x = pool(x, (1, 2), 0)
    image = result[3] * result[4]
    x = steps.reshape(x, (n, c, depth, image))
    x = pool(x, (0,), 1)
    steps.reshape(x, result)
    return steps.end()


def _three(node: Node, name: str, default: int) -> list[int]:
    return list(node.attributes.get(name, (default,) * 3))


def _padding(node: Node) -> list[int] | None:
    """Padding of depth, height and width at the begin, then at the end; None for automatic padding."""
    automatic = node.attributes.get("auto_pad", b"NOTSET")
    automatic = automatic.decode() if isinstance(automatic, bytes) else automatic
    if automatic == "VALID":
        return [0] * 6
    return list(node.attributes.get("pads", (0,) * 6)) if automatic == "NOTSET" else None
