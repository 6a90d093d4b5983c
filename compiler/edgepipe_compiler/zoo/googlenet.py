"""GoogLeNet (Inception v1): Szegedy et al. 2014, arXiv:1409.4842.

The inference graph of torchvision, ported from TensorFlow: batch normalization, no auxiliary heads,
and 3×3 convolutions in the branch that the paper gives 5×5 (pytorch/vision issue 906).
"""

from __future__ import annotations

import onnx

from .builder import Builder, Value

_EPSILON = 1e-3
# Channels of 1×1; 3×3 reduced and full; "5×5" reduced and full; pooling's projection: table 1.
_MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
# Window of the pooling of stride 2 behind a module.
_POOLS = {"3b": ("maxpool3", 3), "4e": ("maxpool4", 2)}


def googlenet(batch: int) -> onnx.ModelProto:
    """GoogLeNet at 224×224."""
    b = Builder("googlenet", batch)
    x = _conv(b, b.input(3, 224, 224), "conv1", 64, 7, stride=2)
    x = b.max_pool(x, "maxpool1", 3, 2, ceil=True)
    x = _conv(b, _conv(b, x, "conv2", 64), "conv3", 192, 3)
    x = b.max_pool(x, "maxpool2", 3, 2, ceil=True)
    for module, channels in _MODULES.items():
        x = _inception(b, x, f"inception{module}", *channels)
        if module in _POOLS:
            name, kernel = _POOLS[module]
            x = b.max_pool(x, name, kernel, 2, ceil=True)
    x = b.flatten(b.global_average_pool(x, "avgpool"), "flatten")
    return b.finish(b.linear(x, "fc", 1000))


def _inception(
    b: Builder,
    x: Value,
    name: str,
    direct: int,
    reduced: int,
    full: int,
    reduced_second: int,
    full_second: int,
    projected: int,
) -> Value:
    second = _conv(b, x, f"{name}.branch2.0", reduced)
    third = _conv(b, x, f"{name}.branch3.0", reduced_second)
    pooled = b.max_pool(x, f"{name}.branch4.0", 3, 1, pad=1)
    branches = [
        _conv(b, x, f"{name}.branch1", direct),
        _conv(b, second, f"{name}.branch2.1", full, 3),
        _conv(b, third, f"{name}.branch3.1", full_second, 3),
        _conv(b, pooled, f"{name}.branch4.1", projected),
    ]
    return b.concat(branches, f"{name}.concat")


def _conv(
    b: Builder, x: Value, name: str, channels: int, kernel: int = 1, stride: int = 1
) -> Value:
    x = b.conv(x, f"{name}.conv", channels, kernel, stride, pad=kernel // 2)
    return b.relu(b.batch_norm(x, f"{name}.bn", _EPSILON), f"{name}.relu")
