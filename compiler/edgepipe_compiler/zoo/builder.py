"""Builds an ONNX model node by node: shapes, seeded weights and dotted names in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper

from . import weights
from .moments import Moments, mixture

OPSET = 17
# Opset 17 came with ONNX 1.12, whose files have version 8 of the intermediate representation.
IR_VERSION = 8

Pair = int | tuple[int, int]


@dataclass(frozen=True)
class Value:
    """A tensor in the graph: NCHW or any other shape, float32."""

    name: str
    shape: tuple[int, ...]
    moments: Moments

    @property
    def channels(self) -> int:
        """Extent of the second dimension."""
        return self.shape[1]


def _pair(extent: Pair) -> tuple[int, int]:
    return (extent, extent) if isinstance(extent, int) else extent


class Builder:
    """A model under construction. Every method adds nodes named ``name`` and returns their value.

    A value has the name of its node. A weight has the name of its node and ``.weight``, ``.bias``,
    ``.running_mean`` or ``.running_var``, as in a PyTorch state dictionary.
    """

    def __init__(self, network: str, batch: int = 1) -> None:
        self.network = network
        self.batch = batch
        self.model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="edgepipe")
        self.model.opset_import.append(helper.make_opsetid("", OPSET))
        self.graph = self.model.graph
        self.graph.name = network

    def input(self, *extents: int, name: str = "x") -> Value:
        """Network input with ``extents`` after the batch, for example 3, 224, 224."""
        shape = (self.batch, *extents)
        self.graph.input.append(
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape))
        )
        return Value(name, shape, Moments())

    def finish(self, *outputs: Value) -> onnx.ModelProto:
        """Declares the outputs and returns the model."""
        for value in outputs:
            self.graph.output.append(
                helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, list(value.shape))
            )
        return self.model

    def conv(
        self,
        x: Value,
        name: str,
        channels: int,
        kernel: Pair = 1,
        stride: int = 1,
        pad: Pair = 0,
        groups: int = 1,
        bias: bool = False,
    ) -> Value:
        """Convolution with symmetric padding."""
        (high, wide), (above, left) = _pair(kernel), _pair(pad)
        shape = (channels, x.channels // groups, high, wide)
        fan_in = x.channels // groups * high * wide
        inputs = [x.name, self._he(f"{name}.weight", shape, fan_in, x)]
        if bias:
            inputs.append(self._seeded(f"{name}.bias", (channels,), -0.05, 0.05))
        attributes = {
            "kernel_shape": [high, wide],
            "strides": [stride, stride],
            "pads": [above, left, above, left],
            "dilations": [1, 1],
            "group": groups,
        }
        places = (
            (x.shape[2] + 2 * above - high) // stride + 1,
            (x.shape[3] + 2 * left - wide) // stride + 1,
        )
        return self._node(
            "Conv", name, inputs, (x.shape[0], channels, *places), Moments(), **attributes
        )

    def linear(self, x: Value, name: str, features: int) -> Value:
        """Fully connected layer with bias on (batch, features)."""
        inputs = [
            x.name,
            self._he(f"{name}.weight", (features, x.channels), x.channels, x),
            self._seeded(f"{name}.bias", (features,), -0.05, 0.05),
        ]
        return self._node("Gemm", name, inputs, (x.shape[0], features), Moments(), transB=1)

    def batch_norm(self, x: Value, name: str, epsilon: float = 1e-5) -> Value:
        """Batch normalization for inference, with statistics close to those of its input."""
        sd = x.moments.variance**0.5
        shape, mean, variance = (x.channels,), x.moments.mean, x.moments.variance
        inputs = [
            x.name,
            self._seeded(f"{name}.weight", shape, 0.9, 1.1),
            self._seeded(f"{name}.bias", shape, -0.1, 0.1),
            self._seeded(f"{name}.running_mean", shape, mean - 0.1 * sd, mean + 0.1 * sd),
            self._seeded(f"{name}.running_var", shape, 0.8 * variance, 1.2 * variance),
        ]
        return self._node("BatchNormalization", name, inputs, x.shape, Moments(), epsilon=epsilon)

    def relu(self, x: Value, name: str) -> Value:
        """max(x, 0)."""
        return self._pointwise("Relu", x, name, lambda v: np.maximum(v, 0))

    def relu6(self, x: Value, name: str) -> Value:
        """min(max(x, 0), 6)."""
        bounds = [
            self._constant(f"{name}.min", np.float32(0)),
            self._constant(f"{name}.max", np.float32(6)),
        ]
        moments = x.moments.through(lambda v: np.clip(v, 0, 6))
        return self._node("Clip", name, [x.name, *bounds], x.shape, moments)

    def hard_swish(self, x: Value, name: str) -> Value:
        """x · min(max(x + 3, 0), 6) / 6."""
        return self._pointwise("HardSwish", x, name, lambda v: v * np.clip(v / 6 + 0.5, 0, 1))

    def hard_sigmoid(self, x: Value, name: str) -> Value:
        """min(max(x + 3, 0), 6) / 6."""
        function = _hard_sigmoid
        return self._pointwise("HardSigmoid", x, name, function, alpha=1 / 6, beta=0.5)

    def sigmoid(self, x: Value, name: str) -> Value:
        """1 / (1 + e⁻ˣ)."""
        return self._pointwise("Sigmoid", x, name, _sigmoid)

    def silu(self, x: Value, name: str) -> Value:
        """x · sigmoid(x), the two nodes that exporters write for it."""
        gate = self.sigmoid(x, f"{name}.sigmoid")
        moments = x.moments.through(lambda v: v * _sigmoid(v))
        return replace(self.mul(x, gate, f"{name}.mul"), moments=moments)

    def add(self, a: Value, b: Value, name: str) -> Value:
        """Residual sum."""
        return self._node("Add", name, [a.name, b.name], a.shape, a.moments.plus(b.moments))

    def mul(self, x: Value, gate: Value, name: str) -> Value:
        """x times a gate, which may broadcast."""
        moments = x.moments.times(gate.moments)
        return self._node("Mul", name, [x.name, gate.name], x.shape, moments)

    def concat(self, parts: Sequence[Value], name: str) -> Value:
        """Concatenation of channels."""
        first = parts[0]
        shape = (first.shape[0], sum(part.channels for part in parts), *first.shape[2:])
        moments = mixture([(part.moments, part.channels) for part in parts])
        return self._node("Concat", name, [part.name for part in parts], shape, moments, axis=1)

    def split(self, x: Value, name: str, parts: int) -> list[Value]:
        """Splits the channels into equal parts."""
        share = x.channels // parts
        sizes = self._constant(f"{name}.sizes", np.full(parts, share, np.int64))
        names = [f"{name}.{index}" for index in range(parts)]
        self.graph.node.append(helper.make_node("Split", [x.name, sizes], names, name=name, axis=1))
        shape = (x.shape[0], share, *x.shape[2:])
        return [Value(part, shape, x.moments) for part in names]

    def channel_shuffle(self, x: Value, name: str, groups: int) -> Value:
        """Interleaves the channels of ``groups`` groups (ShuffleNet)."""
        batch, channels, high, wide = x.shape
        split = (batch, groups, channels // groups, high, wide)
        grouped = self.reshape(x, f"{name}.split", split)
        swapped = (batch, channels // groups, groups, high, wide)
        mixed = self._node(
            "Transpose",
            f"{name}.transpose",
            [grouped.name],
            swapped,
            x.moments,
            perm=[0, 2, 1, 3, 4],
        )
        return self.reshape(mixed, f"{name}.merge", x.shape)

    def reshape(self, x: Value, name: str, shape: tuple[int, ...]) -> Value:
        """The same elements in another shape."""
        target = self._constant(f"{name}.shape", np.array(shape, np.int64))
        return self._node("Reshape", name, [x.name, target], shape, x.moments)

    def max_pool(
        self, x: Value, name: str, kernel: int, stride: int, pad: int = 0, ceil: bool = False
    ) -> Value:
        """Maximum of each window; ``ceil`` keeps a last window that exceeds the border."""
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        if ceil:
            attributes["ceil_mode"] = 1
        places = [-(-(extent + 2 * pad - kernel) // stride) + 1 for extent in x.shape[2:]]
        if not ceil:
            places = [(extent + 2 * pad - kernel) // stride + 1 for extent in x.shape[2:]]
        shape = (*x.shape[:2], *places)
        moments = x.moments.largest_of(kernel * kernel)
        return self._node("MaxPool", name, [x.name], shape, moments, **attributes)

    def average_pool(self, x: Value, name: str, kernel: int, stride: int, pad: int = 0) -> Value:
        """Mean of each window, including the zeros of the padding."""
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        if pad:
            attributes["count_include_pad"] = 1
        places = [(extent + 2 * pad - kernel) // stride + 1 for extent in x.shape[2:]]
        shape = (*x.shape[:2], *places)
        return self._node("AveragePool", name, [x.name], shape, x.moments.averaged(), **attributes)

    def global_average_pool(self, x: Value, name: str) -> Value:
        """Mean over all pixels, as (batch, channels, 1, 1)."""
        shape = (*x.shape[:2], 1, 1)
        return self._node("GlobalAveragePool", name, [x.name], shape, x.moments.averaged())

    def mean(self, x: Value, name: str) -> Value:
        """Mean over all pixels, as (batch, channels)."""
        moments = x.moments.averaged()
        return self._node(
            "ReduceMean", name, [x.name], x.shape[:2], moments, axes=[2, 3], keepdims=0
        )

    def flatten(self, x: Value, name: str) -> Value:
        """As (batch, features)."""
        shape = (x.shape[0], int(np.prod(x.shape[1:])))
        return self._node("Flatten", name, [x.name], shape, x.moments, axis=1)

    def _pointwise(
        self,
        op: str,
        x: Value,
        name: str,
        function: Callable[[np.ndarray], np.ndarray],
        **attributes: float,
    ) -> Value:
        return self._node(op, name, [x.name], x.shape, x.moments.through(function), **attributes)

    def _node(
        self,
        op: str,
        name: str,
        inputs: list[str],
        shape: tuple[int, ...],
        moments: Moments,
        **attributes: object,
    ) -> Value:
        self.graph.node.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return Value(name, tuple(shape), moments)

    def _he(self, name: str, shape: tuple[int, ...], fan_in: int, x: Value) -> str:
        # Uniform numbers on [-b, b) have the variance b² / 3. Rounding to three digits removes the
        # last bits, in which quadratures may differ between machines.
        bound = float(f"{(3 / (fan_in * x.moments.power)) ** 0.5:.3g}")
        return self._seeded(name, shape, -bound, bound)

    def _seeded(self, name: str, shape: tuple[int, ...], low: float, high: float) -> str:
        tensor = self.graph.initializer.add()
        weights.uniform(tensor, f"{self.network}/{name}", shape, round(low, 6), round(high, 6))
        return name

    def _constant(self, name: str, values: np.ndarray | np.generic) -> str:
        weights.constant(self.graph.initializer.add(), name, np.asarray(values))
        return name


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def _hard_sigmoid(values: np.ndarray) -> np.ndarray:
    return np.clip(values / 6 + 0.5, 0, 1)
