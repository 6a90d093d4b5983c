"""Softmax and LogSoftmax along any axis of a plain tensor."""

from __future__ import annotations

import math

from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph
from ...frontend.units import Unit
from ..kernel import Call, Kernel, Value
from ..layout import PLAIN
from ..target import CpuTarget
from ..vector_math import exp, log
from ..writer import Index, Writer, ramp, spans, spread
from .vector_reduction import across, flat

KNOWN = ("Softmax", "LogSoftmax")
LOWEST = -3.0e38


def lower(graph: Graph, unit: Unit, target: CpuTarget) -> Kernel:
    """Lowers a unit of one softmax."""
    if len(unit.nodes) != 1:
        raise Unsupported("operators behind a softmax")
    (node,) = unit.nodes
    tensor = graph.tensor(node.inputs[0])
    if tensor.dtype != "float32" or not tensor.shape:
        raise Unsupported("softmax of something other than float32")
    rank = len(tensor.shape)
    # Up to opset 12, all axes from the given one on are reduced together.
    axis = node.attributes.get("axis", -1 if graph.opset >= 13 else 1) % rank
    last = axis + 1 if graph.opset >= 13 else rank
    outer = math.prod(tensor.shape[:axis])
    length, inner = math.prod(tensor.shape[axis:last]), math.prod(tensor.shape[last:])
    source = tirx.decl_buffer(tensor.shape, "float32", "source")
    out = tirx.decl_buffer(tensor.shape, "float32", "out")
    w = Writer()
    logarithm = node.op == "LogSoftmax"
    if inner == 1:
        with w.loop("row", outer, parallel=target.threads > 1) as row:
            _row(w, source, out, row * length, length, target.lanes, logarithm)
    else:
        chunks = _chunks(inner, target.lanes)
        with w.loop("task", outer * len(chunks), parallel=target.threads > 1) as task:
            for number, (begin, count) in enumerate(chunks):
                with w.when(_is(task % len(chunks), number)):
                    for place, lanes in spans(w, count, target.lanes):
                        first = task // len(chunks) * (length * inner) + begin + place
                        _column(w, source, out, first, length, inner, lanes, logarithm)
    value = Value(unit.outputs[0], PLAIN, tuple(tensor.shape), "float32")
    wanted = Value(node.inputs[0], PLAIN, tuple(tensor.shape), "float32")
    return Kernel([Call(w.function([source, out]), [wanted], [value], "softmax")], "softmax")


def _chunks(inner: int, lanes: int) -> list[tuple[int, int]]:
    """Two halves of the columns, so that one image occupies two threads."""
    half = inner // 2 // lanes * lanes
    return [(0, half), (half, inner - half)] if half else [(0, inner)]


def _is(place: Index, number: int) -> tirx.Expr:
    return tirx.const(place == number, "bool") if isinstance(place, int) else tirx.EQ(place, number)


def _row(
    w: Writer, source: tirx.Buffer, out: tirx.Buffer, first: Index, length: int, lanes: int,
    logarithm: bool,
) -> None:  # fmt: skip
    """Softmax of contiguous elements."""
    largest = across(
        w, length, lanes, LOWEST, tirx.max, lambda p, n: source[flat(source, first + p, n)]
    )

    def exponential(place: Index, count: int) -> tirx.Expr:
        value = exp(source[flat(source, first + place, count)] - spread(largest, count))
        if logarithm:
            return value
        value = w.bind("e", value)
        w.store(out, value, flat(out, first + place, count))
        return value

    total = across(w, length, lanes, 0.0, lambda a, b: a + b, exponential)
    if logarithm:
        below = w.bind("below", largest + log(total))
        for place, count in spans(w, length, lanes):
            value = source[flat(source, first + place, count)] - spread(below, count)
            w.store(out, value, flat(out, first + place, count))
        return
    factor = w.bind("factor", tirx.const(1.0, "float32") / total)
    for place, count in spans(w, length, lanes):
        index = flat(out, first + place, count)
        w.store(out, out[index] * spread(factor, count), index)


def _column(
    w: Writer, source: tirx.Buffer, out: tirx.Buffer, first: Index, length: int, inner: int,
    lanes: int, logarithm: bool,
) -> None:  # fmt: skip
    """Softmax of one column per lane."""
    held = w.local("largest", lanes)
    whole = [ramp(0, lanes)]
    w.store(held, spread(LOWEST, lanes), whole)
    with w.loop("a", length) as a:
        value = source[flat(source, first + a * inner, lanes)]
        w.store(held, tirx.max(held[whole[0]], value), whole)
    largest = w.bind("m", held[whole[0]])
    total = w.local("total", lanes)
    w.store(total, spread(0.0, lanes), whole)
    with w.loop("a", length) as a:
        index = flat(source, first + a * inner, lanes)
        value = w.bind("e", exp(source[index] - largest))
        w.store(total, total[whole[0]] + value, whole)
        if not logarithm:
            w.store(out, value, flat(out, first + a * inner, lanes))
    sum_ = w.bind("s", total[whole[0]])
    last = largest + log(sum_) if logarithm else spread(1.0, lanes) / sum_
    last = w.bind("last", last)
    with w.loop("a", length) as a:
        index = flat(out, first + a * inner, lanes)
        value = source[index] - last if logarithm else out[index] * last
        w.store(out, value, index)
