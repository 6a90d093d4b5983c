"""Half precision: float32 tensors are float16 between the kernels of a stage, and so are large weights.

Convolutions and products compute in half precision themselves (``half_sums``). ``stored`` lets every other
kernel, which computes in float32, convert what it loads and stores. Values inside a unit, biases and small
constants stay float32, and so does everything that a fallback reads or makes: it may keep sums in its
result. A stage reads and gives float32 tensors, so it converts at its ends (``convert``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import tvm_ffi
from tvm import ir, tirx

from ...frontend.units import Unit
from ..kernel import Call, Kernel, Value, Weight
from ..layout import HALF, PLAIN
from ..writer import ramp
from .writer import KernelWriter

# Threads of a block that converts a tensor.
THREADS = 128
# The largest finite float16.
LARGEST = float(np.finfo(np.float16).max)


def stored(kernel: Kernel, unit: Unit) -> Kernel:
    """``kernel`` with float32 tensors of the graph, and large weights, in half precision."""
    if kernel.rule == "fallback":
        return kernel
    made = {value.name for call in kernel.calls for value in call.results}
    inside = made - set(unit.outputs)
    return Kernel([_stored(call, inside) for call in kernel.calls], kernel.rule)


def _stored(call: Call, inside: set[str]) -> Call:
    given = [*call.arguments, *call.results]
    narrowed = [_narrowed(operand, inside) for operand in given]
    buffers = {
        buffer: tirx.decl_buffer(buffer.shape, "float16", buffer.name)
        for buffer, before, after in zip(call.function.params, given, narrowed, strict=True)
        if after is not before
    }
    if not buffers:
        return call
    count = len(call.arguments)
    function = _converting(call.function, buffers)
    return Call(function, narrowed[:count], narrowed[count:], call.name)


def _narrowed(operand: Value | Weight, inside: set[str]) -> Value | Weight:
    """The operand in half precision, or itself."""
    if isinstance(operand, Weight):
        return (
            Weight(operand.array.astype(np.float16))
            if operand.large and fits(operand.array)
            else operand
        )
    if operand.dtype != "float32" or operand.layout != PLAIN or operand.name in inside:
        return operand
    if 0 in operand.shape:  # There is nothing to convert at the end of a stage.
        return operand
    return Value(operand.name, HALF, operand.shape, "float16")


def fits(array: np.ndarray) -> bool:
    """Whether all elements of a float32 array are in the range of float16."""
    return array.dtype == np.float32 and bool((np.abs(array) <= LARGEST).all())


def _converting(function: tirx.PrimFunc, buffers: Mapping[tirx.Var, tirx.Var]) -> tirx.PrimFunc:
    """``function`` with float32 parameters replaced by float16 ones, which it converts at each access."""

    def load(found: ir.TensorLoad, mutator: object) -> tirx.Expr:
        made = mutator.default_mutate(found)
        narrow = buffers.get(found.source)
        if narrow is None:
            return made
        return narrow[tuple(made.indices)].astype(str(found.ty))

    def store(found: tirx.BufferStore, mutator: object) -> tirx.Stmt:
        narrow = buffers.get(found.buffer)
        if narrow is None:
            return mutator.default_mutate(found)
        value = mutator.mutate(found.value)
        value = value.astype(str(value.ty).replace("float32", "float16"))
        return tirx.BufferStore(narrow, value, [mutator.mutate(place) for place in found.indices])

    body = tvm_ffi.structural_mutate(
        function.body, [(ir.TensorLoad, load), (tirx.BufferStore, store)]
    )
    parameters = [buffers.get(parameter, parameter) for parameter in function.params]
    return tirx.PrimFunc(parameters, body).with_attrs(function.attrs)


def convert(value: Value, wanted: str) -> Call:
    """A call that converts a value between ``plain``, float32, and ``half``."""
    kind = "float16" if wanted == HALF else "float32"
    elements = math.prod(value.shape)
    lanes = 4 if elements % 4 == 0 else 1
    source = tirx.decl_buffer((elements,), value.dtype, "source")
    result = tirx.decl_buffer((elements,), kind, "result")
    pieces = elements // lanes
    w = KernelWriter((-(-pieces // THREADS),), (THREADS,))
    place = w.bind("place", w.block_index[0] * THREADS + w.thread_index[0])
    with w.when(place < pieces if pieces % THREADS else None):
        index = ramp(place * lanes, lanes)
        w.store(result, source[index].astype(kind if lanes == 1 else f"{kind}x{lanes}"), [index])
    made = Value(value.name, wanted, value.shape, kind)
    return Call(w.function([source, result]), [value], [made], f"to_{kind}")
