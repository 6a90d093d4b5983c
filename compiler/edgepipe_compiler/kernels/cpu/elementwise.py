"""Units of element-wise operators only, in packed or plain layout.

Axes with the same broadcast pattern are merged, so that vectors run through whole images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import numpy as np
from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph, Tensor
from ...frontend.units import ELEMENTWISE, Unit
from .. import epilogue
from ..epilogue import Index, Operands, pack_array
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN, lanes_of, packed, stored_shape
from ..target import CpuTarget
from ..writer import Writer, ramp, spans, spread
from .vector_reduction import flat

# Minimum elements per additional thread.
WORTHWHILE = 1 << 14


def lower(graph: Graph, unit: Unit, target: CpuTarget, native: dict[str, str]) -> Kernel:
    """Lowers a unit of element-wise operators."""
    if any(node.op not in ELEMENTWISE for node in unit.nodes) or len(unit.outputs) != 1:
        raise Unsupported("not element-wise")
    result = graph.tensor(unit.outputs[0])
    if result.dtype != "float32" or any(
        graph.tensor(node.outputs[0]).shape != result.shape for node in unit.nodes
    ):
        raise Unsupported("shapes or types that differ along the chain")
    layout = _layout(graph, unit, target, native)
    shape = stored_shape(result.shape, layout)
    operands = Merged(graph, layout, shape, target)
    first = unit.nodes[0].inputs[0]
    read = operands.read(first, result)
    w = Writer()

    def keep(name: str, value: tirx.Expr) -> tirx.Expr:
        element, _, lanes = str(value.ty).partition("x")
        if element != "float32":
            return w.bind(name, value)
        count = int(lanes or 1)
        held = w.local(name, count)
        w.store(held, value, [ramp(0, count)])
        return held[ramp(0, count)]

    after = epilogue.apply(operands, unit.nodes, first, result, keep)
    out = tirx.decl_buffer(shape, "float32", "out")
    axes = operands.merged()
    *outer, inner = [math.prod(shape[axis] for axis in group) for group in axes]
    total, lanes = math.prod(shape), target.lanes
    parallel = target.threads > 1 and total >= WORTHWHILE

    def write(place: tirx.Expr | int, count: int) -> None:
        index = (ramp(place, count),)
        w.store(out, after(read(index), index), flat(out, place, count))

    rows = math.prod(outer)
    with w.loop("row", rows, parallel=parallel) as row:
        for place, count in spans(w, inner, lanes, parallel=parallel and rows == 1):
            operands.at(row, place, count)
            write(row * inner + place, count)
    value = Value(unit.outputs[0], layout, shape, "float32")
    function = w.function([*operands.placeholders, out])
    return Kernel([Call(function, operands.arguments, [value], "elementwise")], "elementwise")


def _layout(graph: Graph, unit: Unit, target: CpuTarget, native: dict[str, str]) -> str:
    """Packed if an input of the result's size is packed already, otherwise plain."""
    result = graph.tensor(unit.outputs[0])
    like = [name for name in unit.inputs if graph.tensor(name).shape == result.shape]
    if len(result.shape) == 4 and any(lanes_of(native.get(name, PLAIN)) for name in like):
        return packed(target.lanes)
    return PLAIN


class Merged(Operands):
    """Operands read at a row and a place in it (``at``), both counted over merged axes.

    ``kinds`` are their types.
    """

    kinds: Collection[str] = ("float32",)

    def __init__(
        self, graph: Graph, layout: str, shape: tuple[int, ...], target: CpuTarget
    ) -> None:
        super().__init__(graph, layout, target)
        self._shape = shape
        self._shapes: list[tuple[int, ...]] = []
        self._axes: list[list[int]] = []

    def _check(self, kind: str) -> None:
        if kind not in self.kinds:
            raise Unsupported(f"operand of type {kind}")

    def merged(self) -> list[list[int]]:
        """Groups the result's axes: within a group, each operand has all axes or broadcasts along all."""
        groups = [[0]] if self._shape else [[]]
        for axis in range(1, len(self._shape)):
            alike = all(
                self._kind(shape, axis - 1) == self._kind(shape, axis) for shape in self._shapes
            )
            if alike:
                groups[-1].append(axis)
            else:
                groups.append([axis])
        self._axes = groups
        return groups

    def _kind(self, shape: tuple[int, ...], axis: int) -> object:
        """Whether an operand has an axis; an axis of extent 1 joins the group before it."""
        while axis > 0 and self._shape[axis] == 1:
            axis -= 1
        return shape[axis] == self._shape[axis]

    def at(self, row: tirx.Expr | int, place: tirx.Expr | int, count: int) -> None:
        """Sets the position at which operands are read."""
        self._row, self._place, self._count = row, place, count

    def _constant(self, array: np.ndarray, result: Tensor) -> Callable[[Index], tirx.Expr]:
        self._check(array.dtype.name)
        if array.size == 1:
            scalar = tirx.const(array.reshape(-1)[0].item(), array.dtype.name)
            return lambda _: spread(scalar, self._count)
        shape = (1,) * (len(result.shape) - array.ndim) + array.shape
        lanes = lanes_of(self.layout)
        # Lanes beyond the channels are 1, to avoid a division by zero.
        stored = pack_array(array.reshape(shape), lanes, filling=1.0) if lanes else array
        stored = stored.reshape(shape) if not lanes else stored
        return self._reader(Weight(stored), stored.shape, stored.shape)

    def _value(self, name: str, result: Tensor) -> Callable[[Index], tirx.Expr]:
        tensor = self.graph.tensor(name)
        self._check(tensor.dtype)
        full = (1,) * (len(result.shape) - len(tensor.shape)) + tuple(tensor.shape)
        lanes = lanes_of(self.layout)
        if lanes and full[1] != result.shape[1]:
            # One element for all channels.
            plain = Value(name, PLAIN, tuple(tensor.shape), tensor.dtype)
            return self._reader(plain, tuple(tensor.shape), (*full, 1))
        if lanes and len(tensor.shape) != 4:
            raise Unsupported("operand that cannot be packed")
        stored = stored_shape(tensor.shape, self.layout)
        return self._reader(
            Value(name, self.layout, stored, tensor.dtype), stored, stored if lanes else full
        )

    def _reader(
        self, argument: Value | Weight, stored: tuple[int, ...], full: tuple[int, ...]
    ) -> Callable[[Index], tirx.Expr]:
        """Reads an operand of shape ``stored``; ``full`` is the shape with leading extents of 1."""
        kind = argument.dtype if isinstance(argument, Value) else argument.array.dtype.name
        placeholder = self.add(argument, stored, kind)
        self._shapes.append(full)

        def read(_: Index) -> tirx.Expr:
            *outer, inner = self._axes
            row, place, stride = self._row, 0, 1
            has_inner = any(full[axis] > 1 for axis in inner)
            if has_inner:
                stride, place = math.prod(full[axis] for axis in inner), self._place
            for group in reversed(outer):
                extent = math.prod(self._shape[axis] for axis in group)
                held = math.prod(full[axis] for axis in group)
                if held > 1:
                    place = place + row % extent * stride
                    stride *= held
                row = row // extent
            if has_inner:
                return placeholder[flat(placeholder, place, self._count)]
            return spread(placeholder[flat(placeholder, place, 1)], self._count)

        return read
