"""The result of a schedule rule: scheduled functions and their calls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx


@dataclass(frozen=True)
class Value:
    """A tensor of the network in a layout.

    ``name`` is its name in the graph, or ``unit/inner`` for a value inside a unit.
    """

    name: str
    layout: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(eq=False)
class Weight:
    """A constant, packed in the order in which its kernel reads it.

    ``large`` tells that its size matters, so that half precision stores it as float16.
    """

    array: np.ndarray
    large: bool = False


@dataclass
class Call:
    """One call of a scheduled function: arguments in order, then results in order."""

    function: tirx.PrimFunc
    arguments: list[Value | Weight]
    results: list[Value]
    name: str


@dataclass
class Kernel:
    """A lowered unit: its calls in order. ``rule`` names the rule; ``fallback`` is TVM's own lowering.

    ``multiply_adds`` that it does in a frame; None if as many as direct sums.
    """

    calls: list[Call]
    rule: str
    multiply_adds: int | None = None
