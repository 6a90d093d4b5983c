"""Products of matrices, both computed or one constant, of as many rows as fill tiles."""

from __future__ import annotations

import math
from dataclasses import replace

from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph, Tensor
from ...frontend.units import Unit
from .. import parameters
from ..epilogue import Operands
from ..kernel import Kernel, Value, Weight
from ..layout import HALF, PLAIN
from ..target import CudaTarget
from ..writer import Index
from . import half, product
from .elementwise import unravel
from .product import Body, Problem
from .results import Results


def lower(graph: Graph, unit: Unit, target: CudaTarget) -> Kernel:
    """Lowers a unit whose anchor is a product of float32 matrices without a broadcast of computed batches."""
    node, *rest = unit.nodes
    left, result = graph.tensor(node.inputs[0]), graph.tensor(node.outputs[0])
    right, matrix, bias = graph.tensor(node.inputs[1]), None, None
    if node.op == "Gemm" or (node.inputs[1] in graph.constants and len(right.shape) == 2):
        matrix, bias = parameters.of_product(graph, node)
        right = Tensor(tuple(matrix.shape), "float32")
    if min(len(left.shape), len(right.shape)) < 2 or {left.dtype, right.dtype} != {"float32"}:
        raise Unsupported("product of something other than float32 matrices")
    columns, inner = right.shape[-1], left.shape[-1]
    if len(right.shape) == 2:
        # All rows of all left matrices are rows of one.
        batch, groups, rows = 1, 1, left.elements // inner
    elif left.shape[:-2] == right.shape[:-2]:
        batch = groups = math.prod(left.shape[:-2])
        rows = left.shape[-2]
    elif len(left.shape) == 2:
        batch, groups, rows = math.prod(right.shape[:-2]), 1, left.shape[-2]
    else:
        raise Unsupported("matrices that are broadcast")
    problem = Problem(
        batch=batch,
        groups=groups,
        rows=rows,
        inner=inner,
        columns=columns,
        packed=False,
        pitch=columns,
        vectors=columns % 4 == 0,
    )
    arrays = [matrix, *(graph.constants.get(name) for name in node.inputs[:2])]
    fit = all(half.fits(array) for array in arrays if array is not None)
    tile = product.choose(problem, target if fit else replace(target, precision="fp32"), ())
    operands = Operands(graph, PLAIN, None)
    layout, kind = (HALF, "float16") if tile.paired else (PLAIN, "float32")

    def operand(name: str, tensor: Tensor) -> tirx.Buffer:
        array = graph.constants.get(name)
        value = Value(name, layout, tuple(tensor.shape), kind)
        argument = value if array is None else Weight(array.astype(kind))
        return operands.add(argument, (tensor.elements,), kind)

    first = operand(node.inputs[0], left)
    if matrix is not None:
        second = operands.add(Weight(matrix.astype(kind, order="C")), (matrix.size,), kind)
    elif node.inputs[1] == node.inputs[0]:
        second = first
    else:
        second = operand(node.inputs[1], right)
    results = Results(graph, operands, rest, node.outputs[0], unit.outputs[0], bias, inner=1)
    body = Body(tile, first, second)
    finish = results.writer(body.w)
    leading = tuple(result.shape[:-1])

    def write(value: tirx.Expr, pair: Index, row: Index, at: Index, lanes: int) -> None:
        place = row if problem.batch == 1 else pair * problem.rows + row
        finish(value, unravel(place, leading), at, lanes)

    body.run(write)
    function = body.w.function([*operands.placeholders, results.out])
    return Kernel([results.call(function, "product")], "product")
