"""Tile sizes from a small model of the machine, not from a table of layers.

A convolution keeps a tile of results (rows x columns x blocks of output channels) in registers. For every
input channel and row of the window it loads a vector of weights for each block and window column, and
each input value once for all results that see it. Larger tiles load less for every multiply-add; what
limits them is the number of registers, and the remainder that the size of the image leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..target import TargetDescription

# Multiply-adds in flight that hide their latency: 4 cycles times 2 units.
IN_FLIGHT = 8
# Bytes that the second cache level gives in the time of one multiply-add.
BYTES_PER_MULTIPLY_ADD = 16
# Work of beginning and ending a tile, in multiply-adds: fixed, and for every vector of results.
TILE_FIXED, TILE_VECTOR = 30.0, 4.0
# Multiply-adds written out inside the innermost loop, and the cost of one of its turns.
UNROLLED, TURN = 112, 8.0
# The code generator writes out short loops whose turns have fewer multiply-adds than this. Then the
# pieces of a wide window lie side by side, and it keeps input values for the next piece: it spills.
SMALL_TURN, SPILLED = 60, 1.3
# Blocks of output channels in a tile: of their number a divisor, but of a prime one any, the last tile
# being filled with blocks that are not stored.
BLOCKS, FILLED = (1, 2, 3, 4, 6), (1, 2, 3, 4, 5, 6, 7)
# Registers left to the code generator; without them it spills.
SPARE = 2


@dataclass(frozen=True)
class Tile:
    """Blocks of output channels, rows and columns of results kept in registers, and ``taps``: how many
    columns of the window are added in one go, with their weights in registers too."""

    blocks: int
    rows: int
    columns: int
    taps: int


def convolution(
    target: TargetDescription,
    results: tuple[int, int],
    blocks: int,
    taps: tuple[int, int],
    steps: tuple[int, int],
    weight_bytes: int,
) -> Tile:
    """The tile for an image of ``results`` (rows, columns) in ``blocks`` of output channels. ``taps``
    are width and stride of the window along a row, ``steps`` how often a row of the window is added, in
    the innermost loop and around it; ``weight_bytes`` are the weights of one block."""
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
    target: TargetDescription,
    tile: Tile,
    rows: int,
    columns: int,
    taps: tuple[int, int],
    streamed: bool,
) -> float:
    """Time to add one row of the window for one input channel, in multiply-adds."""
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
    """Sizes of tiles and how many there are of each, as ``windows.runs`` cuts them."""
    tiles = -(-extent // most)
    small, large = extent // tiles, extent % tiles
    return [(size, count) for size, count in ((small + 1, large), (small, tiles - large)) if count]


def row(target: TargetDescription, width: int) -> int:
    """Tile of the output width for kernels without a reduction over channels: what fits half of the
    registers with the least waste."""
    tiles = -(-width // max(1, target.registers // 2))
    return -(-width // tiles)


def divisor(extent: int, most: int) -> int:
    """Greatest divisor of ``extent`` that is at most ``most``."""
    return next(size for size in range(min(extent, most), 0, -1) if extent % size == 0)
