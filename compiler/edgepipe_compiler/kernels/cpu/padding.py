"""A pass that pads an image, for windows whose border code would be too long."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...frontend.graph import Tensor
from .. import window_geometry
from ..epilogue import TooLong
from ..kernel import Call, Value
from ..target import CpuTarget
from ..window_geometry import Window
from .index_maps import IndexMapCopy
from .sliding_windows import LongSliding, Sliding


def pad(
    image: Value,
    begin: tuple[int, int],
    end: tuple[int, int],
    filling: float,
    unit: str,
    target: CpuTarget,
) -> tuple[list[Call], Value]:
    """The call that writes a padded copy of ``image``, and the copy.

    Without padding: no call and ``image``. ``begin`` and ``end`` are widths along rows and columns.
    """
    if not any((*begin, *end)):
        return [], image
    shape = image.shape
    maps = [np.arange(extent) for extent in shape]
    for axis in (0, 1):
        places = np.arange(-begin[axis], shape[2 + axis] + end[axis])
        maps[2 + axis] = np.where(places < shape[2 + axis], np.maximum(places, -1), -1)
    made = tuple(chosen.size for chosen in maps)
    function, _ = IndexMapCopy(target, shape, maps, filling, shape, made).write()
    padded = Value(f"{unit}/padded", image.layout, made, image.dtype)
    return [Call(function, [image], [padded], "pad")], padded


def sliding_calls(
    write: Callable[[type[Sliding], Window, Value], Call],
    window: Window,
    result: Tensor,
    image: Value,
    filling: float,
    unit: str,
    target: CpuTarget,
) -> list[Call]:
    """Calls that slide ``window`` over ``image``: one call with code for each border kind, or a padding
    pass and a call with loops over the window.
    """
    if not window_geometry.is_tall(window, result):
        try:
            return [write(Sliding, window, image)]
        except TooLong:
            pass
    calls, padded = pad(image, window.begin, window.end, filling, unit, target)
    return [*calls, write(LongSliding, window_geometry.unpadded(window), padded)]
