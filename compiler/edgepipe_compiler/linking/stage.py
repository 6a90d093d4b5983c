"""A stage: the units between two cuts, as a list of kernel calls.

The inputs of a stage are the values it reads from earlier stages. Its outputs are the values it produces
that later stages read or that leave the network. Values keep their kernels' layout across a ``packed``
boundary. They are in ONNX layout across a ``plain`` boundary and at the ends of the network. The inputs
of a ``plain-packed`` stage cross a plain boundary and its outputs a packed one.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import CompileError
from ..frontend.graph import Graph
from ..frontend.units import Unit
from ..kernels.kernel import Value
from ..kernels.layout import PLAIN
from ..lowering import LoweredNetwork, Step, plain
from ..weights import Slot

BOUNDARIES = ("plain", "packed")
# Layout of inputs and of outputs.
MIXED = ("plain-packed", "packed-plain")


@dataclass(frozen=True)
class StageRange:
    """Units ``[first, end)`` and the layout at the boundaries: ``plain``, ``packed``, or one of ``MIXED``."""

    first: int
    end: int
    boundary: str

    @property
    def folder(self) -> str:
        """Name of the stage's folder."""
        return f"{self.first}-{self.end}-{self.boundary}"

    @property
    def sides(self) -> tuple[str, str]:
        """Layout of inputs and of outputs: ``plain`` or ``packed``."""
        inputs, _, outputs = self.boundary.partition("-")
        return inputs, outputs or inputs


@dataclass
class Stage:
    """Inputs, weights and outputs of the entry function in order, and its calls in order."""

    range: StageRange
    inputs: list[Value]
    weights: list[Slot]
    outputs: list[Value]
    steps: list[Step]


def resolve(first: int, end: int | None, boundary: str, units: int) -> StageRange:
    """The range of a requested stage; ``end`` None means the last unit.

    Raises ``CompileError`` of kind ``bad_range``.
    """
    last = units if end is None else end
    if not 0 <= first < last <= units:
        raise CompileError(
            "bad_range",
            f"failed to cut units {first} to {last}: the network has {units} units; choose cuts "
            f"from 0 to {units} with at least one unit between them",
        )
    if boundary not in (*BOUNDARIES, *MIXED):
        raise CompileError(
            "bad_range",
            f"failed to cut at boundary {boundary!r}; use one of {', '.join((*BOUNDARIES, *MIXED))}",
        )
    return StageRange(first, last, boundary)


def alive(graph: Graph, units: list[Unit]) -> list[list[str]]:
    """The values alive at each cut, in the order they are produced.

    The list has one entry more than there are units: the first holds the network's inputs, the last its
    outputs.
    """
    last_use = {value: index for index, unit in enumerate(units) for value in unit.inputs}
    last_use.update((value, len(units)) for value in graph.outputs)
    cuts = [list(graph.inputs)]
    made = list(graph.inputs)
    for index, unit in enumerate(units):
        made = [value for value in [*made, *unit.outputs] if last_use.get(value, -1) > index]
        cuts.append(list(made))
    cuts[-1] = list(graph.outputs)
    return cuts


def plan(network: LoweredNetwork, units: list[Unit], stage: StageRange) -> Stage:
    """The calls of a stage, with layout conversions where a kernel needs another layout."""
    graph = network.graph
    cuts = alive(graph, units)
    inside = units[stage.first : stage.end]
    read = {value for unit in inside for value in unit.inputs}
    made = {value for unit in inside for value in unit.outputs}
    before, after = stage.sides
    inputs = [_crossing(network, value, before) for value in cuts[stage.first] if value in read]
    outputs = [_crossing(network, value, after) for value in cuts[stage.end] if value in made]
    at_hand = {(value.name, value.layout): value for value in inputs}
    steps: list[Step] = []

    def provide(wanted: Value, unit: int) -> None:
        if (wanted.name, wanted.layout) in at_hand:
            return
        source = next(value for (name, _), value in at_hand.items() if name == wanted.name)
        for step in network.convert(source, wanted.layout, unit):
            append(step)

    def append(step: Step) -> None:
        steps.append(step)
        at_hand.update(((value.name, value.layout), value) for value in step.results)

    for index in range(stage.first, stage.end):
        for step in network.units[index].steps:
            for argument in step.arguments:
                if isinstance(argument, Value):
                    provide(argument, index)
            append(step)
        for value in outputs:
            if value.name in units[index].outputs:
                provide(value, index)
    slots = [item for step in steps for item in step.arguments if isinstance(item, Slot)]
    return Stage(stage, inputs, list(dict.fromkeys(slots)), outputs, steps)


def _crossing(network: LoweredNetwork, value: str, boundary: str) -> Value:
    """The form in which ``value`` crosses a boundary."""
    graph = network.graph
    if boundary == PLAIN or value in graph.inputs or value in graph.outputs:
        return plain(graph, value)
    return network.made[value]
