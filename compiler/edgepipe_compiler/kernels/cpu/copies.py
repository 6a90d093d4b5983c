"""Operators that only copy runs of elements in plain layout: Split, Concat along any axis, and Transpose
that keeps the last axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph
from ...frontend.units import Unit
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN
from ..target import CpuTarget
from ..writer import Index, Writer, spans
from .scalar_expressions import TYPES
from .vector_reduction import flat


@dataclass(frozen=True)
class Move:
    """A run of ``length`` adjacent elements per index of ``extents``; its offset is the sum of index ×
    stride.
    """

    source: str
    result: str
    source_begin: int
    result_begin: int
    extents: tuple[int, ...]
    source_strides: tuple[int, ...]
    result_strides: tuple[int, ...]
    length: int


def lower(graph: Graph, unit: Unit, target: CpuTarget) -> Kernel:
    """Lowers a unit of one operator."""
    if len(unit.nodes) != 1:
        raise Unsupported("more than a move")
    (node,) = unit.nodes
    read = node.inputs[:1]
    if node.op == "Concat":
        read = [name for name in node.inputs if graph.tensor(name).elements]
        moves = _concat(graph, read, node.outputs[0], node.attributes["axis"])
    elif node.op == "Split":
        moves = _split(graph, node.inputs[0], node.outputs, node.attributes.get("axis", 0))
    elif node.op == "Transpose":
        rank = len(graph.tensor(node.inputs[0]).shape)
        order = node.attributes.get("perm") or tuple(reversed(range(rank)))
        moves = _transpose(graph, node.inputs[0], node.outputs[0], tuple(order))
    else:
        raise Unsupported("not a move")
    buffers: dict[str, tirx.Buffer] = {}
    values: dict[str, Value | Weight] = {}
    for name in [*read, *node.outputs]:
        tensor = graph.tensor(name)
        if tensor.dtype not in TYPES:
            raise Unsupported(f"move of {tensor.dtype}")
        buffers[name] = tirx.decl_buffer(tensor.shape, tensor.dtype, f"p{len(buffers)}")
        constant = graph.constants.get(name)
        made = Value(name, PLAIN, tensor.shape, tensor.dtype)
        values[name] = made if constant is None else Weight(constant)
    w = Writer()
    for move in moves:
        _write(w, move, buffers[move.source], buffers[move.result], target)
    function = w.function(list(buffers.values()))
    arguments = [values[name] for name in dict.fromkeys(read)]
    results = [Value(name, PLAIN, *_kind(graph, name)) for name in node.outputs]
    return Kernel([Call(function, arguments, results, node.op.lower())], "move")


def _kind(graph: Graph, name: str) -> tuple[tuple[int, ...], str]:
    tensor = graph.tensor(name)
    return tuple(tensor.shape), tensor.dtype


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
    w: Writer, move: Move, source: tirx.Buffer, result: tirx.Buffer, target: CpuTarget
) -> None:
    """Copies every run, in vectors where possible."""
    total = math.prod(move.extents)
    # TVM has no boolean vectors.
    lanes = 1 if source.dtype == "bool" else target.lanes
    with w.loop("run", total, parallel=target.threads > 1) as run:
        begin_source: Index = move.source_begin
        begin_result: Index = move.result_begin
        left = run
        axes = zip(move.extents, move.source_strides, move.result_strides, strict=True)
        for extent, source_stride, result_stride in reversed(list(axes)):
            begin_source = left % extent * source_stride + begin_source
            begin_result = left % extent * result_stride + begin_result
            left = left // extent
        for place, count in spans(w, move.length, lanes):
            value = source[flat(source, begin_source + place, count)]
            w.store(result, value, flat(result, begin_result + place, count))
