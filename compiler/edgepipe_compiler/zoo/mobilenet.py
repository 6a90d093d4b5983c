"""MobileNetV1 and V2, and MNASNet: chains of depthwise and pointwise convolutions.

MobileNetV1: Howard et al. 2017, arXiv:1704.04861. MobileNetV2: Sandler et al. 2018,
arXiv:1801.04381, layers as in torchvision. Strided convolutions are padded by 1 on all sides, as
PyTorch does, where TensorFlow pads the far side only: the same counts and shapes.
"""

from __future__ import annotations

import onnx

from .builder import Builder, Value

# Output channels at full width and stride of each depthwise separable block of MobileNetV1.
_V1_BLOCKS = [
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1),
    (512, 1), (512, 1), (1024, 2), (1024, 1),
]  # fmt: skip
# Expansion, output channels, repeats and stride of the first, table 2 of the MobileNetV2 paper.
_V2_STACKS = [
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
]  # fmt: skip


def mobilenet_v1(batch: int) -> onnx.ModelProto:
    """MobileNetV1 of width 1 at 224×224."""
    return _mobilenet_v1("mobilenet_v1", batch, 1.0, 224)


def mobilenet_v1_025_128(batch: int) -> onnx.ModelProto:
    """MobileNetV1 of width 0.25 at 128×128, the smallest published one."""
    return _mobilenet_v1("mobilenet_v1_025_128", batch, 0.25, 128)


def _mobilenet_v1(network: str, batch: int, width: float, side: int) -> onnx.ModelProto:
    b = Builder(network, batch)
    x = _block(b, b.input(3, side, side), "features.0", int(32 * width), 3, stride=2)
    for index, (channels, stride) in enumerate(_V1_BLOCKS, start=1):
        name = f"features.{index}"
        x = _block(b, x, f"{name}.depthwise", x.channels, 3, stride, groups=x.channels)
        x = _block(b, x, f"{name}.pointwise", int(channels * width), 1)
    x = b.flatten(b.global_average_pool(x, "avgpool"), "flatten")
    return b.finish(b.linear(x, "classifier", 1000))


def mobilenet_v2(batch: int) -> onnx.ModelProto:
    """MobileNetV2 of width 1 at 224×224."""
    b = Builder("mobilenet_v2", batch)
    x = _block(b, b.input(3, 224, 224), "features.0", 32, 3, stride=2)
    index = 1
    for expansion, channels, repeats, first in _V2_STACKS:
        for repeat in range(repeats):
            stride = first if repeat == 0 else 1
            x = _inverted_residual(b, x, f"features.{index}", expansion, channels, stride)
            index += 1
    x = _block(b, x, f"features.{index}", 1280, 1)
    x = b.flatten(b.global_average_pool(x, "avgpool"), "flatten")
    return b.finish(b.linear(x, "classifier.1", 1000))


def _inverted_residual(
    b: Builder, x: Value, name: str, expansion: int, channels: int, stride: int
) -> Value:
    hidden, y, step = x.channels * expansion, x, 0
    if expansion != 1:
        y = _block(b, y, f"{name}.conv.{step}", hidden, 1)
        step += 1
    y = _block(b, y, f"{name}.conv.{step}", hidden, 3, stride, groups=hidden)
    y = b.conv(y, f"{name}.conv.{step + 1}", channels)
    y = b.batch_norm(y, f"{name}.conv.{step + 2}")
    if stride == 1 and channels == x.channels:
        y = b.add(x, y, f"{name}.add")
    return y


def _block(
    b: Builder, x: Value, name: str, channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> Value:
    """Convolution, normalization and ReLU6 as the parts 0, 1 and 2 of ``name``."""
    x = b.conv(x, f"{name}.0", channels, kernel, stride, pad=kernel // 2, groups=groups)
    x = b.batch_norm(x, f"{name}.1")
    return b.relu6(x, f"{name}.2")
