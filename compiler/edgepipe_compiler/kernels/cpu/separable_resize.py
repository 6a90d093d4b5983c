"""Resizing in every mode: one function per resized axis, a weighted sum of a few elements along it."""

from __future__ import annotations

import math

import numpy as np
from tvm import tirx

from ...errors import Unsupported
from ...frontend import resize_coordinates
from ...frontend.graph import Graph
from ...frontend.units import Unit
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN, lanes_of, stored_shape
from ..target import CpuTarget
from ..writer import Writer, spans, spread
from .vector_reduction import flat

# Weighted sums of up to this many elements are unrolled.
WRITTEN_OUT = 8


def lower(graph: Graph, unit: Unit, target: CpuTarget, native: dict[str, str]) -> Kernel:
    """Lowers a unit of one Resize or Upsample."""
    if len(unit.nodes) != 1:
        raise Unsupported("operators behind a resizing")
    (node,) = unit.nodes
    source = graph.tensor(node.inputs[0])
    if source.dtype != "float32":
        raise Unsupported("resizing of something other than float32")
    resized = resize_coordinates.resolve(graph, node)
    axes = [axis for axis in range(len(source.shape)) if not resized.copies(axis)]
    layout = native.get(node.inputs[0], PLAIN)
    if any(axis < 2 for axis in axes) or not lanes_of(layout):
        layout = PLAIN
    # Axes that shrink come first, to reduce the work of the others.
    axes.sort(key=lambda axis: resized.after[axis] / resized.before[axis])
    shape = list(source.shape)
    value = Value(node.inputs[0], layout, stored_shape(shape, layout), "float32")
    calls: list[Call] = []
    for number, axis in enumerate(axes or [len(shape) - 1]):
        shape[axis] = resized.after[axis]
        last = number == len(axes) - 1 or not axes
        name = node.outputs[0] if last else f"{unit.name}/{number}"
        result = Value(name, layout, stored_shape(shape, layout), "float32")
        taps = resized.taps(axis)
        tables = [Weight(taps.places.astype(np.int32)), Weight(taps.weights)]
        if taps.outside.any():
            filling = np.where(taps.outside, np.float32(resized.extrapolation), np.float32(0))
            tables.append(Weight(filling))
        function = _along(target, value.shape, result.shape, axis, tables)
        calls.append(Call(function, [value, *tables], [result], "interpolation"))
        value = result
    return Kernel(calls, "interpolation")


def _along(
    target: CpuTarget,
    before: tuple[int, ...],
    after: tuple[int, ...],
    axis: int,
    tables: list[Weight],
) -> tirx.PrimFunc:
    """Weighted sums along one axis. ``tables`` are indices, weights and addends."""
    source = tirx.decl_buffer(before, "float32", "source")
    out = tirx.decl_buffer(after, "float32", "out")
    buffers = [
        tirx.decl_buffer(table.array.shape, table.array.dtype.name, f"table{number}")
        for number, table in enumerate(tables)
    ]
    places, weights, *filling = buffers
    count = int(weights.shape[1])
    inner = math.prod(after[axis + 1 :])
    w = Writer()
    tasks = math.prod(after[: axis + 1])
    with w.loop("task", tasks, parallel=target.threads > 1) as task:
        place, begin = w.bind("place", task % after[axis]), task // after[axis] * before[axis]
        begin = w.bind("begin", begin)

        def element(tap: tirx.Expr | int, offset: tirx.Expr | int, lanes: int) -> tirx.Expr:
            row = (begin + places[place, tap]) * inner + offset
            return source[flat(source, row, lanes)] * spread(weights[place, tap], lanes)

        for offset, lanes in spans(w, inner, target.lanes):
            start = spread(filling[0][place] if filling else 0.0, lanes)
            at = flat(out, task * inner + offset, lanes)
            if count <= WRITTEN_OUT:
                total = start
                for tap in range(count):
                    total = total + element(tap, offset, lanes)
                w.store(out, total, at)
            else:
                held = w.local("held", lanes)
                whole = flat(held, 0, lanes)
                w.store(held, start, whole)
                with w.loop("tap", count) as tap:
                    w.store(held, held[whole] + element(tap, offset, lanes), whole)
                w.store(out, held[whole], at)
    return w.function([source, *buffers, out])
