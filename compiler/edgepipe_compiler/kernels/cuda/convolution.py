"""Convolution with a window, straight from the image: any window, stride, dilation, padding and groups.

A block computes a tile of channels by rows and columns of results; each thread eight or four channels by
adjacent results of one row. A step of the sum is one input channel, or one row of a large window of it:
its part of the image, with zeros for the
padding, and its weights are in shared memory. A thread reads each row of its part once per row of the window
and shifts over it in registers, so that nearly all instructions of a step are multiply-adds.

If an image has too few tiles for the GPU, several blocks share a sum (``split``), and a second kernel adds
their parts.
"""

from __future__ import annotations

from dataclasses import replace

from tvm import tirx

from ...frontend.graph import Graph
from ...frontend.units import Unit
from .. import parameters
from ..epilogue import Operands
from ..kernel import Kernel, Value, Weight
from ..layout import HALF, PLAIN
from ..target import CudaTarget
from ..writer import Index, ramp
from . import half, half_sums, split_sum
from .convolution_tile import Problem, Tile, choose, pack
from .half_sums import HalfSums
from .results import Results
from .staging import Place, Staged, pipeline
from .writer import KernelWriter, lane, lanes_of


def lower(graph: Graph, unit: Unit, target: CudaTarget) -> Kernel:
    """Lowers a unit whose anchor is a two-dimensional convolution with constant weights."""
    conv, *rest = unit.nodes
    weight, bias = parameters.of_convolution(graph, conv)
    problem = Problem.of(graph, conv, weight)
    source = graph.tensor(conv.inputs[0])
    tile = choose(problem, target if half.fits(weight) else replace(target, precision="fp32"))
    operands = Operands(graph, PLAIN, None)
    layout, kind = (HALF, "float16") if tile.paired else (PLAIN, "float32")
    data = operands.add(
        Value(conv.inputs[0], layout, tuple(source.shape), kind), (source.elements,), kind
    )
    packed = pack(weight, tile)
    weights = operands.add(Weight(packed), packed.shape, kind)
    if tile.split > 1:
        return split_sum.finish(
            graph, unit, operands, bias, tile.split,
            lambda out: _Body(tile, data, weights).write(operands.placeholders, out, None),
            "convolution",
        )  # fmt: skip
    results = Results(graph, operands, rest, conv.outputs[0], unit.outputs[0], bias)
    function = _Body(tile, data, weights).write(operands.placeholders, results.out, results)
    return Kernel([results.call(function, "convolution")], "convolution")


class _Body:
    """Writes the kernel.

    Threads along channels are neighbours, so that the reads of a warp from the image part are broadcasts.
    """

    def __init__(self, tile: Tile, data: tirx.Buffer, weights: tirx.Buffer) -> None:
        self.tile, self.problem, self.window = tile, tile.problem, tile.problem.window
        self.data, self.weights = data, weights
        rows, columns = tile.image_tiles
        depth = self.problem.images * self.problem.groups * tile.split
        w = self.w = KernelWriter((rows * columns, tile.channel_tiles, depth), (tile.threads,))
        thread, place = w.thread_index[0], w.block_index[0]
        self.channel_place = w.bind("channel_place", thread % tile.along_channels)
        rest = w.bind("pixel_place", thread // tile.along_channels)
        self.column_place = w.bind("column_place", rest % tile.along_columns)
        self.row_place = w.bind("row_place", rest // tile.along_columns)
        self.first_row = w.bind("first_row", place // columns * tile.along_rows)
        self.first_column = w.bind("first_column", place % columns * tile.width)
        self.slice = w.bind("slice", w.block_index[2] % tile.split)
        group = w.bind("group_of_image", w.block_index[2] // tile.split)
        self.group = w.bind("group", group % self.problem.groups)
        self.image = w.bind("image", group // self.problem.groups)
        kind = str(data.dtype)
        self.shared = w.shared("shared", tile.shared, kind)
        self.exchange = w.shared("exchange", tile.exchanged) if tile.paired else self.shared
        self.sums = w.registers("sums", tile.channels * tile.columns)
        for place in range(tile.channels * tile.columns):
            w.store(self.sums, tirx.const(0.0, "float32"), [place])
        self.pairs = None
        if tile.paired:
            self.pairs = HalfSums(w, self.sums, tile.channels, tile.columns)

    def write(
        self, arguments: list[tirx.Buffer], out: tirx.Buffer, results: Results | None
    ) -> tirx.PrimFunc:
        """The kernel; without ``results`` it stores the slices of the sums to ``out``."""
        tile = self.tile
        pipeline(
            self.w,
            [self._weights(), self._image()],
            self.shared,
            tile.half,
            tile.steps,
            self._step,
            half_sums.steps(tile.terms) if self.pairs is not None else tile.steps,
            self.pairs.fold if self.pairs is not None else None,
        )
        self._finish(out, results)
        # `results` may have added arguments.
        arguments = results.operands.placeholders if results is not None else arguments
        return self.w.function([*arguments, out])

    def _weights(self) -> Staged:
        tile, w = self.tile, self.w
        step = tile.weight_elements
        block = (self.group * tile.channel_tiles + w.block_index[1]) * tile.split + self.slice
        first = w.bind("weights_first", block * (tile.steps * step // 4))

        def place(piece: tirx.Expr) -> Place:
            return Place((first + piece) * 4, piece * 4)

        return Staged(w, "weights", self.weights, step // 4, 4, lambda number: number * step, place)

    def _image(self) -> Staged:
        tile, w, window = self.tile, self.w, self.window
        height, width = self.problem.image
        channels = self.problem.groups * self.problem.inside
        channel = self.image * channels + self.group * self.problem.inside + self.slice * tile.slice
        first = w.bind("image_first", channel * (height * width))
        top = w.bind("top", self.first_row * window.stride[0] - window.begin[0])
        left = w.bind("left", self.first_column * window.stride[1] - window.begin[1])
        per_row, down = tile.along_columns * tile.read, window.stride[0] // tile.row_stride

        def place(piece: tirx.Expr) -> Place:
            row, rest = piece // per_row, piece % per_row
            thread, column = rest // tile.read, rest % tile.read
            y = w.bind("y", top + row * down)
            x = w.bind("x", left + thread * (tile.columns * window.stride[1]) + column)
            phase, at = column % window.stride[1], column // window.stride[1]
            to = (row * tile.along_columns + thread) * tile.pitch + phase * tile.phase_pitch + at
            valid = tirx.all(x >= 0, x < width)
            if tile.unrolled:
                valid = tirx.all(y >= 0, y < height, valid)
            return Place(
                first + y * width + x,
                to + tile.weight_elements,
                valid,
                lambda step: self._within(step, y),
            )

        elements = tile.rows_read * per_row
        return Staged(w, "image", self.data, elements, 1, self._advance, place)

    def _advance(self, step: Index) -> Index:
        """Distance in the image between the sources of the first and another step."""
        (height, width), each = self.problem.image, self.tile.steps_per_channel
        if each == 1:
            return step * (height * width)
        return step // each * (height * width) + step % each * (self.window.dilation[0] * width)

    def _within(self, step: Index, y: tirx.Expr) -> tirx.Expr | None:
        """Whether a step has an input channel, because the last slice may be shorter, and row ``y`` of it."""
        tile, each = self.tile, self.tile.steps_per_channel
        conditions = []
        if tile.split * tile.slice != self.problem.inside:
            channel = step if each == 1 else step // each
            conditions.append(self.slice * tile.slice + channel < self.problem.inside)
        if not tile.unrolled:
            row = y + step % each * self.window.dilation[0]
            conditions += [row >= 0, row < self.problem.image[0]]
        return tirx.all(*conditions) if conditions else None

    def _step(self, half: Index) -> None:
        tile = self.tile
        column = self.row_place * (tile.row_stride * tile.along_columns) + self.column_place
        row = self.w.bind("row", column * (tile.pitch // 4))
        for tap_row in range(tile.rows_per_step):
            self._window_row(half, row, tap_row)

    def _window_row(self, half: Index, row: tirx.Expr, tap_row: int) -> None:
        tile, window, w, shared = self.tile, self.window, self.w, self.shared
        down = tap_row * (window.dilation[0] * tile.along_columns * tile.pitch // 4)
        values: dict[int, tirx.Expr] = {}
        stride = window.stride[1]
        for phase in range(stride):
            count = -(-(tile.read - phase) // stride)
            first = half + tile.weight_elements + (row + down) * 4 + phase * tile.phase_pitch
            for begin in range(0, count, 4):
                lanes = min(4, count - begin)
                lanes = 4 if lanes == 3 else lanes
                vector = w.bind("input", shared[ramp(first + begin, lanes)])
                for at in range(min(lanes, count - begin)):
                    value = vector if lanes == 1 else lane(vector, at)
                    values[(begin + at) * stride + phase] = w.bind("x", value)
        group = tile.group
        parts = tile.channels // group
        for tap in range(window.kernel[1]):
            weights: list[tirx.Expr] = []
            for number in range(parts):
                at = (tap_row * window.kernel[1] + tap) * tile.height + number * (
                    tile.height // parts
                )
                index = ramp(half + at + self.channel_place * group, group)
                vector = w.bind("weight", shared[index])
                if self.pairs is None:
                    weights += [lane(vector, place) for place in range(group)]
                else:
                    weights += [lanes_of(vector, place, 2) for place in range(0, group, 2)]
            if self.pairs is not None:
                for pair, weight in enumerate(weights):
                    for column in range(tile.columns):
                        value = values[column * stride + tap * window.dilation[1]]
                        self.pairs.add(pair, column, weight, value)
                continue
            for channel, weight in enumerate(weights):
                for column in range(tile.columns):
                    value = values[column * stride + tap * window.dilation[1]]
                    place = channel * tile.columns + column
                    w.store(self.sums, self.sums[place] + weight * value, [place])

    def _finish(self, out: tirx.Buffer, results: Results | None) -> None:
        """Stores the sums by way of shared memory, so that a warp writes adjacent pixels."""
        tile, problem, w = self.tile, self.problem, self.w
        rows, columns = problem.results
        pixels = tile.along_rows * tile.width
        write = None if results is None else results.writer(w)
        places = []
        for number in range(tile.columns):
            element = w.thread_index[0] + number * tile.threads
            channel = w.bind("channel", element // pixels)
            pixel = w.bind("pixel", element % pixels)
            y = w.bind("y", self.first_row + pixel // tile.width)
            x = w.bind("x", self.first_column + pixel % tile.width)
            inside = []
            if rows % tile.along_rows:
                inside.append(y < rows)
            if columns % tile.width:
                inside.append(x < columns)
            places.append((channel, w.bind("at", y * columns + x), inside))
        mine = self.row_place * tile.width + self.column_place * tile.columns
        mine = w.bind("mine", self.channel_place * pixels + mine)
        group = tile.group
        parts = tile.channels // group
        for round_ in range(tile.channels):
            for column in range(tile.columns):
                sum_ = w.opaque("sum", self.sums[round_ * tile.columns + column])
                w.store(self.exchange, sum_, [mine + column])
            w.barrier()
            within = round_ // group * (tile.height // parts) + round_ % group
            first = w.block_index[1] * tile.height + within
            for number, (place, pixel, inside) in enumerate(places):
                channel = w.bind("c", first + place * group)
                conditions = list(inside)
                if problem.outside % tile.height:
                    conditions.append(channel < problem.outside)
                with w.when(tirx.all(*conditions) if conditions else None):
                    value = self.exchange[w.thread_index[0] + number * tile.threads]
                    value = w.bind("sum", value)
                    channel = self.group * problem.outside + channel
                    if write is None:
                        w.store(out, value, [self.slice, self.image, channel, pixel])
                    else:
                        write(value, (self.image, channel), pixel, 1)
            w.barrier()
