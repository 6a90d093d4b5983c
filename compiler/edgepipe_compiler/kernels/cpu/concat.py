"""Concatenates packed images along channels.

If a part starts in the middle of a vector, each result vector is shuffled from two vectors of the part. No
element is copied on its own. A few channels of plain images that convolutions read stay plain (``copies``):
a first convolution reads no empty lanes.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph, Node
from ...frontend.units import Unit
from .. import epilogue
from ..epilogue import Operands
from ..kernel import Call, Kernel, Value
from ..layout import PLAIN, packed, stored_shape
from ..target import CpuTarget
from ..writer import Index, Writer, ramp


def lower(graph: Graph, unit: Unit, target: CpuTarget, native: dict[str, str]) -> Kernel:
    """Lowers a unit whose anchor concatenates images along channels."""
    concat, *rest = unit.nodes
    parts = [graph.tensor(name) for name in concat.inputs]
    result = graph.tensor(concat.outputs[0])
    if any(len(part.shape) != 4 or part.dtype != "float32" for part in parts):
        raise Unsupported("concatenation of something other than float32 images")
    if concat.attributes["axis"] % 4 != 1 or any(name in graph.constants for name in concat.inputs):
        raise Unsupported("concatenation of constants or along another axis than channels")
    lanes, layout = target.lanes, packed(target.lanes)
    if result.shape[1] < lanes and _stays_plain(graph, concat, native):
        raise Unsupported("few channels for a convolution that reads plain images")
    operands = Operands(graph, layout, target)
    sources: dict[str, tirx.Buffer] = {}
    for name, part in zip(concat.inputs, parts, strict=True):
        if name not in sources:
            shape = stored_shape(part.shape, layout)
            sources[name] = operands.add(Value(name, layout, shape, "float32"), shape, "float32")
    after = epilogue.apply(operands, rest, concat.outputs[0], result)
    if rest and any(part.shape[1] % lanes for part in parts[:-1]):
        raise Unsupported("operators behind parts that share vectors")
    shape = stored_shape(result.shape, layout)
    out = tirx.decl_buffer(shape, "float32", "out")
    w = Writer()
    # One thread copies whole images; several threads share rows.
    tasks = shape[2] if target.threads > 1 or rest else 1
    width = shape[2] * shape[3] // tasks
    with w.loop("task", shape[0] * tasks, parallel=target.threads > 1) as task:
        n, y = task // tasks, task % tasks
        begin = 0
        for name, part in zip(concat.inputs, parts, strict=True):
            _part(
                w,
                n,
                y,
                width,
                begin,
                part.shape[1],
                sources[name],
                out,
                None if tasks == 1 else after,
            )
            begin += part.shape[1]
    function = w.function([*operands.placeholders, out])
    value = Value(unit.outputs[0], layout, shape, "float32")
    return Kernel([Call(function, operands.arguments, [value], "concat")], "concat")


def _stays_plain(graph: Graph, concat: Node, native: dict[str, str]) -> bool:
    """Whether all parts are plain, and only convolutions without groups read the result."""
    readers = graph.consumers().get(concat.outputs[0], [])
    return (
        all(native.get(name, PLAIN) == PLAIN for name in concat.inputs)
        and bool(readers)
        and all(node.op == "Conv" and node.attributes.get("group", 1) == 1 for node in readers)
    )


def _part(
    w: Writer,
    n: Index,
    y: Index,
    width: int,
    begin: int,
    channels: int,
    source: tirx.Buffer,
    out: tirx.Buffer,
    after: Callable[[tirx.Expr, tuple[Index, ...]], tirx.Expr] | None,
) -> None:
    """Copies a row of one part to the channels from ``begin``.

    Without operators ``after`` it, copies a whole image as one row of ``width``. Unused lanes of the last
    vector are overwritten by the next part.
    """
    lanes = int(out.shape[4])
    first, shift = divmod(begin, lanes)
    whole = ramp(0, lanes)
    last = -(-(shift + channels) // lanes)
    held = -(-channels // lanes)

    def block(place: Index, before: tirx.Buffer | None, here: bool) -> None:
        with w.loop("x", width) as x:
            index = (n, first + place, y, x, whole)
            if not shift:
                value = source[n, place, y, x, whole]
                value = value if after is None else after(value, index)
            elif before is None:
                lanes_kept = [*range(shift), *range(lanes, 2 * lanes - shift)]
                value = tirx.Shuffle([out[index], source[n, place, y, x, whole]], lanes_kept)
            else:
                old = before[n, place - 1, y, x, whole]
                new = source[n, place, y, x, whole] if here else old
                value = tirx.Shuffle([old, new], list(range(lanes - shift, 2 * lanes - shift)))
            w.store(out, value, index)

    if not shift:
        with w.loop("c", last) as c:
            block(c, None, True)
    else:
        block(0, None, True)
        if held > 1:
            with w.loop("c", held - 1) as c:
                block(c + 1, source, True)
        if last > held:
            block(held, source, False)
