"""Builds small ONNX models for tests: any opset, seeded constants, inferred output shapes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper, shape_inference

Model = Callable[[], onnx.ModelProto]


class Net:
    """A model under construction. Every operator returns the name of its first output."""

    def __init__(self, opset: int = 17, seed: int = 0) -> None:
        self._opset = opset
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._constants: list[onnx.TensorProto] = []

    def input(self, *shape: int, name: str = "x") -> str:
        """A float32 network input."""
        kind = onnx.TensorProto.FLOAT
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def weight(self, *shape: int) -> str:
        """Seeded normal numbers scaled by the fan-in (He initialization)."""
        fan_in = max(1, int(np.prod(shape[1:])))
        values = self._random.standard_normal(shape) * (2 / fan_in) ** 0.5
        return self.constant(values.astype(np.float32))

    def vector(self, length: int, low: float = -0.5, high: float = 0.5) -> str:
        """Seeded uniform numbers: a bias, a scale, a statistic."""
        return self.constant(self._random.uniform(low, high, length).astype(np.float32))

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> str:
        """An initializer."""
        name = f"tensor{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: object) -> list[str]:
        """An operator with several outputs."""
        name = f"{op.lower()}{len(self._nodes)}"
        made = [name] if outputs == 1 else [f"{name}.{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(op, inputs, made, name=name, **attributes))
        return made

    def op(self, op: str, *inputs: str, **attributes: object) -> str:
        """An operator with one output."""
        return self.node(op, *inputs, **attributes)[0]

    def conv(
        self,
        x: str,
        made: int,
        read: int,
        *kernel: int,
        bias: bool = True,
        group: int = 1,
        **attributes: object,
    ) -> str:
        """Convolution from ``read`` channels (of all groups) to ``made`` channels."""
        inputs = [x, self.weight(made, read // group, *kernel)]
        if bias:
            inputs.append(self.vector(made))
        return self.op("Conv", *inputs, group=group, **attributes)

    def batch_norm(self, x: str, channels: int) -> str:
        """Batch normalization with statistics near those of a unit normal."""
        scale, bias = self.vector(channels, 0.8, 1.2), self.vector(channels)
        mean, variance = self.vector(channels), self.vector(channels, 0.7, 1.3)
        return self.op("BatchNormalization", x, scale, bias, mean, variance)

    def build(self, *outputs: str) -> onnx.ModelProto:
        """The model, with the inferred shapes of its outputs."""
        kind = onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            self._nodes,
            "operators",
            self._inputs,
            [helper.make_tensor_value_info(name, kind, None) for name in outputs],
            self._constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self._opset)])
        model.ir_version = 8
        return shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
