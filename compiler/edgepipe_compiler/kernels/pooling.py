"""Max, average and global average pooling on packed layout."""

from __future__ import annotations

import numpy as np
from tvm import te, tirx

from ..graph import Graph, Node, Tensor
from ..units import Unit
from . import emit, epilogue, tiling, windows
from .emit import inner_loops, unroll_tile
from .epilogue import Operands, Unsupported
from .kernel import Call, Kernel, Value, Weight
from .layout import packed, stored_shape
from .target import TargetDescription

LOWEST = float(np.finfo(np.float32).min)


def lower(graph: Graph, unit: Unit, target: TargetDescription) -> Kernel:
    """Lowers a unit whose anchor is a pooling operator."""
    pool, *rest = unit.nodes
    if len(pool.outputs) != 1:
        raise Unsupported("pooling with indices")
    source, result = graph.tensor(pool.inputs[0]), graph.tensor(pool.outputs[0])
    if len(source.shape) != 4 or source.dtype != "float32":
        raise Unsupported("pooling of something else than float32 images")
    layout = packed(target.lanes)
    operands = Operands(graph, layout)
    stored = stored_shape(source.shape, layout)
    data = operands.add(Value(pool.inputs[0], layout, stored, "float32"), stored, "float32")
    shape = stored_shape(source.shape[:2] + (1, 1), layout)
    if is_global(graph, pool):
        sums, factor = _global(data, shape, source), None
        scale = 1.0 / (source.shape[2] * source.shape[3])
        rows, tile, reductions = shape, 1, [e > 1 for e in source.shape[2:]].count(True)
        if not reductions:
            raise Unsupported("pooling of single pixels")
    else:
        window = windows.resolve(pool, source, result, tuple(pool.attributes["kernel_shape"]))
        rows = stored_shape(result.shape, layout)
        tile = tiling.row(target, rows[3])
        rows = (*rows[:3], -(-rows[3] // tile) * tile, rows[4])
        sums = _windowed(data, rows, source, window, pool.op == "MaxPool")
        scale = 1.0
        factor = None
        if pool.op == "AveragePool":
            array = _reciprocals(pool, source, result, window)
            factor = operands.add(Weight(array), array.shape, "float32")
        reductions = [extent > 1 for extent in window.kernel].count(True)
        if not reductions:
            raise Unsupported("pooling without a window")
    flat = len(result.shape) == 2
    logical = Tensor(source.shape[:2] + (1, 1), "float32") if flat else result
    after = epilogue.apply(operands, rest, pool.outputs[0], logical)

    def finish(n: tirx.Var, c: tirx.Var, y: tirx.Var, x: tirx.Var, v: tirx.Var) -> tirx.Expr:
        total = sums[n, c, y, x, v]
        if factor is not None:
            total = total * factor[y, x]
        elif scale != 1.0:
            total = total * tirx.const(scale, "float32")
        return after(total, (n, c, y, x, v))

    out_shape = stored_shape(logical.shape, layout)
    out = te.compute(out_shape, finish, name="finished")
    s = emit.schedule(operands.placeholders, [out])
    _schedule(s, target, tile, reductions)
    value = Value(unit.outputs[0], layout, out_shape, "float32")
    return Kernel([Call(s.mod["main"], operands.arguments, [value], "pooling")], "pooling")


def is_global(graph: Graph, node: Node) -> bool:
    """Whether the node averages each channel over the whole image, keeping four dimensions."""
    if node.op == "GlobalAveragePool":
        return len(graph.tensor(node.inputs[0]).shape) == 4
    if node.op != "ReduceMean" or not node.attributes.get("keepdims", 1):
        return False
    axes = node.attributes.get("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1] in graph.constants:
        axes = graph.constants[node.inputs[1]].tolist()
    rank = len(graph.tensor(node.inputs[0]).shape)
    return rank == 4 and axes is not None and sorted(axis % 4 for axis in axes) == [2, 3]


def _global(data: te.Tensor, shape: tuple[int, ...], source: Tensor) -> te.Tensor:
    rh = te.reduce_axis((0, source.shape[2]), name="rh")
    rw = te.reduce_axis((0, source.shape[3]), name="rw")
    return te.compute(
        shape, lambda n, c, y, x, v: te.sum(data[n, c, rh, rw, v], axis=[rh, rw]), name="sums"
    )


def _windowed(
    data: te.Tensor, shape: tuple[int, ...], source: Tensor, window: windows.Window, largest: bool
) -> te.Tensor:
    (sh, sw), (dh, dw), (top, left) = window.stride, window.dilation, window.begin
    height, width = source.shape[2:]
    rh = te.reduce_axis((0, window.kernel[0]), name="rh")
    rw = te.reduce_axis((0, window.kernel[1]), name="rw")
    outside = tirx.const(LOWEST if largest else 0.0, "float32")
    reach = (shape[3] - 1) * sw + (window.kernel[1] - 1) * dw + 1
    bottom = window.end[0]
    inside_always = not (top or left or bottom) and reach <= width

    def element(n: tirx.Var, c: tirx.Var, y: tirx.Var, x: tirx.Var, v: tirx.Var) -> tirx.Expr:
        row, column = y * sh + rh * dh - top, x * sw + rw * dw - left
        if inside_always:
            value = data[n, c, row, column, v]
        else:
            inside = tirx.all(row >= 0, row < height, column >= 0, column < width)
            value = tirx.if_then_else(inside, data[n, c, row, column, v], outside)
        return (te.max if largest else te.sum)(value, axis=[rh, rw])

    return te.compute(shape, element, name="sums")


def _reciprocals(
    pool: Node, source: Tensor, result: Tensor, window: windows.Window
) -> np.ndarray:
    """1 / number of elements each window of an average covers, of shape (rows, columns)."""
    counted = []
    for axis in (0, 1):
        size, extent = window.kernel[axis], source.shape[2 + axis]
        begin, dilation = window.begin[axis], window.dilation[axis]
        if pool.attributes.get("count_include_pad", 0):
            # Padding counts, what ceil_mode reads beyond it does not.
            pads = pool.attributes.get("pads", (0, 0, 0, 0))
            low, high = -begin, extent + pads[2 + axis]
        else:
            low, high = 0, extent
        starts = np.arange(result.shape[2 + axis]) * window.stride[axis] - begin
        taps = starts[:, None] + np.arange(size)[None, :] * dilation
        counted.append(np.maximum(((taps >= low) & (taps < high)).sum(1), 1))
    return (1.0 / np.outer(counted[0], counted[1])).astype(np.float32)


def _schedule(s: emit.Schedule, target: TargetDescription, tile: int, reductions: int) -> None:
    finished, sums = s.get_sblock("finished"), s.get_sblock("sums")
    n, c, y, x, v = s.get_loops(finished)
    across, along = s.split(x, [None, tile])
    s.vectorize(v)
    s.unroll(along)
    s.compute_at(sums, across)
    loops = inner_loops(s, sums, across)
    results, summed = loops[:-reductions], loops[-reductions:]
    s.reorder(*summed, *results)
    unroll_tile(s, results)
    unroll_tile(s, inner_loops(s, s.decompose_reduction(sums, summed[0]), across))
    emit.parallel(s, target, [n, c])
