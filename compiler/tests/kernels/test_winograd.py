"""Winograd's algorithm on CPUs: every algorithm, block form and vector width against the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from edgepipe_compiler.kernels.cpu import winograd_plan
from edgepipe_compiler.kernels.cpu.winograd_plan import Convolution, Plan
from edgepipe_compiler.kernels.target import CpuTarget
from edgepipe_compiler.kernels.window_geometry import Window
from edgepipe_compiler.kernels.winograd_algorithm import Algorithm
from kernels.lowered import NEON, Lowered, check, runnable, x86
from operator_net import Net

ALGORITHMS = [Algorithm(4, 3), Algorithm(3, 3), Algorithm(2, 3), Algorithm(2, 5)]
NAMES = [f"F({algorithm.results}, {algorithm.window})" for algorithm in ALGORITHMS]
RULES = ["elementwise", "winograd"]


@dataclass(frozen=True)
class Case:
    """A convolution from ``channels[0]`` to ``channels[1]`` channels, and what follows it.

    ``pads`` None keeps the size of the image.
    """

    channels: tuple[int, int]
    image: tuple[int, int]
    pads: tuple[int, int, int, int] | None = None
    batch: int = 1
    bias: bool = True
    after: Callable[[Net, str, str], str] = lambda net, made, given: made

    def build(self, window: int) -> onnx.ModelProto:
        """The model. Its first operator gives the convolution packed images."""
        net = Net()
        inside, outside = self.channels
        given = net.op("Relu", net.input(self.batch, inside, *self.image))
        pads = [window // 2] * 4 if self.pads is None else list(self.pads)
        made = net.conv(given, outside, inside, window, window, bias=self.bias, pads=pads)
        return net.build(self.after(net, made, given))


def relu(net: Net, made: str, given: str) -> str:
    return net.op("Relu", made)


def residual(net: Net, made: str, given: str) -> str:
    return net.op("Relu", net.op("Add", made, given))


def swish(net: Net, made: str, given: str) -> str:
    return net.op("Mul", made, net.op("Sigmoid", made))


CASES = {
    "even": Case((32, 32), (8, 8), after=relu),
    "odd": Case((32, 48), (13, 11)),
    "one result": Case((32, 32), (5, 5), (0, 0, 0, 0)),
    "row": Case((32, 32), (5, 19), (0, 2, 0, 1)),
    "column": Case((32, 32), (21, 5), (2, 0, 1, 0)),
    "different padding": Case((32, 32), (9, 10), (0, 2, 2, 1), after=relu),
    "wide padding": Case((32, 32), (6, 7), (4, 9, 8, 5)),
    "odd channels": Case((37, 21), (9, 10), after=relu),
    "many channels": Case((160, 272), (6, 6)),
    "fewer channels than lanes": Case((3, 5), (9, 9)),
    "batch": Case((24, 40), (10, 9), batch=3, after=relu),
    "without bias": Case((32, 32), (10, 10), bias=False),
    "residual": Case((40, 40), (11, 10), after=residual),
    "residual, batch": Case((33, 33), (7, 9), batch=2, after=residual),
    "swish": Case((32, 48), (10, 7), after=swish),
}


def forced(
    monkeypatch: pytest.MonkeyPatch, algorithm: Algorithm, blocks: int = 1, workers: int = 1
) -> None:
    """Makes the rule use ``algorithm`` with about as many ``blocks`` and as many ``workers``."""

    def plan(convolution: Convolution, target: CpuTarget) -> Plan:
        registers = winograd_plan.tile(convolution, algorithm, target)
        whole = Plan(convolution, algorithm, registers, 1, workers)
        return replace(whole, together=-(-whole.pieces // blocks))

    monkeypatch.setattr(winograd_plan, "fastest", plan)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=NAMES)
@pytest.mark.parametrize("name", CASES)
def test_every_algorithm(name: str, algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch) -> None:
    forced(monkeypatch, algorithm)
    # Each case with another vector width.
    place = list(CASES).index(name) + ALGORITHMS.index(algorithm)
    isa = runnable()[place % len(runnable())]
    check(CASES[name].build(algorithm.window), RULES, x86(isa))


@pytest.mark.parametrize(
    ("blocks", "workers", "threads"),
    [(3, 1, 1), (100, 1, 1), (1, 1, 2), (3, 1, 3), (2, 2, 2), (5, 3, 3)],
)
@pytest.mark.parametrize("name", ["batch", "residual", "one result"])
def test_blocks_and_threads(
    name: str, blocks: int, workers: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced(monkeypatch, ALGORITHMS[0], blocks, workers)
    check(CASES[name].build(3), RULES, x86(runnable()[0], threads))


@pytest.mark.parametrize(
    ("algorithm", "limit"),
    list(zip(ALGORITHMS, (1.3e-5, 1e-5, 2e-6, 1.3e-5), strict=True)),
    ids=NAMES,
)
@pytest.mark.parametrize("tails", ["normal", "heavy"])
def test_precision(
    tails: str, algorithm: Algorithm, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest error relative to the largest result, with sums of 2304 or more products.

    Heavy tails: Student's t with 3 degrees of freedom for weights and image.
    """
    random, window = np.random.default_rng(3), algorithm.window
    draw = (
        random.standard_normal if tails == "normal" else lambda shape: random.standard_t(3, shape)
    )
    weight = draw((32, 256, window, window)).astype(np.float32)
    image = draw((1, 256, 14, 14)).astype(np.float32)
    net = Net()
    made = net.op("Conv", net.input(1, 256, 14, 14), net.constant(weight), pads=[window // 2] * 4)
    forced(monkeypatch, algorithm)
    lowered = Lowered(net.build(made), x86(runnable()[0]))
    assert lowered.rules == ["winograd"]
    (result,) = lowered.run({"x": image})
    border = window // 2
    padded = np.pad(image[0].astype(np.float64), ((0, 0), (border, border), (border, border)))
    windows = sliding_window_view(padded, (window, window), axis=(1, 2))
    exact = np.einsum("cyxrs,kcrs->kyx", windows, weight.astype(np.float64), optimize=True)
    assert np.abs(result[0] - exact).max() <= limit * np.abs(exact).max()


def same_size(channels: tuple[int, int], extent: int, window: int) -> Convolution:
    """A convolution of a square image that keeps its size."""
    pads = (window // 2, window // 2)
    geometry = Window((window, window), (1, 1), (1, 1), pads, pads)
    return Convolution(geometry, 1, (extent, extent), 1, channels, (extent, extent))


@pytest.mark.parametrize(
    ("channels", "extent", "window", "algorithms"),
    [
        # Layers of ResNet-18, VGG-16 and AlexNet; AVX-512, AVX2, Cortex-A57.
        ((64, 64), 56, 3, (4, 4, 4)),
        ((256, 256), 14, 3, (3, 3, 3)),
        ((512, 512), 28, 3, (4, 4, 4)),
        ((64, 192), 27, 5, (2, 2, 2)),
        # Too few channels, or too few tiles for so many weights.
        ((3, 64), 224, 3, (None, None, None)),
        ((16, 32), 28, 5, (None, None, None)),
        ((512, 512), 7, 3, (None, None, 4)),
        # There is no algorithm for the window.
        ((64, 64), 56, 1, (None, None, None)),
        ((64, 64), 56, 7, (None, None, None)),
    ],
)
def test_the_model_chooses(
    channels: tuple[int, int], extent: int, window: int, algorithms: tuple[int | None, ...]
) -> None:
    convolution = same_size(channels, extent, window)
    for target, wanted in zip((x86("avx512"), x86("avx2"), NEON), algorithms, strict=True):
        target = replace(target, l2_bytes=2 << 20)
        plan = winograd_plan.fastest(convolution, target)
        assert (plan and plan.algorithm.results) == wanted, target.isa


@pytest.mark.parametrize(
    "attributes", [{"strides": [2, 2]}, {"dilations": [2, 2]}, {"group": 2}, {"kernel": (3, 5)}]
)
def test_other_convolutions_are_direct_sums(attributes: dict[str, object]) -> None:
    net = Net()
    kernel = attributes.pop("kernel", (3, 3))
    made = net.conv(net.input(1, 64, 30, 30), 64, 64, *kernel, **attributes)
    assert Lowered(net.build(made), x86(runnable()[0])).rules == ["convolution"]


@pytest.mark.parametrize(("allowed", "rule"), [(True, "winograd"), (False, "convolution")])
def test_a_network_can_do_without(allowed: bool, rule: str) -> None:
    net = Net()
    model = net.build(net.conv(net.input(1, 64, 28, 28), 64, 64, 3, 3, pads=[1] * 4))
    assert Lowered(model, replace(x86(runnable()[0]), winograd=allowed)).rules == [rule]


def test_few_tiles_are_shared_by_threads_and_many_are_not() -> None:
    target = replace(x86("avx512", threads=2), l2_bytes=2 << 20)
    few = winograd_plan.fastest(same_size((256, 256), 14, 3), target)
    many = winograd_plan.fastest(same_size((64, 64), 224, 3), target)
    assert few.workers == 1 and few.shared(target)
    assert many.workers == 2 and not many.shared(target)


@pytest.mark.parametrize("threads", [1, 4])
def test_neon_code_is_generated(threads: int) -> None:
    net = Net()
    model = net.build(net.conv(net.input(1, 64, 28, 28), 64, 64, 3, 3, pads=[1] * 4))
    lowered = Lowered(model, replace(NEON, threads=threads))
    assert lowered.rules == ["winograd"]
    assert "fmla\tv" in lowered.compile().mod.inspect_source("asm")
