"""Schedule rules: from a unit and a target to scheduled functions.

``lower`` tries the rules in order; each refuses with ``Unsupported`` what it does not know. What no rule
knows goes through TVM's own lowering.
"""

from __future__ import annotations

from ..graph import Graph
from ..units import PRODUCTS, SHAPE_ONLY, Unit
from . import (
    concat,
    convolution,
    dense,
    depthwise,
    elementwise,
    fallback,
    moves,
    pooling,
    reshape,
)
from .conversion import convert
from .epilogue import Unsupported
from .kernel import Call, Kernel, Value, Weight
from .layout import PLAIN, packed
from .target import TargetDescription

__all__ = [
    "PLAIN",
    "Call",
    "Kernel",
    "TargetDescription",
    "Value",
    "Weight",
    "convert",
    "lower",
    "packed",
]


def lower(graph: Graph, unit: Unit, target: TargetDescription, native: dict[str, str]) -> Kernel:
    """Lowers ``unit``. ``native`` names the layout in which each value of the network is made; a rule may
    follow it, so that what is computed never depends on where the network is cut."""
    anchor = next((node for node in unit.nodes if node.op not in SHAPE_ONLY), unit.nodes[0])
    rules = []
    if len(unit.outputs) == 1:
        if anchor.op == "Conv":
            rules = [
                lambda: depthwise.lower(graph, unit, target),
                lambda: convolution.lower(graph, unit, target, native),
            ]
        elif anchor.op in ("MaxPool", "AveragePool") or pooling.is_global(graph, anchor):
            rules = [lambda: pooling.lower(graph, unit, target)]
        elif anchor.op in PRODUCTS:
            rules = [lambda: dense.lower(graph, unit, target, native)]
        elif anchor.op in SHAPE_ONLY:
            rules = [lambda: reshape.lower(graph, unit, target, native)]
        elif anchor.op == "Concat":
            rules = [lambda: concat.lower(graph, unit, target)]
        else:
            rules = [lambda: elementwise.lower(graph, unit, target, native)]
    if anchor.op in ("Concat", "Split", "Transpose"):
        rules.append(lambda: moves.lower(graph, unit, target))
    for rule in rules:
        try:
            return rule()
        except Unsupported:
            continue
    return fallback.lower(graph, unit, target)
