"""ArgMax, ArgMin and TopK for any type."""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph
from ...frontend.units import Unit
from ..kernel import Call, Kernel, Value
from ..layout import PLAIN
from ..target import CpuTarget
from ..writer import Index, Writer
from . import scalar_expressions
from .scalar_expressions import FLOATS, INTEGERS
from .vector_reduction import flat

KNOWN = ("ArgMax", "ArgMin", "TopK")


def lower(graph: Graph, unit: Unit, target: CpuTarget) -> Kernel:
    """Lowers a unit of one operator."""
    if len(unit.nodes) != 1:
        raise Unsupported("operators behind a ranking")
    (node,) = unit.nodes
    tensor = graph.tensor(node.inputs[0])
    if tensor.dtype not in (*FLOATS, *INTEGERS) or not tensor.shape:
        raise Unsupported(f"ranking of {tensor.dtype}")
    shape = tuple(tensor.shape)
    axis = node.attributes.get("axis", -1 if node.op == "TopK" else 0) % len(shape)
    extent, inner = shape[axis], math.prod(shape[axis + 1 :])
    outer = math.prod(shape[:axis])
    source = tirx.decl_buffer(shape, tensor.dtype, "source")
    made = [
        Value(name or f"{unit.name}/{place}", PLAIN, _made(graph, node.outputs), kind)
        for place, (name, kind) in enumerate(
            zip(node.outputs, _kinds(node.op, tensor.dtype), strict=False)
        )
    ]
    if node.op == "TopK" and len(made) == 1:
        # Values and indices are computed together.
        made.append(Value(f"{unit.name}/1", PLAIN, made[0].shape, "int64"))
    outs = [
        tirx.decl_buffer(value.shape, value.dtype, f"out{place}")
        for place, value in enumerate(made)
    ]
    w = Writer()
    with w.loop("task", outer * inner, parallel=target.threads > 1) as task:
        row, column = w.bind("row", task // inner), w.bind("column", task % inner)

        def element(place: Index) -> tirx.Expr:
            return source[flat(source, (row * extent + place) * inner + column, 1)]

        if node.op == "TopK":
            largest = bool(node.attributes.get("largest", 1))
            count = made[0].shape[axis]
            _best(w, element, outs, (row * count, inner, column), extent, count, largest)
        else:
            last = bool(node.attributes.get("select_last_index", 0))
            largest = node.op == "ArgMax"
            _extreme(w, element, outs[0], task, extent, largest, last, tensor.dtype)
    wanted = Value(node.inputs[0], PLAIN, shape, tensor.dtype)
    function = w.function([source, *outs])
    return Kernel([Call(function, [wanted], made, node.op.lower())], "ranking")


def _made(graph: Graph, outputs: list[str]) -> tuple[int, ...]:
    return tuple(graph.tensor(next(name for name in outputs if name)).shape)


def _kinds(op: str, kind: str) -> tuple[str, ...]:
    return (kind, "int64") if op == "TopK" else ("int64",)


def _extreme(
    w: Writer,
    element: Callable[[Index], tirx.Expr],
    out: tirx.Buffer,
    task: Index,
    extent: int,
    largest: bool,
    last: bool,
    kind: str,
) -> None:
    """The first or last index of the maximum or minimum."""
    best, where = w.local("best", 1, kind), w.local("where", 1, "int64")
    w.store(best, element(0), [0])
    w.store(where, tirx.const(0, "int64"), [0])
    compare = {
        (True, False): tirx.GT, (True, True): tirx.GE,
        (False, False): tirx.LT, (False, True): tirx.LE,
    }[largest, last]  # fmt: skip
    if extent > 1:
        with w.loop("i", extent - 1, 1) as i:
            value = w.bind("v", element(i))
            with w.when(compare(value, best[0])):
                w.store(best, value, [0])
                place = i if isinstance(i, int) else i.astype("int64")
                w.store(where, tirx.const(i, "int64") if isinstance(i, int) else place, [0])
    w.store(out, where[0], flat(out, task, 1))


def _better(largest: bool, first: tirx.Expr, second: tirx.Expr) -> tirx.Expr:
    """Whether an element ranks higher; NaN ranks highest."""
    better = tirx.GT(first, second) if largest else tirx.LT(first, second)
    if str(first.ty) not in FLOATS:
        return better
    more, less = (first, second) if largest else (second, first)
    return tirx.Or(
        better, tirx.And(scalar_expressions.is_nan(more), tirx.Not(scalar_expressions.is_nan(less)))
    )


class _Heap:
    """The best elements so far, the worst at the root, stored in the outputs.

    Of equal elements the later one is worse.
    """

    def __init__(
        self, w: Writer, outs: list[tirx.Buffer], place: tuple[Index, int, Index], largest: bool
    ) -> None:
        self.w, self.largest = w, largest
        self.values, self.indices = outs
        self.begin, self.inner, self.column = place
        self.value = w.local("value", 1, self.values.dtype)
        self.index = w.local("index", 1, "int64")
        self.hole = w.local("hole", 1, "int32")

    def at(self, step: Index) -> tuple[Index, ...]:
        """Position of the element ``step``."""
        return flat(self.values, (self.begin + step) * self.inner + self.column, 1)

    def take(self, value: tirx.Expr, index: tirx.Expr) -> None:
        """Holds an element until ``sift`` places it."""
        self.w.store(self.value, value, [0])
        self.w.store(self.index, index, [0])

    def worse(
        self, first: tuple[tirx.Expr, tirx.Expr], second: tuple[tirx.Expr, tirx.Expr]
    ) -> tirx.Expr:
        """Compares values, then indices."""
        equal = tirx.Not(_better(self.largest, first[0], second[0]))
        return tirx.Or(
            _better(self.largest, second[0], first[0]), tirx.And(equal, first[1] > second[1])
        )

    def pair(self, step: Index) -> tuple[tirx.Expr, tirx.Expr]:
        """An element and its index."""
        place = self.at(step)
        return self.w.bind("v", self.values[place]), self.w.bind("i", self.indices[place])

    def sift(self, start: Index, size: Index, depth: int) -> None:
        """Places the held element at ``start`` or below."""
        w = self.w
        w.store(self.hole, tirx.const(start, "int32") if isinstance(start, int) else start, [0])
        with w.loop("depth", depth):
            hole = w.bind("at", self.hole[0])
            left = w.bind("left", hole * 2 + 1)
            with w.when(left < size):
                right = w.bind("right", tirx.min(left + 1, size - 1))
                is_right = self.worse(self.pair(right), self.pair(left))
                child = w.bind("child", tirx.Select(is_right, right, left))
                below = self.pair(child)
                with w.when(self.worse(below, (self.value[0], self.index[0]))):
                    w.store(self.values, below[0], self.at(hole))
                    w.store(self.indices, below[1], self.at(hole))
                    w.store(self.hole, child, [0])
        place = self.at(self.hole[0])
        w.store(self.values, self.value[0], place)
        w.store(self.indices, self.index[0], place)


def _best(
    w: Writer,
    element: Callable[[Index], tirx.Expr],
    outs: list[tirx.Buffer],
    place: tuple[Index, int, Index],
    extent: int,
    count: int,
    largest: bool,
) -> None:
    """Fills a heap, replaces its root by better elements, then pops it, worst first."""
    heap = _Heap(w, outs, place, largest)
    depth = max(1, count.bit_length())

    def number(step: Index) -> tirx.Expr:
        return tirx.const(step, "int64") if isinstance(step, int) else step.astype("int64")

    with w.loop("i", count) as i:
        w.store(heap.values, element(i), heap.at(i))
        w.store(heap.indices, number(i), heap.at(i))
    if count > 1:
        with w.loop("i", count // 2) as i:
            start = w.bind("start", count // 2 - 1 - i)
            heap.take(*heap.pair(start))
            heap.sift(start, count, depth)
    if extent > count:
        with w.loop("i", extent - count, count) as i:
            found = w.bind("found", element(i))
            with w.when(_better(largest, found, heap.values[heap.at(0)])):
                heap.take(found, number(i))
                heap.sift(0, count, depth)
    if count > 1:
        with w.loop("i", count - 1) as i:
            last = w.bind("last", count - 1 - i)
            heap.take(*heap.pair(last))
            value, index = heap.pair(0)
            w.store(heap.values, value, heap.at(last))
            w.store(heap.indices, index, heap.at(last))
            heap.sift(0, last, depth)
