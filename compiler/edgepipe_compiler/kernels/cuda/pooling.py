"""Max, average and global average pooling."""

from __future__ import annotations

from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph
from ...frontend.units import Unit
from .. import pools, window_geometry
from ..epilogue import Operands
from ..kernel import Kernel, Value, Weight
from ..layout import PLAIN
from ..target import CudaTarget
from ..writer import Index
from .results import Results
from .sliding_windows import SlidingWindows, Windows
from .writer import KernelWriter

# A block of a global average: threads per channel, and channels.
TOGETHER, CHANNELS = 16, 8


def lower(graph: Graph, unit: Unit, target: CudaTarget) -> Kernel:
    """Lowers a unit whose anchor is a pooling operator."""
    pool, *rest = unit.nodes
    if len(pool.outputs) != 1:
        raise Unsupported("pooling with indices")
    source, result = graph.tensor(pool.inputs[0]), graph.tensor(pool.outputs[0])
    if len(source.shape) != 4 or source.dtype != "float32":
        raise Unsupported("pooling of something other than float32 images")
    if pools.is_global(graph, pool):
        return _global(graph, unit)
    window = window_geometry.resolve(pool, source, result, tuple(pool.attributes["kernel_shape"]))
    largest = pool.op == "MaxPool"
    operands = Operands(graph, PLAIN, None)
    data = operands.add(
        Value(pool.inputs[0], PLAIN, tuple(source.shape), "float32"), (source.elements,), "float32"
    )
    factor: tirx.Buffer | float = 1.0
    if not largest:
        array = pools.reciprocals(pool, source, result, window)
        same = bool((array == array[0, 0]).all())
        factor = float(array[0, 0])
        if not same:
            factor = operands.add(Weight(array), array.shape, "float32")
    results = Results(graph, operands, rest, pool.outputs[0], unit.outputs[0])
    windows = Windows(
        source.shape[0],
        source.shape[1],
        1,
        (source.shape[2], source.shape[3]),
        (result.shape[2], result.shape[3]),
        window,
        pools.LOWEST if largest else 0.0,
    )
    kernel = SlidingWindows(windows, results, target)

    def combine(held: tirx.Expr, value: tirx.Expr, _: int) -> tirx.Expr:
        return tirx.max(held, value) if largest else held + value

    def finish(held: tirx.Expr, y: Index, x: Index) -> tirx.Expr:
        if largest:
            return held
        if isinstance(factor, float):
            return held * tirx.const(factor, "float32")
        return held * factor[y, x]

    function = kernel.write(data, combine, finish)
    return Kernel([results.call(function, "pooling")], "pooling")


def _global(graph: Graph, unit: Unit) -> Kernel:
    """The mean of each channel: a few threads add its pixels, and one of them their sums."""
    pool, *rest = unit.nodes
    source, result = graph.tensor(pool.inputs[0]), graph.tensor(pool.outputs[0])
    flat = len(result.shape) == 2
    rows, pixels = source.shape[0] * source.shape[1], source.shape[2] * source.shape[3]
    operands = Operands(graph, PLAIN, None)
    data = operands.add(
        Value(pool.inputs[0], PLAIN, tuple(source.shape), "float32"), (rows, pixels), "float32"
    )
    # A mean without keepdims gives a matrix (N, C).
    results = Results(
        graph, operands, rest, pool.outputs[0], unit.outputs[0], inner=1 if flat else 2
    )
    w = KernelWriter((-(-rows // CHANNELS),), (TOGETHER, CHANNELS))
    shared = w.shared("shared", TOGETHER * CHANNELS)
    place, within = w.thread_index[0], w.thread_index[1]
    row = w.bind("row", w.block_index[0] * CHANNELS + within)
    sum_ = w.variable("sum", 0.0)
    taken = row if rows % CHANNELS == 0 else tirx.min(row, tirx.const(rows - 1, "int32"))
    taken = w.bind("taken", taken)
    with w.loop("round", pixels // TOGETHER) as round_:
        w.store(sum_, sum_[0] + data[taken, round_ * TOGETHER + place], [0])
    left = pixels % TOGETHER
    if left:
        with w.when(place < left):
            w.store(sum_, sum_[0] + data[taken, pixels - left + place], [0])
    w.store(shared, sum_[0], [within * TOGETHER + place])
    w.barrier()
    write = results.writer(w)
    with w.when(tirx.all(place < 1, row < rows)):
        total = shared[within * TOGETHER]
        for number in range(1, TOGETHER):
            total = total + shared[within * TOGETHER + number]
        mean = w.bind("mean", total * tirx.const(1.0 / pixels, "float32"))
        image, channel = row // source.shape[1], row % source.shape[1]
        if flat:
            write(mean, (image,), channel, 1)
        else:
            write(mean, (image, channel), 0, 1)
    function = w.function([*operands.placeholders, results.out])
    return Kernel([results.call(function, "pooling")], "pooling")
