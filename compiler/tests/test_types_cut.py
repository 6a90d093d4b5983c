"""Values of any type cross cuts: networks with long windows, booleans, indices and TopK, whole and cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import models
import models_combined
from compiled import TARGETS, Compiled, boundaries
from operator_net import Net


def rounded_up_pools() -> onnx.ModelProto:
    """The last windows would be in the padding only.

    Not in the models: ONNX infers and declares wrong shapes here.
    """
    net = Net()
    window = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 1}
    x = net.op("MaxPool", net.conv(net.input(1, 3, 9, 9), 17, 3, 3, 3), **window)
    x = net.op("Relu", net.conv(x, 5, 17, 1, 1))
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[3, 3], pads=[1] * 4, ceil_mode=1)
    return net.build(net.op("Flatten", x))


NAMES = (
    "spectrogram",
    "segmentation_with_unpooling",
    "masked",
    "detections",
    "bounds_from_the_data",
)
MODELS = {name: models_combined.MODELS[name] for name in NAMES} | {"rounded up": rounded_up_pools}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_cut(name: str, kind: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    feeds = models.feeds(model)
    for output in model.graph.output:
        # Declared shapes come from inference.
        output.type.tensor_type.ClearField("shape")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [item.name for item in model.graph.output]
    expected = dict(zip(names, session.run(None, feeds), strict=True))
    compiled = Compiled(model, tmp_path, TARGETS[kind])
    assert kind == "cuda" or "fallback" not in {unit.rule for unit in compiled.network.units}
    units = len(compiled.units)
    thirds = (units // 3, 2 * units // 3)
    tried = [(thirds, boundary) for boundary in boundaries(TARGETS[kind])]
    for cuts, boundary in (((), "plain"), *tried):
        given = compiled.run(cuts, boundary, feeds)
        for output, array in expected.items():
            assert given[output].shape == array.shape
            worst = np.abs(given[output] - array).max() / np.abs(array).max()
            assert worst < 1e-4, f"{output} with cuts {cuts} {boundary}"
