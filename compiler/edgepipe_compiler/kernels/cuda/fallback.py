"""Kernels for every unit: the functions of the rules for single elements and of TVM's own lowering, with a
thread for each iteration of their parallel loops.
"""

from __future__ import annotations

from ...frontend.graph import Graph
from ...frontend.units import Unit
from ..cpu import fallback as cpu_fallback
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN, lanes_of
from ..target import CudaTarget
from . import threads


def lower(graph: Graph, unit: Unit, target: CudaTarget) -> Kernel:
    """Lowers any unit by TVM's own rules. Raises ``CompileError``."""
    return on_threads(cpu_fallback.lower(graph, unit, target), unit.name)


def on_threads(kernel: Kernel, unit: str) -> Kernel:
    """The functions of ``kernel``, which are loops over single elements, as CUDA kernels.

    The rule is ``fallback`` if threads run loops: such a unit may be slow.
    """
    calls: list[Call] = []
    loops = False
    for number, call in enumerate(kernel.calls):
        parts = threads.split(call.function)
        operands = dict(
            zip(parts.parameters, map(_plain, [*call.arguments, *call.results]), strict=True)
        )
        for buffer in parts.intermediate:
            name = f"{unit}/{number}.{buffer.name}{len(operands)}"
            shape = tuple(int(extent) for extent in buffer.shape)
            operands[buffer] = Value(name, PLAIN, shape, str(buffer.dtype))
        for part in parts.kernels:
            arguments = [operands[buffer] for buffer in part.read]
            results = [operands[buffer] for buffer in part.written]
            calls.append(Call(part.function, arguments, results, call.name))
            loops = loops or part.has_loops
        results = parts.parameters[len(call.arguments) :]
        empty = [buffer for buffer in results if 0 in map(int, buffer.shape)]
        if empty:
            made = [operands[buffer] for buffer in empty]
            calls.append(Call(threads.nothing(empty), [], made, call.name))
    return Kernel(calls, "fallback" if loops else kernel.rule)


def _plain(operand: Value | Weight) -> Value | Weight:
    """A packed layout of one lane has the elements in plain order."""
    if isinstance(operand, Value) and lanes_of(operand.layout) == 1:
        return Value(operand.name, PLAIN, operand.shape[:4], operand.dtype)
    return operand
