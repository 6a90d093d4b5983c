"""Tile sizes from a small model of the machine, not from a table of layers.

A convolution keeps a tile of results (rows x columns x blocks of output channels) in registers. For every
element of the sum it loads one vector of weights a block and one input value a pixel, and does one
multiply-add for each pair. Larger tiles load less for every multiply-add; what limits them is the number
of registers, and the remainder that the size of the image leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

from .target import TargetDescription

# Multiply-adds in flight that hide their latency: 4 cycles times 2 units.
IN_FLIGHT = 8
# Bytes that the second cache level gives in the time of one multiply-add.
BYTES_PER_MULTIPLY_ADD = 16
# Work of beginning and ending a tile, in multiply-adds: fixed, and for every vector of results.
TILE_FIXED, TILE_VECTOR = 30.0, 4.0


@dataclass(frozen=True)
class Tile:
    """Blocks of output channels, rows and columns of results kept in registers."""

    blocks: int
    rows: int
    columns: int


def convolution(
    target: TargetDescription, height: int, width: int, blocks: int, steps: int, weight_bytes: int
) -> Tile:
    """The tile for an image of ``height`` x ``width`` results in ``blocks`` of output channels, whose
    sums have ``steps`` elements; ``weight_bytes`` are the weights of one block."""
    candidates = [
        Tile(block, rows, columns)
        for block in (1, 2, 3, 4, 6)
        if blocks % block == 0
        for rows in range(1, min(height, target.registers) + 1)
        for columns in ([width] if rows > 1 else range(1, min(width, target.registers) + 1))
        if _fits(target, block, rows * columns)
    ]
    streamed = weight_bytes > target.l1d_bytes // 2

    def cost(tile: Tile) -> float:
        total = 0.0
        for rows, row_count in _split(height, tile.rows):
            for columns, column_count in _split(width, tile.columns):
                one = _tile_cost(target, tile.blocks, rows * columns, steps, streamed)
                total += row_count * column_count * one
        return total * (blocks // tile.blocks)

    return min(candidates, key=cost)


def _tile_cost(
    target: TargetDescription, block: int, pixels: int, steps: int, streamed: bool
) -> float:
    """Time of one tile, in multiply-adds."""
    products, loads = block * pixels, block + pixels
    traffic = block * target.lanes * 4 / BYTES_PER_MULTIPLY_ADD if streamed else 0.0
    step = max(products, loads, IN_FLIGHT) + 0.25 * loads + 0.5 * traffic
    return steps * step + TILE_FIXED + TILE_VECTOR * products


def _fits(target: TargetDescription, block: int, pixels: int) -> bool:
    """Whether results, one vector of weights a block and a broadcast input fit the registers. With
    AVX-512 and a single block the broadcast is an operand of the multiply-add."""
    if block == 1 and target.isa == "avx512":
        return pixels <= target.registers - 4
    return block * pixels + block + 1 <= target.registers


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
