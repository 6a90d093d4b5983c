"""VGG-11, 16 and 19 and AlexNet: plain chains with large fully connected layers.

VGG: Simonyan and Zisserman 2014, arXiv:1409.1556, without batch normalization. AlexNet: the
one-column variant of Krizhevsky 2014, arXiv:1404.5997. Layers as in torchvision; its adaptive
average pooling does nothing at 224×224 and is left out, as is dropout.
"""

from __future__ import annotations

import onnx

from .builder import Builder, Value

# Output channels of the 3×3 convolutions between the five poolings.
_VGG11 = [[64], [128], [256, 256], [512, 512], [512, 512]]
_VGG16 = [[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3]
_VGG19 = [[64] * 2, [128] * 2, [256] * 4, [512] * 4, [512] * 4]


def vgg11(batch: int) -> onnx.ModelProto:
    """VGG-11 at 224×224."""
    return _vgg("vgg11", batch, _VGG11)


def vgg16(batch: int) -> onnx.ModelProto:
    """VGG-16 at 224×224."""
    return _vgg("vgg16", batch, _VGG16)


def vgg19(batch: int) -> onnx.ModelProto:
    """VGG-19 at 224×224."""
    return _vgg("vgg19", batch, _VGG19)


def _vgg(network: str, batch: int, stages: list[list[int]]) -> onnx.ModelProto:
    b = Builder(network, batch)
    x, index = b.input(3, 224, 224), 0
    for stage in stages:
        for channels in stage:
            x = b.conv(x, f"features.{index}", channels, 3, pad=1, bias=True)
            x = b.relu(x, f"features.{index + 1}")
            index += 2
        x = b.max_pool(x, f"features.{index}", 2, 2)
        index += 1
    return b.finish(_classifier(b, x, [0, 3, 6]))


def alexnet(batch: int) -> onnx.ModelProto:
    """AlexNet at 224×224."""
    b = Builder("alexnet", batch)
    x = b.conv(b.input(3, 224, 224), "features.0", 64, 11, stride=4, pad=2, bias=True)
    x = b.max_pool(b.relu(x, "features.1"), "features.2", 3, 2)
    x = b.conv(x, "features.3", 192, 5, pad=2, bias=True)
    x = b.max_pool(b.relu(x, "features.4"), "features.5", 3, 2)
    for index, channels in ((6, 384), (8, 256), (10, 256)):
        x = b.conv(x, f"features.{index}", channels, 3, pad=1, bias=True)
        x = b.relu(x, f"features.{index + 1}")
    x = b.max_pool(x, "features.12", 3, 2)
    return b.finish(_classifier(b, x, [1, 4, 6]))


def _classifier(b: Builder, x: Value, indices: list[int]) -> Value:
    """Two hidden layers of 4096 and one of 1000 at these places of ``classifier``."""
    x = b.flatten(x, "flatten")
    for index in indices[:2]:
        x = b.linear(x, f"classifier.{index}", 4096)
        x = b.relu(x, f"classifier.{index + 1}")
    return b.linear(x, f"classifier.{indices[2]}", 1000)
