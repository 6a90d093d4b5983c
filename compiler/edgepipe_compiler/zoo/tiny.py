"""Two networks for tests and for measuring the overhead of the harness."""

from __future__ import annotations

import onnx

from .builder import Builder


def tiny(batch: int) -> onnx.ModelProto:
    """A small CNN at 32×32: a residual, a concatenation, a classifier."""
    b = Builder("tiny", batch)
    x = b.conv(b.input(3, 32, 32), "stem.conv", 16, 3, pad=1)
    x = b.relu(b.batch_norm(x, "stem.bn"), "stem.relu")
    x = b.max_pool(x, "pool", 2, 2)
    y = b.conv(x, "residual.conv1", 16, 3, pad=1)
    y = b.relu(b.batch_norm(y, "residual.bn1"), "residual.relu")
    y = b.conv(y, "residual.conv2", 16, 3, pad=1)
    y = b.batch_norm(y, "residual.bn2")
    x = b.relu(b.add(y, x, "residual.add"), "residual.relu_1")
    narrow = b.relu(b.conv(x, "branch.narrow", 16, bias=True), "branch.narrow_relu")
    wide = b.relu(b.conv(x, "branch.wide", 24, 3, pad=1, bias=True), "branch.wide_relu")
    x = b.concat([narrow, wide], "branch.concat")
    x = b.flatten(b.global_average_pool(x, "avgpool"), "flatten")
    return b.finish(b.linear(x, "fc", 10))


def relu_1(batch: int) -> onnx.ModelProto:
    """One ReLU on one number, so that the measured time is overhead."""
    b = Builder("relu_1", batch)
    return b.finish(b.relu(b.input(1, 1, 1), "relu"))
