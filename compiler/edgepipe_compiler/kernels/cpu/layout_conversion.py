"""Converts between plain and packed layout by transposing tiles of channels and pixels in registers."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import te, tirx

from .. import layout
from ..kernel import Call, Value
from ..layout import stored_shape
from ..target import CpuTarget
from ..writer import Index, Writer, ramp
from . import schedule


def convert(value: Value, wanted: str, logical: Sequence[int], target: CpuTarget) -> Call:
    """A call that converts ``value`` of shape ``logical`` to the layout ``wanted``.

    One of the layouts is plain.
    """
    before, after = layout.lanes_of(value.layout), layout.lanes_of(wanted)
    if before and after:
        raise ValueError(f"no direct conversion from {value.layout} to {wanted}")
    logical = tuple(logical)
    stored = stored_shape(logical, wanted)
    converted = Value(value.name, wanted, stored, value.dtype)
    lanes = before or after
    if value.dtype == "float32" and logical[2] * logical[3] >= lanes:
        function = transposing(value.shape, stored, logical, bool(after), target)
    else:
        source = te.placeholder(value.shape, value.dtype, name="source")
        result = (layout.pack if after else layout.unpack)(source, logical, lanes)
        function = schedule.spatial(source, result, target)
    return Call(function, [value], [converted], "pack" if after else "unpack")


def transposing(
    source_shape: tuple[int, ...],
    result_shape: tuple[int, ...],
    logical: tuple[int, ...],
    packing: bool,
    target: CpuTarget,
) -> tirx.PrimFunc:
    """A function from plain to packed or back.

    The plain tensor may have another shape with the same elements in order. Works on blocks of channels and
    chunks of pixels; the last chunk overlaps the previous one if needed.
    """
    source = tirx.decl_buffer(source_shape, "float32", "source")
    result = tirx.decl_buffer(result_shape, "float32", "result")
    batch, channels, pixels = logical[0], logical[1], logical[2] * logical[3]
    lanes = (result_shape if packing else source_shape)[4]
    whole, left = divmod(channels, lanes)
    chunks = -(-pixels // lanes)
    w = Writer()
    if whole:
        with w.loop("task", batch * whole, parallel=target.threads > 1) as task:
            n, c = task // whole, task % whole
            with w.loop("chunk", chunks) as chunk:
                first = tirx.min(chunk * lanes, pixels - lanes) if chunks > 1 else 0
                _square(w, source, result, (n, c, first), logical, lanes, packing)
    if left:
        with w.loop("n", batch) as n, w.loop("chunk", chunks) as chunk:
            first = tirx.min(chunk * lanes, pixels - lanes) if chunks > 1 else 0
            _square(w, source, result, (n, whole, first), logical, left, packing)
    return w.function([source, result])


def _square(
    w: Writer,
    source: tirx.Buffer,
    result: tirx.Buffer,
    place: tuple[Index, Index, Index],
    logical: tuple[int, ...],
    channels: int,
    packing: bool,
) -> None:
    """Transposes as many pixels as a vector has lanes, of the ``channels`` of one block.

    ``place`` is (image, block, first pixel).
    """
    n, c, begin = place
    packed, plain = (result, source) if packing else (source, result)
    lanes, pixels = int(packed.shape[4]), logical[2] * logical[3]
    first = w.bind("first", begin + tirx.const(0, "int32"))
    # The plain tensor may have any shape, so it is indexed flat.
    leading = (0,) * (len(plain.shape) - 1)
    channel = n * logical[1] + c * lanes
    planes = [(*leading, ramp((channel + row) * pixels + first, lanes)) for row in range(channels)]
    vectors = [(n, c, 0, first + pixel, ramp(0, lanes)) for pixel in range(lanes)]
    zero = tirx.Broadcast(tirx.const(0.0, "float32"), lanes)
    rows = [w.bind("row", source[index]) for index in (planes if packing else vectors)]
    rows += [zero] * (lanes - len(rows))
    distance = 1
    while distance < lanes:
        # Swaps the off-diagonal blocks of each square of twice the distance.
        upper = [j if not j & distance else lanes + j - distance for j in range(lanes)]
        lower = [j + distance if not j & distance else lanes + j for j in range(lanes)]
        for row in range(lanes):
            if not row & distance:
                pair = [rows[row], rows[row + distance]]
                rows[row] = w.bind("row", tirx.Shuffle(pair, upper))
                rows[row + distance] = w.bind("row", tirx.Shuffle(pair, lower))
        distance *= 2
    for row, index in zip(rows, vectors if packing else planes, strict=False):
        w.store(result, row, index)
