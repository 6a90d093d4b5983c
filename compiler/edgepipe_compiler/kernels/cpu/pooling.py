"""Max, average and global average pooling in packed layout."""

from __future__ import annotations

from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph, Tensor
from ...frontend.units import Unit
from .. import epilogue, pools, window_geometry
from ..epilogue import Operands
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN, packed, stored_shape
from ..target import CpuTarget
from ..window_geometry import Window
from ..writer import Index, Writer, ramp
from .padding import sliding_calls
from .sliding_windows import Sliding


def lower(graph: Graph, unit: Unit, target: CpuTarget) -> Kernel:
    """Lowers a unit whose anchor is a pooling operator."""
    pool, *rest = unit.nodes
    if len(pool.outputs) != 1:
        raise Unsupported("pooling with indices")
    source, result = graph.tensor(pool.inputs[0]), graph.tensor(pool.outputs[0])
    if len(source.shape) != 4 or source.dtype != "float32":
        raise Unsupported("pooling of something other than float32 images")
    if pools.is_global(graph, pool):
        return _global(graph, unit, target)
    layout, lanes = packed(target.lanes), target.lanes
    window = window_geometry.resolve(pool, source, result, tuple(pool.attributes["kernel_shape"]))
    stored = stored_shape(source.shape, layout)
    given = Value(pool.inputs[0], layout, stored, "float32")
    largest = pool.op == "MaxPool"
    lowest = tirx.Broadcast(tirx.const(pools.LOWEST if largest else 0.0, "float32"), lanes)
    shape = stored_shape(result.shape, layout)

    def write(sliding: type[Sliding], used: Window, image: Value) -> Call:
        operands = Operands(graph, layout, target)
        data = operands.add(image, image.shape, "float32")
        factor = None
        if not largest:
            array = pools.reciprocals(pool, source, result, window)
            factor = operands.add(Weight(array), array.shape, "float32")
        after = epilogue.apply(operands, rest, pool.outputs[0], result)

        def combine(held: tirx.Expr, value: tirx.Expr, _: tirx.Expr | None) -> tirx.Expr:
            return tirx.max(held, value) if largest else held + value

        def finish(total: tirx.Expr, index: tuple[Index, ...]) -> tirx.Expr:
            if factor is not None:
                total = total * tirx.Broadcast(factor[index[2], index[3]], lanes)
            return after(total, index)

        out = tirx.decl_buffer(shape, "float32", "out")
        made = sliding(target, used, data, None, out, lambda *_: lowest, combine, finish)
        function = made.write(operands.placeholders)
        value = Value(unit.outputs[0], layout, shape, "float32")
        return Call(function, operands.arguments, [value], "pooling")

    filling = pools.LOWEST if largest else 0.0
    calls = sliding_calls(write, window, result, given, filling, unit.name, target)
    return Kernel(calls, "pooling")


def _global(graph: Graph, unit: Unit, target: CpuTarget) -> Kernel:
    """Averages each channel over the whole image."""
    pool, *rest = unit.nodes
    source = graph.tensor(pool.inputs[0])
    lanes, layout = target.lanes, packed(target.lanes)
    operands = Operands(graph, layout, target)
    stored = stored_shape(source.shape, layout)
    data = operands.add(Value(pool.inputs[0], layout, stored, "float32"), stored, "float32")
    # A mean without keepdims gives a plain matrix.
    flat = len(graph.tensor(pool.outputs[0]).shape) == 2
    if flat and rest:
        raise Unsupported("operators behind a flat mean")
    result = Tensor((*source.shape[:2], 1, 1), "float32")
    after = epilogue.apply(operands, rest, pool.outputs[0], result)
    shape = source.shape[:2] if flat else stored_shape(result.shape, layout)
    out = tirx.decl_buffer(shape, "float32", "out")
    whole = ramp(0, lanes)
    columns = stored[3]
    zero = tirx.Broadcast(tirx.const(0.0, "float32"), lanes)
    scale = tirx.const(1.0 / (stored[2] * stored[3]), "float32")
    w = Writer()
    with w.loop("task", stored[0] * stored[1], parallel=target.threads > 1) as task:
        n, c = task // stored[1], task % stored[1]
        # Several partial sums hide the latency of additions.
        sums = [w.local(f"sum{place}", lanes) for place in range(min(8, columns))]
        for total in sums:
            w.store(total, zero, [whole])
        with w.loop("rh", stored[2]) as rh:
            with w.loop("rw", columns // len(sums)) as rw:
                for place, total in enumerate(sums):
                    value = data[n, c, rh, rw * len(sums) + place, whole]
                    w.store(total, total[whole] + value, [whole])
            begin = columns // len(sums) * len(sums)
            for place, total in zip(range(begin, columns), sums, strict=False):
                w.store(total, total[whole] + data[n, c, rh, place, whole], [whole])
        parts = [total[whole] for total in sums]
        while len(parts) > 1:
            parts = [
                first + second for first, second in zip(parts[::2], parts[1::2], strict=False)
            ] + (parts[-1:] if len(parts) % 2 else [])
        mean = parts[0] * scale
        index = (n, c, 0, 0, whole)
        if not flat:
            w.store(out, after(mean, index), index)
        elif source.shape[1] % lanes == 0:
            w.store(out, mean, (n, ramp(c * lanes, lanes)))
        else:
            w.store(sums[0], mean, [whole])
            with w.loop("v", tirx.min(lanes, source.shape[1] - c * lanes)) as v:
                w.store(out, sums[0][v], (n, c * lanes + v))
    value = Value(unit.outputs[0], PLAIN if flat else layout, shape, "float32")
    function = w.function([*operands.placeholders, out])
    return Kernel([Call(function, operands.arguments, [value], "pooling")], "pooling")
