"""Writes a small ONNX network: three convolutions, a residual addition and a classifier.

    python make_network.py doorbell.onnx

It takes the place of a network that you export from PyTorch or TensorFlow. The batch is left open, as
exporters often leave it.
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 16
CLASSES = 10


def main() -> None:
    """Write the network to the path given on the command line."""
    random = np.random.default_rng(seed=1)
    weights = {
        "stem.weight": random.normal(0, 0.2, (CHANNELS, 3, 3, 3)),
        "block.0.weight": random.normal(0, 0.1, (CHANNELS, CHANNELS, 3, 3)),
        "block.1.weight": random.normal(0, 0.1, (CHANNELS, CHANNELS, 3, 3)),
        "classifier.weight": random.normal(0, 0.1, (CLASSES, CHANNELS)),
        "classifier.bias": np.zeros(CLASSES),
    }

    def conv(name: str, source: str, stride: int) -> list[onnx.NodeProto]:
        return [
            helper.make_node(
                "Conv",
                [source, f"{name}.weight"],
                [f"{name}.sum"],
                name=name,
                kernel_shape=[3, 3],
                pads=[1, 1, 1, 1],
                strides=[stride, stride],
            ),
            helper.make_node("Relu", [f"{name}.sum"], [f"{name}.out"], name=f"{name}.relu"),
        ]

    nodes = [
        *conv("stem", "image", stride=2),
        *conv("block.0", "stem.out", stride=1),
        *conv("block.1", "block.0.out", stride=1),
        helper.make_node("Add", ["stem.out", "block.1.out"], ["sum"], name="block.add"),
        helper.make_node("GlobalAveragePool", ["sum"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["features"], name="flatten"),
        helper.make_node(
            "Gemm",
            ["features", "classifier.weight", "classifier.bias"],
            ["scores"],
            name="classifier",
            transB=1,
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "doorbell",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 64, 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, sys.argv[1])


if __name__ == "__main__":
    main()
