"""Batched products of two computed matrices: tiles of rows and vectors of columns.

The second matrix is read in memory order, row by row. The last vector of a row overlaps the one before it
if the columns are not a multiple of the vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph
from ...frontend.units import Unit
from .. import epilogue, window_geometry
from ..epilogue import Operands
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN
from ..target import CpuTarget
from ..writer import Index, Writer, ramp, spread
from .vector_reduction import flat

# Vectors of columns per tile, and unrolled steps of the reduction.
TOGETHER, UNROLLED = 3, 4


def lower(graph: Graph, unit: Unit, target: CpuTarget) -> Kernel:
    """Lowers a unit whose anchor is the product of two computed tensors."""
    node, *rest = unit.nodes
    if node.op != "MatMul":
        raise Unsupported("not a plain product")
    left, right = (graph.tensor(name) for name in node.inputs)
    result = graph.tensor(node.outputs[0])
    if min(len(left.shape), len(right.shape)) < 2 or {left.dtype, right.dtype} != {"float32"}:
        raise Unsupported("product of something other than float32 matrices")
    operands = Operands(graph, PLAIN, target)
    data: dict[str, tirx.Buffer] = {}
    for name, tensor in zip(node.inputs, (left, right), strict=True):
        array = graph.constants.get(name)
        shape = tuple(tensor.shape)
        made = Value(name, PLAIN, shape, "float32") if array is None else Weight(array)
        if name not in data:
            data[name] = operands.add(made, shape, "float32")
    epilogue.check_short(rest)
    after = epilogue.apply(operands, rest, node.outputs[0], result)
    out = tirx.decl_buffer(result.shape, "float32", "out")
    body = _Product(target, data[node.inputs[0]], data[node.inputs[1]], out, after)
    function = body.write(operands.placeholders)
    value = Value(unit.outputs[0], PLAIN, tuple(result.shape), "float32")
    return Kernel([Call(function, operands.arguments, [value], "product")], "product")


class _Product:
    """Writes the function."""

    def __init__(
        self,
        target: CpuTarget,
        left: tirx.Buffer,
        right: tirx.Buffer,
        out: tirx.Buffer,
        after: Callable[[tirx.Expr, tuple[Index, ...]], tirx.Expr],
    ) -> None:
        self.target, self.left, self.right, self.out, self.after = target, left, right, out, after
        self.shape = [int(extent) for extent in out.shape]
        self.rows, self.columns = self.shape[-2:]
        self.depth = int(left.shape[-1])

    def write(self, arguments: list[tirx.Buffer]) -> tirx.PrimFunc:
        """Writes the loops over matrices of the batch, tiles of rows and tiles of columns."""
        batch = math.prod(self.shape[:-2])
        runs = window_geometry.runs([(0, 1)] * self.rows, self._most_rows())
        w = Writer()
        for run in runs:
            with w.loop("task", batch * run.count, parallel=self.target.threads > 1) as task:
                image, tile = task // run.count, task % run.count
                self._row_tile(w, image, tile * run.size + run.start, run.size)
        return w.function([*arguments, self.out])

    def _most_rows(self) -> int:
        if self.columns < self.target.lanes:
            return 4
        together = min(TOGETHER, -(-self.columns // self.target.lanes))
        return max(1, (self.target.registers - together - 2) // together)

    def _row_tile(self, w: Writer, image: Index, row: Index, rows: int) -> None:
        lanes, columns = self.target.lanes, self.columns
        if columns < lanes:
            with w.loop("x", columns) as x:
                self._tile(w, image, row, rows, x, [0], 1)
            return
        vectors = -(-columns // lanes)
        together = min(TOGETHER, vectors)
        whole = columns // (together * lanes)
        with w.loop("x", whole) as x:
            places = [vector * lanes for vector in range(together)]
            self._tile(w, image, row, rows, x * (together * lanes), places, lanes)
        left = columns - whole * together * lanes
        if left:
            places = [min(place, left - lanes) for place in range(0, left, lanes)]
            self._tile(w, image, row, rows, whole * together * lanes, places, lanes)

    def _tile(
        self,
        w: Writer,
        image: Index,
        row: Index,
        rows: int,
        x: Index,
        places: list[int],
        lanes: int,
    ) -> None:
        """Computes some rows for a vector of columns at each of ``places`` from ``x``."""
        whole, count = ramp(0, lanes), len(places)
        sums = {(r, b): w.local(f"sum{r}_{b}", lanes) for r in range(rows) for b in range(count)}
        for held in sums.values():
            w.store(held, spread(0.0, lanes), [whole])
        left, right = self._begin(self.left, image), self._begin(self.right, image)
        left, right = w.bind("left", left + row * self.depth), w.bind("right", right + x)
        unroll = next(step for step in (UNROLLED, 3, 2, 1) if self.depth % step == 0)
        with w.loop("k", self.depth // unroll) as outer:
            for k in (outer * unroll + step for step in range(unroll)):
                vectors = [
                    w.bind("b", self.right[flat(self.right, right + k * self.columns + place, lanes)])
                    for place in places
                ]  # fmt: skip
                for r in range(rows):
                    element = self.left[flat(self.left, left + r * self.depth + k, 1)]
                    factor = w.bind("a", spread(element, lanes))
                    for b, vector in enumerate(vectors):
                        held = sums[r, b]
                        w.store(held, held[whole] + factor * vector, [whole])
        for (r, b), held in sums.items():
            index = (*self._unravel(image), row + r, ramp(x + places[b], lanes))
            w.store(self.out, self.after(held[whole], index), index)

    def _begin(self, buffer: tirx.Buffer, image: Index) -> Index:
        """Offset of a matrix in the batch, broadcast as in ONNX."""
        shape = [int(extent) for extent in buffer.shape]
        padded = [1] * (len(self.shape) - len(shape)) + shape
        begin: Index = tirx.const(0, "int32")
        stride = padded[-1] * padded[-2]
        for place, axis in zip(
            self._unravel(image)[::-1], range(len(padded) - 3, -1, -1), strict=True
        ):
            if padded[axis] > 1:
                begin = begin + place * stride
            stride *= padded[axis]
        return begin

    def _unravel(self, image: Index) -> tuple[Index, ...]:
        index: list[Index] = []
        for place, extent in reversed(list(enumerate(self.shape[:-2]))):
            index.insert(0, image if place == 0 else image % extent)
            image = image // extent
        return tuple(index)
