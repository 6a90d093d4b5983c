"""Fully connected layers: a matrix of weights packed into blocks of output lanes.

At batch 1 the weights are read once a frame and memory is the limit, so they are streamed in order, with
several blocks at a time to have enough multiply-adds in flight. A flatten before the layer costs nothing:
the rows of the weights are permuted so that packed images are read in the order they lie in memory.
"""

from __future__ import annotations

import numpy as np
from tvm import te, tirx

from ..graph import Graph, Node
from ..units import SHAPE_ONLY, Unit
from . import emit, epilogue
from .emit import inner_loops, unroll_tile
from .epilogue import Operands, Unsupported
from .kernel import Call, Kernel, Value, Weight
from .layout import PLAIN, lanes_of, stored_shape
from .target import TargetDescription


def lower(graph: Graph, unit: Unit, target: TargetDescription, native: dict[str, str]) -> Kernel:
    """Lowers a unit whose anchor is Gemm or MatMul with a constant matrix."""
    flatten = unit.nodes[0] if unit.nodes[0].op in SHAPE_ONLY else None
    product, *rest = unit.nodes[1:] if flatten else unit.nodes
    matrix, bias = _matrix(graph, product)
    result = graph.tensor(product.outputs[0])
    rows = graph.tensor(product.inputs[0])
    if len(rows.shape) != 2 or len(result.shape) != 2:
        raise Unsupported("matrix product of more than two dimensions")
    batch, inner = rows.shape
    lanes = target.lanes
    operands = Operands(graph, PLAIN)
    source = (flatten or product).inputs[0]
    tensor = graph.tensor(source)
    layout = native.get(source, PLAIN)
    order = None
    if lanes_of(layout) and flatten is not None and len(tensor.shape) == 4:
        order = _packed_order(tensor.shape, lanes_of(layout))
    else:
        layout = PLAIN
    if tensor.shape[0] != batch:
        raise Unsupported("flatten over the batch")
    stored = stored_shape(tensor.shape, layout)
    data = operands.add(Value(source, layout, stored, "float32"), stored, "float32")
    depth = int(np.prod(stored[1:]))
    if order is not None:
        permuted = np.zeros((depth, matrix.shape[1]), np.float32)
        permuted[order] = matrix
        matrix = permuted
    array = _pack(matrix, lanes)
    weight = operands.add(Weight(array), array.shape, "float32")
    shift = None
    if bias is not None:
        full = np.zeros(array.shape[0] * lanes, np.float32)
        full[: bias.size] = bias.reshape(-1)
        shift = operands.add(Weight(full.reshape(-1, lanes)), (array.shape[0], lanes), "float32")
    after = epilogue.apply(operands, rest, product.outputs[0], result)

    blocks = array.shape[0]
    rk = te.reduce_axis((0, depth), name="rk")
    sums = te.compute(
        (batch, blocks, lanes),
        lambda n, c, v: te.sum(data[_unravel(n, rk, stored)] * weight[c, rk, v], axis=[rk]),
        name="sums",
    )
    columns = result.shape[1]

    def finish(n: tirx.Var, j: tirx.Var) -> tirx.Expr:
        total = sums[n, j // lanes, j % lanes]
        return after(total if shift is None else total + shift[j // lanes, j % lanes], (n, j))

    out = te.compute((batch, columns), finish, name="finished")
    s = emit.schedule(operands.placeholders, [out])
    block = next(size for size in (8, 4, 2, 1) if blocks % size == 0)
    n, c, v, k = s.get_loops(s.get_sblock("sums"))
    outer, inside = s.split(c, [None, block])
    s.reorder(n, outer, k, inside, v)
    s.vectorize(v)
    s.unroll(inside)
    init = s.decompose_reduction(s.get_sblock("sums"), k)
    unroll_tile(s, inner_loops(s, init, outer))
    emit.spatial(s, target, "finished")
    emit.parallel(s, target, [n, outer])
    value = Value(unit.outputs[0], PLAIN, tuple(result.shape), "float32")
    return Kernel([Call(s.mod["main"], operands.arguments, [value], "dense")], "dense")


def _matrix(graph: Graph, product: Node) -> tuple[np.ndarray, np.ndarray | None]:
    """The constant (inner, columns) matrix and the bias of a product, scaled as Gemm asks."""
    matrix = graph.constants.get(product.inputs[1])
    if matrix is None or matrix.dtype != np.float32 or matrix.ndim != 2:
        raise Unsupported("matrix that is not constant float32")
    bias = None
    if product.op == "Gemm":
        attribute = product.attributes.get
        if attribute("transA", 0):
            raise Unsupported("transposed input")
        matrix = matrix.T if attribute("transB", 0) else matrix
        if attribute("alpha", 1.0) != 1.0:
            matrix = matrix * np.float32(attribute("alpha", 1.0))
        if len(product.inputs) > 2 and product.inputs[2]:
            bias = graph.constants.get(product.inputs[2])
            if bias is None or bias.size not in (1, matrix.shape[1]):
                raise Unsupported("bias that is not constant")
            bias = np.broadcast_to(bias.reshape(-1), (matrix.shape[1],))
            bias = (bias * np.float32(attribute("beta", 1.0))).astype(np.float32)
    return matrix, bias


def _packed_order(shape: tuple[int, ...], lanes: int) -> np.ndarray:
    """Place in packed memory of each element of a flattened (C, H, W)."""
    _, channels, height, width = shape
    c, y, x = np.indices((channels, height, width)).reshape(3, -1)
    return (((c // lanes) * height + y) * width + x) * lanes + c % lanes


def _pack(matrix: np.ndarray, lanes: int) -> np.ndarray:
    """(blocks, inner, lanes); lanes beyond the columns are 0."""
    inner, columns = matrix.shape
    blocks = -(-columns // lanes)
    full = np.zeros((inner, blocks * lanes), np.float32)
    full[:, :columns] = matrix
    return np.ascontiguousarray(full.reshape(inner, blocks, lanes).transpose(1, 0, 2))


def _unravel(n: tirx.Var, k: tirx.Var, stored: tuple[int, ...]) -> tuple[tirx.Expr, ...]:
    """Index of the k-th element of image n."""
    index: list[tirx.Expr] = []
    for extent in reversed(stored[2:]):
        index.append(k % extent)
        k = k // extent
    return (n, k, *reversed(index))
