"""Simplification, units, cuts and counts, network by network."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import models
from edgepipe_compiler.frontend import graph as graphs
from edgepipe_compiler.frontend import units
from edgepipe_compiler.frontend.graph import Graph
from edgepipe_compiler.frontend.simplify import simplify
from edgepipe_compiler.linking import manifest, stage

# Units of each network as name: operators.
EXPECTED = {
    "winograd": {
        "stem": "Conv Relu",
        "a.conv1": "Conv Relu",
        "a.conv2": "Conv Add Relu",
        "pool": "GlobalAveragePool",
        "flatten": "Flatten",
    },
    "residual": {
        "stem": "Conv Relu",
        "a.conv1": "Conv Relu",
        "a.conv2": "Conv Add Relu",
        "b.conv1": "Conv Relu",
        "b.conv2": "Conv",
        "b.down": "Conv Add Relu",
        "pool": "GlobalAveragePool",
        "fc": "Flatten Gemm",
    },
    "branches": {
        "squeeze": "Conv Relu",
        "wide": "Conv Relu",
        "narrow": "Conv Relu",
        "pool": "MaxPool",
        "concat": "Concat",
        "join": "Conv",
        "softmax": "Softmax",
    },
    "depthwise": {
        "stem": "Conv",
        "expand": "Conv Clip",
        "dw": "Conv Clip",
        "project": "Conv Add",
        "head": "Conv Relu",
    },
    "squeeze_excite": {
        "stem": "Conv Sigmoid Mul",
        "se.pool": "GlobalAveragePool",
        "se.down": "Conv Relu",
        "se.up": "Conv HardSigmoid",
        "se.scale": "Mul",
        "head": "Conv HardSwish",
    },
    "many_ends": {
        "left": "Conv Relu",
        "right": "Conv Sigmoid Add",
        "late": "Conv",
        "pooled": "AveragePool",
    },
    "long_skip": {
        "first": "Conv Relu",
        "middle0": "Conv Relu",
        "middle1": "Conv Relu",
        "middle2": "Conv Relu",
        "end": "Conv Add Relu",
    },
    "shuffle": {
        "stem": "Conv",
        "split": "Split",
        "conv": "Conv",
        "concat": "Concat",
        "swap": "Gather",
        "head": "Conv",
    },
    "loose": {"alone": "Mul Add", "conv1": "Conv Relu", "conv2": "Conv Relu", "mean": "ReduceMean"},
}
MACS = {
    "residual": 12 * 12 * (3 * 16 * 9 + 2 * 16 * 16 * 9)
    + 6 * 6 * (16 * 24 * 9 + 24 * 24 * 9 + 16 * 24)
    + 240,
    "depthwise": 5 * 5 * (3 * 16 * 9 + 16 * 32 + 32 * 9 + 32 * 16 + 8 * 4 * 9),
    "loose": 2 * 2 * 5 * 7 * 16 * 16,
}
PARAMETERS = {
    # Convolutions with bias, batch norms with scale and shift, the classifier; no running statistics.
    "residual": (3 * 9 + 1 + 2) * 16
    + 2 * (16 * 9 + 1 + 2) * 16
    + (16 * 9 + 1) * 24
    + (24 * 9 + 1 + 2) * 24
    + (16 + 1 + 2) * 24
    + 25 * 10,
    # The shared weight counts once.
    "loose": 32 + 256,
}
# Values alive at each cut, for networks whose values bypass units.
ALIVE = {
    "many_ends": [
        ["a", "b"], ["b", "early"], ["early", "sum"], ["early", "late"], ["early", "late", "pooled"],
    ],
    "long_skip": [
        ["x"], ["first.relu"], *[["first.relu", f"middle{i}.relu"] for i in range(3)], ["last"],
    ],
}  # fmt: skip


def graph_of(name: str) -> Graph:
    graph = graphs.from_model(models.ALL[name](), name)
    simplify(graph)
    return graph


@pytest.mark.parametrize("name", models.ALL)
def test_units(name: str) -> None:
    formed = units.form(graph_of(name))
    assert {unit.name: " ".join(unit.operators) for unit in formed} == EXPECTED[name]
    again = units.form(graph_of(name))
    assert [unit.name for unit in formed] == [unit.name for unit in again]


@pytest.mark.parametrize("name", models.ALL)
def test_units_stand_in_order(name: str) -> None:
    """Every unit reads only earlier values, so any position is a cut."""
    graph = graph_of(name)
    made = set(graph.inputs)
    for unit in units.form(graph):
        assert set(unit.inputs) <= made
        made |= set(unit.outputs)
    assert set(graph.outputs) <= made


@pytest.mark.parametrize("name", models.ALL)
def test_simplified_graph_computes_the_same(name: str) -> None:
    model = models.ALL[name]()
    graph = graph_of(name)
    simpler = graphs.submodel(graph, graph.nodes, graph.inputs, graph.outputs)
    onnx.checker.check_model(simpler)
    given = models.feeds(model)
    pairs = zip(
        ReferenceEvaluator(simpler).run(None, given),
        ReferenceEvaluator(model).run(None, given),
        strict=True,
    )
    for simple, original in pairs:
        np.testing.assert_allclose(simple, original, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MACS)
def test_multiply_adds(name: str) -> None:
    graph = graph_of(name)
    described = manifest.network(graph, units.form(graph), {}, {})
    assert described["macs"] == MACS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    graph = graph_of(name)
    described = manifest.network(graph, units.form(graph), {}, {})
    assert described["parameters"] == PARAMETERS[name]


@pytest.mark.parametrize("name", ALIVE)
def test_values_alive_at_cuts(name: str) -> None:
    graph = graph_of(name)
    assert stage.alive(graph, units.form(graph)) == ALIVE[name]
