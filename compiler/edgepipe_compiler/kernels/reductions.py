"""Sums, means, extremes over axes of a plain tensor that lie side by side."""

from __future__ import annotations

import math
import operator

from tvm import tirx

from ..graph import Graph, Node
from ..units import Unit
from .epilogue import Unsupported
from .kernel import Call, Kernel, Value
from .layout import PLAIN
from .rows import Combine, across, flat
from .target import TargetDescription
from .writer import Index, Writer, at, spans, spread

LOWEST = -3.4028234e38
# The neutral element and how two are combined.
COMBINED: dict[str, tuple[float, Combine]] = {
    "ReduceMean": (0.0, operator.add),
    "ReduceSum": (0.0, operator.add),
    "ReduceSumSquare": (0.0, operator.add),
    "ReduceL1": (0.0, operator.add),
    "ReduceL2": (0.0, operator.add),
    "ReduceProd": (1.0, operator.mul),
    "ReduceMax": (LOWEST, tirx.max),
    "ReduceMin": (-LOWEST, tirx.min),
    "GlobalMaxPool": (LOWEST, tirx.max),
    "GlobalAveragePool": (0.0, operator.add),
}
KNOWN = tuple(COMBINED)


def lower(graph: Graph, unit: Unit, target: TargetDescription) -> Kernel:
    """Lowers a unit of one reduction."""
    if len(unit.nodes) != 1:
        raise Unsupported("operators behind a reduction")
    (node,) = unit.nodes
    tensor, result = graph.tensor(node.inputs[0]), graph.tensor(node.outputs[0])
    if tensor.dtype != "float32":
        raise Unsupported("reduction of something else than float32")
    shape = tensor.shape
    axes = axes_of(graph, node)
    # Axes of extent 1 are on either side.
    wide = [axis for axis in axes if shape[axis] > 1] or axes[:1]
    between = [axis for axis in range(wide[0], wide[-1]) if axis not in axes and shape[axis] > 1]
    if between or not wide:
        raise Unsupported("axes apart from each other")
    outer, inner = math.prod(shape[: wide[0]]), math.prod(shape[wide[-1] + 1 :])
    length = math.prod(shape[wide[0] : wide[-1] + 1])
    neutral, combine = COMBINED[node.op]
    source = tirx.decl_buffer(shape, "float32", "source")
    out = tirx.decl_buffer(result.shape, "float32", "out")
    w = Writer()

    def element(place: Index, lanes: int) -> tirx.Expr:
        value = source[flat(source, place, lanes)]
        if node.op in ("ReduceSumSquare", "ReduceL2"):
            value = w.bind("v", value)
            return value * value
        if node.op == "ReduceL1":
            value = w.bind("v", value)
            return tirx.max(value, spread(0.0, lanes) - value)
        return value

    def finish(total: tirx.Expr, lanes: int) -> tirx.Expr:
        if node.op in ("ReduceMean", "GlobalAveragePool"):
            return total * spread(1.0 / length, lanes)
        return tirx.sqrt(total) if node.op == "ReduceL2" else total

    with w.loop("task", outer, parallel=target.threads > 1) as task:
        if inner == 1:
            first = task * length
            total = across(
                w, length, target.lanes, neutral, combine, lambda p, n: element(first + p, n)
            )
            w.store(out, finish(total, 1), flat(out, task, 1))
        else:
            for place, lanes in spans(w, inner, target.lanes):
                total, whole = w.local("total", lanes), at(0, lanes)
                w.store(total, spread(neutral, lanes), [whole])
                with w.loop("r", length) as r:
                    value = element((task * length + r) * inner + place, lanes)
                    w.store(total, combine(total[whole], value), [whole])
                w.store(out, finish(total[whole], lanes), flat(out, task * inner + place, lanes))
    value = Value(unit.outputs[0], PLAIN, tuple(result.shape), "float32")
    wanted = Value(node.inputs[0], PLAIN, tuple(shape), "float32")
    return Kernel([Call(w.function([source, out]), [wanted], [value], "reduction")], "reduction")


def axes_of(graph: Graph, node: Node) -> list[int]:
    """The axes a reduction runs over, in order."""
    rank = len(graph.tensor(node.inputs[0]).shape)
    if node.op.startswith("Global"):
        return list(range(2, rank))
    axes = node.attributes.get("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1]:
        array = graph.constants.get(node.inputs[1])
        if array is None:
            raise Unsupported("axes that are not constant")
        axes = array.reshape(-1).tolist()
    if not axes and node.attributes.get("noop_with_empty_axes", 0):
        raise Unsupported("a reduction over nothing")
    return sorted(axis % rank for axis in axes) if axes else list(range(rank))
