"""Winograd's algorithms for convolutions: transforms, transformed weights, and the estimated time.

``F(m x m, r x r)`` computes m x m results of an r x r window from a tile of n x n inputs, n = m + r - 1, with
n * n multiplications per pair of channels instead of m * m * r * r. Inputs, weights and products are
transformed along both axes:

    results = A (sum over channels of (G weights G^T) * (B inputs B^T)) A^T

The sum over channels is a product of matrices for each of the n * n positions.
Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..target import CudaTarget
from . import product, tiling
from .convolution_tile import Problem
from .tiling import LAUNCH, SCHEDULERS, WARP

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


@dataclass(frozen=True)
class Plan:
    """An algorithm for a convolution, and the tile of its products."""

    problem: Problem
    algorithm: Algorithm
    tile: product.Tile

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles along the rows and columns of an image."""
        return tiles(self.problem, self.algorithm)

    @property
    def pitch(self) -> int:
        """Tiles of all images, rounded up so that vectors of them are aligned."""
        return self.tile.problem.columns

    def cycles(self, target: CudaTarget) -> float:
        """Estimated time of the three launches, like that of a direct convolution."""
        problem, n = self.problem, self.algorithm.inputs
        image = problem.images * problem.image[0] * problem.image[1]
        results = problem.images * problem.results[0] * problem.results[1]
        before, after = (channels * self.pitch for channels in (problem.inside, problem.outside))
        weights = problem.inside * problem.outside
        return (
            _transform(before, n, problem.inside * image, target)
            + max(
                self.tile.work().cycles(target),
                tiling.dram_cycles(n * n * (before + after + weights), target),
            )
            + _transform(after, n, problem.outside * results, target)
            + 2 * LAUNCH
        )


def tiles(problem: Problem, algorithm: Algorithm) -> tuple[int, int]:
    """Tiles along the rows and columns of an image."""
    rows, columns = problem.results
    return -(-rows // algorithm.results), -(-columns // algorithm.results)


def _transform(threads: int, n: int, plain: int, target: CudaTarget) -> float:
    """Cycles of a launch that transforms n x n values per thread; ``plain`` values are on the other side."""
    # Per value: a load or store, its index, and about half of a row of coefficients along each axis.
    instructions = n * n * (4 + n)
    schedulers = SCHEDULERS * tiling.multiprocessors(target)
    moved = tiling.dram_cycles(plain + n * n * threads, target)
    return max(threads / WARP / schedulers * instructions, moved)


def plan(problem: Problem, target: CudaTarget) -> Plan | None:
    """The fastest algorithm by the model; None if there is none for the window."""
    window = problem.window
    height, width = window.kernel
    ones = (1, 1)
    if height != width or (window.stride, window.dilation) != (ones, ones) or problem.groups != 1:
        return None
    found = []
    for results in RESULTS.get(height, ()):
        algorithm = Algorithm(results, height)
        down, across = tiles(problem, algorithm)
        columns = -(-problem.images * down * across // 4) * 4
        products = product.Problem(
            batch=algorithm.positions,
            groups=algorithm.positions,
            rows=problem.outside,
            inner=problem.inside,
            columns=columns,
            packed=True,
            pitch=columns,
            vectors=True,
        )
        found.append(Plan(problem, algorithm, product.choose(products, target, ())))
    return min(found, key=lambda plan: plan.cycles(target), default=None)
