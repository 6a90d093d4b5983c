"""One element-wise operator for any type and rank, in plain layout.

The loops are scalar; the code generator vectorizes them where it can.
"""

from __future__ import annotations

import math

from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph
from ...frontend.units import Unit
from ..kernel import Call, Kernel, Value
from ..layout import PLAIN
from ..target import CpuTarget
from ..writer import Writer
from . import scalar_expressions
from .elementwise import WORTHWHILE, Merged
from .scalar_expressions import KNOWN, TYPES
from .vector_reduction import flat

__all__ = ["KNOWN", "lower"]


class _Typed(Merged):
    kinds = TYPES


def lower(graph: Graph, unit: Unit, target: CpuTarget) -> Kernel:
    """Lowers a unit of one operator."""
    if len(unit.nodes) != 1 or unit.nodes[0].op not in KNOWN:
        raise Unsupported("not one known operator")
    (node,) = unit.nodes
    result = graph.tensor(node.outputs[0])
    read = node.inputs[:1] if node.op == "CastLike" else node.inputs
    if result.dtype not in TYPES:
        raise Unsupported(f"result of type {result.dtype}")
    operands = _Typed(graph, PLAIN, tuple(result.shape), target)
    readers = [operands.read(name, result) if name else None for name in read]
    w = Writer()
    out = tirx.decl_buffer(result.shape, result.dtype, "out")
    *outer, inner = [math.prod(result.shape[axis] for axis in group) for group in operands.merged()]
    rows = math.prod(outer)
    parallel = target.threads > 1 and rows * inner >= WORTHWHILE
    with (
        w.loop("row", rows, parallel=parallel) as row,
        w.loop("e", inner, parallel=parallel and rows == 1) as place,
    ):
        operands.at(row, place, 1)
        elements = [None if reader is None else reader(()) for reader in readers]
        value = scalar_expressions.expression(graph, node, elements)
        w.store(out, value, flat(out, row * inner + place, 1))
    function = w.function([*operands.placeholders, out])
    made = Value(unit.outputs[0], PLAIN, tuple(result.shape), result.dtype)
    return Kernel([Call(function, operands.arguments, [made], "elementwise")], "elementwise")
