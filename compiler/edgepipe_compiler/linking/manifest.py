"""Contents of ``network.json`` and ``stage.json``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..frontend.graph import Graph
from ..frontend.units import Unit, macs
from ..kernels.kernel import Value
from ..lowering import LoweredNetwork
from ..versions import versions
from . import stage as stages
from .library import ENTRY
from .stage import Stage

SCHEMA = 1


def network(
    graph: Graph, units: Sequence[Unit], source: dict[str, Any], reference: dict[str, Any]
) -> dict[str, Any]:
    """Describes a network. The description is the same for every target."""
    described = [
        {
            "name": unit.name,
            "operators": [_operator(name) for name in unit.operators],
            "macs": macs(graph, unit),
            "parameters": unit.parameters,
            "node": unit.name,
        }
        for unit in units
    ]
    return {
        "schema": SCHEMA,
        "name": graph.name,
        "source": source,
        "opset": graph.opset,
        "notes": graph.notes,
        "reference": reference,
        "parameters": sum(unit["parameters"] for unit in described),
        "macs": sum(unit["macs"] for unit in described),
        "units": described,
        "boundaries": [
            {"tensors": [_tensor(graph, value) for value in cut]}
            for cut in stages.alive(graph, list(units))
        ],
    }


def stage(
    built: Stage,
    network: LoweredNetwork,
    units: Sequence[Unit],
    source: dict[str, Any],
    library: str,
    library_sha256: str,
) -> dict[str, Any]:
    """Describes a compiled stage."""
    fallback = [
        {"unit": index, "operators": [_operator(name) for name in units[index].operators]}
        for index in range(built.range.first, built.range.end)
        if network.units[index].rule == "fallback"
    ]
    lowered = network.units[built.range.first : built.range.end]
    return {
        "schema": SCHEMA,
        "network": network.graph.name,
        "source": source,
        "first_unit": built.range.first,
        "end_unit": built.range.end,
        "boundary": built.range.boundary,
        "target": asdict(network.target),
        "library": library,
        "library_sha256": library_sha256,
        "entry": ENTRY,
        "inputs": [_value(value) for value in built.inputs],
        "outputs": [_value(value) for value in built.outputs],
        "weights": [
            {
                "offset": slot.offset,
                "bytes": slot.bytes,
                "shape": list(slot.shape),
                "dtype": slot.dtype,
            }
            for slot in built.weights
        ],
        "calls": [{"function": step.function, "unit": step.unit} for step in built.steps],
        "rules": [unit.rule for unit in lowered],
        "multiply_adds": [unit.multiply_adds for unit in lowered],
        "fallback_units": fallback,
        "versions": versions(),
    }


def _tensor(graph: Graph, name: str) -> dict[str, Any]:
    tensor = graph.tensor(name)
    return {
        "value": name,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "bytes": tensor.bytes,
    }


def _value(value: Value) -> dict[str, Any]:
    size = int(np.prod(value.shape, dtype=np.int64)) * np.dtype(value.dtype).itemsize
    return {
        "value": value.name,
        "layout": value.layout,
        "shape": list(value.shape),
        "dtype": value.dtype,
        "bytes": size,
    }


def _operator(name: str) -> str:
    """Converts an ONNX operator name to snake case: ``MaxPool`` becomes ``max_pool``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
