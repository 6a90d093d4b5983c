"""The schedule rules for GPUs."""

from __future__ import annotations

from collections.abc import Callable

from ...frontend.graph import Graph
from ...frontend.units import ELEMENTWISE, PRODUCTS, SHAPE_ONLY, Unit
from .. import pools
from ..cpu import rules as cpu_rules
from ..kernel import Kernel
from ..layout import PLAIN
from ..target import CudaTarget
from . import (
    concat,
    convolution,
    dense,
    depthwise,
    elementwise,
    half,
    matmul,
    pointwise,
    pooling,
    softmax,
    winograd,
)
from .fallback import on_threads


def candidates(
    graph: Graph, unit: Unit, target: CudaTarget, native: dict[str, str]
) -> list[Callable[[], Kernel]]:
    """The rules that may apply to the unit, best first."""
    rules = [lambda rule=rule: rule(graph, unit, target) for rule in _tuned(graph, unit)]
    if len(unit.nodes) == 1:
        # Rules for CPUs know packed layouts only; every other one has the elements in plain order.
        native = dict.fromkeys(native, PLAIN)
        rules += [
            lambda rule=rule: on_threads(rule(), unit.name)
            for rule in cpu_rules.elementary(graph, unit, target, native)
        ]
    if target.precision == "fp16":
        return [lambda rule=rule: half.stored(rule(), unit) for rule in rules]
    return rules


def _tuned(graph: Graph, unit: Unit) -> list[Callable[[Graph, Unit, CudaTarget], Kernel]]:
    """The rules that write kernels for the unit's anchor, best first."""
    if len(unit.outputs) != 1 or not graph.tensor(unit.outputs[0]).elements:
        return []
    anchor = next((node for node in unit.nodes if node.op not in SHAPE_ONLY), unit.nodes[0])
    if anchor.op == "Conv":
        return [dense.lower, pointwise.lower, depthwise.lower, winograd.lower, convolution.lower]
    if anchor.op in ("MaxPool", "AveragePool") or pools.is_global(graph, anchor):
        return [pooling.lower]
    if anchor.op in PRODUCTS:
        return [dense.lower, matmul.lower]
    if anchor.op in softmax.KNOWN:
        return [softmax.lower]
    if anchor.op == "Concat":
        return [concat.lower]
    if anchor.op in ELEMENTWISE:
        return [elementwise.lower]
    return []
