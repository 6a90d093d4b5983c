"""Flatten, Reshape, Squeeze and Unsqueeze: a copy to another shape, directly from packed layout if the
input is packed.
"""

from __future__ import annotations

from tvm import te, tirx

from ...errors import Unsupported
from ...frontend.graph import Graph, Tensor
from ...frontend.units import Unit
from ..kernel import Call, Kernel, Value
from ..layout import PLAIN, lanes_of, stored_shape
from ..target import CpuTarget
from ..writer import Writer, spans
from . import schedule
from .layout_conversion import transposing
from .vector_reduction import flat


def lower(graph: Graph, unit: Unit, target: CpuTarget, native: dict[str, str]) -> Kernel:
    """Lowers a unit of one operator."""
    (node,) = unit.nodes if len(unit.nodes) == 1 else (None,)
    if node is None or node.inputs[0] in graph.constants:
        raise Unsupported("more than a change of shape")
    source, result = graph.tensor(node.inputs[0]), graph.tensor(unit.outputs[0])
    layout = native.get(node.inputs[0], PLAIN)
    lanes = lanes_of(layout)
    shape = stored_shape(source.shape, layout)
    wanted = Value(node.inputs[0], layout, shape, source.dtype)
    value = Value(unit.outputs[0], PLAIN, tuple(result.shape), result.dtype)
    if lanes and source.dtype == "float32" and source.shape[2] * source.shape[3] >= lanes:
        function = transposing(shape, tuple(result.shape), source.shape, False, target)
        return Kernel([Call(function, [wanted], [value], "reshape")], "reshape")
    if not lanes:
        return Kernel([_copy(source, result, wanted, value, target)], "reshape")
    data = te.placeholder(shape, source.dtype, name="source")

    def element(*index: tirx.Var) -> tirx.Expr:
        place: tirx.Expr = tirx.const(0, "int32")
        for position, extent in zip(index, result.shape, strict=True):
            place = place * extent + position
        old: list[tirx.Expr] = []
        for extent in reversed(source.shape):
            old.insert(0, tirx.indexmod(place, extent))
            place = tirx.indexdiv(place, extent)
        n, c, y, x = old
        return data[n, c // lanes, y, x, c % lanes]

    out = te.compute(result.shape, element, name="finished")
    function = schedule.spatial(data, out, target)
    return Kernel([Call(function, [wanted], [value], "reshape")], "reshape")


def _copy(source: Tensor, result: Tensor, wanted: Value, value: Value, target: CpuTarget) -> Call:
    """Copies the elements in order."""
    data = tirx.decl_buffer(source.shape, source.dtype, "source")
    out = tirx.decl_buffer(result.shape, result.dtype, "out")
    w = Writer()
    # TVM has no boolean vectors.
    lanes = 1 if source.dtype == "bool" else target.lanes
    for place, count in spans(w, source.elements, lanes, parallel=target.threads > 1):
        w.store(out, data[flat(data, place, count)], flat(out, place, count))
    return Call(w.function([data, out]), [wanted], [value], "reshape")
