"""Small ONNX networks that cover the ways in which units, cuts and layouts can go wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]


class Net:
    """Builds a model node by node; every value is named after its node."""

    def __init__(self, opset: int = 17) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(7)

    def input(self, name: str, *shape: int | str) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def constant(self, name: str, array: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str, *shape: int, scale: float = 0.3) -> str:
        array = self.random.standard_normal(shape).astype(np.float32) * np.float32(scale)
        return self.constant(name, array)

    def op(
        self,
        kind: str,
        name: str,
        *inputs: str,
        outputs: int = 1,
        domain: str = "",
        **attributes: object,
    ) -> str:
        made = [name, *(f"{name}:{place}" for place in range(1, outputs))]
        self.nodes.append(
            helper.make_node(kind, inputs, made, name=name, domain=domain, **attributes)
        )
        return name

    def conv(
        self, x: str, name: str, inside: int, outside: int, kernel: int = 3, **attributes: object
    ) -> str:
        groups = int(attributes.get("group", 1))
        scale = 1.0 / np.sqrt(inside // groups * kernel * kernel)
        weight = self.weight(f"{name}.w", outside, inside // groups, kernel, kernel, scale=scale)
        bias = self.weight(f"{name}.b", outside)
        attributes.setdefault("pads", [kernel // 2] * 4)
        return self.op("Conv", name, x, weight, bias, **attributes)

    def norm(self, x: str, name: str, channels: int) -> str:
        positive = np.abs(self.random.standard_normal((2, channels))).astype(np.float32) + 0.5
        return self.op(
            "BatchNormalization",
            name,
            x,
            self.constant(f"{name}.gamma", positive[0]),
            self.weight(f"{name}.beta", channels),
            self.weight(f"{name}.mean", channels),
            self.constant(f"{name}.var", positive[1]),
        )

    def model(self, *outputs: str, check: bool = True) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            self.inputs,
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("example.org", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        if check:
            model = onnx.shape_inference.infer_shapes(model)
            del model.graph.value_info[:]
            onnx.checker.check_model(model)
        return model


def winograd() -> onnx.ModelProto:
    """A residual block of convolutions for which Winograd's algorithm is faster on every kind of CPU."""
    net = Net()
    x = net.input("x", 1, 3, 20, 20)
    x = net.op("Relu", "stem.relu", net.conv(x, "stem", 3, 32))
    y = net.op("Relu", "a.relu", net.norm(net.conv(x, "a.conv1", 32, 32), "a.bn1", 32))
    y = net.norm(net.conv(y, "a.conv2", 32, 32), "a.bn2", 32)
    x = net.op("Relu", "a.out", net.op("Add", "a.add", y, x))
    return net.model(net.op("Flatten", "flatten", net.op("GlobalAveragePool", "pool", x)))


def residual() -> onnx.ModelProto:
    """A residual block with batch norms and a down-sampling one, then pooling and a classifier."""
    net = Net()
    x = net.input("x", 1, 3, 12, 12)
    x = net.op("Relu", "stem.relu", net.norm(net.conv(x, "stem", 3, 16), "stem.bn", 16))
    y = net.op("Relu", "a.relu", net.norm(net.conv(x, "a.conv1", 16, 16), "a.bn1", 16))
    y = net.norm(net.conv(y, "a.conv2", 16, 16), "a.bn2", 16)
    x = net.op("Relu", "a.out", net.op("Add", "a.add", y, x))
    y = net.op("Relu", "b.relu", net.conv(x, "b.conv1", 16, 24, strides=[2, 2]))
    y = net.norm(net.conv(y, "b.conv2", 24, 24), "b.bn2", 24)
    z = net.norm(net.conv(x, "b.down", 16, 24, 1, strides=[2, 2]), "b.downbn", 24)
    x = net.op("Relu", "b.out", net.op("Add", "b.add", y, z))
    x = net.op("Flatten", "flatten", net.op("GlobalAveragePool", "pool", x))
    weight = net.weight("fc.w", 10, 24)
    return net.model(net.op("Gemm", "fc", x, weight, net.weight("fc.b", 10), transB=1))


def branches() -> onnx.ModelProto:
    """Branches of odd widths joined by a concatenation, as in fire and inception modules."""
    net = Net()
    x = net.input("x", 1, 3, 9, 11)
    x = net.op("Relu", "squeeze.relu", net.conv(x, "squeeze", 3, 5, 1))
    a = net.op("Relu", "wide.relu", net.conv(x, "wide", 5, 7))
    b = net.op("Relu", "narrow.relu", net.conv(x, "narrow", 5, 16, 1))
    pooled = net.op("MaxPool", "pool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    x = net.op("Concat", "concat", a, b, pooled, axis=1)
    x = net.conv(x, "join", 28, 6, 1)
    return net.model(net.op("Softmax", "softmax", x, axis=1))


def depthwise() -> onnx.ModelProto:
    """Inverted bottleneck: clipped activations, a depthwise convolution and a residual."""
    net = Net()
    low, high = (net.constant(name, np.float32(v)) for name, v in (("low", 0), ("high", 6)))
    x = net.conv(net.input("x", 1, 3, 10, 10), "stem", 3, 16, strides=[2, 2])
    y = net.op("Clip", "expand.clip", net.conv(x, "expand", 16, 32, 1), low, high)
    y = net.op("Clip", "dw.clip", net.conv(y, "dw", 32, 32, group=32), low, high)
    x = net.op("Add", "add", net.conv(y, "project", 32, 16, 1), x)
    return net.model(net.op("Relu", "out", net.conv(x, "head", 16, 8, group=4)))


def squeeze_excite() -> onnx.ModelProto:
    """Squeeze-and-excite, hard-swish and x * sigmoid(x)."""
    net = Net()
    x = net.conv(net.input("x", 1, 3, 8, 8), "stem", 3, 16)
    x = net.op("Mul", "silu", x, net.op("Sigmoid", "gate", x))
    y = net.op("GlobalAveragePool", "se.pool", x)
    y = net.op("Relu", "se.relu", net.conv(y, "se.down", 16, 4, 1))
    y = net.op("HardSigmoid", "se.gate", net.conv(y, "se.up", 4, 16, 1), alpha=1 / 6)
    x = net.op("Mul", "se.scale", x, y)
    return net.model(net.op("HardSwish", "out", net.conv(x, "head", 16, 20)))


def many_ends() -> onnx.ModelProto:
    """Two inputs; three outputs, one of them produced early and read late."""
    net = Net()
    a, b = net.input("a", 1, 3, 8, 8), net.input("b", 1, 16, 8, 8)
    early = net.op("Relu", "early", net.conv(a, "left", 3, 16))
    right = net.op("Sigmoid", "right.out", net.conv(b, "right", 16, 16))
    late = net.conv(net.op("Add", "sum", early, right), "late", 16, 12)
    return net.model("early", late, net.op("AveragePool", "pooled", late, kernel_shape=[2, 2]))


def long_skip() -> onnx.ModelProto:
    """A value produced first and read last, so that it bypasses whole stages."""
    net = Net()
    first = net.op("Relu", "first.relu", net.conv(net.input("x", 1, 3, 8, 8), "first", 3, 16))
    x = first
    for place in range(3):
        x = net.op("Relu", f"middle{place}.relu", net.conv(x, f"middle{place}", 16, 16))
    return net.model(
        net.op("Relu", "last", net.op("Add", "add", net.conv(x, "end", 16, 16), first))
    )


def shuffle() -> onnx.ModelProto:
    """Channel shuffle: split, reshape, transpose; its shapes are computed from constants."""
    net = Net()
    x = net.conv(net.input("x", 1, 3, 6, 6), "stem", 3, 32)
    net.nodes.append(
        helper.make_node(
            "Split",
            [x, net.constant("halves", np.array([16, 16]))],
            ["kept", "used"],
            "split",
            axis=1,
        )
    )
    y = net.op("Concat", "concat", "kept", net.conv("used", "conv", 16, 16, 1), axis=1)
    y = net.op("Reshape", "group", y, net.constant("shape1", np.array([1, 2, 16, 6, 6])))
    y = net.op("Transpose", "swap", y, perm=[0, 2, 1, 3, 4])
    shape = net.op("Cast", "shape2", net.op("Shape", "shape", x), to=TensorProto.INT64)
    y = net.op("Reshape", "ungroup", y, shape)
    return net.model(net.op("Identity", "out", net.conv(y, "head", 32, 4, 1)))


def loose() -> onnx.ModelProto:
    """A batch norm without a preceding operator, dropout, identities, a shared weight and dead nodes."""
    net = Net()
    x = net.norm(net.input("x", 2, 16, 5, 7), "alone", 16)
    x = net.op("Dropout", "drop", net.op("Identity", "same", x))
    weight = net.weight("shared", 16, 16, 1, 1)
    x = net.op("Relu", "relu1", net.op("Conv", "conv1", x, weight))
    net.op("Exp", "dead", x)
    x = net.op("Relu", "relu2", net.op("Conv", "conv2", x, weight))
    return net.model(net.op("ReduceMean", "mean", x, axes=[2, 3], keepdims=0))


ALL: dict[str, Callable[[], onnx.ModelProto]] = {
    function.__name__: function
    for function in (
        residual, branches, depthwise, squeeze_excite, many_ends, long_skip, shuffle, loose,
        winograd,
    )
}  # fmt: skip


def feeds(model: onnx.ModelProto, seed: int = 1) -> dict[str, np.ndarray]:
    """Seeded inputs for a model."""
    random = np.random.default_rng(seed)
    shapes = {
        item.name: [dim.dim_value for dim in item.type.tensor_type.shape.dim]
        for item in model.graph.input
    }
    return {
        name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
