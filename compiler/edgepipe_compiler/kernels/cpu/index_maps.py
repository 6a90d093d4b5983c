"""Operators that select elements axis by axis: Slice, Pad, Gather, Tile, nearest resizing.

Each axis has an index map: the source index of each result, or -1 for the fill value. Maps of a few regular
runs become vector loops; others become tables that the function reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from ...errors import Unsupported
from ...frontend import resize_coordinates
from ...frontend.graph import Graph, Node
from ...frontend.units import Unit
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN, lanes_of, stored_shape
from ..target import CpuTarget
from ..writer import Index, Writer, spans, spread
from . import channel_shuffle
from .scalar_expressions import TYPES
from .vector_reduction import flat

KNOWN = ("Slice", "Pad", "Gather", "Expand", "Tile", "Resize", "Upsample", "Split")
# Maps with more runs become a table.
MOST_RUNS = 4
LARGE = 1 << 30


@dataclass(frozen=True)
class Run:
    """``count`` results from ``start``, copied from ``source`` in steps of ``step``; a negative source is
    the fill value.
    """

    start: int
    count: int
    source: int
    step: int


def lower(graph: Graph, unit: Unit, target: CpuTarget, native: dict[str, str]) -> Kernel:
    """Lowers a unit of one operator."""
    if len(unit.nodes) != 1 or unit.nodes[0].inputs[0] in graph.constants:
        raise Unsupported("operators behind a selection")
    (node,) = unit.nodes
    name, tensor = node.inputs[0], graph.tensor(node.inputs[0])
    layout = native.get(name, PLAIN)
    lanes = lanes_of(layout)
    if tensor.dtype not in TYPES:
        raise Unsupported(f"selection of {tensor.dtype}")
    if node.op == "Split":
        return channel_shuffle.split(graph, node, target, layout)
    shape, maps, filling = _maps(graph, node)
    result = graph.tensor(node.outputs[0])
    same = [_is_identity(chosen, extent) for chosen, extent in zip(maps, shape, strict=True)]
    if lanes and same[0] and len(result.shape) == 4 and all(same[2:]) and not same[1]:
        return channel_shuffle.select(graph, node, target, maps[1], layout, filling)
    packed = lanes and same[0] and same[1] and len(result.shape) == 4
    resizes = node.op in ("Resize", "Upsample") and len(shape) == 4 and same[0] and same[1]
    resizes = resizes and tensor.dtype == "float32"
    if resizes and not packed:
        packed, lanes, layout = True, target.lanes, f"NCHW{target.lanes}c"
    if packed:
        stored = stored_shape(tensor.shape, layout)
        made = stored_shape(result.shape, layout)
        maps = [np.arange(stored[0]), np.arange(stored[1]), maps[2], maps[3], np.arange(lanes)]
        shape = stored
    else:
        layout, stored, made = PLAIN, tuple(tensor.shape), tuple(result.shape)
    writer = IndexMapCopy(target, tuple(shape), maps, filling, stored, made, tensor.dtype)
    function, tables = writer.write()
    wanted = Value(name, layout, stored, tensor.dtype)
    value = Value(node.outputs[0], layout, made, tensor.dtype)
    arguments = [wanted, *map(Weight, tables)]
    return Kernel([Call(function, arguments, [value], node.op.lower())], "picking")


def _is_identity(chosen: np.ndarray, extent: int) -> bool:
    return chosen.size == extent and bool((chosen == np.arange(extent)).all())


def _constant(graph: Graph, node: Node, place: int, attribute: str) -> list[int] | None:
    """A list of integers: an attribute in old operator sets, an input since. None if absent."""
    if attribute in node.attributes:
        return list(node.attributes[attribute])
    if len(node.inputs) <= place or not node.inputs[place]:
        return None
    array = graph.constants.get(node.inputs[place])
    if array is None:
        raise Unsupported(f"{attribute} that are not constant")
    return array.reshape(-1).tolist()


def _maps(graph: Graph, node: Node) -> tuple[tuple[int, ...], list[np.ndarray], float]:
    """Source shape as the maps use it, a map for each of its axes, and the fill value."""
    shape = tuple(graph.tensor(node.inputs[0]).shape)
    maps = [np.arange(extent) for extent in shape]
    match node.op:
        case "Slice":
            starts, ends = (_constant(graph, node, p, n) for p, n in ((1, "starts"), (2, "ends")))
            if starts is None or ends is None:
                raise Unsupported("slice without ends")
            axes = _constant(graph, node, 3, "axes") or range(len(starts))
            steps = _constant(graph, node, 4, "steps") or [1] * len(starts)
            for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
                start, end = max(-LARGE, min(LARGE, start)), max(-LARGE, min(LARGE, end))
                maps[axis] = maps[axis][
                    slice(start, None if step < 0 and end < -shape[axis] else end, step)
                ]
            return shape, maps, 0.0
        case "Pad":
            return shape, _padded(graph, node, shape, maps), _filling(graph, node)
        case "Gather":
            array = graph.constants.get(node.inputs[1])
            axis = node.attributes.get("axis", 0) % len(shape)
            if array is None or array.ndim > 1:
                raise Unsupported("gather of computed or many places")
            maps[axis] = np.where(array < 0, array + shape[axis], array).reshape(-1)
            return shape, maps, 0.0
        case "Expand" | "Tile":
            result = graph.tensor(node.outputs[0]).shape
            shape = (1,) * (len(result) - len(shape)) + shape
            pairs = zip(shape, result, strict=True)
            return shape, [np.arange(made) % extent for extent, made in pairs], 0.0
    resized = resize_coordinates.resolve(graph, node)
    if not resized.nearest:
        raise Unsupported("interpolation")
    return shape, [resized.nearest_map(axis) for axis in range(len(shape))], 0.0


def _filling(graph: Graph, node: Node) -> float:
    if len(node.inputs) > 2 and node.inputs[2]:
        array = graph.constants.get(node.inputs[2])
        if array is None:
            raise Unsupported("filling that is not constant")
        return float(array.reshape(-1)[0])
    return float(node.attributes.get("value", 0.0))


def _padded(
    graph: Graph, node: Node, shape: tuple[int, ...], maps: list[np.ndarray]
) -> list[np.ndarray]:
    pads = _constant(graph, node, 1, "pads")
    axes = _constant(graph, node, 3, "axes") if len(node.inputs) > 3 else None
    if pads is None:
        raise Unsupported("padding without widths")
    axes = [axis % len(shape) for axis in axes] if axes else list(range(len(shape)))
    mode = node.attributes.get("mode", b"constant")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    for place, axis in enumerate(axes):
        extent = shape[axis]
        chosen = np.arange(-pads[place], extent + pads[place + len(axes)])
        if mode == "constant":
            chosen = np.where((chosen < 0) | (chosen >= extent), -1, chosen)
        elif mode == "edge":
            chosen = chosen.clip(0, extent - 1)
        elif mode == "reflect":
            turn = max(1, 2 * (extent - 1))
            chosen = np.abs(chosen) % turn
            chosen = np.where(chosen >= extent, turn - chosen, chosen)
        elif mode == "wrap":
            chosen = chosen % extent
        else:
            raise Unsupported(f"padding {mode}")
        maps[axis] = chosen
    return maps


def runs(chosen: np.ndarray) -> list[Run]:
    """Splits a map into regular runs."""
    found: list[Run] = []
    for place, source in enumerate(chosen.tolist()):
        if found:
            last = found[-1]
            step = source - last.source if last.count == 1 else last.step
            filled = last.source < 0 and source < 0
            if filled or (last.source >= 0 <= source and source == last.source + last.count * step):
                found[-1] = Run(last.start, last.count + 1, last.source, 0 if filled else step)
                continue
        found.append(Run(place, 1, source, 1))
    return found


class IndexMapCopy:
    """Writes the function."""

    def __init__(
        self,
        target: CpuTarget,
        shape: tuple[int, ...],
        maps: list[np.ndarray],
        filling: float,
        stored: tuple[int, ...],
        made: tuple[int, ...],
        kind: str = "float32",
    ) -> None:
        self.target, self.maps = target, maps
        self.filling = tirx.const(filling if kind.startswith("float") else int(filling), kind)
        # TVM has no boolean vectors.
        self.lanes = 1 if kind == "bool" else target.lanes
        self.source = tirx.decl_buffer(stored, kind, "source")
        self.out = tirx.decl_buffer(made, kind, "out")
        self.strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        sizes = [chosen.size for chosen in maps]
        self.inner = [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
        identity = [_is_identity(*pair) for pair in zip(maps, shape, strict=True)]
        self.moved = len(shape)
        while self.moved and identity[self.moved - 1]:
            self.moved -= 1
        self.leading = 0
        while self.leading < self.moved - 1 and identity[self.leading]:
            self.leading += 1
        self.runs = [runs(chosen) for chosen in maps]
        self.tables: dict[int, tirx.Buffer] = {}
        self.arrays: list[np.ndarray] = []
        for axis in range(self.leading, self.moved):
            if len(self.runs[axis]) > MOST_RUNS:
                self.arrays.append(maps[axis].astype(np.int32))
                self.tables[axis] = tirx.decl_buffer((maps[axis].size,), "int32", "table")

    def write(self) -> tuple[tirx.PrimFunc, list[np.ndarray]]:
        """Writes the function and returns it with the tables it reads."""
        w = Writer()
        images = math.prod(self.maps[axis].size for axis in range(self.leading))
        if not self.moved:
            self._copy(w, 0, 0, math.prod(chosen.size for chosen in self.maps))
        elif images > 1:
            with w.loop("task", images, parallel=self.target.threads > 1) as task:
                before = self.strides[self.leading - 1], self.inner[self.leading - 1]
                self._axis(w, self.leading, task * before[0], task * before[1])
        else:
            self._axis(w, self.leading, 0, 0)
        function = w.function([self.source, *self.tables.values(), self.out])
        return function, self.arrays

    def _axis(self, w: Writer, axis: int, source: Index, out: Index) -> None:
        if axis == self.moved:
            self._copy(w, source, out, self.inner[axis - 1])
            return
        stride, inner = self.strides[axis], self.inner[axis]
        if axis in self.tables:
            with w.loop("i", self.maps[axis].size) as i:
                place = w.bind("place", self.tables[axis][i])
                if (self.maps[axis] < 0).any():
                    with w.when(place >= 0):
                        self._axis(w, axis + 1, source + place * stride, out + i * inner)
                    with w.when(place < 0):
                        self._fill(w, out + i * inner, inner)
                else:
                    self._axis(w, axis + 1, source + place * stride, out + i * inner)
            return
        for run in self.runs[axis]:
            begin = out + run.start * inner
            if run.source < 0:
                self._fill(w, begin, run.count * inner)
            elif inner == 1 and run.step == 1 and axis + 1 == self.moved:
                self._copy(w, source + run.source, begin, run.count)
            else:
                with w.loop("i", run.count) as i:
                    place = source + run.source * stride + i * (run.step * stride)
                    self._axis(w, axis + 1, place, begin + i * inner)

    def _copy(self, w: Writer, source: Index, out: Index, length: int) -> None:
        for place, lanes in spans(w, length, self.lanes):
            value = self.source[flat(self.source, source + place, lanes)]
            w.store(self.out, value, flat(self.out, out + place, lanes))

    def _fill(self, w: Writer, out: Index, length: int) -> None:
        for place, lanes in spans(w, length, self.lanes):
            w.store(self.out, spread(self.filling, lanes), flat(self.out, out + place, lanes))
