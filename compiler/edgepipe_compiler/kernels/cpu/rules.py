"""The schedule rules for CPUs."""

from __future__ import annotations

from collections.abc import Callable

from ...frontend.graph import Graph, Node
from ...frontend.units import PRODUCTS, SHAPE_ONLY, Unit
from .. import pools
from ..kernel import Kernel
from ..target import CpuTarget, Target
from . import (
    bilinear_resize,
    concat,
    convolution,
    copies,
    dense,
    depthwise,
    elementwise,
    gather_scatter,
    index_maps,
    matmul,
    narrow_convolution,
    normalization,
    pooling,
    recurrent,
    recurrent_attributes,
    reductions,
    reshape,
    roi_align,
    scalar_elementwise,
    scalar_pooling,
    separable_resize,
    softmax,
    topk,
    transposed_convolution,
    transposed_gemm,
    winograd,
)

# Operators that one rule lowers as a unit of their own.
SINGLE: dict[str, Callable[[Graph, Unit, Target], Kernel]] = {
    **dict.fromkeys(softmax.KNOWN, softmax.lower),
    **dict.fromkeys(normalization.KNOWN, normalization.lower),
    **dict.fromkeys(reductions.KNOWN, reductions.lower),
}


def candidates(
    graph: Graph, unit: Unit, target: CpuTarget, native: dict[str, str]
) -> list[Callable[[], Kernel]]:
    """The rules that may apply to the unit, best first."""
    anchor = _anchor(unit)
    rules: list[Callable[[], Kernel]] = []
    if len(unit.outputs) == 1:
        if anchor.op == "Conv":
            rules = [
                lambda: narrow_convolution.lower(graph, unit, target),
                lambda: depthwise.lower(graph, unit, target),
                lambda: winograd.lower(graph, unit, target),
                lambda: convolution.lower(graph, unit, target, native),
            ]
        elif anchor.op == "ConvTranspose":
            rules = [
                lambda: transposed_gemm.lower(graph, unit, target, native),
                lambda: transposed_convolution.lower(graph, unit, target),
            ]
        elif anchor.op in ("MaxPool", "AveragePool") or pools.is_global(graph, anchor):
            rules = [lambda: pooling.lower(graph, unit, target)]
        elif anchor.op in PRODUCTS:
            rules = [
                lambda: dense.lower(graph, unit, target, native),
                lambda: matmul.lower(graph, unit, target),
            ]
        elif anchor.op == "Concat":
            rules = [lambda: concat.lower(graph, unit, target, native)]
        elif anchor.op in ("Resize", "Upsample"):
            rules = [lambda: bilinear_resize.lower(graph, unit, target, native)]
    return [*rules, *elementary(graph, unit, target, native)]


def elementary(
    graph: Graph, unit: Unit, target: Target, native: dict[str, str]
) -> list[Callable[[], Kernel]]:
    """The rules that need no vectors, best first.

    With a target of one lane they compute element by element.
    """
    anchor = _anchor(unit)
    rules: list[Callable[[], Kernel]] = []
    if len(unit.outputs) == 1:
        if anchor.op in SHAPE_ONLY:
            rules = [lambda: reshape.lower(graph, unit, target, native)]
        elif anchor.op in SINGLE:
            rules = [lambda: SINGLE[anchor.op](graph, unit, target)]
        else:
            rules = [lambda: elementwise.lower(graph, unit, target, native)]
        if anchor.op in scalar_elementwise.KNOWN:
            rules.append(lambda: scalar_elementwise.lower(graph, unit, target))
    elif anchor.op == "LayerNormalization":
        rules = [lambda: normalization.lower(graph, unit, target)]
    if anchor.op in scalar_pooling.KNOWN:
        rules.append(lambda: scalar_pooling.lower(graph, unit, target))
    if anchor.op in ("Resize", "Upsample"):
        rules.append(lambda: index_maps.lower(graph, unit, target, native))
        return [*rules, lambda: separable_resize.lower(graph, unit, target, native)]
    if anchor.op in roi_align.KNOWN:
        return [lambda: roi_align.lower(graph, unit, target)]
    if anchor.op in recurrent_attributes.GATES:
        return [lambda: recurrent.lower(graph, unit, target)]
    if anchor.op in index_maps.KNOWN:
        rules.append(lambda: index_maps.lower(graph, unit, target, native))
    if anchor.op in gather_scatter.KNOWN:
        rules.append(lambda: gather_scatter.lower(graph, unit, target))
    if anchor.op in topk.KNOWN:
        rules.append(lambda: topk.lower(graph, unit, target))
    if anchor.op in ("Concat", "Split", "Transpose"):
        rules.append(lambda: copies.lower(graph, unit, target))
    return rules


def _anchor(unit: Unit) -> Node:
    """The operator that decides which rules apply."""
    return next((node for node in unit.nodes if node.op not in SHAPE_ONLY), unit.nodes[0])
