"""Direct convolution: packed or plain input, packed result, any window, dilation and group.

For each row of results a tile of the output width, for one or several blocks of output channels, is kept
in registers while the reduction runs over input channels and window. Bias, residual and activation are
applied to the tile before it is stored. The first convolution of a network reads the plain image, so
nothing is repacked for it.
"""

from __future__ import annotations

import numpy as np
from tvm import te, tirx
from tvm.s_tir import Schedule

from ..graph import Graph, Node, Tensor
from ..units import Unit
from . import emit, epilogue, tiling, windows
from .epilogue import Operands, Unsupported
from .kernel import Call, Kernel, Value, Weight
from .layout import PLAIN, packed, stored_shape
from .target import TargetDescription
from .windows import Window


def lower(graph: Graph, unit: Unit, target: TargetDescription) -> Kernel:
    """Lowers a unit whose anchor is a convolution."""
    conv, *rest = unit.nodes
    weight, bias = weights_of(graph, conv)
    source, result = graph.tensor(conv.inputs[0]), graph.tensor(conv.outputs[0])
    window = windows.resolve(conv, source, result, weight.shape[2:])
    groups, lanes = conv.attributes.get("group", 1), target.lanes
    inside, outside = source.shape[1] // groups, result.shape[1] // groups
    if groups > 1 and (inside % lanes or outside % lanes):
        raise Unsupported("groups that no vector width divides")
    plain_input = groups == 1 and source.shape[1] < lanes
    layout = PLAIN if plain_input else packed(lanes)

    operands = Operands(graph, packed(lanes))
    stored = stored_shape(source.shape, layout)
    data = operands.add(Value(conv.inputs[0], layout, stored, "float32"), stored, "float32")
    array = _pack_weight(weight, groups, lanes, plain_input)
    kernel = operands.add(Weight(array), array.shape, "float32")
    shift = None
    if bias is not None:
        row = epilogue.pack_array(bias.reshape(1, -1, 1, 1), lanes)[0, :, 0, 0]
        shift = operands.add(Weight(np.ascontiguousarray(row)), row.shape, "float32")

    # A 1x1 window sees no rows: they are run together, so that tiles need not end with a row.
    point = window.is_point
    rows, image = result.shape[2:]
    height, width = (1, rows * image) if point else (rows, image)
    blocks = array.shape[0]
    tile, block = tiling.convolution(target, width, blocks // groups)
    computed = -(-width // tile) * tile
    if point:
        data, padded = _flat(data, source, layout, computed), False
    else:
        data, padded = pad(data, source, layout, window, computed)
    sums = _sum(
        data, kernel, (result.shape[0], blocks, height, computed, lanes), window, groups, plain_input
    )
    after = epilogue.apply(operands, rest, conv.outputs[0], result)

    def finish(n: tirx.Var, c: tirx.Var, y: tirx.Var, x: tirx.Var, v: tirx.Var) -> tirx.Expr:
        total = sums[n, c, 0, y * image + x, v] if point else sums[n, c, y, x, v]
        return after(total if shift is None else total + shift[c, v], (n, c, y, x, v))

    out = te.compute((result.shape[0], blocks, rows, image, lanes), finish, name="finished")
    s = emit.schedule(operands.placeholders, [out])
    if point:
        s.compute_inline(s.get_sblock("flat"))
    if padded:
        emit.spatial(s, target, "padded")
    reductions = sum(int(axis.dom.extent) > 1 for axis in sums.op.reduce_axis)
    if not reductions:
        raise Unsupported("convolution without a sum")
    _schedule(s, target, tile, block, reductions, point)
    stored = stored_shape(result.shape, packed(lanes))
    value = Value(unit.outputs[0], packed(lanes), stored, "float32")
    rule = "first_convolution" if plain_input else "convolution"
    return Kernel([Call(s.mod["main"], operands.arguments, [value], rule)], rule)


def weights_of(graph: Graph, conv: Node) -> tuple[np.ndarray, np.ndarray | None]:
    """Weight and bias of a convolution with constant float32 weights."""
    weight = graph.constants.get(conv.inputs[1])
    bias_name = conv.inputs[2] if len(conv.inputs) > 2 else ""
    bias = graph.constants.get(bias_name)
    if weight is None or weight.dtype != np.float32 or (bias_name and bias is None):
        raise Unsupported("weights that are not constant float32")
    return weight, bias


def _pack_weight(weight: np.ndarray, groups: int, lanes: int, plain: bool) -> np.ndarray:
    """(out block, in block or channel, kh, kw[, in lane], out lane); lanes beyond the channels are 0."""
    out, inside, kh, kw = weight.shape
    blocks = -(-out // lanes)
    in_blocks = inside if plain else -(-inside // lanes)
    full = np.zeros((blocks * lanes, in_blocks * (1 if plain else lanes), kh, kw), np.float32)
    full[:out, :inside] = weight
    if plain:
        return np.ascontiguousarray(
            full.reshape(blocks, lanes, in_blocks, kh, kw).transpose(0, 2, 3, 4, 1)
        )
    split = full.reshape(blocks, lanes, in_blocks, lanes, kh, kw)
    return np.ascontiguousarray(split.transpose(0, 2, 4, 5, 3, 1))


def _flat(data: te.Tensor, source: Tensor, layout: str, computed: int) -> te.Tensor:
    """The input with its rows run together, for 1x1 windows; disappears in the schedule. Columns
    beyond the image repeat its last element; their results are never stored."""
    rows, width = source.shape[2:]
    shape, last = stored_shape(source.shape, layout), rows * width - 1

    def element(n: tirx.Var, c: tirx.Var, y: tirx.Var, x: tirx.Var, *v: tirx.Var) -> tirx.Expr:
        place = x if computed == rows * width else tirx.min(x, last)
        return data[(n, c, place // width, place % width, *v)]

    return te.compute((shape[0], shape[1], 1, computed, *shape[4:]), element, name="flat")


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


def _sum(
    data: te.Tensor,
    kernel: te.Tensor,
    shape: tuple[int, ...],
    window: Window,
    groups: int,
    plain: bool,
) -> te.Tensor:
    (sh, sw), (dh, dw) = window.stride, window.dilation
    rc = te.reduce_axis((0, kernel.shape[1]), name="rc")
    rh = te.reduce_axis((0, window.kernel[0]), name="rh")
    rw = te.reduce_axis((0, window.kernel[1]), name="rw")
    if plain:
        return te.compute(
            shape,
            lambda n, c, y, x, v: te.sum(
                data[n, rc, y * sh + rh * dh, x * sw + rw * dw] * kernel[c, rc, rh, rw, v],
                axis=[rc, rh, rw],
            ),
            name="sums",
        )
    lanes, in_blocks, blocks = shape[4], int(kernel.shape[1]), shape[1] // groups
    rv = te.reduce_axis((0, lanes), name="rv")

    def element(n: tirx.Var, c: tirx.Var, y: tirx.Var, x: tirx.Var, v: tirx.Var) -> tirx.Expr:
        first = (c // blocks) * in_blocks if groups > 1 else 0
        value = data[n, first + rc, y * sh + rh * dh, x * sw + rw * dw, rv]
        return te.sum(value * kernel[c, rc, rh, rw, rv, v], axis=[rc, rh, rw, rv])

    return te.compute(shape, element, name="sums")


def _schedule(
    s: Schedule, target: TargetDescription, tile: int, block: int, reductions: int, point: bool
) -> None:
    finished, sums = s.get_sblock("finished"), s.get_sblock("sums")
    n, c, y, x, v = s.get_loops(finished)
    outer, inner = s.split(c, [None, block])
    if point:
        s.reorder(n, outer, inner, y, x, v)
        x, rows = s.fuse(y, x), []
    else:
        rows = [y]
    across, along = s.split(x, [None, tile])
    s.reorder(n, outer, *rows, across, inner, along, v)
    s.vectorize(v)
    s.unroll(along)
    s.unroll(inner)
    s.compute_at(sums, across)
    # Loops of extent 1 have disappeared; of what is left, the reductions come last.
    loops = inner_loops(s, sums, across)
    results, summed = loops[:-reductions], loops[-reductions:]
    s.reorder(*summed, *results)
    unroll_tile(s, results)
    unroll_tile(s, inner_loops(s, s.decompose_reduction(sums, summed[0]), across))
    emit.parallel(s, target, [n, outer, *(rows or [across])])


def unroll_tile(s: Schedule, loops: list[object]) -> None:
    """The last loop becomes vectors, the ones before it are written out."""
    s.vectorize(loops[-1])
    for loop in loops[:-1]:
        s.unroll(loop)


def inner_loops(s: Schedule, block: object, outer: object) -> list[object]:
    """Loops of ``block`` inside ``outer``."""
    loops = s.get_loops(block)
    place = next(i for i, loop in enumerate(loops) if s.get(loop).same_as(s.get(outer)))
    return list(loops[place + 1 :])
