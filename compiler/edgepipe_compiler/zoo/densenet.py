"""DenseNet-121: Huang et al. 2016, arXiv:1608.06993; layers as in torchvision."""

from __future__ import annotations

import onnx

from .builder import Builder, Value

_GROWTH = 32
_BOTTLENECK = 4 * _GROWTH
_LAYERS = [6, 12, 24, 16]


def densenet121(batch: int) -> onnx.ModelProto:
    """DenseNet-121 at 224×224."""
    b = Builder("densenet121", batch)
    x = b.conv(b.input(3, 224, 224), "features.conv0", 64, 7, stride=2, pad=3)
    x = b.relu(b.batch_norm(x, "features.norm0"), "features.relu0")
    x = b.max_pool(x, "features.pool0", 3, 2, pad=1)
    for block, layers in enumerate(_LAYERS, start=1):
        if block > 1:
            x = _transition(b, x, f"features.transition{block - 1}")
        x = _dense_block(b, x, f"features.denseblock{block}", layers)
    x = b.relu(b.batch_norm(x, "features.norm5"), "relu")
    x = b.flatten(b.global_average_pool(x, "avgpool"), "flatten")
    return b.finish(b.linear(x, "classifier", 1000))


def _dense_block(b: Builder, x: Value, name: str, layers: int) -> Value:
    """Every layer reads all previous layers of the block and adds ``_GROWTH`` channels."""
    features = [x]
    for index in range(1, layers + 1):
        layer = f"{name}.denselayer{index}"
        y = b.concat(features, f"{layer}.concat") if index > 1 else x
        y = b.relu(b.batch_norm(y, f"{layer}.norm1"), f"{layer}.relu1")
        y = b.conv(y, f"{layer}.conv1", _BOTTLENECK)
        y = b.relu(b.batch_norm(y, f"{layer}.norm2"), f"{layer}.relu2")
        features.append(b.conv(y, f"{layer}.conv2", _GROWTH, 3, pad=1))
    return b.concat(features, f"{name}.concat")


def _transition(b: Builder, x: Value, name: str) -> Value:
    x = b.relu(b.batch_norm(x, f"{name}.norm"), f"{name}.relu")
    x = b.conv(x, f"{name}.conv", x.channels // 2)
    return b.average_pool(x, f"{name}.pool", 2, 2)
