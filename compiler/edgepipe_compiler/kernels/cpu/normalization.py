"""Layer, instance, group and local response normalization.

Mean and variance take two passes: the difference of sums of squares loses precision.
"""

from __future__ import annotations

import math
import operator

import numpy as np
from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph, Node
from ...frontend.units import Unit
from ..epilogue import pack_array
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN, packed, stored_shape
from ..target import CpuTarget
from ..vector_math import exp, log
from ..writer import Index, Writer, ramp, spans, spread
from .vector_reduction import across, flat

KNOWN = ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "LRN")


def lower(graph: Graph, unit: Unit, target: CpuTarget) -> Kernel:
    """Lowers a unit of one normalization."""
    if len(unit.nodes) != 1:
        raise Unsupported("operators behind a normalization")
    (node,) = unit.nodes
    tensor = graph.tensor(node.inputs[0])
    if tensor.dtype != "float32":
        raise Unsupported("normalization of something other than float32")
    if node.op == "LRN":
        return _neighbours(graph, node, target)
    factors = [_constant(graph, name) for name in node.inputs[1:3]]
    if node.op == "InstanceNormalization" and len(tensor.shape) == 4:
        return _instances(graph, node, target, factors)
    return _rows(graph, node, target, factors, unit.name)


def _constant(graph: Graph, name: str) -> np.ndarray:
    array = graph.constants.get(name) if name else None
    if name and (array is None or array.dtype != np.float32):
        raise Unsupported("scale or shift that is not constant float32")
    return np.zeros(0, np.float32) if array is None else array.reshape(-1)


def _rows(
    graph: Graph, node: Node, target: CpuTarget, factors: list[np.ndarray], unit: str
) -> Kernel:
    """Each contiguous row has its mean and variance.

    Scale and shift are per element of a row or per channel.
    """
    shape = graph.tensor(node.inputs[0]).shape
    if node.op == "LayerNormalization":
        axis = node.attributes.get("axis", -1) % len(shape)
        rows, channels, pixels = math.prod(shape[:axis]), math.prod(shape[axis:]), 1
    else:
        groups = node.attributes.get("num_groups", shape[1])
        rows, channels = shape[0] * groups, shape[1] // groups
        pixels = math.prod(shape[2:])
        if factors[0].size == groups:
            factors = [np.repeat(factor, channels) for factor in factors]
    repeat = 1 if node.op == "LayerNormalization" else shape[1] // channels
    while len(factors) < 2 or not factors[-1].size:
        factors = [
            *(factor for factor in factors if factor.size),
            np.zeros(channels * repeat, np.float32),
        ]
    if any(factor.size != channels * repeat for factor in factors):
        raise Unsupported("scale or shift of another shape")
    source = tirx.decl_buffer(shape, "float32", "source")
    scale, shift = (tirx.decl_buffer(factor.shape, "float32", "factor") for factor in factors)
    out = tirx.decl_buffer(shape, "float32", "out")
    # Optional outputs of a layer normalization: means and inverse deviations.
    statistics = [
        Value(name, PLAIN, tuple(graph.tensor(name).shape), "float32") if name else None
        for name in node.outputs[1:]
    ]
    extra = [
        None if value is None else tirx.decl_buffer(value.shape, "float32", "statistic")
        for value in statistics
    ]
    w, lanes, length = Writer(), target.lanes, channels * pixels
    epsilon = node.attributes.get("epsilon", 1e-5)
    with w.loop("row", rows, parallel=target.threads > 1) as row:
        first = row * length
        mean, factor = _moments(
            w, length, lanes, epsilon, lambda p, n: source[flat(source, first + p, n)]
        )
        for buffer, number in zip(extra, (mean, factor), strict=False):
            if buffer is not None:
                w.store(buffer, number, flat(buffer, row, 1))
        channel = 0 if repeat == 1 else row % repeat * channels
        if pixels == 1:
            for place, count in spans(w, length, lanes):
                value = source[flat(source, first + place, count)] - spread(mean, count)
                here = ramp(channel + place, count)
                value = value * spread(factor, count) * scale[here] + shift[here]
                w.store(out, value, flat(out, first + place, count))
        else:
            with w.loop("c", channels) as c:
                slope = w.bind("slope", factor * scale[channel + c])
                offset = w.bind("offset", shift[channel + c] - mean * slope)
                for place, count in spans(w, pixels, lanes):
                    begin = first + c * pixels + place
                    value = source[flat(source, begin, count)]
                    value = value * spread(slope, count) + spread(offset, count)
                    w.store(out, value, flat(out, begin, count))
    buffers = [buffer for buffer in extra if buffer is not None]
    function = w.function([source, scale, shift, out, *buffers])
    arguments = [Value(node.inputs[0], PLAIN, tuple(shape), "float32"), *map(Weight, factors)]
    value = Value(node.outputs[0] or f"{unit}/normalized", PLAIN, tuple(shape), "float32")
    results = [value, *(item for item in statistics if item is not None)]
    return Kernel([Call(function, arguments, results, "norm")], "norm")


def _moments(
    w: Writer, length: int, lanes: int, epsilon: float, element: object
) -> tuple[tirx.Expr, tirx.Expr]:
    """Mean and 1 / standard deviation."""
    share = tirx.const(1.0 / length, "float32")
    mean = w.bind("mean", across(w, length, lanes, 0.0, operator.add, element) * share)

    def square(place: Index, count: int) -> tirx.Expr:
        apart = w.bind("apart", element(place, count) - spread(mean, count))
        return apart * apart

    variance = across(w, length, lanes, 0.0, operator.add, square) * share
    deviation = tirx.sqrt(variance + tirx.const(epsilon, "float32"))
    return mean, w.bind("factor", tirx.const(1.0, "float32") / deviation)


def _instances(graph: Graph, node: Node, target: CpuTarget, factors: list[np.ndarray]) -> Kernel:
    """Normalizes each channel of a packed image; one lane is one channel."""
    shape, lanes, layout = graph.tensor(node.inputs[0]).shape, target.lanes, packed(target.lanes)
    stored = stored_shape(shape, layout)
    arrays = [pack_array(factor.reshape(1, -1, 1, 1), lanes).reshape(-1) for factor in factors]
    source = tirx.decl_buffer(stored, "float32", "source")
    scale, shift = (tirx.decl_buffer(array.shape, "float32", "factor") for array in arrays)
    out = tirx.decl_buffer(stored, "float32", "out")
    pixels = stored[2] * stored[3]
    share = spread(1.0 / pixels, lanes)
    epsilon = spread(node.attributes.get("epsilon", 1e-5), lanes)
    w = Writer()
    with w.loop("task", stored[0] * stored[1], parallel=target.threads > 1) as task:

        def pixel(place: Index) -> tirx.Expr:
            return source[flat(source, (task * pixels + place) * lanes, lanes)]

        mean = w.bind("mean", _lanewise(w, pixels, lanes, pixel) * share)

        def square(place: Index) -> tirx.Expr:
            apart = w.bind("apart", pixel(place) - mean)
            return apart * apart

        variance = _lanewise(w, pixels, lanes, square) * share
        block = ramp(task % stored[1] * lanes, lanes)
        slope = w.bind("slope", scale[block] / tirx.sqrt(variance + epsilon))
        offset = w.bind("offset", shift[block] - mean * slope)
        with w.loop("p", pixels) as p:
            index = flat(out, (task * pixels + p) * lanes, lanes)
            w.store(out, pixel(p) * slope + offset, index)
    function = w.function([source, scale, shift, out])
    arguments = [Value(node.inputs[0], layout, stored, "float32"), *map(Weight, arrays)]
    value = Value(node.outputs[0], layout, stored, "float32")
    return Kernel([Call(function, arguments, [value], "norm")], "norm")


def _lanewise(w: Writer, pixels: int, lanes: int, element: object) -> tirx.Expr:
    """Sums ``element(place)`` over all pixels, per lane."""
    sums = [w.local(f"sum{place}", lanes) for place in range(min(4, pixels))]
    whole = ramp(0, lanes)
    for total in sums:
        w.store(total, spread(0.0, lanes), [whole])
    with w.loop("p", pixels // len(sums)) as p:
        for place, total in enumerate(sums):
            w.store(total, total[whole] + element(p * len(sums) + place), [whole])
    for place in range(pixels % len(sums)):
        total = sums[place]
        value = element(pixels // len(sums) * len(sums) + place)
        w.store(total, total[whole] + value, [whole])
    for total in sums[1:]:
        w.store(sums[0], sums[0][whole] + total[whole], [whole])
    return w.bind("sum", sums[0][whole])


def _neighbours(graph: Graph, node: Node, target: CpuTarget) -> Kernel:
    """Local response normalization: vectors of pixels, channel by channel."""
    shape = graph.tensor(node.inputs[0]).shape
    channels, pixels = shape[1], math.prod(shape[2:])
    size = node.attributes["size"]
    before, after = (size - 1) // 2, size // 2
    alpha, beta = node.attributes.get("alpha", 1e-4), node.attributes.get("beta", 0.75)
    source = tirx.decl_buffer(shape, "float32", "source")
    out = tirx.decl_buffer(shape, "float32", "out")
    w = Writer()
    with w.loop("task", shape[0] * channels, parallel=target.threads > 1) as task:
        image, c = task // channels * channels, task % channels
        low = w.bind("low", tirx.max(0, c - before))
        high = w.bind("high", tirx.min(channels, c + after + 1))
        for place, lanes in spans(w, pixels, target.lanes):
            total, whole = w.local("total", lanes), ramp(0, lanes)
            w.store(total, spread(0.0, lanes), [whole])
            with w.loop("r", high - low) as r:
                value = w.bind("v", source[flat(source, (image + low + r) * pixels + place, lanes)])
                w.store(total, total[whole] + value * value, [whole])
            base = spread(float(node.attributes.get("bias", 1.0)), lanes)
            base = base + total[whole] * spread(alpha / size, lanes)
            power = exp(log(base) * spread(-float(beta), lanes))
            index = flat(source, task * pixels + place, lanes)
            w.store(out, source[index] * power, index)
    value = Value(node.outputs[0], PLAIN, tuple(shape), "float32")
    wanted = Value(node.inputs[0], PLAIN, tuple(shape), "float32")
    return Kernel([Call(w.function([source, out]), [wanted], [value], "lrn")], "norm")
