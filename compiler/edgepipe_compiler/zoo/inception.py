"""Inception v3: Szegedy et al. 2015, arXiv:1512.00567; torchvision's layers, no auxiliary head."""

from __future__ import annotations

import onnx

from .builder import Builder, Pair, Value

_EPSILON = 1e-3


def inception_v3(batch: int) -> onnx.ModelProto:
    """Inception v3 at 299×299."""
    b = Builder("inception_v3", batch)
    x = _conv(b, b.input(3, 299, 299), "Conv2d_1a_3x3", 32, 3, stride=2, pad=0)
    x = _conv(b, x, "Conv2d_2a_3x3", 32, 3, pad=0)
    x = _conv(b, x, "Conv2d_2b_3x3", 64, 3)
    x = b.max_pool(x, "maxpool1", 3, 2)
    x = _conv(b, x, "Conv2d_3b_1x1", 80)
    x = _conv(b, x, "Conv2d_4a_3x3", 192, 3, pad=0)
    x = b.max_pool(x, "maxpool2", 3, 2)
    for module, projected in (("5b", 32), ("5c", 64), ("5d", 64)):
        x = _module_a(b, x, f"Mixed_{module}", projected)
    x = _module_b(b, x, "Mixed_6a")
    for module, narrow in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        x = _module_c(b, x, f"Mixed_{module}", narrow)
    x = _module_d(b, x, "Mixed_7a")
    for module in ("7b", "7c"):
        x = _module_e(b, x, f"Mixed_{module}")
    x = b.flatten(b.global_average_pool(x, "avgpool"), "flatten")
    return b.finish(b.linear(x, "fc", 1000))


def _module_a(b: Builder, x: Value, name: str, projected: int) -> Value:
    """35×35: figure 5 of the paper, its 5×5 kept."""
    direct = _conv(b, x, f"{name}.branch1x1", 64)
    five = _chain(b, x, f"{name}.branch5x5", [(48, 1), (64, 5)])
    double = _chain(b, x, f"{name}.branch3x3dbl", [(64, 1), (96, 3), (96, 3)])
    pooled = _pooled(b, x, name, projected)
    return b.concat([direct, five, double, pooled], f"{name}.concat")


def _module_b(b: Builder, x: Value, name: str) -> Value:
    """From 35×35 to 17×17: figure 10."""
    three = _conv(b, x, f"{name}.branch3x3", 384, 3, stride=2, pad=0)
    double = _chain(b, x, f"{name}.branch3x3dbl", [(64, 1), (96, 3)])
    double = _conv(b, double, f"{name}.branch3x3dbl_3", 96, 3, stride=2, pad=0)
    pooled = b.max_pool(x, f"{name}.branch_pool", 3, 2)
    return b.concat([three, double, pooled], f"{name}.concat")


def _module_c(b: Builder, x: Value, name: str, narrow: int) -> Value:
    """17×17 with factorized 7×7: figure 6."""
    direct = _conv(b, x, f"{name}.branch1x1", 192)
    row, column = (1, 7), (7, 1)
    seven = [(narrow, 1), (narrow, row), (192, column)]
    double = [(narrow, 1), (narrow, column), (narrow, row), (narrow, column), (192, row)]
    parts = [
        direct,
        _chain(b, x, f"{name}.branch7x7", seven),
        _chain(b, x, f"{name}.branch7x7dbl", double),
        _pooled(b, x, name, 192),
    ]
    return b.concat(parts, f"{name}.concat")


def _module_d(b: Builder, x: Value, name: str) -> Value:
    """From 17×17 to 8×8."""
    three = _conv(b, x, f"{name}.branch3x3_1", 192)
    three = _conv(b, three, f"{name}.branch3x3_2", 320, 3, stride=2, pad=0)
    seven = _chain(b, x, f"{name}.branch7x7x3", [(192, 1), (192, (1, 7)), (192, (7, 1))])
    seven = _conv(b, seven, f"{name}.branch7x7x3_4", 192, 3, stride=2, pad=0)
    pooled = b.max_pool(x, f"{name}.branch_pool", 3, 2)
    return b.concat([three, seven, pooled], f"{name}.concat")


def _module_e(b: Builder, x: Value, name: str) -> Value:
    """8×8 with branches that fork: figure 7."""
    direct = _conv(b, x, f"{name}.branch1x1", 320)
    three = _conv(b, x, f"{name}.branch3x3_1", 384)
    three = _forked(b, three, f"{name}.branch3x3", "2")
    double = _chain(b, x, f"{name}.branch3x3dbl", [(448, 1), (384, 3)])
    double = _forked(b, double, f"{name}.branch3x3dbl", "3")
    pooled = _pooled(b, x, name, 192)
    return b.concat([direct, three, double, pooled], f"{name}.concat")


def _forked(b: Builder, x: Value, name: str, step: str) -> Value:
    parts = [
        _conv(b, x, f"{name}_{step}a", 384, (1, 3)),
        _conv(b, x, f"{name}_{step}b", 384, (3, 1)),
    ]
    return b.concat(parts, f"{name}_{step}.concat")


def _pooled(b: Builder, x: Value, name: str, channels: int) -> Value:
    pooled = b.average_pool(x, f"{name}.avg_pool", 3, 1, pad=1)
    return _conv(b, pooled, f"{name}.branch_pool", channels)


def _chain(b: Builder, x: Value, name: str, layers: list[tuple[int, Pair]]) -> Value:
    for step, (channels, kernel) in enumerate(layers, start=1):
        x = _conv(b, x, f"{name}_{step}", channels, kernel)
    return x


def _conv(
    b: Builder,
    x: Value,
    name: str,
    channels: int,
    kernel: Pair = 1,
    stride: int = 1,
    pad: Pair | None = None,
) -> Value:
    """Convolution, normalization and ReLU; ``pad`` keeps the extent unless it is given."""
    high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
    same = (high // 2, wide // 2) if pad is None else pad
    x = b.conv(x, f"{name}.conv", channels, kernel, stride, pad=same)
    return b.relu(b.batch_norm(x, f"{name}.bn", _EPSILON), f"{name}.relu")
