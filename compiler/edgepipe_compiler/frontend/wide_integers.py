"""Integer attributes of more than 32 bits, which ONNX allows.

Kernels index with 32 bits. Strides and dilations that move no window and diagonals outside their matrix are
reduced; other large attributes are refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import CompileError
from .graph import Graph, Node
from .pool_shapes import POOLS

MOST = (1 << 31) - 1
# Flags, ends of a range, and exponents, which no kernel uses as an index.
UNLIMITED = {
    "align_corners", "allowzero", "antialias", "ceil_mode", "count_include_pad", "detect_negative",
    "detect_positive", "ends", "exclude_outside", "exclusive", "input_forget", "is_causal", "keepdims",
    "linear_before_reset", "p", "reverse", "seed", "select_last_index", "starts", "stash_type",
    "storage_order", "transA", "transB", "upper",
}  # fmt: skip


def reduce(graph: Graph) -> None:
    """Reduces attributes in place. Raises ``CompileError`` for those that stay too large."""
    for node in graph.nodes:
        if node.op in POOLS:
            _window(graph, node, node.attributes["kernel_shape"])
        elif node.op == "Conv":
            _window(graph, node, graph.tensor(node.inputs[1]).shape[2:])
        elif node.op == "ConvTranspose":
            _transposed(graph, node)
        elif node.op == "EyeLike":
            rows, columns = graph.tensor(node.inputs[0]).shape
            node.attributes["k"] = max(-rows, min(node.attributes.get("k", 0), columns))
        for name, value in node.attributes.items():
            numbers = value if isinstance(value, list | tuple) else [value]
            wide = [item for item in numbers if isinstance(item, int) and abs(item) > MOST]
            if wide and name not in UNLIMITED:
                raise CompileError(
                    "unsupported_operator",
                    f"failed to import the operator {node.op}: {name} {wide[0]} exceeds 32 bits; "
                    f"correct {name} in the network",
                    node.name,
                )


def _window(graph: Graph, node: Node, kernel: Sequence[int]) -> None:
    """A stride that exceeds both the padded input and the window leaves one window, at the begin."""
    source = graph.tensor(node.inputs[0]).shape[2:]
    rank = len(source)
    dilations = _dilations(node, kernel)
    pads = node.attributes.get("pads", [0] * 2 * rank)
    if "strides" in node.attributes:
        reaches = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
        padded = [source[axis] + pads[axis] + pads[rank + axis] for axis in range(rank)]
        node.attributes["strides"] = [
            min(stride, max(extents))
            for stride, *extents in zip(node.attributes["strides"], reaches, padded, strict=True)
        ]


def _transposed(graph: Graph, node: Node) -> None:
    """If the stride exceeds result and window together, at most one input element reaches the result.

    A smaller stride is enough then, with pads that leave this element's place in the result.
    """
    kernel = graph.tensor(node.inputs[1]).shape[2:]
    dilations = _dilations(node, kernel)
    source, result = (graph.tensor(name).shape[2:] for name in (node.inputs[0], node.outputs[0]))
    rank = len(source)
    strides = list(node.attributes.get("strides", [1] * rank))
    added = node.attributes.get("output_padding", [0] * rank)
    pads = list(node.attributes.get("pads", [0] * 2 * rank))
    for axis, stride in enumerate(strides):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        enough = max(result[axis] + reach, added[axis] + 1)
        if stride <= enough:
            continue
        # The first element that is not entirely before the result, and its place there.
        element = min(max(-((reach - 1 - pads[axis]) // stride), 0), source[axis] - 1)
        place = min(max(element * stride - pads[axis], -reach), result[axis])
        strides[axis] = enough
        pads[axis] = element * enough - place
        end = (source[axis] - 1) * enough + reach + added[axis] - pads[axis] - result[axis]
        pads[rank + axis] = end
        node.attributes.update(strides=strides, pads=pads)


def _dilations(node: Node, kernel: Sequence[int]) -> list[int]:
    """The dilations, reduced to 1 along axes on which the window has one element."""
    given = node.attributes.get("dilations")
    if given is None:
        return [1] * len(kernel)
    reduced = [1 if size == 1 else step for size, step in zip(kernel, given, strict=True)]
    node.attributes["dilations"] = reduced
    return reduced
