"""ShuffleNetV2 1.0: Ma et al. 2018, arXiv:1807.11164; layers as in torchvision."""

from __future__ import annotations

import onnx

from .builder import Builder, Value

# Output channels and units of the stages 2, 3 and 4: table 5 of the paper.
_STAGES = [(116, 4), (232, 8), (464, 4)]


def shufflenet_v2_x1_0(batch: int) -> onnx.ModelProto:
    """ShuffleNetV2 of width 1 at 224×224."""
    b = Builder("shufflenet_v2_x1_0", batch)
    x = b.conv(b.input(3, 224, 224), "conv1.0", 24, 3, stride=2, pad=1)
    x = b.relu(b.batch_norm(x, "conv1.1"), "conv1.2")
    x = b.max_pool(x, "maxpool", 3, 2, pad=1)
    for stage, (channels, units) in enumerate(_STAGES, start=2):
        x = _halving_unit(b, x, f"stage{stage}.0", channels)
        for index in range(1, units):
            x = _unit(b, x, f"stage{stage}.{index}")
    x = _pointwise(b, x, "conv5", 0, 1024)
    return b.finish(b.linear(b.mean(x, "mean"), "fc", 1000))


def _unit(b: Builder, x: Value, name: str) -> Value:
    """One half of the channels passes through, the other half is convolved; then both are interleaved."""
    kept, y = b.split(x, f"{name}.chunk", 2)
    y = _branch(b, y, f"{name}.branch2", y.channels, 1)
    return b.channel_shuffle(b.concat([kept, y], f"{name}.concat"), f"{name}.shuffle", 2)


def _halving_unit(b: Builder, x: Value, name: str, channels: int) -> Value:
    half = channels // 2
    left = b.conv(x, f"{name}.branch1.0", x.channels, 3, 2, pad=1, groups=x.channels)
    left = b.batch_norm(left, f"{name}.branch1.1")
    left = _pointwise(b, left, f"{name}.branch1", 2, half)
    right = _branch(b, x, f"{name}.branch2", half, 2)
    return b.channel_shuffle(b.concat([left, right], f"{name}.concat"), f"{name}.shuffle", 2)


def _branch(b: Builder, x: Value, name: str, channels: int, stride: int) -> Value:
    x = _pointwise(b, x, name, 0, channels)
    x = b.conv(x, f"{name}.3", channels, 3, stride, pad=1, groups=channels)
    x = b.batch_norm(x, f"{name}.4")
    return _pointwise(b, x, name, 5, channels)


def _pointwise(b: Builder, x: Value, name: str, index: int, channels: int) -> Value:
    """1×1 convolution, normalization and ReLU at three places of ``name`` from ``index`` on."""
    x = b.conv(x, f"{name}.{index}", channels)
    return b.relu(b.batch_norm(x, f"{name}.{index + 1}"), f"{name}.{index + 2}")
