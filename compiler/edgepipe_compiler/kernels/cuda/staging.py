"""Copies tiles of operands from global to shared memory, one tile ahead of the computation.

Two halves of shared memory alternate. While a block computes with one tile, each thread loads its share of
the next one into registers, and stores it to the other half afterwards: one barrier per tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from ..writer import Index, ramp
from .writer import KernelWriter, vector


@dataclass(frozen=True)
class Place:
    """Where a piece of a tile comes from and goes to.

    ``source`` is its index in the first tile, ``target`` its index in the half. ``valid`` tells whether the
    source has it; if not, zeros are stored. ``valid_in`` does so for the tile of a number.
    """

    source: tirx.Expr
    target: Index
    valid: tirx.Expr | None = None
    valid_in: Callable[[Index], tirx.Expr | None] = lambda _: None


class Staged:
    """An operand of which each tile is ``pieces`` pieces of ``lanes`` elements.

    ``place`` gives the place of a piece by its number. Consecutive threads copy consecutive pieces.
    ``advance`` gives the distance of a tile's source from that of the first tile, and ``spread`` the
    distance in shared memory between the elements of a piece.
    """

    def __init__(
        self,
        w: KernelWriter,
        name: str,
        source: tirx.Buffer,
        pieces: int,
        lanes: int,
        advance: Callable[[Index], Index],
        place: Callable[[tirx.Expr], Place],
        spread: int = 1,
    ) -> None:
        self._spread = spread
        self._w, self._name, self._source, self._lanes, self._advance = (
            w,
            name,
            source,
            lanes,
            advance,
        )
        thread = w.thread_index[0]
        self._places: list[Place] = []
        self._skips: list[tirx.Expr | None] = []
        self._held: list[tirx.Buffer] = []
        for number in range(-(-pieces // w.threads)):
            first = number * w.threads
            found = place(thread + first)
            # Threads without a piece in the last round neither load nor store.
            here = thread < pieces - first if pieces - first < w.threads else None
            self._skips.append(None if here is None else w.bind(f"{name}_here", here))
            valid = found.valid
            self._places.append(
                Place(
                    w.bind(f"{name}_from", found.source),
                    w.bind(f"{name}_to", found.target),
                    None if valid is None else w.bind(f"{name}_valid", valid),
                    found.valid_in,
                )
            )
            self._held.append(w.registers(f"{name}_next", lanes, str(source.dtype)))

    @property
    def rounds(self) -> int:
        """Loads per thread and tile."""
        return len(self._places)

    def fetch(self, tile: Index) -> None:
        """Loads this thread's share of ``tile`` into registers."""
        w, lanes = self._w, self._lanes
        zero = tirx.const(0.0, self._source.dtype)
        advance = w.bind(f"{self._name}_advance", self._advance(tile))
        for place, held, here in zip(self._places, self._held, self._skips, strict=True):
            valid = _both(place.valid, place.valid_in(tile))
            if valid is not None:
                w.store(held, vector([zero] * lanes), [ramp(0, lanes)])
            index = ramp(place.source + advance, lanes)
            with w.when(_both(here, valid)):
                w.store(held, self._source[index], [ramp(0, lanes)])

    def put(self, shared: tirx.Buffer, half: Index) -> None:
        """Stores the share to shared memory at ``half``."""
        w, lanes = self._w, self._lanes
        for place, held, here in zip(self._places, self._held, self._skips, strict=True):
            with w.when(here):
                if self._spread == 1:
                    w.store(shared, held[ramp(0, lanes)], [ramp(half + place.target, lanes)])
                    continue
                for number in range(lanes):
                    to = half + place.target + number * self._spread
                    w.store(shared, held[number], [to])


def _both(first: tirx.Expr | None, second: tirx.Expr | None) -> tirx.Expr | None:
    if first is None or second is None:
        return second if first is None else first
    return tirx.all(first, second)


def pipeline(
    w: KernelWriter,
    operands: Sequence[Staged],
    shared: tirx.Buffer,
    half: int,
    tiles: int,
    compute: Callable[[Index], None],
    together: int | None = None,
    after: Callable[[], None] | None = None,
) -> None:
    """Runs ``compute``, given the start of its half of ``shared``, for each of ``tiles`` tiles.

    ``after`` runs after each ``together`` tiles, and after the last one; by default, only then.
    """
    for operand in operands:
        operand.fetch(0)
        operand.put(shared, 0)
    w.barrier()
    together = min(together or tiles, tiles)
    with w.loop("group", -(-tiles // together)) as group:
        count: Index = together
        if tiles % together:
            count = tirx.min(count, tiles - group * together)
        with w.loop("tile", count) as number:
            tile = number if together == tiles else w.bind("number", group * together + number)
            _tile(w, operands, shared, half, tiles, tile, compute)
        if after is not None:
            after()


def _tile(
    w: KernelWriter,
    operands: Sequence[Staged],
    shared: tirx.Buffer,
    half: int,
    tiles: int,
    tile: Index,
    compute: Callable[[Index], None],
) -> None:
    """One step of ``pipeline``."""
    start = w.bind("half", (tile & 1) * half)
    if tiles > 1:
        with w.when(tile + 1 < tiles):
            for operand in operands:
                operand.fetch(tile + 1)
    compute(start)
    if tiles > 1:
        # Like the other half's start, so that LLVM adds constants to it within the instruction.
        other = w.bind("other", ((tile + 1) & 1) * half)
        for operand in operands:
            operand.put(shared, other)
    w.barrier()
