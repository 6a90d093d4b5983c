"""Which of Winograd's algorithms a convolution on a GPU uses: the estimated time of its three launches."""

from __future__ import annotations

from dataclasses import dataclass

from .. import winograd_algorithm
from ..target import CudaTarget
from ..winograd_algorithm import Algorithm
from . import product, tiling
from .convolution_tile import Problem
from .tiling import LAUNCH, SCHEDULERS, WARP


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
    def multiply_adds(self) -> int:
        """Multiply-adds of the products."""
        down, across = self.tiles
        count = self.problem.images * down * across
        return self.algorithm.positions * count * self.problem.inside * self.problem.outside

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
    found = []
    for algorithm in winograd_algorithm.algorithms(problem.window, problem.groups):
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
