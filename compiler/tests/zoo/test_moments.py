"""The moments by which weights are scaled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgepipe_compiler.zoo.moments import Moments, mixture

UNIT = Moments()
SAMPLES = 400_000


def check(expected: Moments, observed: np.ndarray) -> None:
    """Compares with the moments of samples, whose error is below 1 %."""
    assert expected.mean == pytest.approx(observed.mean(), abs=0.01)
    assert expected.variance == pytest.approx(observed.var(), rel=0.02)


def normal(moments: Moments, seed: int) -> np.ndarray:
    """Samples of these moments."""
    numbers = np.random.default_rng(seed).standard_normal(SAMPLES)
    return moments.mean + moments.variance**0.5 * numbers


@pytest.mark.parametrize(
    "function",
    [
        lambda v: np.maximum(v, 0),
        lambda v: np.clip(v, 0, 6),
        lambda v: v / (1 + np.exp(-v)),
        lambda v: v * np.clip(v / 6 + 0.5, 0, 1),
    ],
    ids=["relu", "relu6", "silu", "hard_swish"],
)
@pytest.mark.parametrize("moments", [UNIT, Moments(0.5, 4.0), Moments(-1.0, 0.25)])
def test_activations(function: Callable[[np.ndarray], np.ndarray], moments: Moments) -> None:
    check(moments.through(function), function(normal(moments, 1)))


def test_relu_of_a_unit_normal_gives_the_rule_of_he() -> None:
    assert UNIT.through(lambda v: np.maximum(v, 0)).power == pytest.approx(0.5, rel=1e-3)


def test_sums_products_and_concatenations() -> None:
    left, right = Moments(0.5, 2.0), Moments(-0.2, 0.7)
    a, b = normal(left, 1), normal(right, 2)
    check(left.plus(right), a + b)
    check(left.times(right), a * b)
    check(mixture([(left, 1), (right, 3)]), np.concatenate([a[: SAMPLES // 3], b]))


def test_largest_lies_between_equal_and_independent_neighbours() -> None:
    for count in (4, 9):
        independent = np.random.default_rng(3).standard_normal((SAMPLES, count)).max(axis=1)
        largest = UNIT.largest_of(count)
        assert 0 < largest.mean < independent.mean()
        assert independent.var() < largest.variance < 1
