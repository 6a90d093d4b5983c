"""A stage for a GPU: PTX and the launches of its kernels, as one file for the runner.

The module of a stage has only the kernels that the stage calls. The runner allocates ``arena_bytes`` once,
copies the weights once, and then starts the launches in order for each frame.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..kernels.cuda.ptx import Module
from ..kernels.kernel import Value
from ..kernels.target import CudaTarget
from ..lowering import Step
from ..weights import Slot
from . import memory_plan
from .memory_plan import Lifetime
from .stage import Stage

SCHEMA = 1


def build(stage: Stage, module: Module, target: CudaTarget) -> dict[str, Any]:
    """The launch plan of ``stage``. ``module`` has the kernels that it calls."""
    values = _values(stage)
    positions = {_key(value): place for place, value in enumerate(values)}
    offsets, size = memory_plan.places(_lifetimes(stage, values))
    weights = {slot: place for place, slot in enumerate(stage.weights)}

    def argument(item: Value | Slot) -> dict[str, int]:
        if isinstance(item, Slot):
            return {"weight": weights[item]}
        return {"value": positions[_key(item)]}

    def launch(step: Step) -> dict[str, Any]:
        how = module.launches[step.function]
        operands = [*step.arguments, *step.results]
        return {
            "kernel": step.function,
            "unit": step.unit,
            "grid": list(how.grid),
            "block": list(how.block),
            "arguments": [argument(operands[place]) for place in how.order],
        }

    return {
        "schema": SCHEMA,
        "arch": target.arch,
        "ptx_version": module.ptx_version,
        "ptx": module.ptx,
        "arena_bytes": size,
        "values": [
            {"name": value.name, "offset": offset, "bytes": _bytes(value)}
            for value, offset in zip(values, offsets, strict=True)
        ],
        "inputs": [positions[_key(value)] for value in stage.inputs],
        "outputs": [positions[_key(value)] for value in stage.outputs],
        "weights": [{"offset": slot.offset, "bytes": slot.bytes} for slot in stage.weights],
        "launches": [launch(step) for step in stage.steps],
    }


def _operands(step: Step) -> list[Value]:
    return [item for item in (*step.arguments, *step.results) if isinstance(item, Value)]


def _values(stage: Stage) -> list[Value]:
    """Inputs, then the other values in the order of their first use."""
    used = [*stage.inputs, *(value for step in stage.steps for value in _operands(step))]
    return list({_key(value): value for value in [*used, *stage.outputs]}.values())


def _key(value: Value) -> tuple[str, str]:
    """What tells values apart: a tensor may be in memory in two layouts."""
    return value.name, value.layout


def _lifetimes(stage: Stage, values: list[Value]) -> list[Lifetime]:
    """Inputs are alive before the first launch, outputs after the last one."""
    end = len(stage.steps)
    uses: dict[tuple[str, str], list[int]] = {_key(value): [] for value in values}
    for value in stage.inputs:
        uses[_key(value)].append(-1)
    for number, step in enumerate(stage.steps):
        for value in _operands(step):
            uses[_key(value)].append(number)
    for value in stage.outputs:
        uses[_key(value)].append(end)
    return [
        Lifetime(_bytes(value), min(uses[_key(value)]), max(uses[_key(value)])) for value in values
    ]


def _bytes(value: Value) -> int:
    return math.prod(value.shape) * np.dtype(value.dtype).itemsize
