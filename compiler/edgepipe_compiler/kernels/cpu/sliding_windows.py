"""Sliding windows over single channels: depthwise convolution, max and average pooling.

A tile of one result row stays in registers. Each input vector is loaded once and used for all results whose
window covers it. Border rows and columns have their own code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from .. import window_geometry
from ..epilogue import TooLong
from ..target import CpuTarget
from ..window_geometry import Run, Taps, Window
from ..writer import Index, Writer, ramp
from . import tiling

# Limit of unrolled operations: more compile slowly and exceed the instruction cache.
LARGEST, HUGE = 2500, 8000


@dataclass
class Sliding:
    """Writes the function.

    ``combine(result, input, weight)`` is applied to each window element, starting with ``begin(n, c)``;
    ``finish(result, index)`` is stored. ``kernel`` holds the weights, if any, as (blocks, kh * kw, lanes).
    """

    target: CpuTarget
    window: Window
    data: tirx.Buffer
    kernel: tirx.Buffer | None
    out: tirx.Buffer
    begin: Callable[[Writer, Index, Index, int], tirx.Expr]
    combine: Callable[[tirx.Expr, tirx.Expr, tirx.Expr | None], tirx.Expr]
    finish: Callable[[tirx.Expr, tuple[Index, ...]], tirx.Expr]

    def write(self, arguments: list[tirx.Buffer]) -> tirx.PrimFunc:
        """Writes the whole function."""
        batch, blocks, rows, width = (int(extent) for extent in self.out.shape[:4])
        image_rows, image_columns = (int(extent) for extent in self.data.shape[2:4])
        kh, kw = self.window.kernel
        row_taps = window_geometry.taps(self.window, 0, image_rows, rows)
        column_taps = window_geometry.taps(self.window, 1, image_columns, width)
        columns = window_geometry.runs(column_taps, tiling.row(self.target, width))
        row_runs = window_geometry.runs(row_taps, 1)
        written = kh * kw * sum(run.size for run in columns)
        fixed = written * len(row_runs) <= LARGEST
        if written > HUGE * (1 if fixed else kh):
            raise TooLong("window with too many kinds of borders")
        w = Writer()
        if self.target.threads > 1:
            together = rows if batch * blocks >= 4 * self.target.threads else 1
            with w.loop("task", batch * blocks * (rows // together), parallel=True) as task:
                image = task // (rows // together)
                begin = task % (rows // together) if together == 1 else 0
                self._rows(
                    w, image // blocks, image % blocks, begin, together, row_runs, columns, fixed
                )
        else:
            with w.loop("n", batch) as n, w.loop("c", blocks) as c:
                self._rows(w, n, c, 0, rows, row_runs, columns, fixed)
        return w.function([*arguments, self.out])

    def _rows(
        self,
        w: Writer,
        n: Index,
        c: Index,
        begin: Index,
        rows: int,
        row_runs: list[Run],
        columns: list[Run],
        fixed: bool,
    ) -> None:
        if not fixed:
            with w.loop("y", rows) as y:
                self._row(w, n, c, begin + y, None, columns)
        elif rows > 1 or len(row_runs) == 1:
            # The code generator interleaves consecutive tiles and then runs out of registers, so each
            # tile has its own loop over rows.
            mixed = all(run.count == 1 for run in columns)
            for together in [[run] for run in columns] if mixed else [columns]:
                for run in row_runs:
                    count = run.count if rows > 1 else rows
                    with w.loop("y", count) as y:
                        self._row(w, n, c, begin + y + run.start, run.taps[0], together)
        else:
            for run in row_runs:
                inside = tirx.all(begin >= run.start, begin < run.start + run.count)
                with w.when(inside):
                    self._row(w, n, c, begin, run.taps[0], columns)

    def _row(
        self, w: Writer, n: Index, c: Index, y: Index, taps: Taps | None, columns: list[Run]
    ) -> None:
        for run in columns:
            with w.loop("x", run.count) as tile:
                self._tile(w, n, c, y, tile * run.size + run.start, taps, run)

    def _tile(
        self, w: Writer, n: Index, c: Index, y: Index, x: Index, taps: Taps | None, run: Run
    ) -> None:
        lanes = self.target.lanes
        whole = ramp(0, lanes)
        results = [w.local(f"result{place}", lanes) for place in range(run.size)]
        for place, result in enumerate(results):
            w.store(result, self.begin(w, n, c, place), [whole])
        kh, stride, dilation = self.window.kernel[0], self.window.stride[0], self.window.dilation[0]
        first = y * stride - self.window.begin[0]
        if taps is None:
            first = w.bind("first", first)
            rows = int(self.data.shape[2])
            low = w.bind("low", tirx.max(0, tirx.floordiv(dilation - 1 - first, dilation)))
            high = tirx.min(kh, tirx.floordiv(rows - 1 - first, dilation) + 1)
            extent = w.bind("extent", tirx.max(0, high - low))
            with w.loop("rh", extent) as step:
                self._taps(w, n, c, first, x, low + step, run, results)
        else:
            for rh in range(*taps):
                self._taps(w, n, c, first, x, rh, run, results)
        for place, result in enumerate(results):
            index = (n, c, y, x + place, whole)
            w.store(self.out, self.finish(result[whole], index), index)

    def _taps(
        self,
        w: Writer,
        n: Index,
        c: Index,
        first: Index,
        x: Index,
        rh: Index,
        run: Run,
        results: list[tirx.Buffer],
    ) -> None:
        """Combines one window row. Each input column is loaded once for all its results."""
        whole = ramp(0, self.target.lanes)
        kw, stride, dilation = self.window.kernel[1], self.window.stride[1], self.window.dilation[1]
        seen: dict[int, list[tuple[int, int]]] = {}
        for place, (low, high) in enumerate(run.taps):
            for rw in range(low, high):
                seen.setdefault(place * stride + rw * dilation, []).append((place, rw))
        weights: dict[int, tirx.Expr] = {}
        if self.kernel is not None:
            for rw in sorted({rw for users in seen.values() for _, rw in users}):
                weights[rw] = w.bind(f"w{rw}", self.kernel[c, rh * kw + rw, whole])
        row = first + rh * self.window.dilation[0]
        for column in sorted(seen):
            place = x * stride + (column - self.window.begin[1])
            value = w.bind("v", self.data[n, c, row, place, whole])
            for result, rw in seen[column]:
                held = results[result]
                w.store(held, self.combine(held[whole], value, weights.get(rw)), [whole])


@dataclass
class LongSliding(Sliding):
    """For long windows over a padded image: loops run over the window, and the tile runs along the axis
    with more results.
    """

    def write(self, arguments: list[tirx.Buffer]) -> tirx.PrimFunc:
        """Writes the whole function."""
        batch, blocks, rows, width = (int(extent) for extent in self.out.shape[:4])
        tall = rows > width
        along, across = (rows, width) if tall else (width, rows)
        w = Writer()
        parallel = self.target.threads > 1
        with w.loop("task", batch * blocks * across, parallel=parallel) as task:
            n, c = task // across // blocks, task // across % blocks
            fixed = task % across
            for run in window_geometry.runs([(0, 1)] * along, 3 * self.target.registers // 4):
                with w.loop("tile", run.count) as tile:
                    first = tile * run.size + run.start
                    places = [first + place for place in range(run.size)]
                    results = [(place, fixed) if tall else (fixed, place) for place in places]
                    self._long_tile(w, n, c, results)
        return w.function([*arguments, self.out])

    def _long_tile(self, w: Writer, n: Index, c: Index, results: list[tuple[Index, Index]]) -> None:
        lanes = self.target.lanes
        whole = ramp(0, lanes)
        held = [w.local(f"result{place}", lanes) for place in range(len(results))]
        for place, sum_ in enumerate(held):
            w.store(sum_, self.begin(w, n, c, place), [whole])
        (kh, kw), (sh, sw) = self.window.kernel, self.window.stride
        dh, dw = self.window.dilation
        with w.loop("rh", kh) as rh, w.loop("rw", kw) as rw:
            weight = None
            if self.kernel is not None:
                weight = w.bind("weight", self.kernel[c, rh * kw + rw, whole])
            for sum_, (y, x) in zip(held, results, strict=True):
                value = self.data[n, c, y * sh + rh * dh, x * sw + rw * dw, whole]
                w.store(sum_, self.combine(sum_[whole], value, weight), [whole])
        for sum_, (y, x) in zip(held, results, strict=True):
            index = (n, c, y, x, whole)
            w.store(self.out, self.finish(sum_[whole], index), index)
