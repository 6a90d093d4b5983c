"""Places of a stage's values in one allocation of device memory.

Each launch of a stage uses the values of its step. Two values may have the same place if no launch uses one
while the other is still needed. The largest values are placed first, each at the lowest place that is free
during its lifetime (greedy by size: Y. Pisarchyk and J. Lee, "Efficient Memory Management for Deep Neural Net
Inference", 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Bytes; the alignment that cuMemAlloc guarantees.
ALIGNMENT = 256


@dataclass(frozen=True)
class Lifetime:
    """Size of a value in bytes, and the first and last launch that uses it."""

    bytes: int
    first: int
    last: int


def places(values: Sequence[Lifetime]) -> tuple[list[int], int]:
    """The offset of each value, and the size of the allocation, in bytes."""
    offsets = [0] * len(values)
    placed: list[tuple[int, int, Lifetime]] = []
    order = sorted(range(len(values)), key=lambda place: (-values[place].bytes, place))
    for number in order:
        value = values[number]
        size = -(-max(1, value.bytes) // ALIGNMENT) * ALIGNMENT
        begin = 0
        for other, end, alive in sorted(placed, key=lambda item: item[:2]):
            apart = alive.last < value.first or value.last < alive.first
            if apart:
                continue
            if begin + size <= other:
                break
            begin = max(begin, end)
        offsets[number] = begin
        placed.append((begin, begin + size, value))
    return offsets, max((end for _, end, _ in placed), default=0)
