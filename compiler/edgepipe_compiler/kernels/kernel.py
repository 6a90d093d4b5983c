"""What a rule returns: scheduled functions and how to call them."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    wants: list[Value] = field(default_factory=list)

    def __post_init__(self) -> None:
        made: set[Value] = set()
        for call in self.calls:
            for argument in call.arguments:
                new = isinstance(argument, Value) and argument not in made
                if new and argument not in self.wants:
                    self.wants.append(argument)
            made.update(call.results)
