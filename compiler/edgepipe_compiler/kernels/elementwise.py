"""Element-wise operators on their own, on packed or plain layout."""

from __future__ import annotations

from tvm import te

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


def _layout(graph: Graph, unit: Unit, target: TargetDescription, native: dict[str, str]) -> str:
    """Packed where an input of the result's size lies so already."""
    result = graph.tensor(unit.outputs[0])
    like = [name for name in unit.inputs if graph.tensor(name).shape == result.shape]
    if len(result.shape) == 4 and any(lanes_of(native.get(name, PLAIN)) for name in like):
        return packed(target.lanes)
    return PLAIN
