"""Concat along any axis in one kernel: each thread copies one element from the part that has it.

A kernel for each part would cost a launch: the last block of DenseNet concatenates up to 24 parts 24 times.
"""

from __future__ import annotations

import math

from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph
from ...frontend.units import Unit
from ..cpu.scalar_expressions import TYPES
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN
from ..target import CudaTarget
from .writer import KernelWriter

# Threads of a block, and parts of a kernel, each of which is a comparison for every thread.
BLOCK, MOST_PARTS = 128, 64


def lower(graph: Graph, unit: Unit, _: CudaTarget) -> Kernel:
    """Lowers a unit of one Concat."""
    (node,) = unit.nodes if len(unit.nodes) == 1 else (None,)
    if node is None or node.op != "Concat":
        raise Unsupported("more than a concatenation")
    result = graph.tensor(node.outputs[0])
    names = [name for name in node.inputs if graph.tensor(name).elements]
    if result.dtype not in TYPES or not 0 < len(names) <= MOST_PARTS:
        raise Unsupported(f"concatenation of {len(names)} parts of {result.dtype}")
    axis = node.attributes["axis"] % len(result.shape)
    inner = math.prod(result.shape[axis + 1 :])
    row = result.shape[axis] * inner
    arguments: dict[str, Value | Weight] = {}
    buffers: dict[str, tirx.Buffer] = {}
    for name in names:
        array, tensor = graph.constants.get(name), graph.tensor(name)
        value = Value(name, PLAIN, tuple(tensor.shape), tensor.dtype)
        arguments[name] = value if array is None else Weight(array)
        buffers[name] = tirx.decl_buffer((tensor.elements,), result.dtype, f"p{len(buffers)}")
    out = tirx.decl_buffer((result.elements,), result.dtype, "out")
    w = KernelWriter([-(-result.elements // BLOCK)], [BLOCK])
    thread = w.bind("thread", w.block_index[0] * BLOCK + w.thread_index[0])
    with w.when(thread < result.elements if result.elements % BLOCK else None):
        place = w.bind("place", thread % row)
        outer = w.bind("outer", thread // row)
        begin = 0
        for name in names:
            length = graph.tensor(name).shape[axis] * inner
            inside = tirx.And(place >= begin, place < begin + length)
            with w.when(inside if len(names) > 1 else None):
                w.store(out, buffers[name][outer * length + (place - begin)], [thread])
            begin += length
    function = w.function([*buffers.values(), out])
    made = Value(node.outputs[0], PLAIN, tuple(result.shape), result.dtype)
    return Kernel([Call(function, list(arguments.values()), [made], "concat")], "concat")
