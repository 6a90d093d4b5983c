"""Pooling of any rank and type in plain layout, element by element, for what the packed rules do not
support.

A max window that holds only -infinity or NaN gives the lowest number, as in ONNX Runtime, with the index of
its first element. MaxUnpool skips indices beyond its result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph, Node
from ...frontend.units import Unit
from ..kernel import Call, Kernel, Value
from ..layout import PLAIN
from ..target import CpuTarget
from ..writer import Index, Writer
from . import scalar_expressions
from .scalar_expressions import FLOATS, INTEGERS, call, cast
from .vector_reduction import flat

KNOWN = ("MaxPool", "AveragePool", "LpPool", "GlobalLpPool", "MaxUnpool")


@dataclass(frozen=True)
class _Axis:
    """A window along an axis of ``extent`` elements that are ``stride`` elements apart in memory."""

    extent: int
    results: int
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int


def lower(graph: Graph, unit: Unit, target: CpuTarget) -> Kernel:
    """Lowers a unit of one pooling operator."""
    if len(unit.nodes) != 1:
        raise Unsupported("operators behind a pooling")
    (node,) = unit.nodes
    if node.op == "MaxUnpool":
        return _unpool(graph, node, target)
    source = graph.tensor(node.inputs[0])
    kind = source.dtype
    if kind not in FLOATS and not (kind in INTEGERS and node.op == "MaxPool"):
        raise Unsupported(f"pooling of {kind}")
    names = [name for name in node.outputs if name]
    shape = tuple(source.shape)
    axes = _axes(node, shape, tuple(graph.tensor(names[0]).shape))
    inner = "float32" if kind == "float16" else kind
    data = tirx.decl_buffer(shape, kind, "source")
    made = [
        Value(name, PLAIN, tuple(graph.tensor(name).shape), graph.tensor(name).dtype)
        for name in names
    ]
    outs = {
        value.name: tirx.decl_buffer(value.shape, value.dtype, f"out{place}")
        for place, value in enumerate(made)
    }
    pixels = math.prod(axis.extent for axis in axes)
    results = math.prod(axis.results for axis in axes)
    w = Writer()
    with (
        w.loop("task", shape[0] * shape[1], parallel=target.threads > 1) as task,
        w.loop("result", results) as result,
    ):
        places, rest = [], result
        for axis in reversed(axes):
            places.insert(0, w.bind("place", rest % axis.results))
            rest = rest // axis.results
        plane = w.bind("plane", task * pixels)
        window = _Window(w, node, axes, places, data, plane, inner)
        value, index = window.reduce()
        for place, name in enumerate(node.outputs):
            if name:
                stored = cast(value, kind) if place == 0 else index.astype("int64")
                w.store(outs[name], stored, flat(outs[name], task * results + result, 1))
    function = w.function([data, *outs.values()])
    wanted = Value(node.inputs[0], PLAIN, shape, kind)
    return Kernel([Call(function, [wanted], made, "pooling")], "pooling")


def _axes(node: Node, shape: tuple[int, ...], result: tuple[int, ...]) -> list[_Axis]:
    rank = len(shape) - 2
    if rank < 1:
        raise Unsupported("pooling without an image")
    attribute = node.attributes.get
    if node.op.startswith("Global"):
        return [_Axis(extent, 1, extent, 1, 1, 0, 0) for extent in shape[2:]]
    kernel = attribute("kernel_shape")
    strides, dilations = (list(attribute(name) or [1] * rank) for name in ("strides", "dilations"))
    pads = list(attribute("pads") or [0] * 2 * rank)
    automatic = attribute("auto_pad", b"NOTSET")
    automatic = automatic.decode() if isinstance(automatic, bytes) else automatic
    axes = []
    for axis in range(rank):
        extent, results = shape[2 + axis], result[2 + axis]
        begin, end = pads[axis], pads[rank + axis]
        if automatic == "VALID":
            begin = end = 0
        elif automatic != "NOTSET":
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            total = max(0, (results - 1) * strides[axis] + reach - extent)
            begin = total // 2 if automatic == "SAME_UPPER" else total - total // 2
            end = total - begin
        axes.append(
            _Axis(extent, results, kernel[axis], strides[axis], dilations[axis], begin, end)
        )
    return axes


class _Window:
    """Reduces the elements of one window."""

    def __init__(
        self,
        w: Writer,
        node: Node,
        axes: list[_Axis],
        places: list[Index],
        data: tirx.Buffer,
        plane: Index,
        kind: str,
    ) -> None:
        self.w, self.node, self.axes, self.data = w, node, axes, data
        self.plane, self.kind = plane, kind
        self.firsts: list[Index] = []
        self.ranges: list[tuple[Index, Index]] = []
        for axis, place in zip(axes, places, strict=True):
            first = w.bind("first", place * axis.stride - axis.begin)
            low = w.bind(
                "low", tirx.max(0, tirx.floordiv(axis.dilation - 1 - first, axis.dilation))
            )
            last = tirx.floordiv(axis.extent - 1 - first, axis.dilation) + 1
            high = w.bind("high", tirx.max(low, tirx.min(axis.kernel, last)))
            self.firsts.append(first)
            self.ranges.append((low, high))

    def reduce(self) -> tuple[tirx.Expr, tirx.Expr]:
        """The value, and the index of the maximum."""
        if self.node.op == "MaxPool":
            return self._greatest()
        w, kind = self.w, self.kind
        power = int(self.node.attributes.get("p", 2))
        total = w.local("total", 1, kind)
        w.store(total, tirx.const(0, kind), [0])
        with self._elements() as (place, _):
            value = w.bind("v", cast(self.data[flat(self.data, place, 1)], kind))
            if self.node.op != "AveragePool":
                value = _raised(value, power)
            w.store(total, total[0] + value, [0])
        zero = tirx.const(0, "int32")
        if self.node.op == "AveragePool":
            return total[0] / self._count().astype(kind), zero
        if power == 1:
            return total[0], zero
        if power == 2:
            return tirx.sqrt(total[0]), zero
        return call("pow", total[0], tirx.const(1.0 / power, kind)), zero

    def _greatest(self) -> tuple[tirx.Expr, tirx.Expr]:
        w, kind = self.w, self.kind
        best, where = w.local("best", 1, kind), w.local("where", 1, "int32")
        limits = np.finfo(kind) if kind in FLOATS else np.iinfo(kind)
        w.store(
            best, tirx.const(limits.min.item() if kind in FLOATS else int(limits.min), kind), [0]
        )
        lows = [
            first + low * axis.dilation
            for axis, first, (low, _) in zip(self.axes, self.firsts, self.ranges, strict=True)
        ]
        w.store(where, self._index(lows), [0])
        with self._elements() as (place, indices):
            value = w.bind("v", cast(self.data[flat(self.data, place, 1)], kind))
            with w.when(value > best[0]):
                w.store(best, value, [0])
                w.store(where, self._index(indices), [0])
        return best[0], where[0]

    def _index(self, indices: list[Index]) -> Index:
        """Index of an element in the whole tensor, in row-major or column-major order."""
        axes = list(zip(self.axes, indices, strict=True))
        if not self.node.attributes.get("storage_order", 0):
            axes = axes[::-1]
        index: Index = self.plane
        stride = 1
        for axis, place in axes:
            index = index + place * stride
            stride *= axis.extent
        return index

    @contextmanager
    def _elements(self) -> Iterator[tuple[Index, list[Index]]]:
        """A loop over the elements of the window that are on the image."""
        with ExitStack() as loops:
            place, indices = self.plane, []
            rest = math.prod(axis.extent for axis in self.axes)
            for axis, first, (low, high) in zip(self.axes, self.firsts, self.ranges, strict=True):
                step = loops.enter_context(self.w.loop("k", high - low))
                index = self.w.bind("index", first + (low + step) * axis.dilation)
                rest //= axis.extent
                place = place + index * rest
                indices.append(index)
            yield self.w.bind("at", place), indices

    def _count(self) -> tirx.Expr:
        """Divisor of an average: includes padding if requested, but not what is beyond it."""
        count: tirx.Expr = tirx.const(1, "int32")
        for axis, first, (low, high) in zip(self.axes, self.firsts, self.ranges, strict=True):
            extent: Index = high - low
            if self.node.attributes.get("count_include_pad", 0):
                last = tirx.floordiv(axis.extent + axis.end - 1 - first, axis.dilation) + 1
                extent = tirx.min(axis.kernel, last)
            count = count * extent
        return tirx.max(count, 1)


def _raised(value: tirx.Expr, power: int) -> tirx.Expr:
    size = scalar_expressions.absolute(value)
    if power == 1:
        return size
    return size * size if power == 2 else call("pow", size, tirx.const(power, str(value.ty)))


def _unpool(graph: Graph, node: Node, target: CpuTarget) -> Kernel:
    """Zeros, then each element at its index."""
    source, indices = graph.tensor(node.inputs[0]), graph.tensor(node.inputs[1])
    result = graph.tensor(node.outputs[0])
    if node.inputs[0] in graph.constants or node.inputs[1] in graph.constants:
        raise Unsupported("constant operands")
    if source.dtype not in FLOATS or tuple(indices.shape) != tuple(source.shape):
        raise Unsupported("indices of another shape")
    if len(node.inputs) > 2 and node.inputs[2]:
        window = _default_unpooled(node, tuple(source.shape))
        if window != tuple(result.shape):
            raise Unsupported("indices into another shape than the result's")
    wanted = [
        Value(name, PLAIN, tuple(tensor.shape), tensor.dtype)
        for name, tensor in ((node.inputs[0], source), (node.inputs[1], indices))
    ]
    data, places = (tirx.decl_buffer(value.shape, value.dtype, "p") for value in wanted)
    out = tirx.decl_buffer(result.shape, result.dtype, "out")
    w = Writer()
    with w.loop("e", result.elements) as e:
        w.store(out, tirx.const(0, result.dtype), flat(out, e, 1))
    with w.loop("e", source.elements) as e:
        place = w.bind("place", places[flat(places, e, 1)])
        with w.when(tirx.all(place >= 0, place < result.elements)):
            index = flat(out, place.astype("int32"), 1)
            w.store(out, data[flat(data, e, 1)], index)
    value = Value(node.outputs[0], PLAIN, tuple(result.shape), result.dtype)
    return Kernel([Call(w.function([data, places, out]), wanted, [value], "unpool")], "pooling")


def _default_unpooled(node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    rank = len(shape) - 2
    strides = node.attributes.get("strides") or [1] * rank
    pads = node.attributes.get("pads") or [0] * 2 * rank
    kernel = node.attributes["kernel_shape"]
    return (
        *shape[:2],
        *(
            (shape[2 + axis] - 1) * strides[axis] - pads[axis] - pads[rank + axis] + kernel[axis]
            for axis in range(rank)
        ),
    )
