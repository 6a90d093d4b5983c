"""Bilinear resizing of images: vectors of channels in packed layout, or single elements in plain layout.

Row and column indices and weights are tables that the function reads. Columns are interpolated once for
each source row and reused by all results between two rows.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from ...errors import Unsupported
from ...frontend import resize_coordinates
from ...frontend.graph import Graph
from ...frontend.units import Unit
from .. import epilogue
from ..epilogue import Operands
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN, packed, stored_shape
from ..target import CpuTarget
from ..writer import Writer, ramp, spread


def lower(graph: Graph, unit: Unit, target: CpuTarget, native: dict[str, str]) -> Kernel:
    """Lowers a unit whose anchor resizes rows and columns by linear interpolation."""
    node, *rest = unit.nodes
    source, result = graph.tensor(node.inputs[0]), graph.tensor(node.outputs[0])
    if len(source.shape) != 4 or source.dtype != "float32" or source.shape[:2] != result.shape[:2]:
        raise Unsupported("resizing of something other than rows and columns of float32 images")
    resized = resize_coordinates.resolve(graph, node)
    if not resized.bilinear or not resized.copies(0) or not resized.copies(1):
        raise Unsupported("resizing that is not linear, or of channels")
    lanes, layout = target.lanes, packed(target.lanes)
    if native.get(node.inputs[0], PLAIN) == PLAIN and 4 * source.shape[1] <= lanes:
        lanes, layout = 1, PLAIN
    stored = stored_shape(source.shape, layout)
    shape = stored_shape(result.shape, layout)
    operands = Operands(graph, layout, target)
    data = operands.add(Value(node.inputs[0], layout, stored, "float32"), stored, "float32")
    tables = []
    for axis in (2, 3):
        low, high, share = resized.linear_map(axis)
        places = np.stack([low, high]).astype(np.int32)
        tables.append(operands.add(Weight(places), places.shape, "int32"))
        tables.append(operands.add(Weight(share), share.shape, "float32"))
    rows, row_shares, columns, column_shares = tables
    after = epilogue.apply(operands, rest, node.outputs[0], result)
    out = tirx.decl_buffer(shape, "float32", "out")
    whole = () if layout == PLAIN else (ramp(0, lanes),)
    w = Writer()
    with w.loop("task", shape[0] * shape[1] * shape[2], parallel=target.threads > 1) as task:
        y = w.bind("y", task % shape[2])
        n, c = task // shape[2] // shape[1], task // shape[2] % shape[1]
        above, below = w.bind("above", rows[0, y]), w.bind("below", rows[1, y])
        down = w.bind("down", spread(row_shares[y], lanes))
        with w.loop("x", shape[3]) as x:
            left, right = w.bind("left", columns[0, x]), w.bind("right", columns[1, x])
            across = w.bind("across", spread(column_shares[x], lanes))
            ends = []
            for row in (above, below):
                first = w.bind("first", data[(n, c, row, left, *whole)])
                ends.append(
                    w.bind("end", first + (data[(n, c, row, right, *whole)] - first) * across)
                )
            index = (n, c, y, x, *whole)
            value = ends[0] + (ends[1] - ends[0]) * down
            w.store(out, after(value, index), index)
    function = w.function([*operands.placeholders, out])
    value = Value(unit.outputs[0], layout, shape, "float32")
    return Kernel([Call(function, operands.arguments, [value], "resize")], "resize")
