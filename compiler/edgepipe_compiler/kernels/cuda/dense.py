"""Products of a few rows with a constant matrix, which is read once: fully connected layers.

The threads of a warp have adjacent columns; the warps of a block share the sum. A convolution of images of
one pixel is such a product.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph, Node
from ...frontend.units import PRODUCTS, SHAPE_ONLY, Unit
from .. import parameters
from ..epilogue import Operands
from ..kernel import Kernel, Value, Weight
from ..layout import PLAIN
from ..target import CudaTarget
from ..writer import Index
from .elementwise import unravel
from .results import Results
from .writer import WARP, KernelWriter

# Warps that share a sum, and terms of it whose loads are in flight.
WARPS, TOGETHER = 8, 8
# Rows of a block, and of a product that this rule is meant for.
ROWS, MOST_ROWS = 8, 16


def lower(graph: Graph, unit: Unit, target: CudaTarget) -> Kernel:
    """Lowers a unit whose anchor is a product with a constant matrix, on its own or after a flatten."""
    flatten = unit.nodes[0] if unit.nodes[0].op in SHAPE_ONLY else None
    product, *rest = unit.nodes[1:] if flatten else unit.nodes
    read, result = graph.tensor(product.inputs[0]), graph.tensor(product.outputs[0])
    matrix, bias, inner = _matrix(graph, product)
    depth, columns = matrix.shape
    rows = result.elements // columns
    if read.dtype != "float32" or read.elements != rows * depth or rows > MOST_ROWS:
        raise Unsupported("product of something other than a few rows")
    source = (flatten or product).inputs[0]
    operands = Operands(graph, PLAIN, None)
    shape = tuple(graph.tensor(source).shape)
    data = operands.add(Value(source, PLAIN, shape, "float32"), (rows, depth), "float32")
    weight = operands.add(Weight(np.ascontiguousarray(matrix), large=True), matrix.shape, "float32")
    results = Results(graph, operands, rest, product.outputs[0], unit.outputs[0], bias, inner)
    each = min(rows, ROWS)
    w = KernelWriter((-(-columns // WARP), -(-rows // each)), (WARP, WARPS))
    shared = w.shared("shared", WARPS * each * WARP)
    sums = w.registers("sums", each)
    for row in range(each):
        w.store(sums, tirx.const(0.0, "float32"), [row])
    place, warp = w.thread_index[0], w.thread_index[1]
    column = w.bind("column", w.block_index[0] * WARP + place)
    # Columns and rows beyond the last one are computed and not stored.
    taken = w.bind("taken", _limited(column, columns))
    first = w.block_index[1] * each
    taken_rows = [w.bind("row", _limited(first + row, rows)) for row in range(each)]

    def add(terms: list[Index]) -> None:
        weights = [w.bind("weight", weight[term, taken]) for term in terms]
        for number, row in enumerate(taken_rows):
            for term, held in zip(terms, weights, strict=True):
                w.store(sums, sums[number] + data[row, term] * held, [number])

    per_round = WARPS * TOGETHER
    with w.loop("round", depth // per_round) as round_:
        start = w.bind("start", round_ * per_round + warp)
        add([start + WARPS * number for number in range(TOGETHER)])
    for begin in range(depth // per_round * per_round, depth, WARPS):
        with w.when(warp < depth - begin if depth - begin < WARPS else None):
            add([warp + begin])
    for row in range(each):
        w.store(shared, sums[row], [(warp * each + row) * WARP + place])
    w.barrier()
    write = results.writer(w)
    leading = tuple(result.shape[: len(result.shape) - inner])
    for row in range(each):
        mine = tirx.EQ(warp, tirx.const(row % WARPS, "int32"))
        with w.when(tirx.all(mine, column < columns, first + row < rows)):
            total = shared[row * WARP + place]
            for number in range(1, WARPS):
                total = total + shared[(number * each + row) * WARP + place]
            write(w.bind("total", total), unravel(first + row, leading), column, 1)
    function = w.function([*operands.placeholders, results.out])
    return Kernel([results.call(function, "dense")], "dense")


def _limited(place: tirx.Expr, extent: int) -> tirx.Expr:
    """``place``, or the last one."""
    return tirx.min(place, tirx.const(extent - 1, "int32"))


def _matrix(graph: Graph, node: Node) -> tuple[np.ndarray, np.ndarray | None, int]:
    """The matrix (inner, columns) of a product, its bias, and how many axes of the result the columns are."""
    if node.op in PRODUCTS:
        matrix, bias = parameters.of_product(graph, node)
        return matrix, bias, 1
    weight, bias = parameters.of_convolution(graph, node)
    images = graph.tensor(node.inputs[0]), graph.tensor(node.outputs[0])
    if weight.shape[2:] != (1, 1) or any(image.shape[2:] != (1, 1) for image in images):
        raise Unsupported("convolution of images of more than a pixel")
    if node.attributes.get("group", 1) != 1:
        raise Unsupported("groups of channels")
    return weight.reshape(weight.shape[:2]).T, bias, 3
