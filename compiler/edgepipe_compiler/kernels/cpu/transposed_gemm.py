"""Transposed convolution with a long window: a matrix product, then sums of shifted rows (col2im).

The direct form also multiplies by positions beyond the image, and uses output channels as lanes. With a
long window and a short image, or with few channels, most of that work is wasted. Here a 1x1 convolution
computes what each input pixel adds to each result; a second function sums these up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph, Node, Tensor
from ...frontend.units import Unit
from .. import parameters
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN
from ..target import CpuTarget
from ..writer import Index, Writer, spans, spread
from . import convolution, transposed_convolution
from .vector_reduction import flat

# From this window length on, window elements are vector lanes.
LONG = 16
# Cost of adding a vector of the product, in multiply-adds.
SUM = 8
# The product must be cheaper by this factor.
WORTHWHILE = 1.3
# Unrolled vectors of a window.
MOST_BLOCKS = 16


def lower(graph: Graph, unit: Unit, target: CpuTarget, native: dict[str, str]) -> Kernel:
    """Lowers a unit of one transposed convolution whose window is long along its rows, or whose image is
    one column wide.
    """
    if len(unit.nodes) != 1:
        raise Unsupported("operators behind a transposed convolution with a long window")
    (node,) = unit.nodes
    weight, bias = parameters.of_convolution(graph, node)
    source, result = graph.tensor(node.inputs[0]), graph.tensor(node.outputs[0])
    if len(source.shape) != 4 or source.dtype != "float32":
        raise Unsupported("transposed convolution of something other than float32 images")
    inside, each, kh, kw = weight.shape
    lanes, groups = target.lanes, node.attributes.get("group", 1)
    begin, strides, dilations = transposed_convolution.geometry(node, source, result, (kh, kw))
    upright = kw == source.shape[3] == result.shape[3] == 1
    if (kh if upright else kw) < LONG:
        raise Unsupported("window that is not long")
    length = kh if upright else kw
    rows = 1 if upright else kh
    blocks = -(-length // lanes)
    read = inside if groups == 1 else groups * -(-inside // groups // lanes) * lanes
    columns_made = each * rows * blocks * lanes * math.prod(source.shape[2:])
    product = (read + SUM * groups) * columns_made
    direct = -(-each * groups // lanes) * lanes * -(-inside // groups // lanes) * lanes
    for axis, size in enumerate((kh, kw)):
        direct *= result.shape[2 + axis] * -(-size // strides[axis])
    if direct < WORTHWHILE * product:
        raise Unsupported("window that is cheaper to slide")
    # (C, M, kh, kw) as (M * kh * blocks * lanes, C / groups, 1, 1).
    full = np.zeros((inside, each, rows, blocks * lanes), np.float32)
    full[..., :length] = weight.reshape(inside, each, rows, length)
    full = full.reshape(groups, inside // groups, -1).swapaxes(1, 2)
    columns = f"{unit.name}/columns"
    made = groups * each * rows * blocks * lanes
    inner = Graph(
        graph.name, graph.opset, [node.inputs[0]], [columns], [], {"weight": np.ascontiguousarray(
            full.reshape(made, inside // groups, 1, 1)
        )},
        {
            node.inputs[0]: source,
            columns: Tensor((source.shape[0], made, *source.shape[2:]), "float32"),
        },
    )  # fmt: skip
    inputs = [node.inputs[0], "weight"]
    point = Node(node.name, "Conv", inputs, [columns], {"group": groups, "kernel_shape": (1, 1)})
    part = Unit(unit.name, [point], [node.inputs[0]], [columns])
    kernel = convolution.lower(inner, part, target, native, long=True)
    (value,) = kernel.calls[-1].results
    shape = tuple(result.shape)
    data = tirx.decl_buffer(value.shape, "float32", "data")
    shift = np.zeros(shape[1], np.float32) if bias is None else bias.reshape(-1)
    offsets = tirx.decl_buffer(shift.shape, "float32", "shift")
    out = tirx.decl_buffer(shape, "float32", "out")
    axis = 0 if upright else 1
    sums = _Sums(
        lanes, blocks, length, rows, shape[2] * shape[3] if upright else shape[3],
        1 if upright else shape[2], 1 if upright else source.shape[2],
        math.prod(source.shape[2:]) if upright else source.shape[3],
        (begin[axis], strides[axis], dilations[axis]),
        (0, 1, 1) if upright else (begin[0], strides[0], dilations[0]), data, out,
    )  # fmt: skip
    w = Writer()
    with w.loop("task", shape[0] * shape[1], parallel=target.threads > 1) as task:
        sums.write(w, task, w.bind("begin", offsets[task % shape[1]]))
    function = w.function([data, offsets, out])
    made_value = Value(unit.outputs[0], PLAIN, shape, "float32")
    call = Call(function, [value, Weight(shift)], [made_value], "overlap")
    return Kernel([*kernel.calls, call], "transposed_convolution")


def _each(w: Writer, low: int, high: int) -> Iterator[Index]:
    with w.loop("x", high - low, low) as x:
        yield x


class _Sums:
    """Sums the contributions to each row of ``width`` results.

    ``along`` and ``down`` are begin, stride and dilation along a row and from row to row.
    """

    def __init__(
        self,
        lanes: int,
        blocks: int,
        length: int,
        kernel_rows: int,
        width: int,
        height: int,
        source_rows: int,
        source_width: int,
        along: tuple[int, int, int],
        down: tuple[int, int, int],
        data: tirx.Buffer,
        out: tirx.Buffer,
    ) -> None:
        self.lanes, self.blocks, self.length, self.kernel_rows = lanes, blocks, length, kernel_rows
        self.width, self.height = width, height
        self.source_rows, self.source_width = source_rows, source_width
        self.along, self.down, self.data, self.out = along, down, data, out

    def write(self, w: Writer, task: Index, begin: tirx.Expr) -> None:
        """Writes the loops for one channel of results, initialized with ``begin``."""
        first = task * (self.height * self.width)
        for place, count in spans(w, self.height * self.width, self.lanes):
            w.store(self.out, spread(begin, count), flat(self.out, first + place, count))
        with w.loop("y", self.source_rows) as y, w.loop("rh", self.kernel_rows) as rh:
            row = w.bind("row", y * self.down[1] + rh * self.down[2] - self.down[0])
            with w.when(tirx.all(row >= 0, row < self.height)):
                to = w.bind("to", first + row * self.width)
                row_begin = (task * self.kernel_rows + rh) * self.blocks
                for low, high, whole in self._ranges():
                    for_each = self._apart(w, low, high) if whole else _each(w, low, high)
                    for x in for_each:
                        left = w.bind("left", x * self.along[1] - self.along[0])
                        self._pixel(w, row_begin, y, x, to, left, whole)

    def _apart(self, w: Writer, low: int, high: int) -> Iterator[Index]:
        """Orders the columns ``low`` to ``high`` so that consecutive ones add to different results: loading
        just-stored data at another offset stalls the processor.
        """
        period = min(-(-self.lanes // self.along[1]), high - low)
        with w.loop("turn", period) as turn:
            count = (high - low + period - 1 - turn) // period
            with w.loop("x", count) as x:
                yield low + turn + x * period

    def _pixel(
        self,
        w: Writer,
        row_begin: Index,
        y: Index,
        x: Index,
        to: Index,
        left: Index,
        whole: bool,
    ) -> None:
        """Adds the contributions of one input pixel."""

        def place(b: Index) -> Index:
            return ((row_begin + b) * self.source_rows + y) * self.source_width + x

        if whole:
            for b in range(self.blocks):
                self._vector(w, place(b) * self.lanes, to + left + b * self.lanes)
        else:
            with w.loop("b", self.blocks) as b:
                self._block(w, place(b) * self.lanes, to, left, b)

    def _ranges(self) -> list[tuple[int, int, bool]]:
        """Ranges of input columns, and whether all their vectors are inside a row of results."""
        begin, stride, dilation = self.along
        low = min(-(-begin // stride), self.source_width)
        high = (self.width + begin - self.blocks * self.lanes) // stride + 1
        high = max(low, min(high, self.source_width))
        if dilation != 1 or self.blocks > MOST_BLOCKS:
            low = high = 0
        ranges = [(0, low, False), (low, high, True), (high, self.source_width, False)]
        return [(begin, end, whole) for begin, end, whole in ranges if begin < end]

    def _vector(self, w: Writer, source: Index, to: Index) -> None:
        index = flat(self.out, to, self.lanes)
        value = self.data[flat(self.data, source, self.lanes)]
        w.store(self.out, self.out[index] + value, index)

    def _block(self, w: Writer, source: Index, to: Index, left: Index, b: Index) -> None:
        """Adds one vector of window elements; elements beyond ``length`` are zero."""
        lanes, dilation = self.lanes, self.along[2]
        source = w.bind("source", source)
        if dilation == 1:
            place = w.bind("place", left + b * lanes)
            inside = w.bind("inside", tirx.all(place >= 0, place + lanes <= self.width))
            with w.when(inside):
                self._vector(w, source, to + place)
            with w.when(tirx.Not(inside)), w.loop("v", lanes) as v:
                self._element(w, source + v, to, place + v)
            return
        with w.loop("v", tirx.min(lanes, self.length - b * lanes)) as v:
            self._element(w, source + v, to, left + (b * lanes + v) * dilation)

    def _element(self, w: Writer, source: Index, to: Index, place: Index) -> None:
        with w.when(tirx.all(place >= 0, place < self.width)):
            index = flat(self.out, to + place, 1)
            w.store(self.out, self.out[index] + self.data[flat(self.data, source, 1)], index)
