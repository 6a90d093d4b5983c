"""Reductions for any type over any axes, element by element.

Integers are summed in 64 bits and float16 in float32. Means of integers truncate towards zero, as in ONNX
Runtime.
"""

from __future__ import annotations

import math
from contextlib import ExitStack

import numpy as np
from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph
from ...frontend.units import Unit
from ..kernel import Call, Kernel, Value
from ..layout import PLAIN
from ..min_max import extreme
from ..target import CpuTarget
from ..writer import Index, Writer
from . import scalar_expressions
from .scalar_expressions import FLOATS, TYPES, call, cast
from .vector_reduction import flat

EXTREMES = ("ReduceMax", "ReduceMin", "GlobalMaxPool")
MEANS = ("ReduceMean", "GlobalAveragePool")


def lower(graph: Graph, unit: Unit, target: CpuTarget, axes: list[int]) -> Kernel:
    """Lowers a unit of one reduction over ``axes``."""
    (node,) = unit.nodes
    tensor, result = graph.tensor(node.inputs[0]), graph.tensor(node.outputs[0])
    if tensor.dtype not in TYPES or result.dtype != tensor.dtype:
        raise Unsupported(f"reduction of {tensor.dtype}")
    op, kind = node.op, tensor.dtype
    inner = kind if op in EXTREMES or kind == "float64" else "float32"
    if kind not in FLOATS and op not in EXTREMES:
        # Logarithms and roots of integers are computed in floating point.
        inner = "float64" if op in ("ReduceLogSum", "ReduceLogSumExp", "ReduceL2") else "int64"
    shape = tuple(tensor.shape)
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    source = tirx.decl_buffer(shape, kind, "source")
    out = tirx.decl_buffer(result.shape, kind, "out")
    w = Writer()

    def over(first: Index, total: tirx.Buffer, largest: tirx.Expr | None, step: str) -> None:
        """Combines all elements of the result whose first element is at ``first``."""
        with ExitStack() as loops:
            place: Index = first
            for axis in axes:
                index = loops.enter_context(w.loop(f"r{axis}", shape[axis]))
                place = place + index * strides[axis]
            value = w.bind("v", cast(source[flat(source, place, 1)], inner))
            w.store(total, _combined(step, total[0], value, largest), [0])

    with w.loop("task", result.elements, parallel=target.threads > 1) as task:
        first: Index = tirx.const(0, "int32")
        rest = task
        for axis in reversed(kept):
            first = first + rest % shape[axis] * strides[axis]
            rest = rest // shape[axis]
        first = w.bind("first", first)
        total = w.local("total", 1, inner)
        largest = None
        if op == "ReduceLogSumExp":
            greatest = w.local("greatest", 1, inner)
            w.store(greatest, _neutral("ReduceMax", inner), [0])
            over(first, greatest, None, "ReduceMax")
            # An infinite maximum is not subtracted.
            bound = w.bind("greatest", greatest[0])
            finite = tirx.LT(tirx.abs(bound), tirx.const(math.inf, inner))
            largest = w.bind("shift", tirx.Select(finite, bound, tirx.const(0, inner)))
        w.store(total, _neutral(op, inner), [0])
        over(first, total, largest, op)
        length = math.prod(shape[axis] for axis in axes)
        w.store(out, cast(_finished(op, total[0], length, largest), kind), flat(out, task, 1))
    value = Value(unit.outputs[0], PLAIN, tuple(result.shape), kind)
    wanted = Value(node.inputs[0], PLAIN, shape, kind)
    return Kernel([Call(w.function([source, out]), [wanted], [value], "reduction")], "reduction")


def _neutral(op: str, kind: str) -> tirx.Expr:
    if op == "ReduceProd":
        return tirx.const(1, kind)
    if op not in EXTREMES:
        return tirx.const(0, kind)
    largest = op != "ReduceMin"
    if kind in FLOATS:
        return tirx.const(-math.inf if largest else math.inf, kind)
    if kind == "bool":
        return tirx.const(not largest, kind)
    limits = np.iinfo(kind)
    return tirx.const(int(limits.min if largest else limits.max), kind)


def _combined(op: str, total: tirx.Expr, value: tirx.Expr, largest: tirx.Expr | None) -> tirx.Expr:
    if op in EXTREMES:
        return extreme(op != "ReduceMin", total, value)
    match op:
        case "ReduceProd":
            return total * value
        case "ReduceSumSquare" | "ReduceL2":
            return total + value * value
        case "ReduceL1":
            return total + scalar_expressions.absolute(value)
        case "ReduceLogSumExp":
            return total + call("exp", value - largest)
    return total + value


def _finished(op: str, total: tirx.Expr, length: int, largest: tirx.Expr | None) -> tirx.Expr:
    kind = str(total.ty)
    if op in MEANS:
        count = tirx.const(length, kind)
        return total / count if kind in FLOATS else tirx.truncdiv(total, count)
    if op == "ReduceL2":
        return tirx.sqrt(total)
    if op in ("ReduceLogSum", "ReduceLogSumExp"):
        made = call("log", total)
        return made if largest is None else made + largest
    return total
