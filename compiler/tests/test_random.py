"""Random networks, whole and cut at random places, give what ONNX Runtime or ONNX's evaluator gives.

``EDGEPIPE_RANDOM_NETWORKS=N`` tries the first N networks instead of a few.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import random_nets
from compiled import TARGETS, Compiled, boundaries

COUNT = int(os.environ.get("EDGEPIPE_RANDOM_NETWORKS", "24"))


def expected(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of another implementation without graph optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("seed", range(COUNT))
def test_random_network(seed: int, kind: str, tmp_path: Path) -> None:
    model = random_nets.build(seed)
    random = np.random.default_rng(seed)
    feeds = {
        item.name: random.standard_normal(
            [dim.dim_value for dim in item.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for item in model.graph.input
        if item.name.startswith("in")
    }
    names = [item.name for item in model.graph.output]
    wanted = dict(zip(names, expected(model, feeds), strict=True))
    compiled = Compiled(model, tmp_path, TARGETS[kind])
    units = len(compiled.units)
    cuts = tuple(sorted(random.choice(np.arange(1, units), min(2, units - 1), replace=False)))
    cuts = tuple(int(cut) for cut in cuts) if units > 1 else ()
    for places, boundary in (
        ((), "plain"),
        *((cuts, boundary) for boundary in boundaries(TARGETS[kind])),
    ):
        given = compiled.run(places, boundary, feeds)
        for name, array in wanted.items():
            assert given[name].shape == array.shape
            worst = np.abs(given[name] - array).max() / max(np.abs(array).max(), 1e-6)
            assert worst < 1e-4, f"{name} with cuts {places} {boundary}"
