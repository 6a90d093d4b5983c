"""Corrects the output shapes that ONNX infers for pooling with ``ceil_mode``."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper

POOLS = ("MaxPool", "AveragePool", "LpPool")


def correct_pools(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Rewrites one pooling operator with ``ceil_mode`` in ``model``, which is used for shape inference
    only.

    A window that starts in the padding at the end does not count (ONNX since opset 22; ONNX Runtime and
    PyTorch always), but ONNX's inference counts it up to opset 21. The operator gets explicit padding that
    gives the right number of windows. ``shapes`` are the shapes inferred so far. Returns whether a shape
    was wrong; then infer again, because later shapes depend on it.
    """
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in POOLS:
            continue
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        automatic = attributes.get("auto_pad", b"NOTSET")
        source, result = shapes.get(node.input[0]), shapes.get(node.output[0])
        rounds_up = attributes.get("ceil_mode", 0) and automatic in (b"NOTSET", "NOTSET")
        if not rounds_up or source is None or result is None:
            continue
        kernel = attributes["kernel_shape"]
        rank = len(kernel)
        if len(source) != rank + 2:
            continue
        strides, dilations = (
            list(attributes.get(name, [1] * rank)) for name in ("strides", "dilations")
        )
        pads = list(attributes.get("pads", [0] * 2 * rank))
        counts = [
            windows(
                source[2 + axis], kernel[axis], strides[axis], dilations[axis],
                pads[axis], pads[rank + axis],
            )
            for axis in range(rank)
        ]  # fmt: skip
        if list(result[2:]) == counts:
            continue
        for axis, count in enumerate(counts):
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            end = (count - 1) * strides[axis] + reach - source[2 + axis] - pads[axis]
            pads[rank + axis] = max(0, end)  # Elements after the last window change no number.
        kept = [item for item in node.attribute if item.name not in ("ceil_mode", "pads")]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("pads", pads)])
        return True
    return False


def windows(extent: int, kernel: int, stride: int, dilation: int, begin: int, end: int) -> int:
    """Number of windows along an axis, rounded up; the last window must start before the end padding."""
    reach = (kernel - 1) * dilation + 1
    count = -(-(extent + begin + end - reach) // stride) + 1
    return count - 1 if (count - 1) * stride >= extent + begin else count
