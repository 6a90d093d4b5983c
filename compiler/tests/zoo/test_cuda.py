"""Networks of the zoo on an emulated GPU, compared with ONNX Runtime.

``EDGEPIPE_CUDA_NETWORKS=all`` tries every network instead of a few; that takes a quarter of an hour.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from compiled import GPU, Compiled
from edgepipe_compiler import zoo

# With all checks of the stand-in driver, and without.
CHECKED = ("relu_1", "tiny", "mobilenet_v1_025_128")
FAST = ("resnet18", "mobilenet_v2", "shufflenet_v2_x1_0", "squeezenet1_1")
ALL = os.environ.get("EDGEPIPE_CUDA_NETWORKS") == "all"


def check(name: str, folder: Path, checked: bool) -> None:
    """The outputs on a seeded frame."""
    model = zoo.build(name)
    random = np.random.default_rng(5)
    feeds = {
        item.name: random.standard_normal(
            [dim.dim_value for dim in item.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for item in model.graph.input
    }
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [item.name for item in model.graph.output]
    expected = dict(zip(names, session.run(None, feeds), strict=True))
    del session
    compiled = Compiled(model, folder, GPU, checked, apart=checked)
    made = compiled.run((), "plain", feeds)
    for output, array in expected.items():
        assert made[output].shape == array.shape
        worst = np.abs(made[output] - array).max() / max(np.abs(array).max(), 1e-6)
        assert worst < 1e-4, f"{output} differs by {worst}"


@pytest.mark.parametrize("name", CHECKED)
def test_checked(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, checked=True)


@pytest.mark.parametrize("name", zoo.names() if ALL else FAST)
def test_network(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, checked=False)
