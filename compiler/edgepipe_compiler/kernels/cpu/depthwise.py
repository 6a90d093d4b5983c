"""Depthwise convolution in packed layout: one vector of channels, one row tile of results in registers."""

from __future__ import annotations

import math

import numpy as np
from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph
from ...frontend.units import Unit
from .. import epilogue, parameters, window_geometry
from ..epilogue import Operands
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN, packed, stored_shape
from ..target import CpuTarget
from ..window_geometry import Window
from ..writer import Index, Writer, ramp
from . import tiling
from .index_maps import IndexMapCopy
from .layout_conversion import convert
from .padding import sliding_calls
from .sliding_windows import Sliding

# From this window size on, repeating a channel for each of its results pays off.
LONG = 24


def lower(graph: Graph, unit: Unit, target: CpuTarget) -> Kernel:
    """Lowers a unit whose anchor is a convolution with one group per channel."""
    conv, *rest = unit.nodes
    weight, bias = parameters.of_convolution(graph, conv)
    source, result = graph.tensor(conv.inputs[0]), graph.tensor(conv.outputs[0])
    channels, each = source.shape[1], weight.shape[0] // source.shape[1]
    if conv.attributes.get("group", 1) != channels or weight.shape[1] != 1:
        raise Unsupported("not depthwise")
    window = window_geometry.resolve(conv, source, result, weight.shape[2:])
    lanes, layout = target.lanes, packed(target.lanes)
    if each > 1 and (channels == 1 or math.prod(window.kernel) < LONG):
        raise Unsupported("several results a channel")
    before: list[Call] = []
    stored = stored_shape((source.shape[0], channels * each, *source.shape[2:]), layout)
    given = Value(conv.inputs[0], layout, stored, "float32")
    if each > 1:
        before, given = _repeated(conv.inputs[0], source.shape, each, unit.name, target)

    def write(sliding: type[Sliding], window: Window, data: Value) -> Call:
        operands = Operands(graph, layout, target)
        image = operands.add(data, data.shape, "float32")
        # (kh * kw, C, 1, 1): each tap is packed like an image of one pixel.
        taps = weight.reshape(channels * each, -1).T[:, :, None, None]
        array = epilogue.pack_array(taps, lanes)[:, :, 0, 0].transpose(1, 0, 2)
        array = np.ascontiguousarray(array)
        kernel = operands.add(Weight(array), array.shape, "float32")
        shift = None
        if bias is not None:
            row = epilogue.pack_array(bias.reshape(1, -1, 1, 1), lanes)[0, :, 0]
            row = np.repeat(
                row, tiling.row(target, result.shape[3]) if target.slow_register_copies else 1, 1
            )
            shift = operands.add(Weight(row), row.shape, "float32")
        epilogue.check_short(rest)
        after = epilogue.apply(operands, rest, conv.outputs[0], result)
        shape = stored_shape(result.shape, layout)

        def begin(w: Writer, _: Index, c: Index, place: int) -> tirx.Expr:
            if shift is None:
                return tirx.Broadcast(tirx.const(0.0, "float32"), lanes)
            return w.bind("bias", shift[c, place % int(shift.shape[1]), ramp(0, lanes)])

        out = tirx.decl_buffer(shape, "float32", "out")
        made = sliding(
            target,
            window,
            image,
            kernel,
            out,
            begin,
            lambda held, value, w: held + value * w,
            after,
        )
        function = made.write(operands.placeholders)
        value = Value(unit.outputs[0], layout, shape, "float32")
        return Call(function, operands.arguments, [value], "depthwise")

    calls = sliding_calls(write, window, result, given, 0.0, unit.name, target)
    return Kernel([*before, *calls], "depthwise")


def _repeated(
    name: str, shape: tuple[int, ...], each: int, unit: str, target: CpuTarget
) -> tuple[list[Call], Value]:
    """Calls that repeat each channel of the image ``name`` for each of its results."""
    n, channels, height, width = shape
    made = (n, channels * each, height, width)
    maps = [np.arange(n), np.repeat(np.arange(channels), each), np.arange(height), np.arange(width)]
    function, tables = IndexMapCopy(target, tuple(shape), maps, 0.0, tuple(shape), made).write()
    image = Value(name, PLAIN, tuple(shape), "float32")
    repeated = Value(f"{unit}/repeated", PLAIN, made, "float32")
    repeat = Call(function, [image, *map(Weight, tables)], [repeated], "repeat")
    pack = convert(repeated, packed(target.lanes), made, target)
    return [repeat, pack], pack.results[0]
