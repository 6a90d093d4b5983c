"""Operators that only move runs of elements in plain layout: split, concatenation along any axis,
transposition that keeps its last axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from ..graph import Graph
from ..units import Unit
from .epilogue import Unsupported
from .kernel import Call, Kernel, Value
from .layout import PLAIN
from .target import TargetDescription
from .writer import Index, Writer, ramp


@dataclass(frozen=True)
class Move:
    """``length`` elements that lie together, once for each index of ``extents``: the offset of a run is
    the sum of index times stride."""

    source: str
    result: str
    source_begin: int
    result_begin: int
    extents: tuple[int, ...]
    source_strides: tuple[int, ...]
    result_strides: tuple[int, ...]
    length: int


def lower(graph: Graph, unit: Unit, target: TargetDescription) -> Kernel:
    """Lowers a unit of one operator that moves runs of elements."""
    if len(unit.nodes) != 1:
        raise Unsupported("more than a move")
    (node,) = unit.nodes
    known = [name for name in node.inputs[:1] if name not in graph.constants]
    if node.op == "Concat":
        known = [name for name in node.inputs if name not in graph.constants]
        moves = _concat(graph, node.inputs, node.outputs[0], node.attributes["axis"])
        if len(known) != len(node.inputs):
            raise Unsupported("concatenation of constants")
    elif node.op == "Split":
        moves = _split(graph, node.inputs[0], node.outputs, node.attributes.get("axis", 0))
    elif node.op == "Transpose":
        rank = len(graph.tensor(node.inputs[0]).shape)
        order = node.attributes.get("perm") or tuple(reversed(range(rank)))
        moves = _transpose(graph, node.inputs[0], node.outputs[0], tuple(order))
    else:
        raise Unsupported("not a move")
    buffers: dict[str, tirx.Buffer] = {}
    values: dict[str, Value] = {}
    for name in [*known, *node.outputs]:
        tensor = graph.tensor(name)
        if tensor.dtype != "float32" or not tensor.shape:
            raise Unsupported("move of something else than float32 tensors")
        buffers[name] = tirx.decl_buffer(tensor.shape, "float32", f"p{len(buffers)}")
        values[name] = Value(name, PLAIN, tensor.shape, "float32")
    w = Writer()
    for move in moves:
        _write(w, move, buffers[move.source], buffers[move.result], target)
    function = w.function(list(buffers.values()))
    arguments = [values[name] for name in dict.fromkeys(known)]
    results = [values[name] for name in node.outputs]
    return Kernel([Call(function, arguments, results, node.op.lower())], "move")


def _concat(graph: Graph, parts: Sequence[str], result: str, axis: int) -> list[Move]:
    shape = graph.tensor(result).shape
    axis %= len(shape)
    inner, begin, moves = math.prod(shape[axis + 1 :]), 0, []
    for part in parts:
        length = graph.tensor(part).shape[axis] * inner
        outer = math.prod(shape[:axis])
        strides = ((length,), (shape[axis] * inner,))
        moves.append(Move(part, result, 0, begin, (outer,), *strides, length))
        begin += length
    return moves


def _split(graph: Graph, source: str, parts: Sequence[str], axis: int) -> list[Move]:
    if not all(parts):
        raise Unsupported("split with parts that nothing reads")
    turned = _concat(graph, parts, source, axis)
    return [
        Move(source, move.source, move.result_begin, 0, move.extents, move.result_strides,
             move.source_strides, move.length)
        for move in turned
    ]  # fmt: skip


def _transpose(graph: Graph, source: str, result: str, order: tuple[int, ...]) -> list[Move]:
    shape = graph.tensor(source).shape
    moved = len(shape)
    while moved and order[moved - 1] == moved - 1:
        moved -= 1
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    made = graph.tensor(result).shape
    return [
        Move(
            source,
            result,
            0,
            0,
            tuple(made[:moved]),
            tuple(strides[axis] for axis in order[:moved]),
            tuple(math.prod(made[axis + 1 :]) for axis in range(moved)),
            math.prod(shape[moved:]),
        )
    ]


def _write(
    w: Writer, move: Move, source: tirx.Buffer, result: tirx.Buffer, target: TargetDescription
) -> None:
    """Copies every run, in vectors as far as they go."""
    lanes, total = target.lanes, math.prod(move.extents)
    before = [(0,) * (len(buffer.shape) - 1) for buffer in (source, result)]
    with w.loop("run", total, parallel=target.threads > 1) as run:
        begin_source: Index = move.source_begin
        begin_result: Index = move.result_begin
        left = run
        axes = zip(move.extents, move.source_strides, move.result_strides, strict=True)
        for extent, source_stride, result_stride in reversed(list(axes)):
            begin_source = left % extent * source_stride + begin_source
            begin_result = left % extent * result_stride + begin_result
            left = left // extent
        whole = move.length // lanes
        if whole:
            with w.loop("v", whole) as v:
                place = ramp(begin_source + v * lanes, lanes)
                to = ramp(begin_result + v * lanes, lanes)
                w.store(result, source[(*before[0], place)], [*before[1], to])
        if move.length % lanes:
            with w.loop("e", move.length % lanes) as e:
                element = whole * lanes + e
                value = source[(*before[0], begin_source + element)]
                w.store(result, value, [*before[1], begin_result + element])
