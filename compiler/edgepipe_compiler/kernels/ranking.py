"""Greatest and least elements along an axis, with where they lie: ArgMax, ArgMin and TopK of any type."""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm import tirx

from ..graph import Graph
from ..units import Unit
from . import formulas
from .epilogue import Unsupported
from .formulas import FLOATS, INTEGERS
from .kernel import Call, Kernel, Value
from .layout import PLAIN
from .rows import flat
from .target import TargetDescription
from .writer import Index, Writer

KNOWN = ("ArgMax", "ArgMin", "TopK")


def lower(graph: Graph, unit: Unit, target: TargetDescription) -> Kernel:
    """Lowers a unit of one operator."""
    if len(unit.nodes) != 1:
        raise Unsupported("operators behind a ranking")
    (node,) = unit.nodes
    tensor = graph.tensor(node.inputs[0])
    if tensor.dtype not in (*FLOATS, *INTEGERS) or not tensor.shape:
        raise Unsupported(f"ranking of {tensor.dtype}")
    shape = tuple(tensor.shape)
    axis = node.attributes.get("axis", -1 if node.op == "TopK" else 0) % len(shape)
    extent, inner = shape[axis], math.prod(shape[axis + 1 :])
    outer = math.prod(shape[:axis])
    source = tirx.decl_buffer(shape, tensor.dtype, "source")
    made = [
        Value(name or f"{unit.name}/{place}", PLAIN, _made(graph, node.outputs), kind)
        for place, (name, kind) in enumerate(
            zip(node.outputs, _kinds(node.op, tensor.dtype), strict=False)
        )
    ]
    if node.op == "TopK" and len(made) == 1:
        # Both are needed to find either.
        made.append(Value(f"{unit.name}/1", PLAIN, made[0].shape, "int64"))
    outs = [
        tirx.decl_buffer(value.shape, value.dtype, f"out{place}")
        for place, value in enumerate(made)
    ]
    w = Writer()
    with w.loop("task", outer * inner, parallel=target.threads > 1) as task:
        row, column = w.bind("row", task // inner), w.bind("column", task % inner)

        def element(place: Index) -> tirx.Expr:
            return source[flat(source, (row * extent + place) * inner + column, 1)]

        if node.op == "TopK":
            largest = bool(node.attributes.get("largest", 1))
            count = made[0].shape[axis]
            _best(w, element, outs, (row * count, inner, column), extent, count, largest)
        else:
            last = bool(node.attributes.get("select_last_index", 0))
            largest = node.op == "ArgMax"
            _extreme(w, element, outs[0], task, extent, largest, last, tensor.dtype)
    wanted = Value(node.inputs[0], PLAIN, shape, tensor.dtype)
    function = w.function([source, *outs])
    return Kernel([Call(function, [wanted], made, node.op.lower())], "ranking")


def _made(graph: Graph, outputs: list[str]) -> tuple[int, ...]:
    return tuple(graph.tensor(next(name for name in outputs if name)).shape)


def _kinds(op: str, kind: str) -> tuple[str, ...]:
    return (kind, "int64") if op == "TopK" else ("int64",)


def _extreme(
    w: Writer,
    element: Callable[[Index], tirx.Expr],
    out: tirx.Buffer,
    task: Index,
    extent: int,
    largest: bool,
    last: bool,
    kind: str,
) -> None:
    """The index of the first or last of the greatest or least elements."""
    best, where = w.local("best", 1, kind), w.local("where", 1, "int64")
    w.store(best, element(0), [0])
    w.store(where, tirx.const(0, "int64"), [0])
    compare = {
        (True, False): tirx.GT, (True, True): tirx.GE,
        (False, False): tirx.LT, (False, True): tirx.LE,
    }[largest, last]  # fmt: skip
    if extent > 1:
        with w.loop("i", extent - 1, 1) as i:
            value = w.bind("v", element(i))
            with w.when(compare(value, best[0])):
                w.store(best, value, [0])
                place = i if isinstance(i, int) else i.astype("int64")
                w.store(where, tirx.const(i, "int64") if isinstance(i, int) else place, [0])
    w.store(out, where[0], flat(out, task, 1))


def _better(largest: bool, first: tirx.Expr, second: tirx.Expr) -> tirx.Expr:
    """NaN counts as the greatest."""
    better = tirx.GT(first, second) if largest else tirx.LT(first, second)
    if str(first.ty) not in FLOATS:
        return better
    more, less = (first, second) if largest else (second, first)
    return tirx.Or(better, tirx.And(formulas.is_nan(more), tirx.Not(formulas.is_nan(less))))


def _best(
    w: Writer,
    element: Callable[[Index], tirx.Expr],
    outs: list[tirx.Buffer],
    place: tuple[Index, int, Index],
    extent: int,
    count: int,
    largest: bool,
) -> None:
    """Keeps the best in order, as they come; of equal ones the first comes first."""
    begin, inner, column = place
    values, indices = outs
    kind = values.dtype

    def at(step: Index) -> tuple[Index, ...]:
        return flat(values, (begin + step) * inner + column, 1)

    value, index = w.local("value", 1, kind), w.local("index", 1, "int64")
    moved = w.local("moved", 1, "int32")
    with w.loop("i", extent) as i:
        here = tirx.const(i, "int32") if isinstance(i, int) else i
        found = w.bind("found", element(i))
        # Until the list is full, its last element is none.
        full = here >= count
        last = w.bind("last", tirx.if_then_else(full, values[at(count - 1)], found))
        with w.when(tirx.Or(tirx.Not(full), _better(largest, found, last))):
            w.store(value, found, [0])
            w.store(index, here.astype("int64"), [0])
            w.store(moved, tirx.const(0, "int32"), [0])
            held = w.bind("held", tirx.min(here, count))
            with w.loop("j", held) as j:
                old = w.bind("old", values[at(j)])
                # What is behind the place of a new one moves on by one.
                with w.when(tirx.Or(moved[0] > 0, _better(largest, value[0], old))):
                    w.store(moved, tirx.const(1, "int32"), [0])
                    old_index = w.bind("old_index", indices[at(j)])
                    w.store(values, value[0], at(j))
                    w.store(indices, index[0], at(j))
                    w.store(value, old, [0])
                    w.store(index, old_index, [0])
            with w.when(tirx.Not(full)):
                w.store(values, value[0], at(held))
                w.store(indices, index[0], at(held))
