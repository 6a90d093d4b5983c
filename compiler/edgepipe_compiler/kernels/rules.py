"""Selects the schedule rule for a unit.

``lower`` tries the rules of the target's kind in order; a rule raises ``Unsupported`` if it does not apply. A
unit that no rule supports, or for which a rule raises another exception, is split into parts and finally
lowered by the target's fallback.
"""

from __future__ import annotations

import sys
import traceback

from ..errors import CompileError, Unsupported
from ..frontend.graph import Graph
from ..frontend.units import Unit, between
from .cpu import fallback as cpu_fallback
from .cpu import rules as cpu_rules
from .cuda import fallback as cuda_fallback
from .cuda import rules as cuda_rules
from .kernel import Call, Kernel
from .target import Target

# The rules of each kind of target, and its fallback, which supports every unit.
RULES = {
    "cpu": (cpu_rules.candidates, cpu_fallback.lower),
    "cuda": (cuda_rules.candidates, cuda_fallback.lower),
}


def lower(graph: Graph, unit: Unit, target: Target, native: dict[str, str]) -> Kernel:
    """Lowers ``unit``.

    ``native`` is the layout in which each value of the network is produced. A rule may adopt it, so that
    layouts do not depend on cuts. Raises ``CompileError`` if the fallback fails as well.
    """
    candidates, fallback = RULES[target.kind]
    for rule in candidates(graph, unit, target, native):
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
    return fallback(graph, unit, target)


def _in_parts(graph: Graph, unit: Unit, target: Target, native: dict[str, str]) -> Kernel:
    """Lowers the first operator and the following ones separately."""
    native = dict(native)
    calls: list[Call] = []
    rules: list[str] = []
    multiply_adds = None
    for nodes in (unit.nodes[:1], unit.nodes[1:]):
        others = [node for node in unit.nodes if node not in nodes]
        part = between(unit.name, nodes, others, set(unit.outputs), graph)
        kernel = lower(graph, part, target, native)
        calls += kernel.calls
        multiply_adds = multiply_adds or kernel.multiply_adds
        rules.append(kernel.rule)
        native.update((value.name, value.layout) for call in kernel.calls for value in call.results)
    return Kernel(calls, "fallback" if "fallback" in rules else rules[0], multiply_adds)
