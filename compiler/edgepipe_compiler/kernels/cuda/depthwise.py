"""Convolution of each channel by itself."""

from __future__ import annotations

import numpy as np
from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph
from ...frontend.units import Unit
from .. import parameters, window_geometry
from ..epilogue import Operands
from ..kernel import Kernel, Value, Weight
from ..layout import PLAIN
from ..target import CudaTarget
from .results import Results
from .sliding_windows import SlidingWindows, Windows


def lower(graph: Graph, unit: Unit, target: CudaTarget) -> Kernel:
    """Lowers a unit whose anchor is a convolution with one group per channel."""
    conv, *rest = unit.nodes
    weight, bias = parameters.of_convolution(graph, conv)
    source, result = graph.tensor(conv.inputs[0]), graph.tensor(conv.outputs[0])
    channels = source.shape[1]
    if conv.attributes.get("group", 1) != channels or weight.shape[1] != 1:
        raise Unsupported("not depthwise")
    window = window_geometry.resolve(conv, source, result, weight.shape[2:])
    if source.dtype != "float32":
        raise Unsupported("convolution of something other than float32")
    operands = Operands(graph, PLAIN, None)
    data = operands.add(
        Value(conv.inputs[0], PLAIN, tuple(source.shape), "float32"), (source.elements,), "float32"
    )
    taps = np.ascontiguousarray(weight.reshape(weight.shape[0], -1))
    weights = operands.add(Weight(taps, large=True), taps.shape, "float32")
    results = Results(graph, operands, rest, conv.outputs[0], unit.outputs[0], bias)
    windows = Windows(
        source.shape[0],
        channels,
        weight.shape[0] // channels,
        (source.shape[2], source.shape[3]),
        (result.shape[2], result.shape[3]),
        window,
        0.0,
    )
    kernel = SlidingWindows(windows, results, target)
    w = kernel.w
    held = [w.bind("weight", weights[kernel.channel, tap]) for tap in range(taps.shape[1])]

    def combine(sum_: tirx.Expr, value: tirx.Expr, tap: int) -> tirx.Expr:
        return sum_ + held[tap] * value

    function = kernel.write(data, combine, lambda sum_, y, x: sum_)
    return Kernel([results.call(function, "depthwise")], "depthwise")
