"""Which of Winograd's algorithms a convolution on a CPU uses, and its blocks, by a model of the time."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from .. import window_geometry, winograd_algorithm
from ..target import CpuTarget
from ..window_geometry import Window
from ..winograd_algorithm import Algorithm
from . import tiling
from .tiling import Tile

# Bytes of main memory that a thread reads in the time of a vector multiply-add: 27 GB/s at 6.2 G vectors/s on
# a Xeon with AVX-512. For other processors it is an assumption.
MEMORY_BYTES = 4
# Time of a transform for each vector of a position with its traffic to the L2 cache, in vector multiply-adds.
TRANSFORM = 16.0
# Time to start threads and wait for them, about 2 us.
BARRIER = 10_000.0
# Part of the time of direct sums that it may take at most, because its weights are larger.
WORTH = 0.9
# Times that differ by less are about equal: then smaller weights are better, for memory and for the other
# stages of a pipeline.
NEAR = 1.1
# Part of the L2 cache for transformed inputs and products.
CACHED = 0.75
ELEMENT = 4


@dataclass(frozen=True)
class Convolution:
    """``image`` and ``results`` are (rows, columns), ``channels`` are (inside, outside)."""

    window: Window
    images: int
    image: tuple[int, int]
    groups: int
    channels: tuple[int, int]
    results: tuple[int, int]

    def direct_time(self, target: CpuTarget) -> float:
        """Time of direct sums, which skip the padding, in vector multiply-adds."""
        inside, outside = self.channels
        blocks = -(-outside // target.lanes)
        taps = [
            sum(
                high - low
                for low, high in window_geometry.taps(
                    self.window, axis, self.image[axis], self.results[axis]
                )
            )
            for axis in (0, 1)
        ]
        products = self.images * taps[0] * taps[1] * inside * blocks
        weights = math.prod(self.window.kernel) * inside * blocks * target.lanes * ELEMENT
        return products / target.threads + _memory_time(weights, target)


@dataclass(frozen=True)
class Plan:
    """An algorithm for a convolution, the tile of its products in registers, and its blocks.

    A block has ``together`` pieces of up to ``tile.columns`` tiles. ``workers`` compute blocks of their own.
    """

    convolution: Convolution
    algorithm: Algorithm
    tile: Tile
    together: int
    workers: int

    @property
    def images(self) -> int:
        """Number of images."""
        return self.convolution.images

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles along the rows and columns of an image."""
        return tiles(self.convolution, self.algorithm)

    @functools.cached_property
    def pieces(self) -> int:
        """Pieces of all images."""
        return -(-self.count // self.tile.columns)

    @functools.cached_property
    def count(self) -> int:
        """Tiles of all images."""
        return self.images * self.tiles[0] * self.tiles[1]

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the products."""
        inside, outside = self.convolution.channels
        return self.algorithm.positions * self.count * inside * outside

    @property
    def piece_sizes(self) -> tuple[int, int]:
        """Tiles of a piece, and the number of pieces with one more, which come first."""
        return divmod(self.count, self.pieces)

    @property
    def blocks(self) -> int:
        """Blocks of all images."""
        return -(-self.pieces // self.together)

    @property
    def most(self) -> int:
        """The largest number of tiles of a block."""
        small, larger = self.piece_sizes
        return self.together * small + min(self.together, larger)

    def shared(self, target: CpuTarget) -> bool:
        """Whether all threads compute the same block."""
        return target.threads > 1 and self.workers == 1

    def blocks_outside(self, lanes: int) -> int:
        """Blocks of output channels, with those that fill the last tile."""
        channels, step = self.convolution.channels[1], lanes * self.tile.blocks
        return -(-channels // step) * self.tile.blocks

    def time(self, target: CpuTarget) -> float:
        """Estimated time in vector multiply-adds."""
        lanes, positions = target.lanes, self.algorithm.positions
        inside, after = self.convolution.channels[0], self.blocks_outside(lanes)
        vectors = positions * (-(-inside // lanes) + after)
        small, larger = self.piece_sizes
        products = sum(
            pieces * _piece_time(self.tile.blocks, tiles)
            for tiles, pieces in ((small + 1, larger), (small, self.pieces - larger))
        )
        products *= positions * inside * after / self.tile.blocks
        computed = products + TRANSFORM * self.count * vectors
        # The slowest worker decides.
        computed *= -(-self.blocks // self.workers) * self.workers / self.blocks
        weights = positions * inside * after * lanes * ELEMENT
        scratch = self.workers * self.most * vectors * lanes * ELEMENT
        moved, again = weights, (self.blocks - 1) * weights
        if weights + scratch > CACHED * target.l2_bytes:
            moved += again
        else:
            computed += again / tiling.BYTES_PER_MULTIPLY_ADD
        if scratch > CACHED * target.l2_bytes:
            # Each is written and read.
            moved += 2 * self.count * vectors * lanes * ELEMENT
        barriers = 0 if target.threads == 1 else 1 if self.workers > 1 else 3 * self.blocks
        return computed / target.threads + _memory_time(moved, target) + BARRIER * barriers

    def scratch(self, target: CpuTarget) -> list[tuple[int, ...]]:
        """Shapes of the transformed inputs and of the products: (worker, position, block of channels and
        tile and lane), and of a tile for each thread.
        """
        lanes = target.lanes
        before = -(-self.convolution.channels[0] // lanes)
        shapes: list[tuple[int, ...]] = [
            (self.workers, self.algorithm.positions, channels * self.most * lanes + 2 * lanes)
            for channels in (before, self.blocks_outside(lanes))
        ]
        return [*shapes, (target.threads, self.algorithm.positions * lanes)]


def tiles(convolution: Convolution, algorithm: Algorithm) -> tuple[int, int]:
    """Tiles along the rows and columns of an image."""
    rows, columns = convolution.results
    return -(-rows // algorithm.results), -(-columns // algorithm.results)


def _memory_time(moved: int, target: CpuTarget) -> float:
    """Time to read or write main memory, in vector multiply-adds. Threads share its bandwidth."""
    return moved / (MEMORY_BYTES * math.sqrt(target.threads))


def _piece_time(blocks: int, tiles: int) -> float:
    """Time to add the products of one input channel: multiply-adds, loads, or latency."""
    return max(blocks * tiles, blocks + tiles, tiling.IN_FLIGHT)


def tile(convolution: Convolution, algorithm: Algorithm, target: CpuTarget) -> Tile:
    """Tiles and blocks of output channels in registers."""
    down, across = tiles(convolution, algorithm)
    inside, outside = convolution.channels
    lanes = target.lanes
    count = convolution.images * down * across
    return tiling.convolution(
        target,
        (1, count),
        -(-outside // lanes),
        (1, 1),
        (lanes, -(-inside // lanes)),
        inside * lanes * 4,
    )


def fastest(convolution: Convolution, target: CpuTarget) -> Plan | None:
    """The fastest plan by the model, or one that is about as fast and has smaller weights.

    None if direct sums are about as fast, or if there are too few channels to fill a vector.
    """
    if convolution.channels[0] < target.lanes:
        return None
    timed = [(plan.time(target), plan) for plan in plans(convolution, target)]
    limit = WORTH * convolution.direct_time(target)
    least = min((time for time, _ in timed), default=limit)
    close = [
        (plan.algorithm.positions, time, plan)
        for time, plan in timed
        if time < limit and time <= NEAR * least
    ]
    return min(close, key=lambda item: item[:2])[2] if close else None


def plans(convolution: Convolution, target: CpuTarget) -> list[Plan]:
    """The plans to choose from."""
    found = []
    for algorithm in winograd_algorithm.algorithms(convolution.window, convolution.groups):
        registers = tile(convolution, algorithm, target)
        down, across = tiles(convolution, algorithm)
        pieces = -(-convolution.images * down * across // registers.columns)
        for workers in sorted({1, target.threads}):
            sizes = {-(-pieces // blocks) for blocks in range(workers, pieces + 1)}
            found += [
                Plan(convolution, algorithm, registers, size, workers) for size in sorted(sizes)
            ]
    return found
