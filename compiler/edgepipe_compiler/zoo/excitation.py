"""Squeeze and excitation: Hu et al. 2017, arXiv:1709.01507."""

from __future__ import annotations

from collections.abc import Callable

from .builder import Builder, Value

# An activation of the builder, such as ``Builder.relu``.
Activation = Callable[[Builder, Value, str], Value]


def squeeze_excite(
    b: Builder, x: Value, name: str, squeeze: int, activation: Activation, gate: Activation
) -> Value:
    """Multiplies the channels of ``x`` by a gate computed from their means through ``squeeze`` channels."""
    y = b.global_average_pool(x, f"{name}.avgpool")
    y = activation(b, b.conv(y, f"{name}.fc1", squeeze, bias=True), f"{name}.activation")
    y = gate(b, b.conv(y, f"{name}.fc2", x.channels, bias=True), f"{name}.scale_activation")
    return b.mul(x, y, f"{name}.mul")
