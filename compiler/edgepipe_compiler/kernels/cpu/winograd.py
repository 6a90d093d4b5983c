"""Convolution by Winograd's algorithm: fewer multiplications than direct sums, and more memory traffic.

The tiles of all images are computed in blocks. For a block, the function transforms the inputs, multiplies
them with the transformed weights (a product of matrices for each position in a tile), and transforms the
products to results, with bias and fused operators. Transformed inputs and products of a block are in
scratch memory, which fits the L2 cache unless large weights make fewer blocks cheaper (``winograd_plan``).

Threads compute blocks of their own, or share the work of each block if there are few tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph
from ...frontend.units import Unit
from .. import epilogue, parameters, window_geometry
from ..epilogue import Operands
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN, packed, stored_shape
from ..target import CpuTarget
from ..window_geometry import Run, Window
from ..winograd_algorithm import combined
from ..writer import Index, Writer, ramp, spread
from . import tiling, winograd_plan
from .winograd_plan import Convolution, Plan

CACHE_LINE, ELEMENT = 64, 4
# Scratch memory: transformed inputs, products, and a tile between transforms along its axes.
SCRATCH = ("inputs", "products", "between")


def lower(graph: Graph, unit: Unit, target: CpuTarget) -> Kernel:
    """Lowers a unit whose anchor is a convolution with a square window, stride 1 and constant weights."""
    if not target.winograd:
        raise Unsupported("convolution without Winograd's algorithm, as the network's file says")
    conv, *rest = unit.nodes
    weight, bias = parameters.of_convolution(graph, conv)
    source, result = graph.tensor(conv.inputs[0]), graph.tensor(conv.outputs[0])
    if source.dtype != "float32":
        raise Unsupported("convolution of something other than float32 images")
    convolution = Convolution(
        window_geometry.resolve(conv, source, result, weight.shape[2:]),
        source.shape[0],
        source.shape[2:],
        conv.attributes.get("group", 1),
        (source.shape[1], result.shape[1]),
        result.shape[2:],
    )
    plan = winograd_plan.fastest(convolution, target)
    if plan is None:
        raise Unsupported("convolution that is faster as direct sums")
    epilogue.check_short(rest)
    lanes = target.lanes
    layout = packed(lanes)
    given = Value(conv.inputs[0], layout, stored_shape(source.shape, layout), "float32")
    operands = Operands(graph, layout, target)
    data = operands.add(given, given.shape, "float32")
    array = ordered_weight(plan.algorithm.transformed(weight), plan.tile.blocks, lanes)
    weights = operands.add(Weight(array), array.shape, "float32")
    shift = None
    if bias is not None:
        row = np.zeros((plan.blocks_outside(lanes), lanes), np.float32)
        row.reshape(-1)[: bias.size] = bias
        shift = operands.add(Weight(row), row.shape, "float32")
    after = epilogue.apply(operands, rest, conv.outputs[0], result)
    results = [Value(unit.outputs[0], layout, stored_shape(result.shape, layout), "float32")]
    for name, shape in zip(SCRATCH, plan.scratch(target), strict=True):
        results.append(Value(f"{unit.name}/{name}", PLAIN, shape, "float32"))
    buffers = [tirx.decl_buffer(value.shape, "float32", f"r{n}") for n, value in enumerate(results)]
    body = _Body(target, plan, data, weights, shift, *buffers, after)
    function = body.write([*operands.placeholders, *buffers])
    call = Call(function, operands.arguments, results, "winograd")
    return Kernel([call], "winograd", plan.multiply_adds)


def ordered_weight(transformed: np.ndarray, together: int, lanes: int) -> np.ndarray:
    """(position, outside, inside) in reading order: (position, group of ``together`` blocks of output
    channels, input channel, output channel). Channels beyond the last are 0.
    """
    positions, outside, inside = transformed.shape
    groups = -(-outside // (together * lanes))
    full = np.zeros((positions, groups * together * lanes, inside), np.float32)
    full[:, :outside] = transformed
    return np.ascontiguousarray(full.reshape(positions, groups, -1, inside).swapaxes(2, 3))


@dataclass(frozen=True)
class _Block:
    """The tiles of a block: its pieces, its first tile, its number of tiles, and its place in scratch memory.

    ``pieces`` are (tiles, first piece, end) for each size of a piece.
    """

    worker: Index
    pieces: tuple[tuple[int, Index, Index], ...]
    first: Index
    count: Index


@dataclass
class _Body:
    """Writes the function."""

    target: CpuTarget
    plan: Plan
    data: tirx.Buffer
    weights: tirx.Buffer
    shift: tirx.Buffer | None
    out: tirx.Buffer
    inputs: tirx.Buffer
    products: tirx.Buffer
    between: tirx.Buffer
    after: Callable[[tirx.Expr, tuple[Index, ...]], tirx.Expr]

    def write(self, arguments: list[tirx.Buffer]) -> tirx.PrimFunc:
        """Writes the whole function."""
        self.w = w = Writer()
        self.image = [int(extent) for extent in self.data.shape[2:4]]
        plan = self.plan
        each = -(-plan.blocks // plan.workers)
        with (
            w.loop("worker", plan.workers, parallel=plan.workers > 1) as worker,
            w.loop("turn", each) as turn,
        ):
            block = self._block(worker, worker * each + turn)
            self._transform_inputs(block)
            self._multiply(block)
            self._transform_products(block)
        return w.function(arguments)

    def _block(self, worker: Index, number: Index) -> _Block:
        w, plan = self.w, self.plan
        small, larger = plan.piece_sizes
        if plan.blocks == 1:
            begin, end = 0, plan.pieces
        else:
            begin = w.bind("begin", tirx.min(number * plan.together, plan.pieces))
            end = w.bind("end", tirx.min(begin + plan.together, plan.pieces))
        first, last = self._first_tile(begin), self._first_tile(end)
        if plan.blocks > 1:
            first, last = w.bind("first", first), w.bind("last", last)
        pieces: tuple[tuple[int, Index, Index], ...] = ((small, begin, end),)
        if larger:
            pieces = (
                (small + 1, begin, _minimum(end, larger)),
                (small, _maximum(begin, larger), end),
            )
        return _Block(worker, pieces, first, last - first)

    def _first_tile(self, piece: Index) -> Index:
        small, larger = self.plan.piece_sizes
        return piece * small + _minimum(piece, larger) if larger else piece * small

    @contextmanager
    def _share(self, block: _Block, extent: Index) -> Iterator[tuple[Index, Index, Index]]:
        """The part of ``extent`` tasks that a thread computes: its number, its first task, and the end."""
        w, threads = self.w, self.target.threads
        if not self.plan.shared(self.target):
            yield block.worker, 0, extent
            return
        with w.loop("thread", threads, parallel=True) as thread:
            first, end = (
                w.bind("task", tirx.truncdiv(number * extent, threads))
                for number in (thread, thread + 1)
            )
            yield thread, first, end

    @contextmanager
    def _each(
        self, block: _Block, channels: int
    ) -> Iterator[tuple[Index, Index, Index, tuple[Index, Index]]]:
        """Loops over blocks of channels and tiles: a place for a transform, the block of channels, the
        tile's place in scratch memory, and image, row and column of the tile.
        """
        w, plan = self.w, self.plan
        down, across = plan.tiles
        with (
            self._share(block, channels) as (thread, first, end),
            w.loop("c", end - first) as step,
            w.loop("t", block.count) as t,
        ):
            c = first + step
            tile = w.bind("tile", block.first + t)
            image: Index = 0
            if plan.images > 1:
                image, tile = w.bind("image", tile // (down * across)), tile % (down * across)
            row, column = w.bind("row", tile // across), w.bind("column", tile % across)
            yield (
                thread,
                image,
                c,
                w.bind("at", (c * plan.most + t) * self.target.lanes),
                (row, column),
            )

    def _transform_inputs(self, block: _Block) -> None:
        """Transforms the tiles of the image along columns, then along rows.

        Tiles on the upper and lower border have their own code.
        """
        w, plan, whole = self.w, self.plan, ramp(0, self.target.lanes)
        algorithm, window = plan.algorithm, plan.convolution.window
        size, (image_rows, image_columns) = algorithm.inputs, self.image
        runs = _runs(_tiles(plan), 0, image_rows, plan.tiles[0])
        with self._each(block, int(self.data.shape[1])) as (thread, n, c, at, (row, column)):
            top = w.bind("top", row * algorithm.results - window.begin[0])
            left = w.bind("left", column * algorithm.results - window.begin[1])
            # The columns of the tile that are on the image.
            low = w.bind("low", tirx.min(size, tirx.max(0, -left)))
            high = w.bind("high", tirx.max(low, tirx.min(size, image_columns - left)))
            for run in runs:
                with w.when(_in(row, run, plan.tiles[0])), w.loop("x", high - low) as step:
                    x = low + step
                    values: list[tirx.Expr | None] = [None] * size
                    for y in range(*run.taps[0]):
                        values[y] = w.bind("input", self.data[n, c, top + y, left + x, whole])
                    for y, value in enumerate(combined(w, algorithm.of_inputs, values)):
                        self._keep(thread, y, x, value)
            for first, end in ((0, low), (high, size)):
                with w.loop("x", end - first) as step:
                    for y in range(size):
                        self._keep(thread, y, first + step, None)
            with w.loop("y", size) as y:
                values = [self._kept(thread, y, x) for x in range(size)]
                for x, value in enumerate(combined(w, algorithm.of_inputs, values)):
                    index = [block.worker, y * size + x, ramp(at, self.target.lanes)]
                    w.store(self.inputs, value, index)

    def _keep(self, thread: Index, y: Index, x: Index, value: tirx.Expr | None) -> None:
        """Stores a value between the transforms along columns and along rows; None is 0."""
        lanes = self.target.lanes
        place = (y * self.plan.algorithm.inputs + x) * lanes
        made = spread(0.0, lanes) if value is None else value
        self.w.store(self.between, made, [thread, ramp(place, lanes)])

    def _kept(self, thread: Index, y: Index, x: Index) -> tirx.Expr:
        """A value between the transforms."""
        lanes = self.target.lanes
        place = (y * self.plan.algorithm.inputs + x) * lanes
        return self.w.bind("kept", self.between[thread, ramp(place, lanes)])

    def _multiply(self, block: _Block) -> None:
        """The product of matrices of each position."""
        w, plan = self.w, self.plan
        groups = int(self.weights.shape[1])
        tasks = plan.algorithm.positions * groups
        with self._share(block, tasks) as (_, begin, last), w.loop("task", last - begin) as step:
            task = begin + step
            position, group = w.bind("position", task // groups), w.bind("group", task % groups)
            for size, first, end in block.pieces:
                with w.loop("piece", end - first) as number:
                    piece = first + number
                    ahead = w.bind("ahead", piece - block.pieces[0][1])
                    at = w.bind("at", self._first_tile(piece) - block.first)
                    self._piece(block, position, group, at, size, ahead)

    def _piece(
        self,
        block: _Block,
        position: Index,
        group: Index,
        first: Index,
        tiles: int,
        ahead: Index,
    ) -> None:
        """Some tiles and a group of blocks of output channels, in registers."""
        w, plan, lanes = self.w, self.plan, self.target.lanes
        whole, blocks = ramp(0, lanes), plan.tile.blocks
        inside = plan.convolution.channels[0]
        # The pieces of a block fetch the weights of the next group together, cache line by cache line.
        line_lanes = CACHE_LINE // ELEMENT
        fetched = -(-(blocks * lanes) // (line_lanes * plan.together))
        sums = {(b, t): w.local(f"sum{b}_{t}", lanes) for b in range(blocks) for t in range(tiles)}
        for held in sums.values():
            w.store(held, spread(0.0, lanes), [whole])

        def add(c: Index, lane: Index) -> None:
            weights = [
                w.bind(
                    f"w{b}",
                    self.weights[position, group, c * lanes + lane, ramp(b * lanes, lanes)],
                )
                for b in range(blocks)
            ]
            for line in range(fetched):
                index = (
                    position,
                    group,
                    inside + c * lanes + lane,
                    (ahead * fetched + line) * line_lanes,
                )
                w.prefetch(self.weights, index)
            for t in range(tiles):
                place = (c * plan.most + first + t) * lanes + lane
                value = w.bind("v", spread(self.inputs[block.worker, position, place], lanes))
                for b, weight in enumerate(weights):
                    held = sums[b, t]
                    w.store(held, held[whole] + value * weight, [whole])

        full, left = divmod(inside, lanes)
        unroll = tiling.divisor(lanes, max(1, min(8, tiling.UNROLLED // (blocks * tiles))))
        if full:
            with w.loop("c", full) as c, w.loop("rv", lanes // unroll) as outer:
                for lane in range(unroll):
                    add(c, outer * unroll + lane)
        if left:
            with w.loop("rv", left) as lane:
                add(full, lane)
        for (b, t), held in sums.items():
            place = ((group * blocks + b) * plan.most + first + t) * lanes
            w.store(self.products, held[whole], [block.worker, position, ramp(place, lanes)])

    def _transform_products(self, block: _Block) -> None:
        """Transforms the products along rows, then along columns, and finishes the results."""
        w, plan, lanes = self.w, self.plan, self.target.lanes
        algorithm, whole = plan.algorithm, ramp(0, lanes)
        size, results = algorithm.inputs, algorithm.results
        height, width = plan.convolution.results
        with self._each(block, int(self.out.shape[1])) as (thread, n, c, at, (row, column)):
            with w.loop("y", size) as y:
                values: list[tirx.Expr | None] = []
                for x in range(size):
                    index = [block.worker, y * size + x, ramp(at, lanes)]
                    values.append(w.bind("product", self.products[index]))
                for x, value in enumerate(combined(w, algorithm.of_results, values)):
                    self._keep(thread, y, x, value)
            bias = None if self.shift is None else w.bind("bias", self.shift[c, whole])
            top, left = w.bind("top", row * results), w.bind("left", column * results)
            columns: Index = results
            if width % results:
                columns = w.bind("columns", tirx.min(results, width - left))
            with w.loop("x", columns) as x:
                values = [self._kept(thread, y, x) for y in range(size)]
                for y, value in enumerate(combined(w, algorithm.of_results, values)):
                    # Tiles on the lower border may have fewer results.
                    with w.when(top + y < height if y >= (height - 1) % results + 1 else None):
                        index = (n, c, top + y, left + x, whole)
                        made = value if bias is None else w.bind("sum", value + bias)
                        w.store(self.out, self.after(made, index), index)


def _minimum(one: Index, other: Index) -> Index:
    if isinstance(one, int) and isinstance(other, int):
        return min(one, other)
    return tirx.min(one, other)


def _maximum(one: Index, other: Index) -> Index:
    if isinstance(one, int) and isinstance(other, int):
        return max(one, other)
    return tirx.max(one, other)


def _tiles(plan: Plan) -> Window:
    """The tiles as a window that moves over the image."""
    size, step = plan.algorithm.inputs, plan.algorithm.results
    window = plan.convolution.window
    return Window((size, size), (step, step), (1, 1), window.begin, window.end)


def _runs(tiles: Window, axis: int, extent: int, count: int) -> list[Run]:
    """The tiles along an axis, by the part that is on the image."""
    return window_geometry.runs(window_geometry.taps(tiles, axis, extent, count), 1)


def _in(place: Index, run: Run, count: int) -> tirx.Expr | None:
    """Whether a tile is in a run; None if all ``count`` tiles are."""
    if run.count == count:
        return None
    if run.count == 1:
        return place == run.start
    return tirx.all(place >= run.start, place < run.start + run.count)
