"""float32 sums, means, minima and maxima over axes of a plain tensor."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import partial

from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph, Node
from ...frontend.units import Unit
from ..epilogue import logarithm
from ..kernel import Call, Kernel, Value
from ..layout import PLAIN
from ..min_max import extreme
from ..target import CpuTarget
from ..vector_math import Lets
from ..writer import Index, Writer, ramp, spans, spread
from . import scalar_reductions
from .vector_reduction import Combine, across, flat

# The neutral element and the combining function.
COMBINED: dict[str, tuple[float, Combine]] = {
    "ReduceMean": (0.0, operator.add),
    "ReduceSum": (0.0, operator.add),
    "ReduceSumSquare": (0.0, operator.add),
    "ReduceL1": (0.0, operator.add),
    "ReduceLogSum": (0.0, operator.add),
    "ReduceL2": (0.0, operator.add),
    "ReduceProd": (1.0, operator.mul),
    "ReduceMax": (-math.inf, partial(extreme, True)),
    "ReduceMin": (math.inf, partial(extreme, False)),
    "GlobalMaxPool": (-math.inf, tirx.max),
    "GlobalAveragePool": (0.0, operator.add),
}
KNOWN = (*COMBINED, "ReduceLogSumExp")


def lower(graph: Graph, unit: Unit, target: CpuTarget) -> Kernel:
    """Lowers a unit of one reduction."""
    if len(unit.nodes) != 1:
        raise Unsupported("operators behind a reduction")
    (node,) = unit.nodes
    tensor, result = graph.tensor(node.inputs[0]), graph.tensor(node.outputs[0])
    shape = tuple(tensor.shape)
    axes = axes_of(graph, node)
    if tensor.dtype != "float32" or node.op == "ReduceLogSumExp" or not tensor.elements:
        return scalar_reductions.lower(graph, unit, target, axes)
    value = Value(node.inputs[0], PLAIN, shape, "float32")
    length = math.prod(shape[axis] for axis in axes)
    calls: list[Call] = []
    # Adjacent axes are reduced in one pass, the last ones first.
    groups = _groups(shape, axes)
    for place, group in enumerate(groups):
        last = place == len(groups) - 1
        shape = tuple(1 if axis in group else extent for axis, extent in enumerate(shape))
        made = Value(f"{unit.name}/part{place}", PLAIN, shape, "float32")
        if last:
            made = Value(unit.outputs[0], PLAIN, tuple(result.shape), "float32")
        pass_ = _Pass(node.op, place == 0, last, length, group)
        calls.append(pass_.write(value, made, target))
        value = made
    return Kernel(calls, "reduction")


def _groups(shape: tuple[int, ...], axes: list[int]) -> list[tuple[int, ...]]:
    """Groups adjacent axes, ignoring extents of 1 between them. Returns at least one group."""
    groups: list[list[int]] = []
    for axis in [axis for axis in axes if shape[axis] > 1]:
        if groups and all(shape[other] == 1 for other in range(groups[-1][-1] + 1, axis)):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    return [tuple(group) for group in reversed(groups)] or [()]


@dataclass(frozen=True)
class _Pass:
    """One pass over a ``group`` of axes.

    The first pass squares or takes absolute values; the last one divides by ``length`` or takes the root.
    """

    op: str
    first: bool
    last: bool
    length: int
    group: tuple[int, ...]

    def write(self, wanted: Value, value: Value, target: CpuTarget) -> Call:
        """The call that produces ``wanted`` from ``value``."""
        shape, group = wanted.shape, self.group
        # A reduction over no axes still takes squares and roots.
        begin, end = (group[0], group[-1] + 1) if group else (len(shape), len(shape))
        outer, inner = math.prod(shape[:begin]), math.prod(shape[end:])
        length = math.prod(shape[begin:end])
        neutral, operation = COMBINED[self.op]
        source = tirx.decl_buffer(shape, "float32", "source")
        out = tirx.decl_buffer(value.shape, "float32", "out")
        w = Writer()

        def combine(first: tirx.Expr, second: tirx.Expr) -> tirx.Expr:
            # Each is read several times in the tree that combines lanes. TVM duplicates a bound
            # expression at each use, but not a stored one.
            made = operation(w.bind("a", first), w.bind("b", second))
            if self.op not in ("ReduceMax", "ReduceMin"):
                return made
            lanes = int(str(first.ty).partition("x")[2] or 1)
            held = w.local("held", lanes)
            w.store(held, made, [ramp(0, lanes)])
            return held[ramp(0, lanes)]

        def element(place: Index, lanes: int) -> tirx.Expr:
            value = source[flat(source, place, lanes)]
            if not self.first:
                return value
            if self.op in ("ReduceSumSquare", "ReduceL2"):
                value = w.bind("v", value)
                return value * value
            if self.op == "ReduceL1":
                value = w.bind("v", value)
                return tirx.max(value, spread(0.0, lanes) - value)
            return value

        with w.loop("task", outer, parallel=target.threads > 1) as task:
            if inner == 1:
                first = task * length
                total = across(
                    w, length, target.lanes, neutral, combine, lambda p, n: element(first + p, n)
                )
                w.store(out, self._finish(total, 1), flat(out, task, 1))
            else:
                for place, lanes in spans(w, inner, target.lanes):
                    total, whole = w.local("total", lanes), ramp(0, lanes)
                    w.store(total, spread(neutral, lanes), [whole])
                    with w.loop("r", length) as r:
                        item = element((task * length + r) * inner + place, lanes)
                        w.store(total, combine(total[whole], item), [whole])
                    index = flat(out, task * inner + place, lanes)
                    w.store(out, self._finish(total[whole], lanes), index)
        return Call(w.function([source, out]), [wanted], [value], "reduction")

    def _finish(self, total: tirx.Expr, lanes: int) -> tirx.Expr:
        if not self.last:
            return total
        if self.op in ("ReduceMean", "GlobalAveragePool"):
            return total * spread(1.0 / self.length, lanes)
        if self.op == "ReduceLogSum":
            lets = Lets()
            return lets.around(logarithm(total, lets))
        return tirx.sqrt(total) if self.op == "ReduceL2" else total


def axes_of(graph: Graph, node: Node) -> list[int]:
    """The sorted axes of a reduction."""
    rank = len(graph.tensor(node.inputs[0]).shape)
    if node.op.startswith("Global"):
        return list(range(2, rank))
    axes = node.attributes.get("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1]:
        array = graph.constants.get(node.inputs[1])
        if array is None:
            raise Unsupported("axes that are not constant")
        axes = array.reshape(-1).tolist()
    if not axes and node.attributes.get("noop_with_empty_axes", 0) == 1:
        return []
    return sorted(axis % rank for axis in axes) if axes else list(range(rank))
