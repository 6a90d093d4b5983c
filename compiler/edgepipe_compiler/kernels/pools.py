"""Pooling windows, as every target computes them."""

from __future__ import annotations

import numpy as np

from ..frontend.graph import Graph, Node, Tensor
from .window_geometry import Window

# The smallest float32: the maximum of a window starts with it.
LOWEST = float(np.finfo(np.float32).min)


def is_global(graph: Graph, node: Node) -> bool:
    """Whether the node averages each channel over the whole image."""
    rank = len(graph.tensor(node.inputs[0]).shape)
    if node.op == "GlobalAveragePool":
        return rank == 4
    if node.op != "ReduceMean":
        return False
    axes = node.attributes.get("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1] in graph.constants:
        axes = graph.constants[node.inputs[1]].tolist()
    return rank == 4 and axes is not None and sorted(axis % 4 for axis in axes) == [2, 3]


def reciprocals(pool: Node, source: Tensor, result: Tensor, window: Window) -> np.ndarray:
    """1 / number of elements in each window of an average, of shape (rows, columns)."""
    counted = []
    for axis in (0, 1):
        size, extent = window.kernel[axis], source.shape[2 + axis]
        begin, dilation = window.begin[axis], window.dilation[axis]
        if pool.attributes.get("count_include_pad", 0):
            # Padding counts; what ceil_mode reads beyond it does not.
            pads = pool.attributes.get("pads", (0, 0, 0, 0))
            low, high = -begin, extent + pads[2 + axis]
        else:
            low, high = 0, extent
        starts = np.arange(result.shape[2 + axis]) * window.stride[axis] - begin
        taps = starts[:, None] + np.arange(size)[None, :] * dilation
        counted.append(np.maximum(((taps >= low) & (taps < high)).sum(1), 1))
    return (1.0 / np.outer(counted[0], counted[1])).astype(np.float32)
