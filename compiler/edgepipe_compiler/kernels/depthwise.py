"""Depthwise convolution on packed layout: one vector of channels, one row tile of results in registers."""

from __future__ import annotations

import numpy as np
from tvm import tirx

from ..graph import Graph
from ..units import Unit
from . import epilogue, tiling, windows
from .convolution import weights_of
from .epilogue import Operands, Unsupported
from .kernel import Call, Kernel, Value, Weight
from .layout import packed, stored_shape
from .sliding import Sliding
from .target import TargetDescription
from .writer import Index, Writer, ramp


def lower(graph: Graph, unit: Unit, target: TargetDescription) -> Kernel:
    """Lowers a unit whose anchor is a convolution with one group a channel."""
    conv, *rest = unit.nodes
    weight, bias = weights_of(graph, conv)
    source, result = graph.tensor(conv.inputs[0]), graph.tensor(conv.outputs[0])
    channels = source.shape[1]
    if conv.attributes.get("group", 1) != channels or weight.shape[:2] != (channels, 1):
        raise Unsupported("not depthwise")
    window = windows.resolve(conv, source, result, weight.shape[2:])
    lanes, layout = target.lanes, packed(target.lanes)
    operands = Operands(graph, layout, target)
    stored = stored_shape(source.shape, layout)
    data = operands.add(Value(conv.inputs[0], layout, stored, "float32"), stored, "float32")
    # (kh * kw, C, 1, 1) packs each tap like an image of one pixel.
    taps = weight.reshape(channels, -1).T[:, :, None, None]
    array = np.ascontiguousarray(epilogue.pack_array(taps, lanes)[:, :, 0, 0].transpose(1, 0, 2))
    kernel = operands.add(Weight(array), array.shape, "float32")
    shift = None
    if bias is not None:
        row = epilogue.pack_array(bias.reshape(1, -1, 1, 1), lanes)[0, :, 0]
        row = np.repeat(
            row, tiling.row(target, result.shape[3]) if target.copies_are_dear else 1, 1
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
    sliding = Sliding(
        target, window, data, kernel, out, begin, lambda held, value, w: held + value * w, after
    )
    function = sliding.write(operands.placeholders)
    value = Value(unit.outputs[0], layout, shape, "float32")
    return Kernel([Call(function, operands.arguments, [value], "depthwise")], "depthwise")
