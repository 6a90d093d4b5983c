"""EfficientNet-B0: Tan and Le 2019, arXiv:1905.11946; layers as in torchvision."""

from __future__ import annotations

import onnx

from .builder import Builder, Value
from .excitation import squeeze_excite

# Expansion, kernel, stride of the first, output channels, repeats: table 1 of the paper.
_STAGES = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
]


def efficientnet_b0(batch: int) -> onnx.ModelProto:
    """EfficientNet-B0 at 224×224."""
    b = Builder("efficientnet_b0", batch)
    x = _block(b, b.input(3, 224, 224), "features.0", 32, 3, stride=2)
    for stage, (expansion, kernel, first, channels, repeats) in enumerate(_STAGES, start=1):
        for repeat in range(repeats):
            stride = first if repeat == 0 else 1
            x = _mbconv(b, x, f"features.{stage}.{repeat}", expansion, kernel, stride, channels)
    x = _block(b, x, "features.8", 1280, 1)
    x = b.flatten(b.global_average_pool(x, "avgpool"), "flatten")
    return b.finish(b.linear(x, "classifier.1", 1000))


def _mbconv(
    b: Builder, x: Value, name: str, expansion: int, kernel: int, stride: int, channels: int
) -> Value:
    hidden, y, step = x.channels * expansion, x, 0
    if expansion != 1:
        y = _block(b, y, f"{name}.block.{step}", hidden, 1)
        step += 1
    y = _block(b, y, f"{name}.block.{step}", hidden, kernel, stride, groups=hidden)
    excite, squeeze = f"{name}.block.{step + 1}", x.channels // 4
    y = squeeze_excite(b, y, excite, squeeze, Builder.silu, Builder.sigmoid)
    y = b.conv(y, f"{name}.block.{step + 2}.0", channels)
    y = b.batch_norm(y, f"{name}.block.{step + 2}.1")
    if stride == 1 and channels == x.channels:
        y = b.add(y, x, f"{name}.add")
    return y


def _block(
    b: Builder, x: Value, name: str, channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> Value:
    """Convolution, normalization and SiLU as the parts 0, 1 and 2 of ``name``."""
    x = b.conv(x, f"{name}.0", channels, kernel, stride, pad=kernel // 2, groups=groups)
    return b.silu(b.batch_norm(x, f"{name}.1"), f"{name}.2")
