"""Geometry of convolution and pooling windows."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import Unsupported
from ..frontend.graph import Node, Tensor


@dataclass(frozen=True)
class Window:
    """Kernel size, stride, dilation and padding (begin, end) along height and width."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    begin: tuple[int, int]
    end: tuple[int, int]

    @property
    def padded(self) -> bool:
        """Whether there is any padding."""
        return any((*self.begin, *self.end))

    @property
    def is_point(self) -> bool:
        """Whether it is a 1x1 window of stride 1 without padding."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and not self.padded


def resolve(node: Node, source: Tensor, result: Tensor, kernel: tuple[int, ...]) -> Window:
    """The window of a 2-D convolution or pooling. Padding follows from the shape of the result."""
    if len(source.shape) != 4 or len(kernel) != 2:
        raise Unsupported("window that is not two-dimensional")
    stride = tuple(node.attributes.get("strides", (1, 1)))
    dilation = tuple(node.attributes.get("dilations", (1, 1)))
    automatic = node.attributes.get("auto_pad", b"NOTSET")
    automatic = automatic.decode() if isinstance(automatic, bytes) else automatic
    pads = tuple(node.attributes.get("pads", (0, 0, 0, 0)))
    begin, end = list(pads[:2]), list(pads[2:])
    for axis in (0, 1):
        reach = (kernel[axis] - 1) * dilation[axis] + 1
        steps = (result.shape[2 + axis] - 1) * stride[axis] + reach
        total = max(0, steps - source.shape[2 + axis])
        if automatic == "SAME_UPPER":
            begin[axis] = total // 2
        elif automatic == "SAME_LOWER":
            begin[axis] = total - total // 2
        # Elements beyond the last window are not read; ceil_mode may read beyond the padding.
        end[axis] = max(0, steps - source.shape[2 + axis] - begin[axis])
    return Window(
        (kernel[0], kernel[1]),
        (stride[0], stride[1]),
        (dilation[0], dilation[1]),
        (begin[0], begin[1]),
        (end[0], end[1]),
    )


def unpadded(window: Window) -> Window:
    """The same window over an image that includes its padding."""
    return replace(window, begin=(0, 0), end=(0, 0))


def is_tall(window: Window, result: Tensor) -> bool:
    """Whether the window is high and the image too narrow for a row of results to fill the pipeline."""
    return window.kernel[0] >= 8 and result.shape[3] < 4 <= result.shape[2]


def turned(window: Window) -> Window:
    """Height and width exchanged."""
    return Window(
        window.kernel[::-1],
        window.stride[::-1],
        window.dilation[::-1],
        window.begin[::-1],
        window.end[::-1],
    )


Taps = tuple[int, int]


def taps(window: Window, axis: int, extent: int, results: int) -> list[Taps]:
    """For each result along ``axis``, the range of window positions that are on the image.

    ``extent`` is the image's.
    """
    stride, dilation = window.stride[axis], window.dilation[axis]
    found = []
    for place in range(results):
        first = place * stride - window.begin[axis]
        low = max(0, -(first // dilation))
        high = min(window.kernel[axis], -(-(extent - first) // dilation))
        found.append((min(low, window.kernel[axis]), max(low, high)))
    return found


@dataclass(frozen=True)
class Run:
    """``count`` tiles of ``size`` results from result ``start``, which use the same ``taps``: one piece of
    code serves all.
    """

    start: int
    size: int
    count: int
    taps: tuple[Taps, ...]


def runs(valid: list[Taps], most: int) -> list[Run]:
    """Splits results into tiles of at most ``most``, as equal as possible, and groups tiles into runs."""
    tiles = -(-len(valid) // most)
    found: list[Run] = []
    start = 0
    for tile in range(tiles):
        size = len(valid) // tiles + (tile < len(valid) % tiles)
        seen = tuple(valid[start : start + size])
        if found and found[-1].taps == seen:
            last = found.pop()
            found.append(Run(last.start, size, last.count + 1, seen))
        else:
            found.append(Run(start, size, 1, seen))
        start += size
    return found
