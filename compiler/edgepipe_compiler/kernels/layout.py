"""Tensor layouts.

``plain`` is the order of the ONNX graph. ``half`` is the same order with float16 elements, for values of
float32 tensors between the kernels of a stage in half precision. A packed layout such as ``NCHW16c`` stores
an image of shape (N, C, H, W) as (N, ceil(C / 16), H, W, 16): one vector holds adjacent channels. Lanes
beyond C are unspecified but finite; a reader must keep them out of its results.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tvm import te, tirx

PLAIN = "plain"
HALF = "half"


def packed(lanes: int) -> str:
    """Name of the packed layout for vectors of ``lanes`` elements."""
    return f"NCHW{lanes}c"


def lanes_of(layout: str) -> int:
    """Lanes of a packed layout; 0 for plain and half."""
    match = re.fullmatch(r"NCHW(\d+)c", layout)
    return int(match[1]) if match else 0


def stored_shape(shape: Sequence[int], layout: str) -> tuple[int, ...]:
    """Shape in memory of a tensor of logical ``shape``."""
    lanes = lanes_of(layout)
    if not lanes:
        return tuple(shape)
    n, c, h, w = shape
    return (n, -(-c // lanes), h, w, lanes)


def pack(source: te.Tensor, shape: Sequence[int], lanes: int) -> te.Tensor:
    """Converts plain to packed. Lanes beyond C become 0."""
    channels = shape[1]

    def element(n: tirx.Var, c: tirx.Var, y: tirx.Var, x: tirx.Var, v: tirx.Var) -> tirx.Expr:
        channel = c * lanes + v
        if channels % lanes == 0:
            return source[n, channel, y, x]
        zero = tirx.const(0, source.dtype)
        return tirx.if_then_else(channel < channels, source[n, channel, y, x], zero)

    return te.compute(stored_shape(shape, packed(lanes)), element, name="packed")


def unpack(source: te.Tensor, shape: Sequence[int], lanes: int) -> te.Tensor:
    """Converts packed to plain."""
    return te.compute(
        tuple(shape),
        lambda n, c, y, x: source[n, c // lanes, y, x, c % lanes],
        name="unpacked",
    )
