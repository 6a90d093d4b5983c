"""Tile sizes from an analytical model of the machine.

A convolution keeps a tile of results (rows × columns × blocks of output channels) in registers. Per input
channel and window row it loads a weight vector for each block and window column, and each input value once
for all results that use it. Larger tiles need fewer loads per multiply-add. The limits are the number of
registers and the remainder of the image size.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..target import CpuTarget

# Multiply-adds in flight that hide latency: 4 cycles × 2 units.
IN_FLIGHT = 8
# L2 bandwidth in bytes per multiply-add.
BYTES_PER_MULTIPLY_ADD = 16
# Overhead of a tile in multiply-adds: fixed, and per vector of results.
TILE_FIXED, TILE_VECTOR = 30.0, 4.0
# Unrolled multiply-adds in the innermost loop, and the cost of an iteration.
UNROLLED, TURN = 112, 8.0
# LLVM unrolls short loops with fewer multiply-adds per iteration than this. Then the
# pieces of a wide window are adjacent, and it spills input values kept for the next piece.
SMALL_TURN, SPILLED = 60, 1.3
# Blocks per tile divide the number of blocks. For a prime number any size is allowed, and the
# last tile is filled with blocks that are not stored.
BLOCKS, FILLED = (1, 2, 3, 4, 6), (1, 2, 3, 4, 5, 6, 7)
# Registers reserved for the code generator, to avoid spills.
SPARE = 2


@dataclass(frozen=True)
class Tile:
    """Blocks of output channels, rows and columns of results in registers.

    ``taps`` is the number of window columns added at a time, with weights in registers.
    """

    blocks: int
    rows: int
    columns: int
    taps: int


def convolution(
    target: CpuTarget,
    results: tuple[int, int],
    blocks: int,
    taps: tuple[int, int],
    steps: tuple[int, int],
    weight_bytes: int,
) -> Tile:
    """The tile for an image of ``results`` (rows, columns) and ``blocks`` of output channels.

    ``taps`` are width and stride of the window along a row. ``steps`` counts how often a window row is
    added, in the innermost loop and around it. ``weight_bytes`` is the size of one block's weights.
    """
    height, width = results
    even = [block for block in BLOCKS if blocks % block == 0]
    sizes = even if len(even) > 1 else [block for block in FILLED if block <= blocks]
    candidates = [
        Tile(block, rows, columns, together)
        for block in sizes
        for rows in range(1, min(height, target.registers) + 1)
        for columns in ([width] if rows > 1 else range(1, min(width, target.registers) + 1))
        for together in range(1, min(taps[0], 4) + 1)
        if block * (rows * columns + together) + 1 + SPARE <= target.registers
    ]
    is_short = steps[0] < 8
    streamed = weight_bytes > target.l1d_bytes // 2

    def cost(tile: Tile) -> float:
        total = 0.0
        for rows, row_count in _split(height, tile.rows):
            for columns, column_count in _split(width, tile.columns):
                step = _step_cost(target, tile, rows, columns, taps, streamed)
                if (
                    is_short
                    and tile.taps < taps[0]
                    and tile.blocks * columns * tile.taps < SMALL_TURN
                ):
                    step *= SPILLED
                products = tile.blocks * rows * columns
                one = steps[0] * steps[1] * step + TILE_FIXED + TILE_VECTOR * products
                total += row_count * column_count * one
        return total * -(-blocks // tile.blocks)

    return min(candidates, key=cost)


def _step_cost(
    target: CpuTarget,
    tile: Tile,
    rows: int,
    columns: int,
    taps: tuple[int, int],
    streamed: bool,
) -> float:
    """Time to add one window row for one input channel, in multiply-adds."""
    total = 0.0
    for together, count in _split(taps[0], tile.taps):
        products = tile.blocks * rows * columns * together
        inputs = rows * min((columns - 1) * taps[1] + together, columns * together)
        loads = inputs + tile.blocks * together
        traffic = tile.blocks * together * target.lanes * 4 / BYTES_PER_MULTIPLY_ADD
        busy = max(products, loads, IN_FLIGHT * together)
        turn = TURN * min(1.0, products / UNROLLED)
        total += count * (busy + turn + 0.25 * loads + (0.5 * traffic if streamed else 0.0))
    return total


def _split(extent: int, most: int) -> list[tuple[int, int]]:
    """Tile sizes and their counts, as ``window_geometry.runs`` splits them."""
    tiles = -(-extent // most)
    small, large = extent // tiles, extent % tiles
    return [(size, count) for size, count in ((small + 1, large), (small, tiles - large)) if count]


def row(target: CpuTarget, width: int) -> int:
    """Tile width for kernels without a reduction over channels: uses half of the registers with least
    waste.
    """
    tiles = -(-width // max(1, target.registers // 2))
    return -(-width // tiles)


def divisor(extent: int, most: int) -> int:
    """The largest divisor of ``extent`` that is at most ``most``."""
    return next(size for size in range(min(extent, most), 0, -1) if extent % size == 0)
