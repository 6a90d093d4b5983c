"""MobileNetV3-Large: Howard et al. 2019, arXiv:1905.02244; layers as in torchvision."""

from __future__ import annotations

import onnx

from .builder import Builder, Value
from .excitation import Activation, squeeze_excite

_EPSILON = 1e-3
# Kernel, expanded channels, output channels, squeeze and excitation, hard swish, stride: table 1.
_BLOCKS = [
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
]


def mobilenet_v3_large(batch: int) -> onnx.ModelProto:
    """MobileNetV3-Large of width 1 at 224×224."""
    b, swish = Builder("mobilenet_v3_large", batch), Builder.hard_swish
    x = _block(b, b.input(3, 224, 224), "features.0", 16, 3, swish, stride=2)
    for index, (kernel, hidden, channels, gated, swished, stride) in enumerate(_BLOCKS, start=1):
        name, activation = f"features.{index}.block", swish if swished else Builder.relu
        y, step = x, 0
        if hidden != x.channels:
            y = _block(b, y, f"{name}.{step}", hidden, 1, activation)
            step += 1
        y = _block(b, y, f"{name}.{step}", hidden, kernel, activation, stride, groups=hidden)
        if gated:
            step += 1
            gate = Builder.hard_sigmoid
            y = squeeze_excite(b, y, f"{name}.{step}", squeezed(hidden), Builder.relu, gate)
        y = b.conv(y, f"{name}.{step + 1}.0", channels)
        y = b.batch_norm(y, f"{name}.{step + 1}.1", _EPSILON)
        residual = stride == 1 and channels == x.channels
        x = b.add(y, x, f"features.{index}.add") if residual else y
    x = _block(b, x, "features.16", 960, 1, swish)
    x = b.flatten(b.global_average_pool(x, "avgpool"), "flatten")
    x = b.hard_swish(b.linear(x, "classifier.0", 1280), "classifier.1")
    return b.finish(b.linear(x, "classifier.3", 1000))


def squeezed(channels: int) -> int:
    """A quarter of the channels, as a multiple of 8 that is at most a tenth less."""
    quarter = channels // 4
    rounded = max(8, (quarter + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * quarter else rounded


def _block(
    b: Builder,
    x: Value,
    name: str,
    channels: int,
    kernel: int,
    activation: Activation,
    stride: int = 1,
    groups: int = 1,
) -> Value:
    """Convolution, normalization and activation as the parts 0, 1 and 2 of ``name``."""
    x = b.conv(x, f"{name}.0", channels, kernel, stride, pad=kernel // 2, groups=groups)
    return activation(b, b.batch_norm(x, f"{name}.1", _EPSILON), f"{name}.2")
