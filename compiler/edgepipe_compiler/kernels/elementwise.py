"""Element-wise operators on their own, and concatenation along channels, on packed or plain layout."""

from __future__ import annotations

from tvm import te, tirx

from ..graph import Graph
from ..units import ELEMENTWISE, Unit
from . import emit, epilogue
from .epilogue import Operands, Unsupported
from .kernel import Call, Kernel, Value
from .layout import PLAIN, lanes_of, packed, stored_shape
from .target import TargetDescription


def lower(graph: Graph, unit: Unit, target: TargetDescription, native: dict[str, str]) -> Kernel:
    """Lowers a unit of element-wise operators only."""
    if any(node.op not in ELEMENTWISE for node in unit.nodes) or len(unit.outputs) != 1:
        raise Unsupported("not element-wise")
    result = graph.tensor(unit.outputs[0])
    if result.dtype != "float32" or any(
        graph.tensor(node.outputs[0]).shape != result.shape for node in unit.nodes
    ):
        raise Unsupported("shapes or types that differ along the chain")
    layout = _layout(graph, unit, target, native)
    operands = Operands(graph, layout)
    first = unit.nodes[0].inputs[0]
    read = operands.read(first, result)
    after = epilogue.apply(operands, unit.nodes, first, result)
    shape = stored_shape(result.shape, layout)
    out = te.compute(shape, lambda *index: after(read(index), index), name="finished")
    s = emit.schedule(operands.placeholders, [out])
    emit.spatial(s, target, "finished")
    value = Value(unit.outputs[0], layout, shape, "float32")
    return Kernel([Call(s.mod["main"], operands.arguments, [value], "elementwise")], "elementwise")


def _layout(
    graph: Graph, unit: Unit, target: TargetDescription, native: dict[str, str]
) -> str:
    """Packed where an input of the result's size lies so already."""
    result = graph.tensor(unit.outputs[0])
    like = [name for name in unit.inputs if graph.tensor(name).shape == result.shape]
    if len(result.shape) == 4 and any(lanes_of(native.get(name, PLAIN)) for name in like):
        return packed(target.lanes)
    return PLAIN


def lower_concat(
    graph: Graph, unit: Unit, target: TargetDescription, native: dict[str, str]
) -> Kernel:
    """Lowers a concatenation of images along their channels where blocks of channels stay whole."""
    (concat,) = unit.nodes if len(unit.nodes) == 1 else (None,)
    if concat is None or concat.op != "Concat":
        raise Unsupported("not a concatenation alone")
    parts = [graph.tensor(name) for name in concat.inputs]
    result = graph.tensor(concat.outputs[0])
    lanes = target.lanes
    whole = all(part.shape[1] % lanes == 0 for part in parts[:-1] if len(part.shape) == 4)
    images = all(len(part.shape) == 4 and part.dtype == "float32" for part in parts)
    known = all(name not in graph.constants for name in concat.inputs)
    distinct = len(set(concat.inputs)) == len(concat.inputs)
    if not (whole and images and known and distinct) or concat.attributes["axis"] % 4 != 1:
        raise Unsupported("concatenation that splits vectors")
    layout = packed(lanes)
    operands = Operands(graph, layout)
    placeholders = []
    for name, part in zip(concat.inputs, parts, strict=True):
        shape = stored_shape(part.shape, layout)
        placeholders.append(operands.add(Value(name, layout, shape, "float32"), shape, "float32"))

    def element(n: tirx.Var, c: tirx.Var, y: tirx.Var, x: tirx.Var, v: tirx.Var) -> tirx.Expr:
        end = sum(int(placeholder.shape[1]) for placeholder in placeholders)
        value: tirx.Expr | None = None
        for placeholder in reversed(placeholders):
            end -= int(placeholder.shape[1])
            here = placeholder[n, c - end, y, x, v]
            value = here if value is None else tirx.if_then_else(c < end_of(end, placeholder), here, value)
        assert value is not None, "a concatenation has parts"
        return value

    shape = stored_shape(result.shape, layout)
    out = te.compute(shape, element, name="finished")
    s = emit.schedule(operands.placeholders, [out])
    emit.spatial(s, target, "finished")
    value = Value(unit.outputs[0], layout, shape, "float32")
    return Kernel([Call(s.mod["main"], operands.arguments, [value], "concat")], "concat")


def end_of(begin: int, placeholder: te.Tensor) -> int:
    """First block after a part that begins at block ``begin``."""
    return begin + int(placeholder.shape[1])
