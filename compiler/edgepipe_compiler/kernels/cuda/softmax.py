"""Softmax and LogSoftmax along any axis."""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph
from ...frontend.units import Unit
from ..kernel import Call, Kernel, Value
from ..layout import PLAIN
from ..pools import LOWEST
from ..target import CudaTarget
from ..vector_math import Lets, exp, log
from .results import keep
from .writer import KernelWriter

KNOWN = ("Softmax", "LogSoftmax")
# Threads that share a row, and threads of a block with a column each.
MOST_TOGETHER, COLUMNS = 128, 64


def lower(graph: Graph, unit: Unit, target: CudaTarget) -> Kernel:
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
    source = tirx.decl_buffer((tensor.elements,), "float32", "source")
    out = tirx.decl_buffer((tensor.elements,), "float32", "out")
    logarithm = node.op == "LogSoftmax"
    write = _rows if inner == 1 else _columns
    function = write(source, out, outer, length, inner, logarithm)
    value = Value(unit.outputs[0], PLAIN, tuple(tensor.shape), "float32")
    given = Value(node.inputs[0], PLAIN, tuple(tensor.shape), "float32")
    return Kernel([Call(function, [given], [value], "softmax")], "softmax")


def _lets(w: KernelWriter) -> Lets:
    return Lets(lambda name, value: keep(w, name, value))


def _finished(
    w: KernelWriter, value: tirx.Expr, largest: tirx.Expr, total: tirx.Expr, logarithm: bool
) -> tirx.Expr:
    if logarithm:
        return value - total
    return exp(value - largest, _lets(w)) * total


def _last(w: KernelWriter, largest: tirx.Expr, total: tirx.Expr, logarithm: bool) -> tirx.Expr:
    """What each exponential is multiplied by, or, for the logarithm, what is subtracted."""
    if logarithm:
        return keep(w, "below", largest + log(total, _lets(w)))
    return keep(w, "factor", tirx.const(1.0, "float32") / total)


def _rows(
    source: tirx.Buffer, out: tirx.Buffer, rows: int, length: int, _: int, logarithm: bool
) -> tirx.PrimFunc:
    """A block for each row of adjacent elements."""
    threads = 32
    while threads < MOST_TOGETHER and threads * 2 < length:
        threads *= 2
    w = KernelWriter((rows,), (threads,))
    thread = w.thread_index[0]
    shared = w.shared("shared", threads)
    first = w.bind("first", w.block_index[0] * length)

    def each(do: Callable[[tirx.Expr], None]) -> None:
        with w.loop("round", length // threads) as round_:
            do(w.bind("place", first + round_ * threads + thread))
        if length % threads:
            with w.when(thread < length % threads):
                do(w.bind("place", first + length // threads * threads + thread))

    def across(held: tirx.Buffer, combine: Callable[..., tirx.Expr]) -> tirx.Expr:
        """Combines the threads' values by halves."""
        w.store(shared, held[0], [thread])
        w.barrier()
        step = threads // 2
        while step:
            with w.when(thread < step):
                w.store(shared, combine(shared[thread], shared[thread + step]), [thread])
            w.barrier()
            step //= 2
        result = keep(w, "all", shared[0])
        w.barrier()
        return result

    held = w.variable("held", LOWEST)
    each(lambda place: w.store(held, tirx.max(held[0], source[place]), [0]))
    largest = across(held, tirx.max)
    w.store(held, tirx.const(0.0, "float32"), [0])
    each(lambda place: w.store(held, held[0] + exp(source[place] - largest, _lets(w)), [0]))
    last = _last(w, largest, across(held, lambda a, b: a + b), logarithm)
    each(lambda at: w.store(out, _finished(w, source[at], largest, last, logarithm), [at]))
    return w.function([source, out])


def _columns(
    source: tirx.Buffer, out: tirx.Buffer, outer: int, length: int, inner: int, logarithm: bool
) -> tirx.PrimFunc:
    """A thread for each column; adjacent threads have adjacent columns."""
    total = outer * inner
    w = KernelWriter((-(-total // COLUMNS),), (COLUMNS,))
    place = w.bind("place", w.block_index[0] * COLUMNS + w.thread_index[0])
    with w.when(place < total if total % COLUMNS else None):
        first = w.bind("first", place // inner * (length * inner) + place % inner)

        def each(do: Callable[[tirx.Expr], None]) -> None:
            with w.loop("a", length) as a:
                do(w.bind("at", first + a * inner))

        held = w.variable("held", LOWEST)
        each(lambda at: w.store(held, tirx.max(held[0], source[at]), [0]))
        largest = keep(w, "largest", held[0])
        w.store(held, tirx.const(0.0, "float32"), [0])
        each(lambda at: w.store(held, held[0] + exp(source[at] - largest, _lets(w)), [0]))
        last = _last(w, largest, held[0], logarithm)
        each(lambda at: w.store(out, _finished(w, source[at], largest, last, logarithm), [at]))
    return w.function([source, out])
