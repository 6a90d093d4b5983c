"""Lowers all units of a network for one target.

The whole network is always lowered, whichever stages are requested. Layouts are chosen once, so a unit runs
the same kernel in every stage, and all stages share one weights file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tvm import tirx
from tvm_ffi import structural_equal, structural_hash

from .frontend.graph import Graph
from .frontend.units import Unit
from .kernels import rules
from .kernels.cpu.layout_conversion import convert
from .kernels.cuda import half
from .kernels.kernel import Call, Value, Weight
from .kernels.layout import HALF, PLAIN
from .kernels.target import Target
from .weights import Slot, WeightsFile


@dataclass(frozen=True)
class Step:
    """A call of a named function: arguments in order, then results in order. ``unit`` is the unit's index."""

    function: str
    arguments: tuple[Value | Slot, ...]
    results: tuple[Value, ...]
    unit: int


@dataclass
class LoweredUnit:
    """Steps of a unit, the rule that lowered it, and its ``multiply_adds`` if not those of direct sums."""

    steps: list[Step]
    rule: str
    multiply_adds: int | None = None


class Functions:
    """Scheduled functions by name. Structurally equal functions are stored once."""

    def __init__(self) -> None:
        self.by_name: dict[str, tirx.PrimFunc] = {}
        self._by_hash: dict[int, list[str]] = {}

    def add(self, function: tirx.PrimFunc, name: str) -> str:
        """Stores ``function`` and returns its name: ``name``, unless an equal function has one already."""
        function = function.without_attr("global_symbol")
        same_hash = self._by_hash.setdefault(structural_hash(function), [])
        for known in same_hash:
            if structural_equal(self.by_name[known], function):
                return known
        unique, count = name, 1
        while unique in self.by_name:
            count += 1
            unique = f"{name}_{count}"
        self.by_name[unique] = function
        same_hash.append(unique)
        return unique


@dataclass
class LoweredNetwork:
    """Lowered units, their functions, and the layout in which each value is produced."""

    graph: Graph
    target: Target
    units: list[LoweredUnit] = field(default_factory=list)
    functions: Functions = field(default_factory=Functions)
    made: dict[str, Value] = field(default_factory=dict)

    def convert(self, value: Value, layout: str, unit: int) -> list[Step]:
        """Steps that convert ``value`` to ``layout``, through the plain layout if both layouts are packed."""
        steps: list[Step] = []
        logical = self.graph.tensor(value.name).shape
        direct = PLAIN in (value.layout, layout)
        for wanted in [layout] if direct else [PLAIN, layout]:
            if HALF in (value.layout, wanted):
                call = half.convert(value, wanted)
            else:
                call = convert(value, wanted, logical, self.target)
            shape = "x".join(str(extent) for extent in logical)
            name = f"{call.name}_{value.layout}_{wanted}_{shape}_{value.dtype}"
            function = self.functions.add(call.function, name)
            steps.append(Step(function, (value,), (call.results[0],), unit))
            value = call.results[0]
        return steps


def plain(graph: Graph, name: str) -> Value:
    """The value ``name`` in the layout of the ONNX graph."""
    tensor = graph.tensor(name)
    return Value(name, PLAIN, tensor.shape, tensor.dtype)


def lower(
    graph: Graph,
    units: list[Unit],
    target: Target,
    weights: WeightsFile,
    progress: Callable[[int, int], None],
) -> LoweredNetwork:
    """Lowers ``units`` in order and writes their weights.

    Drops each constant of ``graph`` after its last use, to bound memory.
    """
    network = LoweredNetwork(graph, target)
    network.made = {name: plain(graph, name) for name in graph.inputs}
    last_use = {
        value: index
        for index, unit in enumerate(units)
        for node in unit.nodes
        for value in node.inputs
        if value in graph.constants
    }
    native = {name: value.layout for name, value in network.made.items()}
    for index, unit in enumerate(units):
        kernel = rules.lower(graph, unit, target, native)
        steps = [_step(network, weights, call, index) for call in kernel.calls]
        network.units.append(LoweredUnit(steps, kernel.rule, kernel.multiply_adds))
        made = {value.name: value for step in steps for value in step.results}
        network.made.update((name, made[name]) for name in unit.outputs)
        native.update((name, made[name].layout) for name in unit.outputs)
        for value in [value for value, last in last_use.items() if last == index]:
            del graph.constants[value]
        progress(index + 1, len(units))
    return network


def _step(network: LoweredNetwork, weights: WeightsFile, call: Call, unit: int) -> Step:
    name = network.functions.add(call.function, f"u{unit:03}_{_identifier(call.name)}")
    arguments = tuple(
        weights.add(argument.array) if isinstance(argument, Weight) else argument
        for argument in call.arguments
    )
    return Step(name, arguments, tuple(call.results), unit)


def _identifier(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)
