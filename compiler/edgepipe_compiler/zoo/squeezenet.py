"""SqueezeNet 1.0 and 1.1: Iandola et al. 2016, arXiv:1602.07360; layers as in torchvision."""

from __future__ import annotations

import onnx

from .builder import Builder, Value

# Squeeze and expand channels of each fire module; "pool" is a pooling between them.
_FIRES_1_0: list[tuple[int, int] | str] = [
    "pool", (16, 64), (16, 64), (32, 128), "pool", (32, 128), (48, 192), (48, 192), (64, 256),
    "pool", (64, 256),
]  # fmt: skip
_FIRES_1_1: list[tuple[int, int] | str] = [
    "pool", (16, 64), (16, 64), "pool", (32, 128), (32, 128), "pool", (48, 192), (48, 192),
    (64, 256), (64, 256),
]  # fmt: skip


def squeezenet1_0(batch: int) -> onnx.ModelProto:
    """SqueezeNet 1.0 at 224×224."""
    return _squeezenet("squeezenet1_0", batch, 96, 7, _FIRES_1_0)


def squeezenet1_1(batch: int) -> onnx.ModelProto:
    """SqueezeNet 1.1 at 224×224."""
    return _squeezenet("squeezenet1_1", batch, 64, 3, _FIRES_1_1)


def _squeezenet(
    network: str, batch: int, channels: int, kernel: int, fires: list[tuple[int, int] | str]
) -> onnx.ModelProto:
    b = Builder(network, batch)
    x = b.conv(b.input(3, 224, 224), "features.0", channels, kernel, stride=2, bias=True)
    x = b.relu(x, "features.1")
    for index, fire in enumerate(fires, start=2):
        name = f"features.{index}"
        if isinstance(fire, str):
            x = b.max_pool(x, name, 3, 2, ceil=True)
        else:
            x = _fire(b, x, name, *fire)
    x = b.conv(x, "classifier.1", 1000, bias=True)
    x = b.relu(x, "classifier.2")
    x = b.global_average_pool(x, "classifier.3")
    return b.finish(b.flatten(x, "flatten"))


def _fire(b: Builder, x: Value, name: str, squeeze: int, expand: int) -> Value:
    x = b.conv(x, f"{name}.squeeze", squeeze, bias=True)
    x = b.relu(x, f"{name}.squeeze_activation")
    narrow = b.conv(x, f"{name}.expand1x1", expand, bias=True)
    narrow = b.relu(narrow, f"{name}.expand1x1_activation")
    wide = b.conv(x, f"{name}.expand3x3", expand, 3, pad=1, bias=True)
    wide = b.relu(wide, f"{name}.expand3x3_activation")
    return b.concat([narrow, wide], f"{name}.concat")
