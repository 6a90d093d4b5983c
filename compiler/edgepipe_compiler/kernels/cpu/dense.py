"""Fully connected layers, with weights packed into groups of blocks of output lanes.

At batch 1 each weight is read once per frame and memory bandwidth is the limit. Weights are stored in
reading order, with several blocks interleaved to keep enough multiply-adds in flight. Rows of a batch share
them. A preceding flatten is free: weight rows are permuted to the memory order of packed images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph
from ...frontend.units import SHAPE_ONLY, Unit
from .. import epilogue, parameters, window_geometry
from ..epilogue import Operands
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN, lanes_of, stored_shape
from ..target import CpuTarget
from ..writer import Index, Writer, ramp
from . import tiling

# Elements of the reduction per iteration of the innermost loop.
UNROLLED = 4


def lower(graph: Graph, unit: Unit, target: CpuTarget, native: dict[str, str]) -> Kernel:
    """Lowers a unit whose anchor is Gemm or MatMul with a constant matrix."""
    flatten = unit.nodes[0] if unit.nodes[0].op in SHAPE_ONLY else None
    product, *rest = unit.nodes[1:] if flatten else unit.nodes
    matrix, bias = parameters.of_product(graph, product)
    result, read = graph.tensor(product.outputs[0]), graph.tensor(product.inputs[0])
    if len(read.shape) < 2 or read.dtype != "float32" or result.shape[:-1] != read.shape[:-1]:
        raise Unsupported("product of something other than rows")
    lanes, batch = target.lanes, int(np.prod(read.shape[:-1]))
    operands = Operands(graph, PLAIN, target)
    source = (flatten or product).inputs[0]
    tensor = graph.tensor(source)
    layout = native.get(source, PLAIN)
    if (
        lanes_of(layout)
        and flatten is not None
        and len(tensor.shape) == 4
        and tensor.shape[0] == batch
    ):
        order = _packed_order(tensor.shape, lanes_of(layout))
    else:
        layout, order = PLAIN, np.arange(matrix.shape[0])
    stored = stored_shape(tensor.shape, layout)
    data = operands.add(Value(source, layout, stored, "float32"), stored, "float32")
    blocks = -(-matrix.shape[1] // lanes)
    together = _blocks_together(target, blocks, batch)
    depth = int(np.prod(stored)) // batch
    array = _pack(matrix, order, depth, lanes, together)
    weight = operands.add(Weight(array), array.shape, "float32")
    shift = None
    if bias is not None:
        full = np.zeros(array.shape[0] * together * lanes, np.float32)
        full[: bias.size] = bias
        shift = operands.add(Weight(full), full.shape, "float32")
    epilogue.check_short(rest)
    after = epilogue.apply(operands, rest, product.outputs[0], result)
    out = tirx.decl_buffer(result.shape, "float32", "out")
    body = _Body(target, data, weight, shift, out, after, together, batch)
    function = body.write(operands.placeholders)
    value = Value(unit.outputs[0], PLAIN, tuple(result.shape), "float32")
    return Kernel([Call(function, operands.arguments, [value], "dense")], "dense")


@dataclass
class _Body:
    """Writes the function. ``together`` blocks of output lanes are computed at a time."""

    target: CpuTarget
    data: tirx.Buffer
    weight: tirx.Buffer
    shift: tirx.Buffer | None
    out: tirx.Buffer
    after: Callable[[tirx.Expr, tuple[Index, ...]], tirx.Expr]
    together: int
    batch: int

    def write(self, arguments: list[tirx.Buffer]) -> tirx.PrimFunc:
        """Writes the whole function: groups of blocks around rows; an incomplete last group separately."""
        groups, columns = int(self.weight.shape[0]), int(self.out.shape[-1])
        whole = columns // (self.together * self.target.lanes)
        w = Writer()
        if whole:
            with w.loop("group", whole, parallel=self.target.threads > 1) as group:
                self._rows(w, group, self.together * self.target.lanes)
        if whole < groups:
            self._rows(w, whole, columns - whole * self.together * self.target.lanes)
        return w.function([*arguments, self.out])

    def _rows(self, w: Writer, group: Index, columns: int) -> None:
        most = max(1, (self.target.registers - self.together - 2) // self.together)
        for run in window_geometry.runs([(0, 1)] * self.batch, most):
            with w.loop("n", run.count) as tile:
                self._tile(w, group, columns, tile * run.size + run.start, run.size)

    def _tile(self, w: Writer, group: Index, columns: int, n: Index, rows: int) -> None:
        lanes, depth = self.target.lanes, int(self.weight.shape[1])
        whole = ramp(0, lanes)
        blocks = range(-(-columns // lanes))
        sums = {(b, r): w.local(f"sum{b}_{r}", lanes) for b in blocks for r in range(rows)}
        first = group * (self.together * lanes)
        for b in blocks:
            begin = tirx.Broadcast(tirx.const(0.0, "float32"), lanes)
            if self.shift is not None:
                begin = w.bind("bias", self.shift[ramp(first + b * lanes, lanes)])
            for r in range(rows):
                w.store(sums[b, r], begin, [whole])
        unroll = tiling.divisor(depth, UNROLLED)
        zeros = (0,) * (len(self.data.shape) - 1)
        with w.loop("k", depth // unroll) as outer:
            for k in (outer * unroll + step for step in range(unroll)):
                values = [self.data[(*zeros, (n + r) * depth + k)] for r in range(rows)]
                vectors = [w.bind("v", tirx.Broadcast(value, lanes)) for value in values]
                for b in blocks:
                    weights = w.bind("w", self.weight[group, k, b, whole])
                    for r in range(rows):
                        held = sums[b, r]
                        w.store(held, held[whole] + vectors[r] * weights, [whole])
        for b in blocks:
            for r in range(rows):
                left = min(lanes, columns - b * lanes)
                places = [ramp(0, lanes)] if left == lanes else list(range(left))
                for place in places:
                    # Full vectors at once; the lanes of the last block one by one.
                    column = first + b * lanes + place
                    if left == lanes:
                        column = ramp(first + b * lanes, lanes)
                    index = (*self._unravel(n + r), column)
                    value = self.after(sums[b, r][place], index)
                    w.store(self.out, value, index)

    def _unravel(self, row: Index) -> tuple[Index, ...]:
        """The leading indices of a row of results."""
        index: list[Index] = []
        for extent in reversed([int(extent) for extent in self.out.shape[1:-1]]):
            index.insert(0, row % extent)
            row = row // extent
        return (row, *index)


def _blocks_together(target: CpuTarget, blocks: int, batch: int) -> int:
    """Number of blocks computed at a time: enough to hide latency, preferably a divisor of all blocks.

    Rows of a batch are in flight as well.
    """
    most = min(blocks, target.registers // 4 if batch == 1 else max(2, target.registers // 8))
    even = tiling.divisor(blocks, most)
    return even if 2 * even >= most else most


def _packed_order(shape: tuple[int, ...], lanes: int) -> np.ndarray:
    """Position in packed memory of each element of a flattened (C, H, W)."""
    _, channels, height, width = shape
    c, y, x = np.indices((channels, height, width)).reshape(3, -1)
    return (((c // lanes) * height + y) * width + x) * lanes + c % lanes


def _pack(
    matrix: np.ndarray, order: np.ndarray, depth: int, lanes: int, together: int
) -> np.ndarray:
    """The matrix as (group, place, block, lanes).

    Row i goes to place ``order[i]`` of ``depth``; the rest is 0. Packed group by group, because the largest
    matrices have 411 MB.
    """
    inner, columns = matrix.shape
    width = lanes * together
    groups = -(-columns // width)
    array = np.zeros((groups, depth, together, lanes), np.float32)
    for group in range(groups):
        part = np.zeros((inner, width), np.float32)
        taken = matrix[:, group * width : (group + 1) * width]
        part[:, : taken.shape[1]] = taken
        array[group, order] = part.reshape(inner, together, lanes)
    return array
