"""Adds the parts of sums that several blocks share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import tirx

from ...frontend.graph import Graph
from ...frontend.units import Unit
from ..epilogue import Operands
from ..kernel import Call, Kernel, Value
from ..layout import PLAIN
from ..writer import ramp
from .results import Results
from .writer import KernelWriter

THREADS = 128


def finish(
    graph: Graph,
    unit: Unit,
    operands: Operands,
    bias: np.ndarray | None,
    slices: int,
    write: Callable[[tirx.Buffer], tirx.PrimFunc],
    rule: str,
) -> Kernel:
    """A kernel of two calls: ``write`` gives the one that stores ``slices`` of the anchor's sums.

    The buffer has the shape (slices, N, C, H * W). The second call adds them and applies bias and the fused
    operators.
    """
    anchor, *rest = unit.nodes
    n, c, h, w = graph.tensor(anchor.outputs[0]).shape
    shape = (slices, n, c, h * w)
    partial = Value(f"{unit.name}/sums", PLAIN, shape, "float32")
    buffer = tirx.decl_buffer(shape, "float32", "sums")
    first = Call(write(buffer), operands.arguments, [partial], rule)
    return Kernel([first, _total(graph, unit, partial, bias, rest)], rule)


def _total(graph: Graph, unit: Unit, partial: Value, bias: np.ndarray | None, rest: list) -> Call:
    """Adds the slices; a thread has one or four pixels of a channel."""
    slices, images, channels, pixels = partial.shape
    operands = Operands(graph, PLAIN, None)
    sums = operands.add(partial, partial.shape, "float32")
    anchor = unit.nodes[0].outputs[0]
    results = Results(graph, operands, rest, anchor, unit.outputs[0], bias)
    lanes = results.lanes
    pieces = pixels // lanes
    total = images * channels * pieces
    w = KernelWriter((-(-total // THREADS),), (THREADS,))
    place = w.bind("place", w.block_index[0] * THREADS + w.thread_index[0])
    write = results.writer(w)
    with w.when(place < total if total % THREADS else None):
        row = w.bind("row", place // pieces)
        image, channel = w.bind("image", row // channels), w.bind("channel", row % channels)
        pixel = w.bind("pixel", place % pieces * lanes)
        sum_ = None
        for number in range(slices):
            value = sums[number, image, channel, ramp(pixel, lanes)]
            sum_ = value if sum_ is None else sum_ + value
        write(w.bind("sum", sum_), (image, channel), pixel, lanes)
    return results.call(w.function([*operands.placeholders, results.out]), "sum")
