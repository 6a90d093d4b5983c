"""Depthwise convolution on packed layout: one vector of channels, one row tile of results in registers."""

from __future__ import annotations

import numpy as np
from tvm import te, tirx

from ..graph import Graph, Tensor
from ..units import Unit
from . import emit, epilogue, tiling, windows
from .convolution import weights_of
from .emit import inner_loops, unroll_tile
from .epilogue import Operands, Unsupported
from .kernel import Call, Kernel, Value, Weight
from .layout import packed, stored_shape
from .target import TargetDescription
from .windows import Window


def lower(graph: Graph, unit: Unit, target: TargetDescription) -> Kernel:
    """Lowers a unit whose anchor is a convolution with one group a channel."""
    conv, *rest = unit.nodes
    weight, bias = weights_of(graph, conv)
    source, result = graph.tensor(conv.inputs[0]), graph.tensor(conv.outputs[0])
    channels = source.shape[1]
    if conv.attributes.get("group", 1) != channels or weight.shape[:2] != (channels, 1):
        raise Unsupported("not depthwise")
    if weight.shape[2:] == (1, 1):
        raise Unsupported("depthwise without a window")
    window = windows.resolve(conv, source, result, weight.shape[2:])
    lanes, layout = target.lanes, packed(target.lanes)
    operands = Operands(graph, layout)
    stored = stored_shape(source.shape, layout)
    data = operands.add(Value(conv.inputs[0], layout, stored, "float32"), stored, "float32")
    # (kh * kw, C, 1, 1) packs each tap like an image of one pixel.
    taps = weight.reshape(channels, -1).T[:, :, None, None]
    array = np.ascontiguousarray(epilogue.pack_array(taps, lanes)[:, :, 0, 0].transpose(1, 0, 2))
    kernel = operands.add(Weight(array), array.shape, "float32")
    shift = None
    if bias is not None:
        row = np.ascontiguousarray(epilogue.pack_array(bias.reshape(1, -1, 1, 1), lanes)[0, :, 0, 0])
        shift = operands.add(Weight(row), row.shape, "float32")

    rows, width = result.shape[2:]
    tile = tiling.row(target, width)
    computed = -(-width // tile) * tile
    image, padded = pad(data, source, layout, window, computed)
    (kh, kw), (sh, sw), (dh, dw) = window.kernel, window.stride, window.dilation
    rh, rw = te.reduce_axis((0, kh), name="rh"), te.reduce_axis((0, kw), name="rw")
    sums = te.compute(
        (result.shape[0], stored[1], rows, computed, lanes),
        lambda n, c, y, x, v: te.sum(
            image[n, c, y * sh + rh * dh, x * sw + rw * dw, v] * kernel[c, rh * kw + rw, v],
            axis=[rh, rw],
        ),
        name="sums",
    )
    after = epilogue.apply(operands, rest, conv.outputs[0], result)

    def finish(n: tirx.Var, c: tirx.Var, y: tirx.Var, x: tirx.Var, v: tirx.Var) -> tirx.Expr:
        total = sums[n, c, y, x, v]
        return after(total if shift is None else total + shift[c, v], (n, c, y, x, v))

    out = te.compute((result.shape[0], stored[1], rows, width, lanes), finish, name="finished")
    s = emit.schedule(operands.placeholders, [out])
    finished, summed = s.get_sblock("finished"), s.get_sblock("sums")
    n, c, y, x, v = s.get_loops(finished)
    across, along = s.split(x, [None, tile])
    s.vectorize(v)
    s.unroll(along)
    s.compute_at(summed, across)
    reductions = [extent > 1 for extent in (kh, kw)].count(True)
    loops = inner_loops(s, summed, across)
    results, window_loops = loops[:-reductions], loops[-reductions:]
    s.reorder(*window_loops, *results)
    unroll_tile(s, results)
    if kh * kw <= 25:
        for loop in window_loops:
            s.unroll(loop)
    unroll_tile(s, inner_loops(s, s.decompose_reduction(summed, window_loops[0]), across))
    if padded:
        # One block of channels at a time stays in the cache between padding and convolution.
        block = s.get_sblock("padded")
        s.compute_at(block, c)
        s.vectorize(s.get_loops(block)[-1])
    emit.parallel(s, target, [n, c])
    value = Value(unit.outputs[0], layout, stored_shape(result.shape, layout), "float32")
    return Kernel([Call(s.mod["main"], operands.arguments, [value], "depthwise")], "depthwise")


def pad(
    data: te.Tensor, source: Tensor, layout: str, window: Window, computed: int
) -> tuple[te.Tensor, bool]:
    """The input with its padding, wide enough for ``computed`` columns of results."""
    height, width = source.shape[2:]
    top, left = window.begin
    reach = (computed - 1) * window.stride[1] + (window.kernel[1] - 1) * window.dilation[1] + 1
    right = max(window.end[1], reach - width - left)
    if not (top or left or window.end[0] or right):
        return data, False
    shape = stored_shape(source.shape, layout)
    full = (*shape[:2], height + top + window.end[0], width + left + right, *shape[4:])

    def element(n: tirx.Var, c: tirx.Var, y: tirx.Var, x: tirx.Var, *v: tirx.Var) -> tirx.Expr:
        inside = tirx.all(y >= top, y < height + top, x >= left, x < width + left)
        zero = tirx.const(0.0, "float32")
        return tirx.if_then_else(inside, data[(n, c, y - top, x - left, *v)], zero)

    return te.compute(full, element, name="padded"), True
