"""Convolution by Winograd's algorithm: fewer multiplications than direct sums, and more memory traffic.

Three kernels: the transformed tiles of the image as (position, channel, tile); their products with the
transformed weights; and the results with bias and fused operators. Chosen if it is faster than the direct
convolution by the model of ``tiling``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph
from ...frontend.units import Unit
from .. import parameters
from ..epilogue import Operands
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN
from ..target import CudaTarget
from ..winograd_algorithm import combined
from ..writer import Index, ramp
from . import convolution_tile, half, product, winograd_plan
from .convolution_tile import Problem
from .product import Body
from .results import Results
from .winograd_plan import Plan
from .writer import KernelWriter, vector

THREADS = 128
# Part of the time of direct sums that it may take at most. Its weights are up to four times as large.
WORTH = 0.95


def lower(graph: Graph, unit: Unit, target: CudaTarget) -> Kernel:
    """Lowers a unit whose anchor is a convolution with a square window, stride 1 and constant weights."""
    if not target.winograd:
        raise Unsupported("convolution without Winograd's algorithm, as the network's file says")
    conv, *rest = unit.nodes
    weight, bias = parameters.of_convolution(graph, conv)
    problem = Problem.of(graph, conv, weight)
    # The values between its kernels are sums of many inputs, so they stay in single precision.
    exact = replace(target, precision="fp32")
    plan = winograd_plan.plan(problem, exact)
    _, direct = convolution_tile.fastest(problem, target if half.fits(weight) else exact)
    if plan is None or plan.cycles(exact) > WORTH * direct:
        raise Unsupported("convolution that is faster as direct sums")
    positions = plan.algorithm.positions
    source = Value(conv.inputs[0], PLAIN, tuple(graph.tensor(conv.inputs[0]).shape), "float32")
    inputs = Value(f"{unit.name}/inputs", PLAIN, (positions, problem.inside, plan.pitch), "float32")
    products = Value(
        f"{unit.name}/products", PLAIN, (positions, problem.outside, plan.pitch), "float32"
    )
    operands = Operands(graph, PLAIN, None)
    read = operands.add(products, (_elements(products),), "float32")
    results = Results(graph, operands, rest, conv.outputs[0], unit.outputs[0], bias)
    calls = [
        _inputs(graph, plan, source, inputs),
        _products(graph, plan, plan.algorithm.transformed(weight), inputs, products),
        results.call(_results(plan, read, results), "winograd_results"),
    ]
    return Kernel(calls, "winograd", plan.multiply_adds)


def _elements(value: Value) -> int:
    return int(np.prod(value.shape))


@dataclass(frozen=True)
class _Thread:
    """A thread has a tile of a channel: its ``place`` in the buffer of a position, and the tile's place."""

    place: tirx.Expr
    image: tirx.Expr
    channel: tirx.Expr
    tile: tuple[tirx.Expr, tirx.Expr]
    exists: tirx.Expr | None


def _writer(plan: Plan, channels: int) -> tuple[KernelWriter, _Thread]:
    """A kernel with a thread for each tile of a channel. Tiles that pad the pitch repeat the last one."""
    pitch, (down, across) = plan.pitch, plan.tiles
    threads, tiles = channels * pitch, plan.problem.images * down * across
    w = KernelWriter((-(-threads // THREADS),), (THREADS,))
    place = w.bind("place", w.block_index[0] * THREADS + w.thread_index[0])
    channel, tile = w.bind("channel", place // pitch), w.bind("tile", place % pitch)
    if tiles < pitch:
        tile = w.bind("tile", tirx.min(tile, tirx.const(tiles - 1, "int32")))
    image, tile = w.bind("image", tile // (down * across)), w.bind("tile", tile % (down * across))
    row, column = w.bind("tile_row", tile // across), w.bind("tile_column", tile % across)
    exists = place < threads if threads % THREADS else None
    return w, _Thread(place, image, channel, (row, column), exists)


def _inputs(graph: Graph, plan: Plan, source: Value, made: Value) -> Call:
    """Transforms the tiles of the image, with zeros for the padding."""
    problem, algorithm = plan.problem, plan.algorithm
    height, width = problem.image
    operands = Operands(graph, PLAIN, None)
    data = operands.add(source, (_elements(source),), "float32")
    out = tirx.decl_buffer((_elements(made),), "float32", "out")
    w, thread = _writer(plan, problem.inside)
    with w.when(thread.exists):
        rows, columns = _on_image(w, plan, thread, 0), _on_image(w, plan, thread, 1)
        channel = thread.image * problem.inside + thread.channel
        first = w.bind("first", channel * (height * width))
        begins = [w.bind("row", first + y * width) for y, _ in rows]
        along_rows = []
        for x, valid_column in columns:
            values = []
            for begin, (_, valid_row) in zip(begins, rows, strict=True):
                value = w.bind("input", data[begin + x])
                valid = [item for item in (valid_row, valid_column) if item is not None]
                if valid:
                    zero = tirx.const(0.0, "float32")
                    value = w.bind("input", tirx.Select(tirx.all(*valid), value, zero))
                values.append(value)
            along_rows.append(combined(w, algorithm.of_inputs, values))
        position = 0
        for row in zip(*along_rows, strict=True):
            for value in combined(w, algorithm.of_inputs, row):
                at = thread.place + position * (problem.inside * plan.pitch)
                w.store(out, value, [at])
                position += 1
    return Call(
        w.function([*operands.placeholders, out]), operands.arguments, [made], "winograd_inputs"
    )


def _on_image(
    w: KernelWriter, plan: Plan, thread: _Thread, axis: int
) -> list[tuple[tirx.Expr, tirx.Expr | None]]:
    """The places of a tile's inputs along ``axis``, moved onto the image, and where that was not needed.

    None: it never is.
    """
    problem, algorithm = plan.problem, plan.algorithm
    extent, begin = problem.image[axis], problem.window.begin[axis]
    first = w.bind("first_input", thread.tile[axis] * algorithm.results - begin)
    last_tile = (plan.tiles[axis] - 1) * algorithm.results - begin
    found = []
    for number in range(algorithm.inputs):
        place, valid = w.bind("at", first + number), []
        moved = place
        if number < begin:
            valid.append(place >= 0)
            moved = tirx.max(moved, tirx.const(0, "int32"))
        if last_tile + number >= extent:
            valid.append(place < extent)
            moved = tirx.min(moved, tirx.const(extent - 1, "int32"))
        condition = w.bind("valid", tirx.all(*valid)) if valid else None
        found.append((w.bind("at", moved), condition))
    return found


def _products(graph: Graph, plan: Plan, weight: np.ndarray, inputs: Value, made: Value) -> Call:
    """The sums over channels: a product of matrices for each position."""
    operands = Operands(graph, PLAIN, None)
    data = operands.add(inputs, (_elements(inputs),), "float32")
    packed = product.pack(weight, plan.tile)
    constant = Weight(packed, large=plan.algorithm.tolerates_half)
    weights = operands.add(constant, packed.shape, "float32")
    out = tirx.decl_buffer(made.shape, "float32", "out")
    body = Body(plan.tile, weights, data)

    def store(value: tirx.Expr, pair: Index, row: Index, at: Index, lanes: int) -> None:
        body.w.store(out, value, [pair, row, ramp(at, lanes)])

    body.run(store)
    function = body.w.function([*operands.placeholders, out])
    return Call(function, operands.arguments, [made], "winograd_products")


def _results(plan: Plan, products: tirx.Buffer, results: Results) -> tirx.PrimFunc:
    """Transforms the products to results and finishes them."""
    problem, algorithm = plan.problem, plan.algorithm
    rows, columns = problem.results
    w, thread = _writer(plan, problem.outside)
    write = results.writer(w)
    # Tiles that pad the pitch have no results.
    tiles = plan.problem.images * plan.tiles[0] * plan.tiles[1]
    exists = [] if thread.exists is None else [thread.exists]
    if tiles < plan.pitch:
        exists.append(thread.place % plan.pitch < tiles)
    lanes = algorithm.results if algorithm.results in (2, 4) else 1
    lanes = lanes if columns % lanes == 0 else 1
    with w.when(tirx.all(*exists) if exists else None):
        along_rows = []
        for column in range(algorithm.inputs):
            values = []
            for row in range(algorithm.inputs):
                position = row * algorithm.inputs + column
                at = thread.place + position * (problem.outside * plan.pitch)
                values.append(w.bind("product", products[at]))
            along_rows.append(combined(w, algorithm.of_results, values))
        for number, row in enumerate(zip(*along_rows, strict=True)):
            values = combined(w, algorithm.of_results, row)
            y = w.bind("y", thread.tile[0] * algorithm.results + number)
            with w.when(y < rows if rows % algorithm.results else None):
                for at in range(0, algorithm.results, lanes):
                    x = w.bind("x", thread.tile[1] * algorithm.results + at)
                    with w.when(x < columns if columns % algorithm.results else None):
                        if lanes > 1:
                            piece = w.opaque("piece", y * (columns // lanes) + thread.tile[1])
                            pixel = piece * lanes
                        else:
                            pixel = w.bind("pixel", y * columns + x)
                        finished = vector(values[at : at + lanes])
                        write(finished, (thread.image, thread.channel), pixel, lanes)
    return w.function([*results.operands.placeholders, results.out])
