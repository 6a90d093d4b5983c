"""MNASNet 1.0 (MnasNet-B1): Tan et al. 2018, arXiv:1807.11626; layers as in torchvision."""

from __future__ import annotations

import onnx

from .builder import Builder, Value

# Output channels, kernel, stride of the first, expansion, repeats: figure 7 of the paper.
_STACKS = [
    (24, 3, 2, 3, 3),
    (40, 5, 2, 3, 3),
    (80, 5, 2, 6, 3),
    (96, 3, 1, 6, 2),
    (192, 5, 2, 6, 4),
    (320, 3, 1, 6, 1),
]


def mnasnet1_0(batch: int) -> onnx.ModelProto:
    """MNASNet of width 1 at 224×224."""
    b = Builder("mnasnet1_0", batch)
    x = _block(b, b.input(3, 224, 224), "layers", 0, 32, 3, stride=2)
    x = _block(b, x, "layers", 3, 32, 3, groups=32)
    x = b.batch_norm(b.conv(x, "layers.6", 16), "layers.7")
    for stack, (channels, kernel, first, expansion, repeats) in enumerate(_STACKS, start=8):
        for repeat in range(repeats):
            stride, name = first if repeat == 0 else 1, f"layers.{stack}.{repeat}"
            hidden = x.channels * expansion
            y = _block(b, x, f"{name}.layers", 0, hidden, 1)
            y = _block(b, y, f"{name}.layers", 3, hidden, kernel, stride, groups=hidden)
            y = b.batch_norm(b.conv(y, f"{name}.layers.6", channels), f"{name}.layers.7")
            x = b.add(y, x, f"{name}.add") if repeat else y
    x = _block(b, x, "layers", 14, 1280, 1)
    return b.finish(b.linear(b.mean(x, "mean"), "classifier.1", 1000))


def _block(
    b: Builder,
    x: Value,
    name: str,
    index: int,
    channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
) -> Value:
    """Convolution, normalization and ReLU at three places of ``name`` from ``index`` on."""
    pad = kernel // 2
    x = b.conv(x, f"{name}.{index}", channels, kernel, stride, pad=pad, groups=groups)
    return b.relu(b.batch_norm(x, f"{name}.{index + 1}"), f"{name}.{index + 2}")
