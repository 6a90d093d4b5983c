"""Windows over each channel by itself: depthwise convolution and pooling.

A thread computes four adjacent results, or one, of a few rows of a channel, straight from global memory: each
element is read a few times, from the cache. Four results are stored, and aligned elements read, at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from ...errors import Unsupported
from ..target import CudaTarget
from ..window_geometry import Window
from ..writer import Index, ramp
from . import tiling
from .results import Results
from .writer import KernelWriter, lane, vector

THREADS = 64
# Limit of the positions of a window, which are written out.
LARGEST = 81


@dataclass(frozen=True)
class Windows:
    """``each`` channels of results per channel of an image (height, width), for ``images`` images.

    ``outside`` is the value of the padding.
    """

    images: int
    channels: int
    each: int
    image: tuple[int, int]
    results: tuple[int, int]
    window: Window
    outside: float


# The new value of a result, from its old one, an element and the element's position in the window.
Combine = Callable[[tirx.Expr, tirx.Expr, int], tirx.Expr]


class SlidingWindows:
    """Writes a kernel: the results start as ``windows.outside`` and are combined with each element."""

    def __init__(self, windows: Windows, results: Results, target: CudaTarget) -> None:
        window, rows, columns = windows.window, *windows.results
        if window.kernel[0] * window.kernel[1] > LARGEST:
            raise Unsupported("window with too many positions to be written out")
        self.windows, self.window, self.results = windows, window, results
        self.lanes = 4 if columns % 4 == 0 else 1
        self.across = columns // self.lanes
        total = windows.images * windows.channels * windows.each * self.across
        wanted = tiling.multiprocessors(target) * target.limits.threads_per_multiprocessor
        self.rows = next(n for n in (4, 2, 1) if n == 1 or total * (rows // n) >= 2 * wanted)
        self.tasks = self.across * -(-rows // self.rows)
        blocks = (-(-self.tasks // THREADS), windows.channels * windows.each, windows.images)
        w = self.w = KernelWriter(blocks, (THREADS,))
        self.task = w.bind("task", w.block_index[0] * THREADS + w.thread_index[0])
        self.channel = w.block_index[1]
        self.row = w.bind("row", self.task // self.across * self.rows)
        self.place = w.bind("place", self.task % self.across)

    def write(
        self,
        data: tirx.Buffer,
        combine: Combine,
        finish: Callable[[tirx.Expr, Index, Index], tirx.Expr],
    ) -> tirx.PrimFunc:
        """The kernel. ``finish`` makes a result from what was combined, given its row and column."""
        w, columns = self.w, self.windows.results[1]
        write = self.results.writer(w)
        with w.when(self.task < self.tasks if self.tasks % THREADS else None):
            sums = self._combine(data, combine)
            for number in range(self.rows):
                y = self.row + number
                last = self.windows.results[0]
                with w.when(y < last if last % self.rows else None):
                    x = self.place * self.lanes
                    made = [
                        finish(sums[number * self.lanes + lane], y, x + lane)
                        for lane in range(self.lanes)
                    ]
                    where = w.opaque("where", y * self.across + self.place) * self.lanes
                    position = where if self.lanes > 1 else y * columns + x
                    write(vector(made), (w.block_index[2], self.channel), position, self.lanes)
        return w.function([*self.results.operands.placeholders, self.results.out])

    def _combine(self, data: tirx.Buffer, combine: Combine) -> list[tirx.Expr]:
        w, window, windows = self.w, self.window, self.windows
        (height, width), outside = windows.image, tirx.const(windows.outside, "float32")
        count = self.rows * self.lanes
        sums = w.registers("sums", count)
        for place in range(count):
            w.store(sums, outside, [place])
        top = w.bind("top", self.row * window.stride[0] - window.begin[0])
        reads = _Row(self)
        for down in range((self.rows - 1) * window.stride[0] + _reach(window, 0)):
            taps = self._taps(down)
            if not taps:
                continue
            y = w.bind("y", top + down)
            values = reads.load(data, y, height, width, outside)
            for number, tap_row in taps:
                for column in range(self.lanes):
                    for tap in range(window.kernel[1]):
                        value = values[column * window.stride[1] + tap * window.dilation[1]]
                        at = number * self.lanes + column
                        tap_place = tap_row * window.kernel[1] + tap
                        w.store(sums, combine(sums[at], value, tap_place), [at])
        return [sums[place] for place in range(count)]

    def _taps(self, down: int) -> list[tuple[int, int]]:
        """The rows of results that read a row of the image, and the row of their window."""
        found = []
        for number in range(self.rows):
            tap, left = divmod(down - number * self.window.stride[0], self.window.dilation[0])
            if left == 0 and 0 <= tap < self.window.kernel[0]:
                found.append((number, tap))
        return found


def _reach(window: Window, axis: int) -> int:
    """Elements from the first to the last position of a window."""
    return (window.kernel[axis] - 1) * window.dilation[axis] + 1


class _Row:
    """Reads the part of a row of the image that a thread needs."""

    def __init__(self, kernel: SlidingWindows) -> None:
        self.kernel, self.w = kernel, kernel.w
        window, lanes = kernel.window, kernel.lanes
        width = kernel.windows.image[1]
        self.count = (lanes - 1) * window.stride[1] + _reach(window, 1)
        taps = range(window.kernel[1])
        self.needed = {
            column * window.stride[1] + tap * window.dilation[1]
            for column in range(lanes)
            for tap in taps
        }
        self.step, self.begin = lanes * window.stride[1], window.begin[1]
        left = kernel.place * self.step - self.begin
        self.left = self.w.bind("left", left)
        aligned = width % 4 == 0 and self.step % 4 == 0
        # The first elements of aligned groups of four.
        self.groups = range(self.begin % 4, self.count - 3, 4) if aligned else range(0)
        self.grouped = {first + place for first in self.groups for place in range(4)}
        self.inside = {
            place: self.w.bind(
                "inside", tirx.all(self.left + place >= 0, self.left + place < width)
            )
            for place in [*self.groups, *sorted(self.needed - self.grouped)]
        }

    def load(
        self, data: tirx.Buffer, y: tirx.Expr, height: int, width: int, outside: tirx.Expr
    ) -> list[tirx.Expr]:
        """The elements of row ``y``; ``outside`` beyond the image."""
        w, kernel = self.w, self.kernel
        held = w.registers("row", self.count)
        for place in self.needed | self.grouped:
            w.store(held, outside, [place])
        channel = kernel.channel // kernel.windows.each
        image = w.block_index[2] * kernel.windows.channels + channel
        with w.when(tirx.all(y >= 0, y < height)):
            base = w.bind("base", (image * height + y) * width + self.left)
            quarter = None
            if self.groups:
                first = (image * height + y) * (width // 4) + kernel.place * (self.step // 4)
                quarter = w.opaque("quarter", first)
            for first in self.groups:
                with w.when(self.inside[first]):
                    index = (quarter + (first - self.begin) // 4) * 4
                    four = w.bind("four", data[ramp(index, 4)])
                    for place in range(4):
                        w.store(held, lane(four, place), [first + place])
            for place in sorted(self.needed - self.grouped):
                with w.when(self.inside[place]):
                    w.store(held, data[base + place], [place])
        return [held[place] for place in range(self.count)]
