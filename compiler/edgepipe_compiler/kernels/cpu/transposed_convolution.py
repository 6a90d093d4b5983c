"""Transposed convolution in packed layout, without inserting zeros between inputs.

With stride s, every s-th result along an axis uses the same part of the window. Each of these phases is a
convolution of stride 1 with that part, reversed, and writes its own rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph, Node, Tensor
from ...frontend.units import Unit
from .. import epilogue, parameters, window_geometry
from ..epilogue import Operands, TooLong
from ..kernel import Call, Kernel, Value, Weight
from ..layout import packed, stored_shape
from ..target import CpuTarget
from ..window_geometry import Window
from ..writer import Index, Writer
from . import convolution, padding, tiling
from .convolution import Body


@dataclass(frozen=True)
class Phase:
    """Results ``offset``, ``offset`` + stride, ...

    along an axis: the window positions they use in input order, their distance, and how far before the
    result's place they begin.
    """

    offset: int
    positions: tuple[int, ...]
    dilation: int
    begin: int


def lower(graph: Graph, unit: Unit, target: CpuTarget) -> Kernel:
    """Lowers a unit whose anchor is a transposed convolution.

    If the border code is too long, a pass pads the input.
    """
    try:
        return _lower(graph, unit, target, long=False)
    except TooLong:
        return _lower(graph, unit, target, long=True)


def _lower(graph: Graph, unit: Unit, target: CpuTarget, long: bool) -> Kernel:
    node, *rest = unit.nodes
    weight, bias = parameters.of_convolution(graph, node)
    source, result = graph.tensor(node.inputs[0]), graph.tensor(node.outputs[0])
    if len(source.shape) != 4 or source.dtype != "float32":
        raise Unsupported("transposed convolution of something other than float32 images")
    groups, lanes = node.attributes.get("group", 1), target.lanes
    weight = _as_convolution(weight, groups)
    strides = tuple(node.attributes.get("strides", (1, 1)))
    phases = [
        _phases(axis, node, source, result, weight.shape[2 + axis], strides[axis])
        for axis in (0, 1)
    ]
    operands = Operands(graph, packed(lanes), target)
    stored = stored_shape(source.shape, packed(lanes))
    wanted = Value(node.inputs[0], packed(lanes), stored, "float32")
    before: list[Call] = []
    extents = source.shape[2:]
    if long:
        pads = [
            _border(phases[axis], strides[axis], source.shape[2 + axis], result.shape[2 + axis])
            for axis in (0, 1)
        ]
        begin, end = zip(*pads, strict=True)
        before, wanted = padding.pad(wanted, begin, end, 0.0, unit.name, target)
        extents = wanted.shape[2:4]
        phases = [
            [replace(phase, begin=phase.begin - begin[axis]) for phase in phases[axis]]
            for axis in (0, 1)
        ]
    turned = long and weight.shape[3] > weight.shape[2]
    if turned:
        weight, phases = weight.swapaxes(2, 3), phases[::-1]
        extents, strides = extents[::-1], strides[::-1]
    data = operands.add(wanted, wanted.shape, "float32")
    shift = None
    if bias is not None:
        # The last tile may be filled with blocks that are not stored.
        blocks = -(-bias.size // lanes) + max(tiling.FILLED)
        row = convolution.biases(bias, lanes, blocks)
        shift = operands.add(Weight(row), row.shape, "float32")
    epilogue.check_short(rest)
    after = epilogue.apply(operands, rest, node.outputs[0], result)
    shape = stored_shape(result.shape, packed(lanes))
    image = shape[2:4][::-1] if turned else shape[2:4]
    out = tirx.decl_buffer(shape, "float32", "out")
    w = Writer()
    written = 0
    for vertical in _alike(phases[0], strides[0], image[0]):
        for horizontal in _alike(phases[1], strides[1], image[1]):
            made = _PhaseGroup(target, weight, groups, (vertical, horizontal), strides, turned)
            written += made.write(w, operands, data, shift, out, after, extents, source.bytes)
    if written > convolution.LARGEST:
        raise TooLong("window with too many kinds of borders")
    function = w.function([*operands.placeholders, out])
    value = Value(unit.outputs[0], packed(lanes), shape, "float32")
    call = Call(function, operands.arguments, [value], "transposed_convolution")
    return Kernel([*before, call], "transposed_convolution")


def geometry(
    node: Node, source: Tensor, result: Tensor, kernel: tuple[int, int]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Results cropped at the begin, strides and dilations along rows and columns."""
    strides = tuple(node.attributes.get("strides", (1, 1)))
    dilations = tuple(node.attributes.get("dilations", (1, 1)))
    begin = tuple(
        _pad(axis, node, source, result, (kernel[axis] - 1) * dilations[axis] + 1, strides[axis])
        for axis in (0, 1)
    )
    return begin, strides, dilations


def _border(phases: list[Phase], stride: int, extent: int, results: int) -> tuple[int, int]:
    """How far the windows of all phases reach beyond an axis of ``extent`` at either end."""
    low = high = 0
    for phase in phases:
        count = -(-(results - phase.offset) // stride)
        if phase.positions and count > 0:
            last = count - 1 - phase.begin + (len(phase.positions) - 1) * phase.dilation
            low, high = max(low, phase.begin), max(high, last - extent + 1)
    return low, high


def _as_convolution(weight: np.ndarray, groups: int) -> np.ndarray:
    """(C, M / groups, kh, kw) as (M, C / groups, kh, kw)."""
    inside, made, *kernel = weight.shape
    grouped = weight.reshape(groups, inside // groups, made, *kernel)
    return grouped.swapaxes(1, 2).reshape(groups * made, inside // groups, *kernel)


def _phases(
    axis: int, node: Node, source: Tensor, result: Tensor, kernel: int, stride: int
) -> list[Phase]:
    dilation = tuple(node.attributes.get("dilations", (1, 1)))[axis]
    pad = _pad(axis, node, source, result, (kernel - 1) * dilation + 1, stride)
    found = []
    for offset in range(min(stride, result.shape[2 + axis])):
        seen = [k for k in range(kernel) if (offset + pad - k * dilation) % stride == 0]
        apart = dilation // math.gcd(stride, dilation)
        if not seen:
            found.append(Phase(offset, (), 1, 0))
            continue
        # The last position reads the first input.
        begin = -((offset + pad - seen[-1] * dilation) // stride)
        found.append(Phase(offset, tuple(seen[::-1]), apart, begin))
    return found


def _alike(phases: list[Phase], stride: int, extent: int) -> list[list[Phase]]:
    """Groups adjacent phases with the same number of results and the same input positions.

    They differ in weights only and share code.
    """
    found: list[list[Phase]] = []

    def seen(phase: Phase) -> tuple[int, ...]:
        results = -(-(extent - phase.offset) // stride)
        return results, len(phase.positions), phase.dilation, phase.begin

    for phase in phases:
        if found and seen(phase) == seen(found[-1][0]):
            found[-1].append(phase)
        elif phase.offset < extent:
            found.append([phase])
    return found


def _pad(axis: int, node: Node, source: Tensor, result: Tensor, reach: int, stride: int) -> int:
    """Results cropped at the begin of an axis."""
    automatic = node.attributes.get("auto_pad", b"NOTSET")
    automatic = automatic.decode() if isinstance(automatic, bytes) else automatic
    if automatic == "VALID":
        return 0
    if automatic == "NOTSET" and "output_shape" not in node.attributes:
        return tuple(node.attributes.get("pads", (0, 0, 0, 0)))[axis]
    extra = tuple(node.attributes.get("output_padding", (0, 0)))[axis]
    total = stride * (source.shape[2 + axis] - 1) + extra + reach - result.shape[2 + axis]
    total = max(0, total)
    return total // 2 if automatic == "SAME_UPPER" else total - total // 2


@dataclass
class _PhaseGroup:
    """Phases along rows and columns, each alike: one convolution per pair of phases."""

    target: CpuTarget
    weight: np.ndarray
    groups: int
    phases: tuple[list[Phase], list[Phase]]
    strides: tuple[int, ...]
    turned: bool

    def write(
        self,
        w: Writer,
        operands: Operands,
        data: tirx.Buffer,
        shift: tirx.Buffer | None,
        out: tirx.Buffer,
        after: Callable[[tirx.Expr, tuple[Index, ...]], tirx.Expr],
        extents: tuple[int, int],
        source_bytes: int,
    ) -> int:
        """Writes its loops over an image of ``extents``. Returns the number of unrolled multiply-adds."""
        down, across = self.phases
        made = [self._weight(vertical, horizontal) for vertical in down for horizontal in across]
        kh, kw = made[0].shape[2:]
        window = Window(
            (kh, kw),
            (1, 1),
            (down[0].dilation, across[0].dilation),
            (down[0].begin, across[0].begin),
            (0, 0),
        )
        height, width = (
            -(
                -(int(out.shape[3 - axis if self.turned else 2 + axis]) - phases[0].offset)
                // self.strides[axis]
            )
            for axis, phases in enumerate(self.phases)
        )
        added, array = convolution.sum_and_weight(made[0], self.groups, self.target.lanes, False)
        tile = tiling.convolution(
            self.target,
            (height, width),
            1 if added.per_block else array.shape[0],
            (kw, 1 if window.dilation[1] == 1 else kw),
            (added.lanes, added.span * kh),
            array.nbytes // array.shape[0],
        )
        ordered = [
            convolution.order_weight(
                convolution.sum_and_weight(part, self.groups, self.target.lanes, False)[1], tile
            )
            for part in made
        ]
        stacked = np.concatenate(ordered)
        kernel = operands.add(Weight(stacked), stacked.shape, "float32")
        row_taps = window_geometry.taps(window, 0, extents[0], height)
        column_taps = window_geometry.taps(window, 1, extents[1], width)
        row_runs = convolution.make_row_runs(row_taps, tile, kh)
        column_runs = window_geometry.runs(column_taps, tile.columns)
        with w.loop("down", len(down)) as i, w.loop("across", len(across)) as j:
            body = Body(
                self.target, window, tile, added, False, False, (height, width), extents[0],
                data, kernel, shift, out, after, (self.strides[0], self.strides[1]),
                (down[0].offset + i, across[0].offset + j),
                (i * len(across) + j) * ordered[0].shape[0], self.turned,
            )  # fmt: skip
            body.write(w, row_runs, column_runs, ordered[0].nbytes, source_bytes)
        return body.size(row_runs, column_runs)

    def _weight(self, vertical: Phase, horizontal: Phase) -> np.ndarray:
        """The part of the window that a pair of phases uses."""
        if not vertical.positions or not horizontal.positions:
            return np.zeros((*self.weight.shape[:2], 1, 1), np.float32)
        part = self.weight[:, :, list(vertical.positions)]
        return part[:, :, :, list(horizontal.positions)]
