"""The tile of a convolution: what its blocks and threads compute, and the choice of the fastest."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ...errors import Unsupported
from ...frontend.graph import Graph, Node
from .. import window_geometry
from ..target import CudaTarget
from ..window_geometry import Window
from . import half_sums, tiling
from .tiling import OTHER_REGISTERS, Work

# Limit of multiply-adds in the code of a step: the loop should stay in the instruction cache.
LARGEST = 720
# Columns of a window, which are unrolled; more would spill registers.
LONGEST = 32
# Results per thread along a row. 7 divides the images of networks for 224 x 224.
COLUMNS = (8, 7, 4)
# Issue slots per multiply-add, by channels and columns of a thread: register bank conflicts less dual issue.
# Counted in the machine code that ptxas 12.9 writes for sm_62.
SLOTS = {(8, 8): 1.15, (8, 7): 1.04, (8, 4): 1.28, (4, 8): 1.2, (4, 7): 1.2, (4, 4): 1.28}
MOST_THREADS = 256


@dataclass(frozen=True)
class Problem:
    """A convolution per group: ``inside`` to ``outside`` channels, image (height, width) to ``results``."""

    images: int
    groups: int
    inside: int
    outside: int
    image: tuple[int, int]
    results: tuple[int, int]
    window: Window

    @classmethod
    def of(cls, graph: Graph, conv: Node, weight: np.ndarray) -> Problem:
        """The shapes of ``conv``. Raises ``Unsupported`` if it is not two-dimensional and of float32."""
        source, result = graph.tensor(conv.inputs[0]), graph.tensor(conv.outputs[0])
        if source.dtype != "float32":
            raise Unsupported("convolution of something other than float32")
        window = window_geometry.resolve(conv, source, result, weight.shape[2:])
        if window.kernel[1] > LONGEST:
            raise Unsupported("convolution with a long window")
        groups = conv.attributes.get("group", 1)
        images, channels, *image = source.shape
        return cls(
            images,
            groups,
            channels // groups,
            weight.shape[0] // groups,
            (image[0], image[1]),
            (result.shape[2], result.shape[3]),
            window,
        )

    @property
    def taps(self) -> int:
        """Positions of the window."""
        return self.window.kernel[0] * self.window.kernel[1]


@dataclass(frozen=True)
class Tile:
    """``channels`` and ``columns`` of a thread, and how many threads side by side along channels, columns and
    rows. ``split`` blocks share a sum. ``paired``: products of pairs of channels in half precision.
    """

    problem: Problem
    channels: int
    columns: int
    along_channels: int
    along_columns: int
    along_rows: int
    split: int = 1
    paired: bool = False

    @property
    def group(self) -> int:
        """Adjacent channels of a thread, whose weights it reads at once."""
        return 8 if self.paired and self.channels % 8 == 0 else 4

    @property
    def terms(self) -> int:
        """Products of a step that are added to a result."""
        return self.rows_per_step * self.problem.window.kernel[1]

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.along_channels * self.along_columns * self.along_rows

    @property
    def height(self) -> int:
        """Channels of a block."""
        return self.channels * self.along_channels

    @property
    def width(self) -> int:
        """Columns of results of a block."""
        return self.columns * self.along_columns

    @property
    def channel_tiles(self) -> int:
        """Blocks along the channels of a group."""
        return -(-self.problem.outside // self.height)

    @property
    def image_tiles(self) -> tuple[int, int]:
        """Blocks along rows and columns."""
        rows, columns = self.problem.results
        return -(-rows // self.along_rows), -(-columns // self.width)

    @property
    def unrolled(self) -> bool:
        """Whether a step of the sum is a channel, and not one row of the window of a channel."""
        return self.problem.taps * self.channels * self.columns <= LARGEST

    @property
    def rows_per_step(self) -> int:
        """Rows of the window in a step."""
        return self.problem.window.kernel[0] if self.unrolled else 1

    @property
    def steps_per_channel(self) -> int:
        """Steps of an input channel."""
        return 1 if self.unrolled else self.problem.window.kernel[0]

    @property
    def slice(self) -> int:
        """Input channels that a block adds up."""
        return -(-self.problem.inside // self.split)

    @property
    def steps(self) -> int:
        """Steps of the sum of a block."""
        return self.slice * self.steps_per_channel

    @property
    def row_stride(self) -> int:
        """Distance in shared memory between the rows that adjacent results of a column start with."""
        return self.problem.window.stride[0] if self.unrolled else 1

    @property
    def rows_read(self) -> int:
        """Rows of the image in a step."""
        window = self.problem.window
        below = (self.rows_per_step - 1) * window.dilation[0]
        return (self.along_rows - 1) * self.row_stride + below + 1

    @property
    def read(self) -> int:
        """Elements of a row of the image that a thread reads."""
        window = self.problem.window
        return (
            (self.columns - 1) * window.stride[1] + (window.kernel[1] - 1) * window.dilation[1] + 1
        )

    @property
    def pitch(self) -> int:
        """Elements between the rows of two threads in shared memory."""
        return self.phase_pitch * self.problem.window.stride[1]

    @property
    def phase_pitch(self) -> int:
        """Elements between the phases of a row.

        With a stride of 2, the even columns come first, then the odd ones: the inputs of a tap are then
        adjacent, and in all banks of registers, as they are without a stride.
        """
        return -(-self.read // (4 * self.problem.window.stride[1])) * 4

    @property
    def part_elements(self) -> int:
        """Shared memory for the part of the image in a step."""
        return self.rows_read * self.along_columns * self.pitch

    @property
    def weight_elements(self) -> int:
        """Shared memory for the weights of a step."""
        return self.rows_per_step * self.problem.window.kernel[1] * self.height

    @property
    def half(self) -> int:
        """Elements of one half of shared memory."""
        return self.weight_elements + self.part_elements

    @property
    def exchanged(self) -> int:
        """Elements of shared memory by way of which results are stored: a row of channels per thread."""
        return self.along_channels * self.along_rows * self.width

    @property
    def shared(self) -> int:
        """Elements of shared memory: two halves. In single precision, results go by way of it too."""
        return 2 * self.half if self.paired else max(2 * self.half, self.exchanged)

    @property
    def shared_bytes(self) -> int:
        """All shared memory."""
        return 2 * self.shared + 4 * self.exchanged if self.paired else 4 * self.shared

    @property
    def blocks(self) -> int:
        """Blocks of a launch."""
        rows, columns = self.image_tiles
        each = self.split * self.channel_tiles * rows * columns
        return self.problem.images * self.problem.groups * each

    def work(self) -> Work:
        """What a launch of this tile has to do."""
        elements = self.rows_read * self.along_columns * self.read
        taps, bytes_each = self.terms, 2 if self.paired else 4
        multiply_adds = taps * self.channels * self.columns * SLOTS[self.channels, self.columns]
        if self.paired:
            multiply_adds *= 0.5 * (1.0 + half_sums.overhead(taps))
        loads = taps * self.channels // self.group + self.rows_per_step * -(-self.read // 4)
        weights = -(-self.weight_elements // 4 // self.threads)
        inputs = -(-elements // self.threads)
        control = 25 if self.unrolled else 35
        results = self.channels * self.columns
        inside = self.read + self.channels
        if self.paired:
            inside = results // 2 + inside // 2
        return Work(
            self.blocks,
            self.threads,
            self.steps,
            multiply_adds + loads + 5 * weights + 6 * inputs + control,
            8.0 * results + 200,
            results + inside + 4 * weights + 3 * inputs + OTHER_REGISTERS,
            self.shared_bytes,
            bytes_each * (self.weight_elements + elements),
            4 * (loads + weights) + inputs,
        )

    def cycles(self, work: Work, target: CudaTarget) -> float:
        """Estimated time of this tile's ``work``, with that of adding slices of sums."""
        problem = self.problem
        outputs = problem.images * problem.groups * problem.outside
        outputs *= problem.results[0] * problem.results[1]
        return work.cycles(target) + tiling.adding(outputs, self.split, target)


def choose(problem: Problem, target: CudaTarget) -> Tile:
    """The fastest tile by the model. Raises ``Unsupported`` if the image does not fit in shared memory."""
    return fastest(problem, target)[0]


@functools.lru_cache(maxsize=256)
def fastest(problem: Problem, target: CudaTarget) -> tuple[Tile, float]:
    """The tile that ``choose`` returns, and its cycles."""
    paired = target.precision == "fp16"
    best, least = None, math.inf
    for tile in _candidates(problem, target):
        tile = replace(tile, paired=True) if paired else tile
        work = tile.work()
        if work.fits(target):
            cycles = tile.cycles(work, target)
            if cycles < least:
                best, least = tile, cycles
    if best is None:
        raise Unsupported("convolution whose window does not fit in shared memory")
    return best, least


def _candidates(problem: Problem, target: CudaTarget) -> Iterator[Tile]:
    rows, columns = problem.results
    many = tiling.MANY_BLOCKS * tiling.multiprocessors(target)
    for channels in (8, 4):
        for across in COLUMNS:
            for along_channels in (1, 2, 4, 8, 16, 32):
                if channels * along_channels >= 2 * max(problem.outside, channels):
                    continue
                for along_columns in _equal(-(-columns // across), 32):
                    for along_rows in _equal(
                        rows, MOST_THREADS // (along_channels * along_columns)
                    ):
                        tile = Tile(
                            problem, channels, across, along_channels, along_columns, along_rows
                        )
                        if not tile.threads <= MOST_THREADS:
                            continue
                        yield tile
                        for split in (2, 4, 8) if tile.blocks < many else ():
                            if problem.inside >= 16 * split:
                                yield replace(tile, split=split)


def _equal(count: int, most: int) -> list[int]:
    """Sizes of parts of ``count``, up to ``most``, such that the parts are as equal as possible."""
    sizes = {-(-count // parts) for parts in range(1, count + 1)}
    return [size for size in sorted(sizes) if size <= most]


def pack(weight: np.ndarray, tile: Tile) -> np.ndarray:
    """(C, inside, kh, kw) as (group, channel tile, split, step, tap, channel of the tile).

    Channels and steps beyond the last one are 0. Float16 for a tile of pairs.
    """
    problem = tile.problem
    padded = tile.channel_tiles * tile.height
    kind = np.float16 if tile.paired else np.float32
    full = np.zeros((problem.groups, padded, tile.split * tile.slice, problem.taps), kind)
    full[:, : problem.outside, : problem.inside] = weight.reshape(
        problem.groups, problem.outside, problem.inside, problem.taps
    )
    full = full.reshape(
        problem.groups, tile.channel_tiles, tile.height, tile.split, tile.slice, problem.taps
    )
    return np.ascontiguousarray(full.transpose(0, 1, 3, 4, 5, 2)).reshape(-1)
