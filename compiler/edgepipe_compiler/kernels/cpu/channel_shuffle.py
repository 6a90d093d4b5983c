"""Permutes, selects and splits channels of packed images.

Each result vector is assembled by shuffles from the source vectors that hold its channels.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph, Node
from ..kernel import Call, Kernel, Value
from ..layout import lanes_of, stored_shape
from ..target import CpuTarget
from ..writer import Writer, ramp, spread

# Limits: source vectors per result vector, and result vectors per function.
MOST_SOURCES, MOST_SHUFFLES = 6, 600


def select(
    graph: Graph,
    node: Node,
    target: CpuTarget,
    chosen: np.ndarray,
    layout: str,
    filling: float = 0.0,
) -> Kernel:
    """A call that produces the only output of ``node``; its channel c is source channel ``chosen[c]``."""
    return Kernel([_call(graph, node, target, [chosen], layout, filling)], "channels")


def split(graph: Graph, node: Node, target: CpuTarget, layout: str) -> Kernel:
    """Splits channels into all parts in one call."""
    tensor = graph.tensor(node.inputs[0])
    axis = node.attributes.get("axis", 0) % len(tensor.shape)
    if not lanes_of(layout) or axis != 1 or not all(node.outputs):
        raise Unsupported("split of something other than channels of a packed image")
    begin, parts = 0, []
    for name in node.outputs:
        extent = graph.tensor(name).shape[1]
        parts.append(np.arange(begin, begin + extent))
        begin += extent
    return Kernel([_call(graph, node, target, parts, layout, 0.0)], "channels")


def _call(
    graph: Graph,
    node: Node,
    target: CpuTarget,
    parts: list[np.ndarray],
    layout: str,
    filling: float,
) -> Call:
    lanes = lanes_of(layout)
    stored = stored_shape(graph.tensor(node.inputs[0]).shape, layout)
    source = tirx.decl_buffer(stored, "float32", "source")
    made = [stored_shape(graph.tensor(name).shape, layout) for name in node.outputs]
    outs = [tirx.decl_buffer(shape, "float32", "out") for shape in made]
    blocks = [
        (part, block, chosen[block * lanes : (block + 1) * lanes])
        for part, chosen in enumerate(parts)
        for block in range(made[part][1])
    ]
    shuffles = 0
    for _, _, taken in blocks:
        held = {int(channel) // lanes for channel in taken if channel >= 0}
        shuffles += len(held)
        if len(held) > MOST_SOURCES:
            raise Unsupported("channels gathered from too many vectors")
    if shuffles > MOST_SHUFFLES:
        raise Unsupported("too many channels to be shuffled")
    w = Writer()
    with w.loop("task", stored[0] * stored[2], parallel=target.threads > 1) as task:
        n, y = task // stored[2], task % stored[2]
        for part, block, taken in blocks:
            with w.loop("x", stored[3]) as x:
                value = _vector(w, source, (n, y, x), taken, lanes, filling)
                w.store(outs[part], value, (n, block, y, x, ramp(0, lanes)))
    function = w.function([source, *outs])
    wanted = Value(node.inputs[0], layout, stored, "float32")
    results = [
        Value(name, layout, shape, "float32")
        for name, shape in zip(node.outputs, made, strict=True)
    ]
    return Call(function, [wanted], results, "channels")


def _vector(
    w: Writer,
    source: tirx.Buffer,
    pixel: tuple[object, object, object],
    taken: np.ndarray,
    lanes: int,
    filling: float,
) -> tirx.Expr:
    """The vector of the channels ``taken`` of a pixel. Lanes without a channel are unspecified."""
    n, y, x = pixel
    wanted = taken.tolist() + [None] * (lanes - taken.size)
    held = list(dict.fromkeys(int(channel) // lanes for channel in taken if channel >= 0))
    # For each lane: its current position, in the partial vector or in the filling.
    value = None
    for block in held:
        vector = w.bind("v", source[n, block, y, x, ramp(0, lanes)])
        here = [c is not None and c >= 0 and c // lanes == block for c in wanted]
        if value is None:
            order = [c % lanes if mine else 0 for c, mine in zip(wanted, here, strict=True)]
            value = vector
            if order != list(range(lanes)):
                value = tirx.Shuffle([vector, vector], order)
        else:
            order = [lanes + c % lanes if mine else lane
                     for lane, (c, mine) in enumerate(zip(wanted, here, strict=True))]  # fmt: skip
            value = tirx.Shuffle([w.bind("s", value), vector], order)
    empty = spread(filling, lanes)
    if value is None:
        return empty
    if (taken < 0).any():
        order = [lanes if c is not None and c < 0 else lane for lane, c in enumerate(wanted)]
        value = tirx.Shuffle([w.bind("s", value), empty], order)
    return value
