"""Winograd's algorithms for convolutions: transforms and transformed weights, for every kind of target.

``F(m x m, r x r)`` computes m x m results of an r x r window from a tile of n x n inputs, n = m + r - 1, with
n * n multiplications per pair of channels instead of m * m * r * r. Inputs, weights and products are
transformed along both axes:

    results = A (sum over channels of (G weights G^T) * (B inputs B^T)) A^T

The sum over channels is a product of matrices for each of the n * n positions.
Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from tvm import tirx

from .window_geometry import Window
from .writer import Writer

# Points at which the polynomials of inputs and weights are multiplied; infinity is one more. With 1/2 and -2
# the error of F(4x4, 3x3) is half of that with 2 and -2: 4e-6 of the largest result, direct sums have 1e-6.
POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(1, 2), Fraction(-2))
# Results along an axis of a tile by the size of the window. Larger tiles are less precise.
RESULTS = {3: (4, 3, 2), 5: (2,)}

Matrix = tuple[tuple[Fraction, ...], ...]


@dataclass(frozen=True)
class Algorithm:
    """F(m x m, r x r): ``results`` m and ``window`` r along an axis."""

    results: int
    window: int

    @property
    def inputs(self) -> int:
        """Inputs of a tile along an axis."""
        return self.results + self.window - 1

    @property
    def positions(self) -> int:
        """Products of matrices."""
        return self.inputs**2

    @property
    def tolerates_half(self) -> bool:
        """Whether transformed weights may be float16.

        Larger tiles amplify the rounding: errors are 2e-3 of the largest result. F(2x2, 3x3) has 3e-4, like
        direct sums with such weights.
        """
        return self.inputs == 4

    @functools.cached_property
    def of_inputs(self) -> Matrix:
        """B: coefficients of the product of (x - p) over all other points p; over all points for infinity."""
        points = POINTS[: self.inputs - 1]
        rows = [_product(points[:at] + points[at + 1 :]) for at in range(len(points))]
        return tuple((*row, Fraction(0)) for row in rows) + (_product(points),)

    @functools.cached_property
    def of_weights(self) -> Matrix:
        """G: powers of a point over its differences from the others; the highest power for infinity."""
        points, rows = POINTS[: self.inputs - 1], []
        for point in points:
            scale = Fraction(1)
            for other in points:
                scale *= point - other if other != point else 1
            rows.append(tuple(power / scale for power in _powers(point, self.window)))
        return (*rows, _last(self.window))

    @functools.cached_property
    def of_results(self) -> Matrix:
        """A: powers of the points along columns."""
        columns = [_powers(point, self.results) for point in POINTS[: self.inputs - 1]]
        return tuple(zip(*columns, _last(self.results), strict=True))

    def transformed(self, weight: np.ndarray) -> np.ndarray:
        """(outside, inside, r, r) as float32 (position, outside, inside), computed in float64."""
        g = np.array([[float(value) for value in row] for row in self.of_weights])
        outside, inside = weight.shape[:2]
        made = g @ weight.astype(np.float64) @ g.T
        return made.reshape(outside, inside, -1).transpose(2, 0, 1).astype(np.float32)


def _product(points: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    """Coefficients of the product of (x - p), lowest power first."""
    made = [Fraction(1)]
    for point in points:
        shifted, scaled = [Fraction(0), *made], [point * value for value in made] + [Fraction(0)]
        made = [up - down for up, down in zip(shifted, scaled, strict=True)]
    return tuple(made)


def _powers(point: Fraction, count: int) -> tuple[Fraction, ...]:
    return tuple(point**power for power in range(count))


def _last(count: int) -> tuple[Fraction, ...]:
    return (Fraction(0),) * (count - 1) + (Fraction(1),)


def algorithms(window: Window, groups: int) -> list[Algorithm]:
    """The algorithms for a convolution; none unless its window is square and moves by 1."""
    height, width = window.kernel
    ones = (1, 1)
    if height != width or (window.stride, window.dilation) != (ones, ones) or groups != 1:
        return []
    return [Algorithm(results, height) for results in RESULTS.get(height, ())]


def combined(
    w: Writer, matrix: Matrix, values: Sequence[tirx.Expr | None]
) -> list[tirx.Expr | None]:
    """The product of ``matrix`` with ``values``. None is 0: a value outside the image, and sums of such."""
    made: list[tirx.Expr | None] = []
    for row in matrix:
        # A term without a product comes first: the other products are added to it in one instruction.
        terms = sorted(
            (
                (float(factor), value)
                for factor, value in zip(row, values, strict=True)
                if factor and value is not None
            ),
            key=lambda term: term[0] != 1.0,
        )
        sum_ = None
        for factor, value in terms:
            term = value if abs(factor) == 1.0 else value * tirx.const(abs(factor), "float32")
            if sum_ is None:
                sum_ = term if factor > 0 else -term
            else:
                sum_ = sum_ + term if factor > 0 else sum_ - term
        made.append(None if sum_ is None else w.bind("combined", sum_))
    return made
