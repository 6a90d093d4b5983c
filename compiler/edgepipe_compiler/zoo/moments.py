"""Expected mean and variance of activations, to scale weights so that signals keep their size.

He et al., "Delving Deep into Rectifiers" (2015), section 2.2: weights of variance
1 / (fan_in · E[x²]) give outputs of variance 1; with x = relu of a unit normal E[x²] is 1/2, hence
the familiar 2 / fan_in. The same rule with E[x²] of whatever really feeds a layer holds for clipped
and smooth activations, gates, residual sums and pooling too, through any number of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_POINTS, _WEIGHTS = np.polynomial.hermite_e.hermegauss(64)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()

# Mean and variance of the maximum of k unit normals, halfway between equal and independent ones
# (Tippett 1925: 1.03 and 0.49 for 4, 1.49 and 0.36 for 9), as neighbours in a feature map are.
_LARGEST = {4: (0.5, 0.75), 9: (0.75, 0.7)}
# Approximate share of a feature map's variance that is between channels and survives averaging.
_BETWEEN_CHANNELS = 0.8


@dataclass(frozen=True)
class Moments:
    """Mean and variance of a tensor's elements, assumed normally distributed."""

    mean: float = 0.0
    variance: float = 1.0

    @property
    def power(self) -> float:
        """Mean square."""
        return self.mean**2 + self.variance

    def through(self, function: Callable[[np.ndarray], np.ndarray]) -> Moments:
        """Moments after an element-wise function, by Gauss-Hermite quadrature."""
        values = function(self.mean + self.variance**0.5 * _POINTS)
        mean = float(_WEIGHTS @ values)
        return Moments(mean, float(_WEIGHTS @ values**2) - mean**2)

    def plus(self, other: Moments) -> Moments:
        """Sum of two independent tensors."""
        return Moments(self.mean + other.mean, self.variance + other.variance)

    def times(self, other: Moments) -> Moments:
        """Product of two independent tensors."""
        mean = self.mean * other.mean
        return Moments(mean, self.power * other.power - mean**2)

    def largest_of(self, count: int) -> Moments:
        """Largest of ``count`` neighbours (4 or 9)."""
        shift, shrink = _LARGEST[count]
        return Moments(self.mean + shift * self.variance**0.5, self.variance * shrink)

    def averaged(self) -> Moments:
        """Moments after averaging over pixels."""
        return Moments(self.mean, self.variance * _BETWEEN_CHANNELS)


def mixture(parts: Sequence[tuple[Moments, int]]) -> Moments:
    """Moments of a concatenation: each part with its number of channels."""
    total = sum(channels for _, channels in parts)
    mean = sum(moments.mean * channels for moments, channels in parts) / total
    power = sum(moments.power * channels for moments, channels in parts) / total
    return Moments(mean, power - mean**2)
