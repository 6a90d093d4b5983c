"""ResNet-18, 34, 50, 101, and 20 for CIFAR-10: He et al. 2015, arXiv:1512.03385.

Layers as in torchvision. The shortcuts of ResNet-20 are 1×1 convolutions too (option B of the
paper, where the original one pads with zeros).

torchvision strides the 3×3 convolution of a bottleneck (known as v1.5), not its first 1×1.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

from .builder import Builder, Value

Block = Callable[[Builder, Value, str, int, int], Value]


def resnet18(batch: int) -> onnx.ModelProto:
    """ResNet-18 at 224×224."""
    return _resnet("resnet18", batch, _basic, [2, 2, 2, 2])


def resnet34(batch: int) -> onnx.ModelProto:
    """ResNet-34 at 224×224."""
    return _resnet("resnet34", batch, _basic, [3, 4, 6, 3])


def resnet50(batch: int) -> onnx.ModelProto:
    """ResNet-50 at 224×224."""
    return _resnet("resnet50", batch, _bottleneck, [3, 4, 6, 3])


def resnet101(batch: int) -> onnx.ModelProto:
    """ResNet-101 at 224×224."""
    return _resnet("resnet101", batch, _bottleneck, [3, 4, 23, 3])


def resnet20(batch: int) -> onnx.ModelProto:
    """ResNet-20 for the 32×32 pictures of CIFAR-10."""
    b = Builder("resnet20", batch)
    x = b.conv(b.input(3, 32, 32), "conv1", 16, 3, pad=1)
    x = b.relu(b.batch_norm(x, "bn1"), "relu")
    x = _layers(b, x, _basic, [3, 3, 3], 16)
    x = b.flatten(b.global_average_pool(x, "avgpool"), "flatten")
    return b.finish(b.linear(x, "fc", 10))


def _resnet(network: str, batch: int, block: Block, repeats: list[int]) -> onnx.ModelProto:
    b = Builder(network, batch)
    x = b.conv(b.input(3, 224, 224), "conv1", 64, 7, stride=2, pad=3)
    x = b.relu(b.batch_norm(x, "bn1"), "relu")
    x = b.max_pool(x, "maxpool", 3, 2, pad=1)
    x = _layers(b, x, block, repeats, 64)
    x = b.flatten(b.global_average_pool(x, "avgpool"), "flatten")
    return b.finish(b.linear(x, "fc", 1000))


def _layers(b: Builder, x: Value, block: Block, repeats: list[int], channels: int) -> Value:
    """Blocks; the channels double and the side halves from each layer to the next."""
    for layer, count in enumerate(repeats, start=1):
        for index in range(count):
            stride = 2 if index == 0 and layer > 1 else 1
            x = block(b, x, f"layer{layer}.{index}", channels << (layer - 1), stride)
    return x


def _basic(b: Builder, x: Value, name: str, channels: int, stride: int) -> Value:
    y = b.conv(x, f"{name}.conv1", channels, 3, stride, pad=1)
    y = b.relu(b.batch_norm(y, f"{name}.bn1"), f"{name}.relu")
    y = b.conv(y, f"{name}.conv2", channels, 3, pad=1)
    y = b.batch_norm(y, f"{name}.bn2")
    y = b.add(y, _shortcut(b, x, name, channels, stride), f"{name}.add")
    return b.relu(y, f"{name}.relu_1")


def _bottleneck(b: Builder, x: Value, name: str, channels: int, stride: int) -> Value:
    y = b.conv(x, f"{name}.conv1", channels)
    y = b.relu(b.batch_norm(y, f"{name}.bn1"), f"{name}.relu")
    y = b.conv(y, f"{name}.conv2", channels, 3, stride, pad=1)
    y = b.relu(b.batch_norm(y, f"{name}.bn2"), f"{name}.relu_1")
    y = b.conv(y, f"{name}.conv3", 4 * channels)
    y = b.batch_norm(y, f"{name}.bn3")
    y = b.add(y, _shortcut(b, x, name, 4 * channels, stride), f"{name}.add")
    return b.relu(y, f"{name}.relu_2")


def _shortcut(b: Builder, x: Value, name: str, channels: int, stride: int) -> Value:
    """The block's input, projected where its shape changes."""
    if stride == 1 and x.channels == channels:
        return x
    x = b.conv(x, f"{name}.downsample.0", channels, stride=stride)
    return b.batch_norm(x, f"{name}.downsample.1")
