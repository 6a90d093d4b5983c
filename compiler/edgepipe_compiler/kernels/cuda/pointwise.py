"""1 x 1 convolution without padding, as a product of the weights with the pixels of an image."""

from __future__ import annotations

from dataclasses import replace

from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph
from ...frontend.units import Unit
from .. import parameters, window_geometry
from ..epilogue import Operands
from ..kernel import Kernel, Value, Weight
from ..layout import HALF, PLAIN
from ..target import CudaTarget
from ..writer import Index, ramp
from . import half, product, split_sum
from .product import Body, Problem
from .results import Results


def lower(graph: Graph, unit: Unit, target: CudaTarget) -> Kernel:
    """Lowers a unit whose anchor is a convolution with a window of one pixel and constant weights."""
    conv, *rest = unit.nodes
    weight, bias = parameters.of_convolution(graph, conv)
    source, result = graph.tensor(conv.inputs[0]), graph.tensor(conv.outputs[0])
    window = window_geometry.resolve(conv, source, result, weight.shape[2:])
    if window.kernel != (1, 1) or window.padded or source.dtype != "float32":
        raise Unsupported("not a convolution of single pixels")
    groups = conv.attributes.get("group", 1)
    images, channels, height, width = source.shape
    pixels, columns = result.shape[2] * result.shape[3], result.shape[3]
    problem = Problem(
        batch=images * groups,
        groups=groups,
        rows=weight.shape[0] // groups,
        inner=channels // groups,
        columns=pixels,
        packed=True,
        pitch=height * width,
        vectors=window.is_point and pixels % 4 == 0,
    )
    exact = target if half.fits(weight) else replace(target, precision="fp32")
    tile = product.choose(problem, exact, (2, 4, 8))
    matrix = weight.reshape(groups, problem.rows, problem.inner)
    operands = Operands(graph, PLAIN, None)
    layout, kind = (HALF, "float16") if tile.paired else (PLAIN, "float32")
    data = operands.add(
        Value(conv.inputs[0], layout, tuple(source.shape), kind), (source.elements,), kind
    )
    packed = product.pack(matrix, tile)
    weights = operands.add(Weight(packed), packed.shape, kind)

    def column(pixel: tirx.Expr) -> tirx.Expr:
        if window.stride == (1, 1):
            return pixel
        down, across = window.stride
        return pixel // columns * (down * width) + pixel % columns * across

    body = Body(tile, weights, data, column)

    def channel_of(pair: Index, row: Index) -> tuple[Index, Index]:
        """The image and channel of a row of a pair."""
        return pair // groups, pair % groups * problem.rows + row

    if tile.split > 1:

        def write_slices(out: tirx.Buffer) -> tirx.PrimFunc:
            def store(value: tirx.Expr, pair: Index, row: Index, at: Index, lanes: int) -> None:
                image, channel = channel_of(pair, row)
                body.w.store(out, value, [body.slice, image, channel, ramp(at, lanes)])

            body.run(store)
            return body.w.function([*operands.placeholders, out])

        return split_sum.finish(
            graph, unit, operands, bias, tile.split, write_slices, "convolution"
        )
    results = Results(graph, operands, rest, conv.outputs[0], unit.outputs[0], bias)
    finish = results.writer(body.w)

    def store(value: tirx.Expr, pair: Index, row: Index, at: Index, lanes: int) -> None:
        image, channel = channel_of(pair, row)
        finish(value, (image, channel), at, lanes)

    body.run(store)
    function = body.w.function([*operands.placeholders, results.out])
    return Kernel([results.call(function, "convolution")], "convolution")
