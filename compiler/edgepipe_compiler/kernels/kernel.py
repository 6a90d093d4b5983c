"""What a rule returns: scheduled functions and how to call them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx


@dataclass(frozen=True)
class Value:
    """A tensor of the network in some layout. ``name`` is the value's name in the graph, or of the
    form ``unit/inner`` for one that stays inside a unit."""

    name: str
    layout: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(eq=False)
class Weight:
    """A constant, packed as its kernel wants it."""

    array: np.ndarray


@dataclass
class Call:
    """One call of a scheduled function: arguments in order, then results in order."""

    function: tirx.PrimFunc
    arguments: list[Value | Weight]
    results: list[Value]
    name: str


@dataclass
class Kernel:
    """A lowered unit: calls in order. ``rule`` names what made it; ``fallback`` is TVM's own."""

    calls: list[Call]
    rule: str
