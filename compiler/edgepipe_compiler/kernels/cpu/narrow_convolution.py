"""Convolution with few output channels: vectors of adjacent results in plain layout.

Other convolutions use output channels as vector lanes, of which there are too few here. A separate pass
pads the image, and the window is a loop, so its length does not affect code size.
"""

from __future__ import annotations

from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph
from ...frontend.units import Unit
from .. import epilogue, parameters, window_geometry
from ..epilogue import Operands
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN
from ..target import CpuTarget
from ..writer import Index, Writer, ramp, spread
from . import padding
from .vector_reduction import flat

# Vectors of results per tile; more do not hide more latency.
MOST_VECTORS = 8


def lower(graph: Graph, unit: Unit, target: CpuTarget) -> Kernel:
    """Lowers a unit whose anchor is a convolution with stride 1 along its rows."""
    conv, *rest = unit.nodes
    weight, bias = parameters.of_convolution(graph, conv)
    source, result = graph.tensor(conv.inputs[0]), graph.tensor(conv.outputs[0])
    if source.dtype != "float32":
        raise Unsupported("convolution of something other than float32 images")
    window = window_geometry.resolve(conv, source, result, weight.shape[2:])
    groups, lanes, channels = conv.attributes.get("group", 1), target.lanes, weight.shape[0]
    upright = window.kernel[1] == source.shape[3] == result.shape[3] == 1
    if upright and not window.begin[1] and not window.end[1] and len(rest) == 0:
        window, weight = window_geometry.turned(window), weight.swapaxes(2, 3)
    else:
        upright = False
    kh, kw = window.kernel
    width = result.shape[2] if upright else result.shape[3]
    few = 2 * channels <= lanes and width >= lanes and channels <= target.registers // 2
    if not few or window.stride[1] != 1 or window.is_point:
        raise Unsupported("not a convolution to a few channels")
    given = Value(conv.inputs[0], PLAIN, tuple(source.shape), "float32")
    pads = (window.begin[::-1], window.end[::-1]) if upright else (window.begin, window.end)
    before, image = padding.pad(given, *pads, 0.0, unit.name, target)
    operands = Operands(graph, PLAIN, target)
    data = operands.add(image, image.shape, "float32")
    # (group, channel, kh, kw, results of the group)
    each = channels // groups
    array = weight.reshape(groups, each, -1, kh, kw).transpose(0, 2, 3, 4, 1).copy()
    kernel = operands.add(Weight(array), array.shape, "float32")
    shift = None if bias is None else operands.add(Weight(bias), bias.shape, "float32")
    after = epilogue.apply(operands, rest, conv.outputs[0], result)
    shape = tuple(result.shape)
    out = tirx.decl_buffer(shape, "float32", "out")
    rows = 1 if upright else shape[2]
    pitch = image.shape[2] if upright else image.shape[3]
    plane = image.shape[2] * image.shape[3]
    inside = array.shape[1]
    vectors = max(1, min(MOST_VECTORS, (target.registers - each - 2) // each, width // lanes))
    span = vectors * lanes
    whole = ramp(0, lanes)
    w = Writer()

    def tile(n: Index, group: Index, y: Index, x: Index) -> None:
        sums = {(m, v): w.local(f"sum{m}_{v}", lanes) for m in range(each) for v in range(vectors)}
        for (m, _), held in sums.items():
            begin = spread(0.0 if shift is None else shift[group * each + m], lanes)
            w.store(held, begin, [whole])
        first = (n * groups + group) * inside
        with w.loop("c", inside) as c, w.loop("rh", kh) as rh:
            row = y * window.stride[0] + rh * window.dilation[0]
            base = w.bind("base", (first + c) * plane + row * pitch + x)
            with w.loop("rw", kw) as rw:
                values = [
                    w.bind("v", data[flat(data, base + rw * window.dilation[1] + v * lanes, lanes)])
                    for v in range(vectors)
                ]
                for m in range(each):
                    factor = w.bind("w", spread(kernel[group, c, rh, rw, m], lanes))
                    for v, value in enumerate(values):
                        w.store(sums[m, v], sums[m, v][whole] + factor * value, [whole])
        for (m, v), held in sums.items():
            place = ramp(x + v * lanes, lanes)
            channel = group * each + m
            if upright:
                made = (n * channels + channel) * width + x + v * lanes
                w.store(out, held[whole], flat(out, made, lanes))
            else:
                w.store(out, after(held[whole], (n, channel, y, place)), (n, channel, y, place))

    with w.loop("task", shape[0] * groups * rows, parallel=target.threads > 1) as task:
        n, group, y = task // rows // groups, task // rows % groups, task % rows
        with w.loop("x", -(-width // span)) as x:
            # The last tile overlaps the previous one.
            tile(n, group, y, tirx.min(x * span, width - span) if width > span else 0)
    value = Value(unit.outputs[0], PLAIN, shape, "float32")
    call = Call(w.function([*operands.placeholders, out]), operands.arguments, [value], "thin")
    return Kernel([*before, call], "thin_convolution")
