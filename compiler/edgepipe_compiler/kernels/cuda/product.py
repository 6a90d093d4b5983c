"""Products of matrices: tiles in shared memory, 8 x 8 or 8 x 7 results in the registers of a thread.

``rows`` x ``inner`` by ``inner`` x ``columns``, for each of ``batch`` pairs. The left matrix is a constant,
packed in the order of reading, or computed and row-major; the right one has its columns side by side. A 1 x 1
convolution is such a product, whose columns are pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from tvm import tirx

from ..target import CudaTarget
from ..writer import Index, ramp
from . import half_sums, tiling
from .half_sums import HalfSums
from .staging import Place, Staged, pipeline
from .tiling import OTHER_REGISTERS, Work
from .writer import KernelWriter, lane, lanes_of, vector

# Terms of a sum per step.
DEPTH = 8
# How the results of a thread along a row are read: vectors whose lengths add up to the key.
VECTORS = {8: (4, 4), 7: (4, 2, 1), 4: (4,)}
# Issue slots per multiply-add, by the columns of a thread: register bank conflicts less dual issue. Counted
# in the machine code that ptxas 12.9 writes for sm_62.
SLOTS = {8: 1.045, 7: 1.025, 4: 1.01}
MOST_THREADS = 256

# Finishes and stores `lanes` sums: their value, the pair, the row, the first column, `lanes`.
Write = Callable[[tirx.Expr, Index, Index, Index, int], None]


@dataclass(frozen=True)
class Problem:
    """The shapes. ``groups`` is the number of left matrices, used in turn by the pairs of ``batch``.

    ``packed`` tells whether the left matrix is packed. ``pitch`` is the distance between rows of the right
    matrix, and ``vectors`` whether four columns may be read at once.
    """

    batch: int
    groups: int
    rows: int
    inner: int
    columns: int
    packed: bool
    pitch: int
    vectors: bool


@dataclass(frozen=True)
class Tile:
    """``rows`` and ``columns`` of a thread and how many threads side by side.

    ``split`` blocks share a sum. ``paired``: products of pairs of rows in half precision.
    """

    problem: Problem
    rows: int
    columns: int
    along_rows: int
    along_columns: int
    split: int = 1
    paired: bool = False

    @property
    def group(self) -> int:
        """Adjacent rows of a thread, whose elements it reads at once."""
        return 8 if self.paired and self.rows % 8 == 0 else 4

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.along_rows * self.along_columns

    @property
    def height(self) -> int:
        """Rows of a block."""
        return self.rows * self.along_rows

    @property
    def width(self) -> int:
        """Columns of a block."""
        return self.columns * self.along_columns

    @property
    def row_pitch(self) -> int:
        """Elements of a row of the right tile in shared memory; vectors in it are aligned."""
        return -(-self.width // 4) * 4

    @property
    def lanes(self) -> int:
        """Columns that are copied at once."""
        return 4 if self.problem.vectors and self.width % 4 == 0 else 1

    @property
    def left_lanes(self) -> int:
        """Elements of the left matrix that are copied at once."""
        return 4 if self.problem.packed or self.problem.inner % 4 == 0 else 1

    @property
    def steps(self) -> int:
        """Steps of the sum of a block."""
        return -(-self.problem.inner // (DEPTH * self.split))

    @property
    def tiles(self) -> tuple[int, int]:
        """Blocks along rows and columns."""
        return -(-self.problem.rows // self.height), -(-self.problem.columns // self.width)

    @property
    def blocks(self) -> int:
        """Blocks of a launch."""
        rows, columns = self.tiles
        return self.problem.batch * self.split * rows * columns

    @property
    def half(self) -> int:
        """Elements of one half of shared memory."""
        return DEPTH * (self.height + self.row_pitch)

    @property
    def complete(self) -> bool:
        """Whether the sum has as many terms as all steps together."""
        return self.split * self.steps * DEPTH == self.problem.inner

    def work(self) -> Work:
        """What a launch of this tile has to do."""
        left = -(-DEPTH * self.height // self.left_lanes // self.threads)
        right = -(-DEPTH * self.width // self.lanes // self.threads)
        reads = self.rows // self.group + len(VECTORS[self.columns])
        multiply_adds = DEPTH * self.rows * self.columns * SLOTS[self.columns]
        stores, operands, size = self.rows * self.columns, self.rows + self.columns, 4
        if self.paired:
            multiply_adds *= 0.5 * (1.0 + half_sums.overhead(DEPTH))
            operands, size = stores // 2 + operands // 2, 2
        return Work(
            blocks=self.blocks,
            threads=self.threads,
            steps=self.steps,
            instructions=multiply_adds + DEPTH * reads + 5 * left + 6 * right + 25,
            last=4.0 * stores + 100,
            registers=stores
            + operands
            + (self.left_lanes + 1) * left
            + (self.lanes + 1) * right
            + OTHER_REGISTERS,
            shared=2 * size * self.half,
            fetched=size * DEPTH * (self.height + self.width),
            wavefronts=DEPTH * (self.rows + self.columns) + 4 * left + self.lanes * right,
        )


@functools.lru_cache(maxsize=256)
def choose(problem: Problem, target: CudaTarget, splits: tuple[int, ...]) -> Tile:
    """The fastest tile by the model of ``tiling``, with a number of slices from ``splits``."""
    outputs = problem.batch * problem.rows * problem.columns
    many = tiling.MANY_BLOCKS * tiling.multiprocessors(target)
    paired = target.precision == "fp16"
    best, least = None, math.inf
    for tile in _candidates(problem, splits, many):
        tile = replace(tile, paired=True) if paired else tile
        work = tile.work()
        if work.fits(target):
            cycles = work.cycles(target) + tiling.adding(outputs, tile.split, target)
            if cycles < least:
                best, least = tile, cycles
    assert best is not None, "the smallest tile fits on every GPU"
    return best


def _candidates(problem: Problem, splits: tuple[int, ...], many: int) -> Iterator[Tile]:
    """All tiles; sums are shared unless there are ``many`` blocks without that."""
    for rows in (8, 4):
        for columns in VECTORS:
            for along_rows in (1, 2, 4, 8, 16, 32):
                if rows * along_rows >= 2 * max(problem.rows, rows):
                    continue
                for along_columns in (1, 2, 4, 7, 8, 14, 16, 28, 32):
                    if columns * along_columns >= 2 * max(problem.columns, columns):
                        continue
                    tile = Tile(problem, rows, columns, along_rows, along_columns)
                    if tile.threads <= MOST_THREADS:
                        yield tile
                        for split in splits if tile.blocks < many else ():
                            if problem.inner >= 8 * DEPTH * split:
                                yield replace(tile, split=split)


def pack(matrix: np.ndarray, tile: Tile) -> np.ndarray:
    """(groups, rows, inner) as (group, row tile, slice, step, term of the step, row of the tile).

    Rows and terms beyond the last one are 0. Float16 for a tile of pairs.
    """
    groups, rows, inner = matrix.shape
    tiles, terms = tile.tiles[0], tile.split * tile.steps * DEPTH
    kind = np.float16 if tile.paired else np.float32
    full = np.zeros((groups, tiles * tile.height, terms), kind)
    full[:, :rows, :inner] = matrix
    full = full.reshape(groups, tiles, tile.height, tile.split, tile.steps, DEPTH)
    return np.ascontiguousarray(full.transpose(0, 1, 3, 4, 5, 2)).reshape(-1)


class Body:
    """Writes the kernel.

    ``column`` gives the distance of a column of the right matrix from the first one. The threads along
    columns are neighbours.
    """

    def __init__(
        self,
        tile: Tile,
        left: tirx.Buffer,
        right: tirx.Buffer,
        column: Callable[[tirx.Expr], tirx.Expr] = lambda place: place,
    ) -> None:
        self.tile, self.problem, self.column = tile, tile.problem, column
        self.left, self.right = left, right
        rows, columns = tile.tiles
        depth = self.problem.batch * tile.split
        w = self.w = KernelWriter((columns, rows, depth), (tile.threads,))
        thread = w.thread_index[0]
        self.column_place = w.bind("column_place", thread % tile.along_columns)
        self.row_place = w.bind("row_place", thread // tile.along_columns)
        self.slice = w.bind("slice", w.block_index[2] % tile.split)
        self.pair = w.bind("pair", w.block_index[2] // tile.split)
        self.shared = w.shared("shared", 2 * tile.half, str(right.dtype))
        self.sums = w.registers("sums", tile.rows * tile.columns)
        for place in range(tile.rows * tile.columns):
            w.store(self.sums, tirx.const(0.0, "float32"), [place])
        self.pairs = HalfSums(w, self.sums, tile.rows, tile.columns) if tile.paired else None

    def run(self, write: Write) -> None:
        """Writes all statements; ``write`` receives the sums."""
        left = self._packed() if self.problem.packed else self._row_major()
        operands = [left, self._right()]
        tile, pairs = self.tile, self.pairs
        if pairs is None:
            pipeline(self.w, operands, self.shared, tile.half, tile.steps, self._step)
        else:
            pipeline(
                self.w, operands, self.shared, tile.half, tile.steps, self._step,
                half_sums.steps(DEPTH), pairs.fold,
            )  # fmt: skip
        self._finish(write)

    def _packed(self) -> Staged:
        tile, w = self.tile, self.w
        step = DEPTH * tile.height
        group = self.pair % self.problem.groups
        block = (group * tile.tiles[0] + w.block_index[1]) * tile.split + self.slice
        thread = w.thread_index[0]
        first = w.opaque("left_first", block * (tile.steps * step // 4) + thread)

        def place(piece: tirx.Expr) -> Place:
            return Place((first + (piece - thread)) * 4, piece * 4)

        return Staged(w, "left", self.left, step // 4, 4, lambda number: number * step, place)

    def _row_major(self) -> Staged:
        """The left tile is transposed on the way to shared memory."""
        tile, w, problem = self.tile, self.w, self.problem
        lanes = tile.left_lanes
        each = DEPTH // lanes
        term = self.slice * (tile.steps * DEPTH)

        def place(piece: tirx.Expr) -> Place:
            row, part = piece // each, piece % each
            taken = w.block_index[1] * tile.height + row
            if problem.rows % tile.height:
                taken = tirx.min(taken, tirx.const(problem.rows - 1, "int32"))
            matrix = self.pair % problem.groups * problem.rows
            source = (matrix + taken) * (problem.inner // lanes) + part
            first = w.bind("first_term", term + part * lanes)
            return Place(
                source * lanes + term,
                part * (lanes * tile.height) + row,
                None,
                lambda step: self._within(step, first),
            )

        return Staged(
            w, "left", self.left, tile.height * each, lanes, lambda step: step * DEPTH, place,
            tile.height,
        )  # fmt: skip

    def _right(self) -> Staged:
        tile, w, problem = self.tile, self.w, self.problem
        lanes = tile.lanes
        each = tile.width // lanes
        term = self.slice * (tile.steps * DEPTH)
        matrix = w.bind("right_first", self.pair * problem.inner + term)

        def place(piece: tirx.Expr) -> Place:
            row, part = piece // each, piece % each
            taken = w.block_index[0] * each + part
            if problem.columns % tile.width:
                # Columns beyond the last one are computed and not stored.
                taken = tirx.min(taken, tirx.const(problem.columns // lanes - 1, "int32"))
            first = w.bind("first_term", term + row)
            if lanes == 1:
                source = (matrix + row) * problem.pitch + self.column(taken)
            else:
                source = w.opaque("four", (matrix + row) * (problem.pitch // 4) + taken) * 4
            return Place(
                source,
                row * tile.row_pitch + part * lanes + DEPTH * tile.height,
                None,
                lambda step: self._within(step, first),
            )

        return Staged(
            w, "right", self.right, DEPTH * each, lanes,
            lambda step: step * (DEPTH * problem.pitch), place,
        )  # fmt: skip

    def _within(self, step: Index, term: tirx.Expr) -> tirx.Expr | None:
        """Whether the sum has a term at this step."""
        if self.tile.complete:
            return None
        return term + step * DEPTH < self.problem.inner

    def _column_parts(self) -> list[tuple[Index, int]]:
        """First column within the tile, and length, of each vector of this thread's results."""
        tile, parts, begin = self.tile, [], 0
        for length in VECTORS[tile.columns]:
            parts.append((begin * tile.along_columns + self.column_place * length, length))
            begin += length
        return parts

    def _row_parts(self) -> list[Index]:
        """First row within the tile of each group of adjacent ones of this thread's results."""
        group = self.tile.group
        parts = self.tile.rows // group
        return [
            self.row_place * group + number * (self.tile.height // parts) for number in range(parts)
        ]

    def _step(self, half: Index) -> None:
        tile, w, shared = self.tile, self.w, self.shared
        for term in range(DEPTH):
            rows: list[tirx.Expr] = []
            for first in self._row_parts():
                index = ramp(half + term * tile.height + first, tile.group)
                held = w.bind("left", shared[index])
                if self.pairs is None:
                    rows += [lane(held, place) for place in range(tile.group)]
                else:
                    rows += [lanes_of(held, place, 2) for place in range(0, tile.group, 2)]
            columns: list[tirx.Expr] = []
            base = half + DEPTH * tile.height + term * tile.row_pitch
            for first, length in self._column_parts():
                held = w.bind("right", shared[ramp(base + first, length)])
                columns += [held] if length == 1 else [lane(held, at) for at in range(length)]
            for row, left in enumerate(rows):
                for column, right in enumerate(columns):
                    if self.pairs is not None:
                        self.pairs.add(row, column, left, right)
                        continue
                    place = row * tile.columns + column
                    w.store(self.sums, self.sums[place] + left * right, [place])

    def _finish(self, write: Write) -> None:
        tile, w, problem = self.tile, self.w, self.problem
        for number, first in enumerate(self._row_parts()):
            for one in range(tile.group):
                row = w.bind("row", w.block_index[1] * tile.height + first + one)
                below = row < problem.rows if problem.rows % tile.height else None
                with w.when(below):
                    begin = (number * tile.group + one) * tile.columns
                    for start, length in self._column_parts():
                        values = [w.opaque("sum", self.sums[begin + at]) for at in range(length)]
                        begin += length
                        self._store(write, row, w.block_index[0] * tile.width + start, values)

    def _store(self, write: Write, row: Index, column: Index, values: list[tirx.Expr]) -> None:
        """Stores neighbours at once if their place is aligned, and none beyond the last column."""
        tile, w, columns = self.tile, self.w, self.problem.columns
        lanes = len(values)
        if not (self.problem.vectors and columns % lanes == 0 and tile.width % lanes == 0):
            lanes = 1
        for at in range(0, len(values), lanes):
            place = w.bind("column", column + at)
            if lanes > 1:
                place = w.opaque("piece", place // lanes) * lanes
            with w.when(place < columns if columns % tile.width else None):
                write(vector(values[at : at + lanes]), self.pair, row, place, lanes)
