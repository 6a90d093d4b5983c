"""Units of element-wise operators only. A thread computes four adjacent elements, or one."""

from __future__ import annotations

from ...errors import Unsupported
from ...frontend.graph import Graph
from ...frontend.units import ELEMENTWISE, Unit
from ..epilogue import Operands
from ..kernel import Kernel
from ..layout import PLAIN
from ..target import CudaTarget
from ..writer import Index
from .results import Results, is_whole
from .writer import KernelWriter

THREADS = 128


def lower(graph: Graph, unit: Unit, target: CudaTarget) -> Kernel:
    """Lowers a unit of element-wise operators on float32."""
    if any(node.op not in ELEMENTWISE for node in unit.nodes) or len(unit.outputs) != 1:
        raise Unsupported("not element-wise")
    result = graph.tensor(unit.outputs[0])
    shape = tuple(result.shape)
    if (
        result.dtype != "float32"
        or not shape
        or any(graph.tensor(node.outputs[0]).shape != result.shape for node in unit.nodes)
    ):
        raise Unsupported("shapes or types that differ along the chain")
    made = {name for node in unit.nodes for name in node.outputs}
    read = {name for node in unit.nodes for name in node.inputs if name} - made
    inner = max(
        axes
        for axes in range(1, len(shape) + 1)
        if all(is_whole(graph.tensor(name), shape[-axes:]) for name in read)
    )
    first = unit.nodes[0].inputs[0]
    operands = Operands(graph, PLAIN, None)
    results = Results(
        graph, operands, unit.nodes, first, unit.outputs[0], inner=inner, tensor=result
    )
    lanes = results.lanes
    pieces = results.row // lanes
    total = result.elements // lanes
    w = KernelWriter((-(-total // THREADS),), (THREADS,))
    place = w.bind("place", w.block_index[0] * THREADS + w.thread_index[0])
    write = results.writer(w)
    with w.when(place < total if total % THREADS else None):
        position = w.bind(
            "position", place % pieces * lanes if len(shape) > inner else place * lanes
        )
        write(None, unravel(place // pieces, shape[:-inner]), position, lanes)
    function = w.function([*operands.placeholders, results.out])
    return Kernel([results.call(function, "elementwise")], "elementwise")


def unravel(place: Index, shape: tuple[int, ...]) -> tuple[Index, ...]:
    """The index of element number ``place`` of a tensor."""
    index: list[Index] = []
    for number, extent in enumerate(reversed(shape)):
        # The first axis needs no remainder.
        index.insert(0, place % extent if number < len(shape) - 1 else place)
        place = place // extent
    return tuple(index)
