"""The schedule rules for GPUs."""

from __future__ import annotations

from collections.abc import Callable

from ...frontend.graph import Graph
from ...frontend.units import Unit
from ..cpu import rules as cpu_rules
from ..kernel import Kernel
from ..target import CudaTarget
from .fallback import on_threads


def candidates(
    graph: Graph, unit: Unit, target: CudaTarget, native: dict[str, str]
) -> list[Callable[[], Kernel]]:
    """The rules that may apply to the unit, best first."""
    rules: list[Callable[[], Kernel]] = []
    if len(unit.nodes) == 1:
        rules += [
            lambda rule=rule: on_threads(rule(), unit.name)
            for rule in cpu_rules.elementary(graph, unit, target, native)
        ]
    return rules
