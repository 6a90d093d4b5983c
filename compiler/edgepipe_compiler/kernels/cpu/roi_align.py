"""RoiAlign: the average or maximum of regularly sampled points in each cell of a region.

Each point is interpolated from its four neighbours. The maximum is taken over the weighted neighbours, as
in ONNX Runtime and ONNX's evaluator.
"""

from __future__ import annotations

from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph
from ...frontend.units import Unit
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN
from ..target import CpuTarget
from ..writer import Writer

KNOWN = ("RoiAlign",)


def _number(value: float) -> tirx.Expr:
    return tirx.const(value, "float32")


def _whole(value: tirx.Expr) -> tirx.Expr:
    return value.astype("int32")


def lower(graph: Graph, unit: Unit, target: CpuTarget) -> Kernel:
    """Lowers a unit of one RoiAlign on float32 images."""
    (node, *rest) = unit.nodes
    shapes = [tuple(graph.tensor(name).shape) for name in node.inputs]
    dtypes = [graph.tensor(name).dtype for name in node.inputs]
    if rest or dtypes[:2] != ["float32", "float32"] or dtypes[2] not in ("int64", "int32"):
        raise Unsupported("regions of something other than float32 images")

    def text(name: str, default: str) -> str:
        value = node.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    attribute = node.attributes.get
    largest = text("mode", "avg") == "max"
    place = "half_pixel" if graph.opset >= 16 else "output_half_pixel"
    half = text("coordinate_transformation_mode", place) == "half_pixel"
    high, wide = attribute("output_height", 1), attribute("output_width", 1)
    ratio, scale = attribute("sampling_ratio", 0), float(attribute("spatial_scale", 1.0))
    batch, channels, height, width = shapes[0]
    arguments: list[Value | Weight] = []
    buffers = []
    for name, shape, dtype in zip(node.inputs, shapes, dtypes, strict=True):
        array = graph.constants.get(name)
        arguments.append(Value(name, PLAIN, shape, dtype) if array is None else Weight(array))
        buffers.append(tirx.decl_buffer(shape, dtype, "argument"))
    data, boxes, images = buffers
    result = (shapes[1][0], channels, high, wide)
    out = tirx.decl_buffer(result, "float32", "out")
    w = Writer()

    def keep(name: str, value: tirx.Expr) -> tirx.Expr:
        """Stores a float in a local buffer: TVM's integer range analysis fails on a bound one."""
        held = w.local(name, 1)
        w.store(held, value, [0])
        return held[0]

    def span(box: tirx.Expr, first: int, cells: int) -> tuple[tirx.Expr, tirx.Expr, tirx.Expr]:
        """Start of a region along an axis, size of a cell, and number of points per cell."""
        offset = _number(0.5 if half else 0.0)
        begin = keep("begin", boxes[box, first] * _number(scale) - offset)
        extent = boxes[box, first + 2] * _number(scale) - offset - begin
        if not half:
            extent = tirx.max(extent, _number(1.0))
        size = keep("size", extent * _number(1.0 / cells))
        count = tirx.const(ratio, "int32") if ratio else _whole(tirx.ceil(size))
        return begin, size, w.bind("count", count)

    def neighbours(
        begin: tirx.Expr, size: tirx.Expr, cell: tirx.Expr, point: tirx.Expr, count: tirx.Expr,
        extent: int,
    ) -> tuple[tirx.Expr, tirx.Expr, tirx.Expr, tirx.Expr]:  # fmt: skip
        """Whether a point is on the image, its two neighbours along an axis, and the weight of the second."""
        step = (point.astype("float32") + _number(0.5)) * size / count.astype("float32")
        at = keep("at", begin + cell.astype("float32") * size + step)
        inside = tirx.And(at >= _number(-1.0), at <= _number(float(extent)))
        at = keep("at", tirx.max(_number(0.0), tirx.min(_number(extent - 1.0), at)))
        low = w.bind("low", _whole(tirx.floor(at)))
        return (
            inside,
            low,
            tirx.min(low + 1, extent - 1),
            keep("share", at - low.astype("float32")),
        )

    with w.loop("task", result[0] * channels, parallel=target.threads > 1) as task:
        task = task if isinstance(task, tirx.Expr) else tirx.const(task, "int32")
        box, c = w.bind("box", task // channels), w.bind("c", task % channels)
        image = tirx.max(0, tirx.min(_whole(images[box]), batch - 1))
        image = w.bind("image", image)
        left, cell_width, columns = span(box, 0, wide)
        top, cell_height, rows = span(box, 1, high)
        number = tirx.max(rows * columns, 1).astype("float32")
        share = keep("share", _number(1.0) / number)
        held, begun = w.local("held", 1), w.local("begun", 1)
        with w.loop("y", high) as y, w.loop("x", wide) as x:
            y, x = (tirx.const(v, "int32") if isinstance(v, int) else v for v in (y, x))
            w.store(held, _number(0.0), [0])
            w.store(begun, _number(0.0), [0])
            with w.loop("i", rows) as i, w.loop("j", columns) as j:
                i, j = (tirx.const(v, "int32") if isinstance(v, int) else v for v in (i, j))
                row = neighbours(top, cell_height, y, i, rows, height)
                column = neighbours(left, cell_width, x, j, columns, width)
                inside = w.bind("inside", tirx.And(row[0], column[0]))
                parts = []
                for line, down in ((row[1], _number(1.0) - row[3]), (row[2], row[3])):
                    for place, across in (
                        (column[1], _number(1.0) - column[3]),
                        (column[2], column[3]),
                    ):
                        parts.append(data[image, c, line, place] * (down * across))
                if largest:
                    value = tirx.max(tirx.max(parts[0], parts[1]), tirx.max(parts[2], parts[3]))
                    value = tirx.Select(inside, value, _number(0.0))
                    first = tirx.Select(begun[0] > _number(0.0), held[0], value)
                    w.store(held, tirx.max(first, value), [0])
                    w.store(begun, _number(1.0), [0])
                else:
                    value = parts[0] + parts[1] + parts[2] + parts[3]
                    w.store(held, held[0] + tirx.Select(inside, value, _number(0.0)), [0])
            total = held[0] if largest else held[0] * share
            w.store(out, total, [box, c, y, x])
    function = w.function([*buffers, out])
    value = Value(node.outputs[0], PLAIN, result, "float32")
    return Kernel([Call(function, arguments, [value], "regions")], "regions")
