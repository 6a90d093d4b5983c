"""Operators that read or write at computed indices, for any type, in plain layout.

Indices from a frame never leave a tensor: reads are clamped to the axis, writes beyond it are skipped.
Constant indices are checked at compile time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
from tvm import tirx

from ...errors import CompileError, Unsupported
from ...frontend.graph import Graph, Node, Tensor
from ...frontend.units import Unit
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN
from ..min_max import extreme
from ..target import CpuTarget
from ..writer import Index, Writer, spans
from .scalar_expressions import INTEGERS, TYPES, cast
from .vector_reduction import flat

KNOWN = (
    "Gather", "GatherElements", "GatherND", "ScatterElements", "Scatter", "ScatterND", "OneHot",
    "Trilu", "CumSum", "EyeLike",
)  # fmt: skip


def lower(graph: Graph, unit: Unit, target: CpuTarget) -> Kernel:
    """Lowers a unit of one operator. Raises ``CompileError`` for a constant index out of bounds."""
    if len(unit.nodes) != 1:
        raise Unsupported("operators behind an indexed one")
    (node,) = unit.nodes
    return _Indexed(graph, node, target).kernel()


class _Indexed:
    """A function under construction."""

    def __init__(self, graph: Graph, node: Node, target: CpuTarget) -> None:
        self.graph, self.node, self.target, self.w = graph, node, target, Writer()
        self.result = graph.tensor(node.outputs[0])
        if self.result.dtype not in TYPES:
            raise Unsupported(f"{node.op} of {self.result.dtype}")
        self.shape = tuple(self.result.shape)
        self.out = tirx.decl_buffer(self.shape, self.result.dtype, "out")
        self.arguments: dict[str, Value | Weight] = {}
        self.buffers: dict[str, tirx.Buffer] = {}

    def kernel(self) -> Kernel:
        """The complete kernel."""
        match self.node.op:
            case "Gather":
                self._gather()
            case "GatherElements":
                self._gather_elements()
            case "GatherND":
                self._gather_nd()
            case "ScatterElements" | "Scatter":
                self._scatter_elements()
            case "ScatterND":
                self._scatter_nd()
            case "OneHot":
                self._one_hot()
            case "CumSum":
                self._running_sum()
            case _:
                self._triangle()
        if all(isinstance(argument, Weight) for argument in self.arguments.values()):
            raise Unsupported("constant operands")
        function = self.w.function([*self.buffers.values(), self.out])
        value = Value(self.node.outputs[0], PLAIN, self.shape, self.result.dtype)
        call = Call(function, list(self.arguments.values()), [value], self.node.op.lower())
        return Kernel([call], "indexed")

    def _operand(self, place: int) -> tuple[tirx.Buffer, Tensor]:
        name = self.node.inputs[place]
        tensor = self.graph.tensor(name)
        if tensor.dtype not in TYPES:
            raise Unsupported(f"operand of {tensor.dtype}")
        if name not in self.buffers:
            constant = self.graph.constants.get(name)
            made = Value(name, PLAIN, tuple(tensor.shape), tensor.dtype)
            self.arguments[name] = made if constant is None else Weight(constant)
            self.buffers[name] = tirx.decl_buffer(
                tensor.shape, tensor.dtype, f"p{len(self.buffers)}"
            )
        return self.buffers[name], tensor

    def _constant(self, place: int) -> np.ndarray | None:
        return self.graph.constants.get(self.node.inputs[place])

    def _axis(self, rank: int) -> int:
        return self.node.attributes.get("axis", 0) % rank

    def _place(self, index: tirx.Expr, extent: int) -> tirx.Expr:
        """Resolves a negative index of an axis of ``extent``."""
        index = index.astype("int64") if str(index.ty) != "int64" else index
        return self.w.bind("index", tirx.Select(index < 0, index + extent, index))

    def _inside(self, index: tirx.Expr, extent: int) -> tirx.Expr:
        """Clamps an index to an axis of ``extent``."""
        place = self._place(index, extent)
        return self.w.bind("bounded", tirx.max(0, tirx.min(extent - 1, place)).astype("int32"))

    def _check(self, place: int, extents: list[int]) -> None:
        """Refuses constant indices out of bounds. ``extents`` is one extent for all, or one per last axis."""
        indices = self._constant(place)
        if indices is None or not indices.size:
            return
        limits = np.array(extents if len(extents) > 1 else extents[0])
        wrong = (indices < -limits) | (indices >= limits)
        if wrong.any():
            raise CompileError(
                "invalid_onnx",
                f"failed to lower the {self.node.op} {self.node.name!r}: its index "
                f"{int(indices[wrong][0])} is out of bounds for the extent {extents}; correct the "
                f"constant {self.node.inputs[place]!r} in the network",
                self.node.name,
            )

    def _tasks(self, count: int) -> AbstractContextManager[Index]:
        return self.w.loop("task", count, parallel=self.target.threads > 1)

    def _gather(self) -> None:
        (data, source), (indices, picked) = self._operand(0), self._operand(1)
        shape = tuple(source.shape)
        axis = self._axis(len(shape))
        self._check(1, [shape[axis]])
        outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        lanes = 1 if source.dtype == "bool" else self.target.lanes
        with self._tasks(outer) as row, self.w.loop("i", picked.elements) as i:
            index = self._inside(indices[flat(indices, i, 1)], shape[axis])
            begin = self.w.bind("begin", (row * shape[axis] + index) * inner)
            to = self.w.bind("to", (row * picked.elements + i) * inner)
            for place, count in spans(self.w, inner, lanes):
                value = data[flat(data, begin + place, count)]
                self.w.store(self.out, value, flat(self.out, to + place, count))

    def _along(
        self, shape: tuple[int, ...], walked: tuple[int, ...], axis: int
    ) -> Callable[[Index, tirx.Expr], Index]:
        """Maps the number of an element of shape ``walked``, and an index along ``axis``, to the element of
        ``shape`` that differs along that axis only.
        """
        strides = [math.prod(shape[other + 1 :]) for other in range(len(shape))]

        def place(element: Index, index: tirx.Expr) -> Index:
            found: Index = index * strides[axis]
            for other in reversed(range(len(walked))):
                if other != axis:
                    found = found + element % walked[other] * strides[other]
                element = element // walked[other]
            return found

        return place

    def _gather_elements(self) -> None:
        (data, source), (indices, _) = self._operand(0), self._operand(1)
        shape = tuple(source.shape)
        axis = self._axis(len(shape))
        self._check(1, [shape[axis]])
        place = self._along(shape, self.shape, axis)
        with self._tasks(self.result.elements) as e:
            index = self._inside(indices[flat(indices, e, 1)], shape[axis])
            value = data[flat(data, place(e, index), 1)]
            self.w.store(self.out, value, flat(self.out, e, 1))

    def _copied(self) -> None:
        """Initializes the result with the first operand."""
        data, source = self._operand(0)
        lanes = 1 if source.dtype == "bool" else self.target.lanes
        for place, count in spans(self.w, source.elements, lanes):
            self.w.store(self.out, data[flat(data, place, count)], flat(self.out, place, count))

    def _put(self, place: Index, update: tirx.Expr) -> None:
        reduction = self.node.attributes.get("reduction", b"none")
        reduction = reduction.decode() if isinstance(reduction, bytes) else reduction
        index = flat(self.out, place, 1)
        old = self.out[index]
        kind = self.result.dtype
        match reduction:
            case "none":
                value = update
            case "add":
                value = tirx.Or(old, update) if kind == "bool" else old + update
            case "mul":
                value = tirx.And(old, update) if kind == "bool" else old * update
            case "max" | "min":
                value = extreme(reduction == "max", old, update)
            case _:
                raise Unsupported(f"reduction {reduction}")
        self.w.store(self.out, value, index)

    def _scatter_elements(self) -> None:
        self._copied()
        (indices, walked), (updates, _) = self._operand(1), self._operand(2)
        axis = self._axis(len(self.shape))
        extent = self.shape[axis]
        self._check(1, [extent])
        where = self._along(self.shape, tuple(walked.shape), axis)
        with self.w.loop("e", walked.elements) as e:
            place = self._place(indices[flat(indices, e, 1)], extent)
            with self.w.when(tirx.all(place >= 0, place < extent)):
                to = self.w.bind("to", where(e, place.astype("int32")))
                self._put(to, updates[flat(updates, e, 1)])

    def _gather_nd(self) -> None:
        (data, source), (indices, picked) = self._operand(0), self._operand(1)
        shape, batch = tuple(source.shape), self.node.attributes.get("batch_dims", 0)
        depth = picked.shape[-1]
        self._check(1, list(shape[batch : batch + depth]))
        inner = math.prod(shape[batch + depth :])
        images = math.prod(shape[:batch])
        each = picked.elements // depth // images if depth and images else 0
        if not each:
            raise Unsupported("no indices")
        whole = math.prod(shape[batch:])
        lanes = 1 if source.dtype == "bool" else self.target.lanes
        with self._tasks(images * each) as row:
            begin: Index = row // each * whole
            for step in range(depth):
                extent = shape[batch + step]
                index = self._inside(indices[flat(indices, row * depth + step, 1)], extent)
                begin = begin + index * math.prod(shape[batch + step + 1 :])
            begin = self.w.bind("begin", begin)
            for place, count in spans(self.w, inner, lanes):
                value = data[flat(data, begin + place, count)]
                self.w.store(self.out, value, flat(self.out, row * inner + place, count))

    def _scatter_nd(self) -> None:
        self._copied()
        (indices, picked), (updates, _) = self._operand(1), self._operand(2)
        depth = picked.shape[-1]
        self._check(1, list(self.shape[:depth]))
        inner = math.prod(self.shape[depth:])
        if not depth:
            raise Unsupported("no indices")
        with self.w.loop("row", picked.elements // depth) as row:
            begin: Index = tirx.const(0, "int32")
            inside: tirx.Expr = tirx.const(True, "bool")
            for step in range(depth):
                extent = self.shape[step]
                index = self._place(indices[flat(indices, row * depth + step, 1)], extent)
                inside = tirx.And(inside, tirx.all(index >= 0, index < extent))
                begin = begin + index.astype("int32") * math.prod(self.shape[step + 1 :])
            begin = self.w.bind("begin", begin)
            with self.w.when(inside), self.w.loop("i", inner) as i:
                self._put(begin + i, updates[flat(updates, row * inner + i, 1)])

    def _one_hot(self) -> None:
        (indices, picked), (values, pair) = self._operand(0), self._operand(2)
        depth = self._constant(1)
        rank = len(picked.shape) + 1
        axis = self.node.attributes.get("axis", -1) % rank
        if depth is None or pair.dtype != self.result.dtype:
            raise Unsupported("depth that is not constant")
        extent = int(depth.reshape(-1)[0])
        inner = math.prod(picked.shape[axis:])
        images = picked.elements // inner if inner else 0
        with (
            self._tasks(images) as outer,
            self.w.loop("d", extent) as d,
            self.w.loop("i", inner) as i,
        ):
            index = indices[flat(indices, outer * inner + i, 1)]
            place = self._place(cast(index, "int64"), extent)
            value = tirx.Select(
                tirx.EQ(place, d.astype("int64") if extent > 1 else tirx.const(0, "int64")),
                values[flat(values, 1, 1)],
                values[flat(values, 0, 1)],
            )
            self.w.store(self.out, value, flat(self.out, (outer * extent + d) * inner + i, 1))

    def _running_sum(self) -> None:
        data, _ = self._operand(0)
        constant = self._constant(1)
        if constant is None:
            raise Unsupported("axis that is not constant")
        if not self.shape or self.result.dtype not in (*INTEGERS, "float32", "float64"):
            raise Unsupported("sum of a scalar")
        axis = int(constant.reshape(-1)[0]) % len(self.shape)
        extent, inner = self.shape[axis], math.prod(self.shape[axis + 1 :])
        exclusive, reverse = (
            self.node.attributes.get(name, 0) for name in ("exclusive", "reverse")
        )
        with self._tasks(math.prod(self.shape[:axis])) as row, self.w.loop("i", inner) as i:
            total = self.w.local("total", 1, self.result.dtype)
            self.w.store(total, tirx.const(0, self.result.dtype), [0])
            with self.w.loop("s", extent) as step:
                here = extent - 1 - step if reverse else step
                place = self.w.bind("place", (row * extent + here) * inner + i)
                value = self.w.bind("v", data[flat(data, place, 1)])
                if exclusive:
                    self.w.store(self.out, total[0], flat(self.out, place, 1))
                    self.w.store(total, total[0] + value, [0])
                else:
                    self.w.store(total, total[0] + value, [0])
                    self.w.store(self.out, total[0], flat(self.out, place, 1))

    def _triangle(self) -> None:
        """Trilu: keeps one side of a diagonal. EyeLike: ones on a diagonal."""
        data, _ = self._operand(0)
        if len(self.shape) < 2:
            raise Unsupported("no matrix")
        shift = self.node.attributes.get("k", 0)
        if len(self.node.inputs) > 1 and self.node.inputs[1]:
            constant = self._constant(1)
            if constant is None:
                raise Unsupported("diagonal that is not constant")
            shift = int(constant.reshape(-1)[0])
        rows, columns = self.shape[-2:]
        zero = tirx.const(0, self.result.dtype)
        upper = self.node.attributes.get("upper", 1)
        with self._tasks(self.result.elements) as e:
            along = e % columns - e // columns % rows - shift
            if self.node.op == "EyeLike":
                kept = tirx.EQ(along, tirx.const(0, "int32"))
                value = tirx.const(1, self.result.dtype)
            else:
                kept = along >= 0 if upper else along <= 0
                value = data[flat(data, e, 1)]
            self.w.store(self.out, tirx.Select(kept, value, zero), flat(self.out, e, 1))
