"""Selects the schedule rule for a unit.

``lower`` tries the rules in order; a rule raises ``Unsupported`` if it does not apply. A unit that no rule
supports, or for which a rule raises another exception, is split into parts and finally lowered by TVM
itself.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from ...errors import CompileError, Unsupported
from ...frontend.graph import Graph
from ...frontend.units import PRODUCTS, SHAPE_ONLY, Unit, between
from ..kernel import Call, Kernel
from ..target import CpuTarget
from . import (
    bilinear_resize,
    concat,
    convolution,
    copies,
    dense,
    depthwise,
    elementwise,
    fallback,
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
)

# Operators that one rule lowers as a unit of their own.
SINGLE: dict[str, Callable[[Graph, Unit, CpuTarget], Kernel]] = {
    **dict.fromkeys(softmax.KNOWN, softmax.lower),
    **dict.fromkeys(normalization.KNOWN, normalization.lower),
    **dict.fromkeys(reductions.KNOWN, reductions.lower),
}


def lower(graph: Graph, unit: Unit, target: CpuTarget, native: dict[str, str]) -> Kernel:
    """Lowers ``unit``.

    ``native`` is the layout in which each value of the network is produced. A rule may adopt it, so that
    layouts do not depend on cuts. Raises ``CompileError`` if TVM fails as well.
    """
    for rule in _rules(graph, unit, target, native):
        try:
            return rule()
        except Unsupported:
            continue
        except (CompileError, MemoryError):
            raise
        except Exception:  # A bug in a rule makes a network slow, but does not fail the job.
            print(
                f"a schedule rule failed for unit {unit.name} ({', '.join(unit.operators)}); trying "
                f"the next one:\n{traceback.format_exc()}",
                file=sys.stderr,
            )
    if len(unit.nodes) > 1:
        return _in_parts(graph, unit, target, native)
    return fallback.lower(graph, unit, target)


def _rules(
    graph: Graph, unit: Unit, target: CpuTarget, native: dict[str, str]
) -> list[Callable[[], Kernel]]:
    """The rules that may apply to the unit, best first."""
    anchor = next((node for node in unit.nodes if node.op not in SHAPE_ONLY), unit.nodes[0])
    rules: list[Callable[[], Kernel]] = []
    if len(unit.outputs) == 1:
        if anchor.op == "Conv":
            rules = [
                lambda: narrow_convolution.lower(graph, unit, target),
                lambda: depthwise.lower(graph, unit, target),
                lambda: convolution.lower(graph, unit, target, native),
            ]
        elif anchor.op == "ConvTranspose":
            rules = [
                lambda: transposed_gemm.lower(graph, unit, target, native),
                lambda: transposed_convolution.lower(graph, unit, target),
            ]
        elif anchor.op in ("MaxPool", "AveragePool") or pooling.is_global(graph, anchor):
            rules = [lambda: pooling.lower(graph, unit, target)]
        elif anchor.op in PRODUCTS:
            rules = [
                lambda: dense.lower(graph, unit, target, native),
                lambda: matmul.lower(graph, unit, target),
            ]
        elif anchor.op in SHAPE_ONLY:
            rules = [lambda: reshape.lower(graph, unit, target, native)]
        elif anchor.op == "Concat":
            rules = [lambda: concat.lower(graph, unit, target)]
        elif anchor.op in ("Resize", "Upsample"):
            rules = [lambda: bilinear_resize.lower(graph, unit, target, native)]
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


def _in_parts(graph: Graph, unit: Unit, target: CpuTarget, native: dict[str, str]) -> Kernel:
    """Lowers the first operator and the following ones separately."""
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
