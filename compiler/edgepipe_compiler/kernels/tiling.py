"""Tile sizes from a small model of the machine, not from a table of layers.

A direct convolution keeps a tile of results in registers and adds, for every input element, one vector
of weights times a broadcast input. With one output-channel block a tile, the broadcast is a memory
operand of the multiply-add and the tile may fill the registers; with several, the broadcasts are loaded
once for all blocks and need registers of their own.
"""

from __future__ import annotations

from .target import TargetDescription

# Multiply-adds in flight that hide their latency: 4 cycles times 2 units.
IN_FLIGHT = 8


def convolution(target: TargetDescription, width: int, blocks: int) -> tuple[int, int]:
    """(tile of the output width, output-channel blocks a tile) for an output ``width`` of so many
    output-channel ``blocks``."""
    registers = target.registers
    best: tuple[float, int, int] | None = None
    for tile in range(1, min(width, registers - 4) + 1):
        for block in (1, 2, 4):
            if blocks % block or not _fits(registers, tile, block):
                continue
            computed = -(-width // tile) * tile
            waste = computed / width
            latency = max(1.0, IN_FLIGHT / (tile * block))
            # Each weight vector is loaded once a tile; a wide tile loads it for more results.
            loads = 1.0 + 0.5 / tile + (0.15 if block > 1 else 0.0)
            cost = waste * latency * loads
            if best is None or cost < best[0] - 1e-9:
                best = (cost, tile, block)
    assert best is not None, "a tile of one always fits"
    return best[1], best[2]


def _fits(registers: int, tile: int, block: int) -> bool:
    if block == 1:
        return tile <= registers - 4
    return tile * block + tile + 1 <= registers


def divisor(extent: int, most: int) -> int:
    """Greatest divisor of ``extent`` that is at most ``most``."""
    return next(size for size in range(min(extent, most), 0, -1) if extent % size == 0)


def row(target: TargetDescription, width: int) -> int:
    """Tile of the output width for kernels without a reduction over channels: what fits half of the
    registers with the least waste."""
    most = max(1, target.registers // 2)
    sizes = range(1, min(width, most) + 1)
    return min(sizes, key=lambda size: (-(-width // size) * size * (1 + 0.5 / size), -size))
