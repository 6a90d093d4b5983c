"""Schedule rules: from a unit and a target to scheduled functions.

``lower`` tries the rules in order; each refuses with ``Unsupported`` what it does not know. What no rule
knows, and what a rule breaks on, is lowered in parts, and at last by TVM's own lowering.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from ..errors import CompileError
from ..graph import Graph
from ..units import PRODUCTS, SHAPE_ONLY, Unit, between
from . import (
    concat,
    convolution,
    dense,
    depthwise,
    elementwise,
    fallback,
    indexed,
    interpolation,
    moves,
    norms,
    overlap,
    picking,
    pooling,
    pools,
    products,
    ranking,
    recurrent,
    recurrent_layer,
    reductions,
    regions,
    reshape,
    resize,
    softmax,
    thin,
    transposed,
    typed,
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

# Operators with a rule each, which knows them alone.
SINGLE: dict[str, Callable[[Graph, Unit, TargetDescription], Kernel]] = {
    **dict.fromkeys(softmax.KNOWN, softmax.lower),
    **dict.fromkeys(norms.KNOWN, norms.lower),
    **dict.fromkeys(reductions.KNOWN, reductions.lower),
}


def lower(graph: Graph, unit: Unit, target: TargetDescription, native: dict[str, str]) -> Kernel:
    """Lowers ``unit``. ``native`` names the layout in which each value of the network is made; a rule may
    follow it, so that what is computed never depends on where the network is cut."""
    for rule in _rules(graph, unit, target, native):
        try:
            return rule()
        except Unsupported:
            continue
        except (CompileError, MemoryError):
            raise
        except Exception:  # A fault in a rule costs speed, not the job.
            print(
                f"a schedule rule broke on the unit {unit.name} ({', '.join(unit.operators)}); it is "
                f"lowered in another way:\n{traceback.format_exc()}",
                file=sys.stderr,
            )
    if len(unit.nodes) > 1:
        return _in_parts(graph, unit, target, native)
    return fallback.lower(graph, unit, target)


def _rules(
    graph: Graph, unit: Unit, target: TargetDescription, native: dict[str, str]
) -> list[Callable[[], Kernel]]:
    """Rules that may know the unit, best first."""
    anchor = next((node for node in unit.nodes if node.op not in SHAPE_ONLY), unit.nodes[0])
    rules: list[Callable[[], Kernel]] = []
    if len(unit.outputs) == 1:
        if anchor.op == "Conv":
            rules = [
                lambda: thin.lower(graph, unit, target),
                lambda: depthwise.lower(graph, unit, target),
                lambda: convolution.lower(graph, unit, target, native),
            ]
        elif anchor.op == "ConvTranspose":
            rules = [
                lambda: overlap.lower(graph, unit, target, native),
                lambda: transposed.lower(graph, unit, target),
            ]
        elif anchor.op in ("MaxPool", "AveragePool") or pooling.is_global(graph, anchor):
            rules = [lambda: pooling.lower(graph, unit, target)]
        elif anchor.op in PRODUCTS:
            rules = [
                lambda: dense.lower(graph, unit, target, native),
                lambda: products.lower(graph, unit, target),
            ]
        elif anchor.op in SHAPE_ONLY:
            rules = [lambda: reshape.lower(graph, unit, target, native)]
        elif anchor.op == "Concat":
            rules = [lambda: concat.lower(graph, unit, target)]
        elif anchor.op in ("Resize", "Upsample"):
            rules = [lambda: resize.lower(graph, unit, target, native)]
        elif anchor.op in SINGLE:
            rules = [lambda: SINGLE[anchor.op](graph, unit, target)]
        else:
            rules = [lambda: elementwise.lower(graph, unit, target, native)]
        if anchor.op in typed.KNOWN:
            rules.append(lambda: typed.lower(graph, unit, target))
    elif anchor.op == "LayerNormalization":
        rules = [lambda: norms.lower(graph, unit, target)]
    if anchor.op in pools.KNOWN:
        rules.append(lambda: pools.lower(graph, unit, target))
    if anchor.op in ("Resize", "Upsample"):
        rules.append(lambda: picking.lower(graph, unit, target, native))
        return [*rules, lambda: interpolation.lower(graph, unit, target, native)]
    if anchor.op in regions.KNOWN:
        return [lambda: regions.lower(graph, unit, target)]
    if anchor.op in recurrent_layer.GATES:
        return [lambda: recurrent.lower(graph, unit, target)]
    if anchor.op in picking.KNOWN:
        rules.append(lambda: picking.lower(graph, unit, target, native))
    if anchor.op in indexed.KNOWN:
        rules.append(lambda: indexed.lower(graph, unit, target))
    if anchor.op in ranking.KNOWN:
        rules.append(lambda: ranking.lower(graph, unit, target))
    if anchor.op in ("Concat", "Split", "Transpose"):
        rules.append(lambda: moves.lower(graph, unit, target))
    return rules


def _in_parts(
    graph: Graph, unit: Unit, target: TargetDescription, native: dict[str, str]
) -> Kernel:
    """The first operator by itself, then those that follow it: no rule knows them together."""
    native = dict(native)
    calls: list[Call] = []
    rules: list[str] = []
    for nodes in (unit.nodes[:1], unit.nodes[1:]):
        others = [node for node in unit.nodes if node not in nodes]
        part = between(unit.name, nodes, others, set(unit.outputs), graph)
        kernel = lower(graph, part, target, native)
        calls += kernel.calls
        rules.append(kernel.rule)
        native.update((value.name, value.layout) for call in kernel.calls for value in call.results)
    return Kernel(calls, "fallback" if "fallback" in rules else rules[0])
