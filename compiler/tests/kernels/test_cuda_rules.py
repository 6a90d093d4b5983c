"""The kernels written for GPUs, on the stand-in: each shape that they treat differently.

Compared with ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest

import ptxas
from compiled import GPU, Compiled
from edgepipe_compiler.frontend import importer, units
from edgepipe_compiler.kernels import rules, winograd_algorithm
from edgepipe_compiler.kernels.cuda import (
    convolution,
    convolution_tile,
    product,
    ptx,
    winograd,
)
from edgepipe_compiler.kernels.target import CUDA_LIMITS, CudaTarget
from edgepipe_compiler.kernels.window_geometry import Window
from models import Net
from test_structured import expected, feeds_of

Case = tuple[str, Callable[[], onnx.ModelProto]]


def conv(
    inside: int, outside: int, height: int, width: int, kernel: int = 3, *, images: int = 1,
    after: str = "Relu", add: bool = False, **attributes: object,
) -> onnx.ModelProto:  # fmt: skip
    """A convolution, perhaps with an addition, and an activation."""
    net = Net(20)
    x = net.input("x", images, inside, height, width)
    x = net.conv(x, "conv", inside, outside, kernel, **attributes)
    if add:
        down, across = attributes.get("strides", (1, 1))
        shape = (images, outside, -(-height // down), -(-width // across))
        x = net.op("Add", "add", x, net.input("other", *shape))
    return net.model(net.op(after, "after", x))


def pool(op: str, *shape: int, **attributes: object) -> onnx.ModelProto:
    net = Net()
    return net.model(
        net.op("Relu", "after", net.op(op, "pool", net.input("x", *shape), **attributes))
    )


def product_of(
    left: tuple[int, ...], right: tuple[int, ...], constant: bool = False
) -> onnx.ModelProto:
    net = Net()
    y = net.weight("y", *right) if constant else net.input("y", *right)
    x = net.op("MatMul", "product", net.input("x", *left), y)
    return net.model(
        net.op("Sigmoid", "after", net.op("Add", "add", x, net.weight("b", right[-1])))
    )


def gemm(rows: int, inner: int, columns: int, **attributes: object) -> onnx.ModelProto:
    net = Net()
    shape = (columns, inner) if attributes.get("transB") else (inner, columns)
    x, w = net.input("x", rows, inner), net.weight("w", *shape)
    return net.model(
        net.op(
            "Relu", "after", net.op("Gemm", "gemm", x, w, net.weight("b", columns), **attributes)
        )
    )


def softmax(op: str, *shape: int, opset: int = 17, **attributes: object) -> onnx.ModelProto:
    net = Net(opset)
    return net.model(net.op(op, "softmax", net.input("x", *shape), **attributes))


def elementwise(*shapes: tuple[int, ...]) -> onnx.ModelProto:
    """A chain over operands that are broadcast."""
    net = Net()
    x = net.input("x0", *shapes[0])
    for number, shape in enumerate(shapes[1:], 1):
        x = net.op("Mul", f"mul{number}", x, net.input(f"x{number}", *shape))
    return net.model(net.op("Tanh", "after", net.op("Add", "twice", x, x)))


def row_operand() -> onnx.ModelProto:
    """The product with an operand that differs along rows only."""
    net = Net()
    x = net.conv(net.input("x", 1, 4, 8, 8), "conv", 4, 8, 1)
    return net.model(net.op("Mul", "mul", x, net.weight("rows", 1, 1, 8, 1)))


CASES: dict[str, Case] = {
    # Windows: a channel per step, or a row of a large window; strides sort the inputs by phase.
    "3x3, tiles without waste": ("convolution", lambda: conv(32, 64, 28, 28)),
    "3x3, odd sizes": ("convolution", lambda: conv(5, 7, 9, 11)),
    "3x3, addition": ("convolution", lambda: conv(32, 64, 14, 14, add=True)),
    "3x3, stride 2": ("convolution", lambda: conv(32, 48, 28, 28, strides=[2, 2], add=True)),
    "3x3, stride 3": ("convolution", lambda: conv(6, 8, 20, 20, strides=[3, 3])),
    "3x3, stride along one axis": ("convolution", lambda: conv(6, 8, 12, 12, strides=[1, 2])),
    "3x3, split sum": ("convolution", lambda: conv(64, 70, 7, 7, add=True)),
    "3x3, groups": ("convolution", lambda: conv(16, 24, 9, 11, group=4)),
    "3x3, dilation": ("convolution", lambda: conv(8, 16, 15, 13, dilations=[2, 2], pads=[2] * 4)),
    "3x3, batch": ("convolution", lambda: conv(8, 16, 10, 9, images=3)),
    "3x3, uneven padding": ("convolution", lambda: conv(8, 16, 12, 12, pads=[0, 1, 2, 0])),
    "5x5": ("convolution", lambda: conv(8, 16, 12, 12, 5)),
    "7x7, few channels": ("convolution", lambda: conv(3, 64, 56, 56, 7, strides=[2, 2])),
    "11x11, stride 4": ("convolution", lambda: conv(3, 16, 47, 47, 11, strides=[4, 4], pads=[2] * 4)),
    "padding around single pixels": ("convolution", lambda: conv(8, 16, 6, 6, 1, pads=[1] * 4)),
    # Single pixels: products with vectors of pixels or without, with a tail of the sum.
    "1x1, vectors": ("convolution", lambda: conv(64, 96, 28, 28, 1, add=True)),
    "1x1, 49 pixels": ("convolution", lambda: conv(256, 200, 7, 7, 1, add=True)),
    "1x1, odd sizes": ("convolution", lambda: conv(13, 7, 9, 11, 1)),
    "1x1, stride 2": ("convolution", lambda: conv(16, 24, 28, 28, 1, strides=[2, 2])),
    "1x1, groups and batch": ("convolution", lambda: conv(16, 24, 10, 10, 1, group=2, images=2)),
    "1x1, one column": ("convolution", lambda: conv(8, 12, 16, 1, 1, add=True)),
    "1x1, operand along rows": ("convolution", row_operand),
    "one pixel": ("dense", lambda: conv(24, 10, 1, 1, 1, images=2, after="HardSwish", add=True)),
    # Windows per channel.
    "depthwise, vectors": ("depthwise", lambda: conv(8, 8, 28, 28, group=8, add=True)),
    "depthwise, stride 2": ("depthwise", lambda: conv(8, 8, 32, 32, group=8, strides=[2, 2])),
    "depthwise, single results": ("depthwise", lambda: conv(16, 16, 7, 7, group=16, images=2)),
    "depthwise, several results": ("depthwise", lambda: conv(4, 8, 12, 12, group=4)),
    "depthwise, dilation": (
        "depthwise",
        lambda: conv(4, 4, 12, 12, group=4, dilations=[2, 2], pads=[2] * 4),
    ),
    "depthwise, large image": ("depthwise", lambda: conv(64, 64, 56, 56, group=64)),
    "maximum": (
        "pooling",
        lambda: pool("MaxPool", 1, 8, 28, 28, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
    ),
    "maximum beyond the image": (
        "pooling",
        lambda: pool("MaxPool", 1, 8, 13, 11, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    ),
    "average": (
        "pooling",
        lambda: pool("AveragePool", 1, 8, 28, 28, kernel_shape=[3, 3], pads=[1] * 4),
    ),
    "average with padding": (
        "pooling",
        lambda: pool(
            "AveragePool", 2, 8, 9, 9, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4,
            count_include_pad=1,
        ),
    ),
    "global average": ("pooling", lambda: pool("GlobalAveragePool", 2, 20, 7, 7)),
    "mean without axes": ("pooling", lambda: pool("ReduceMean", 2, 20, 7, 7, axes=[2, 3], keepdims=0)),
    # Products of matrices.
    "one row": ("dense", lambda: gemm(1, 512, 100, transB=1)),
    "few rows, odd sizes": ("dense", lambda: gemm(12, 77, 33, alpha=0.5, beta=2.0)),
    "many rows": ("product", lambda: gemm(40, 64, 100, transB=1)),
    "many rows of a batch": ("product", lambda: product_of((2, 40, 64), (64, 48), True)),
    "computed matrices": ("product", lambda: product_of((2, 3, 20, 16), (2, 3, 16, 24))),
    "computed matrices, odd sizes": ("product", lambda: product_of((33, 17), (17, 19))),
    "one left matrix": ("product", lambda: product_of((33, 16), (4, 16, 19))),
    # Rows, columns, chains.
    "softmax of rows": ("softmax", lambda: softmax("Softmax", 3, 1000, axis=1)),
    "softmax of columns": ("softmax", lambda: softmax("Softmax", 2, 5, 7, 3, axis=1)),
    "softmax of opset 11": ("softmax", lambda: softmax("Softmax", 2, 3, 4, opset=11, axis=1)),
    "logarithm of softmax": ("softmax", lambda: softmax("LogSoftmax", 4, 10, axis=-1)),
    "chain": ("elementwise", lambda: elementwise((1, 8, 6, 6), (1, 8, 6, 6))),
    "chain, channels": ("elementwise", lambda: elementwise((2, 8, 6, 6), (2, 8, 1, 1))),
    "chain, rows": ("elementwise", lambda: elementwise((2, 8, 6, 6), (6, 1))),
    "chain, both broadcast": ("elementwise", lambda: elementwise((2, 1, 6, 5), (3, 1, 5), (5,))),
    "chain, odd size": ("elementwise", lambda: elementwise((7, 9))),
}  # fmt: skip
ACTIVATIONS = (
    "Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu", "Selu", "Celu",
    "ThresholdedRelu", "Softplus", "Softsign", "Mish", "Erf", "Gelu", "Abs", "Neg", "Exp", "Floor", "Ceil",
)  # fmt: skip


def check(model: onnx.ModelProto, rule: str, folder: Path) -> None:
    """Compares the outputs; the stand-in and ptxas check each kernel."""
    feeds = feeds_of(model)
    wanted = expected(model, feeds, "onnxruntime")
    compiled = Compiled(model, folder, GPU)
    assert [unit.rule for unit in compiled.network.units] == [rule]
    made = compiled.run((), "plain", feeds)
    for array, expectation in zip(made.values(), wanted, strict=True):
        assert array.shape == expectation.shape
        assert np.abs(array - expectation).max() <= 1e-5 * np.abs(expectation).max() + 1e-6


@pytest.mark.parametrize("name", CASES)
def test_kernel(name: str, tmp_path: Path) -> None:
    rule, model = CASES[name]
    check(model(), rule, tmp_path)


# Results along an axis of a tile, and a convolution: whole tiles and vectors, partial ones, and tiles that
# pad the pitch.
WINOGRAD: dict[str, tuple[int, Callable[[], onnx.ModelProto]]] = {
    "F(4x4, 3x3), whole tiles": (4, lambda: conv(16, 24, 16, 16, add=True)),
    "F(4x4, 3x3), odd sizes": (4, lambda: conv(5, 7, 9, 11, add=True)),
    "F(4x4, 3x3), partial tiles, vectors": (4, lambda: conv(8, 8, 10, 12)),
    "F(4x4, 3x3), batch": (4, lambda: conv(8, 70, 10, 9, images=3)),
    "F(4x4, 3x3), no padding": (4, lambda: conv(8, 16, 14, 14, pads=[0] * 4)),
    "F(4x4, 3x3), uneven padding": (4, lambda: conv(8, 16, 12, 12, pads=[0, 1, 2, 0])),
    "F(4x4, 3x3), wide padding": (4, lambda: conv(4, 8, 5, 3, pads=[4, 3, 5, 2])),
    "F(4x4, 3x3), one pixel": (4, lambda: conv(8, 8, 1, 1, after="HardSwish")),
    "F(3x3, 3x3)": (3, lambda: conv(8, 16, 14, 13, images=2)),
    "F(2x2, 3x3), vectors": (2, lambda: conv(8, 16, 8, 10, add=True)),
    "F(2x2, 3x3), odd sizes": (2, lambda: conv(6, 9, 7, 7, images=2)),
    "F(2x2, 5x5)": (2, lambda: conv(6, 16, 13, 13, 5, images=2)),
    "F(2x2, 5x5), vectors": (2, lambda: conv(6, 16, 12, 12, 5, add=True)),
}


def forced_winograd(name: str, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    """A network that is lowered by Winograd's algorithm although it is small, so that checks are quick."""
    results, model = WINOGRAD[name]
    monkeypatch.setattr(winograd, "WORTH", float("inf"))
    monkeypatch.setattr(winograd_algorithm, "RESULTS", {3: (results,), 5: (results,)})
    return model()


@pytest.mark.parametrize("name", WINOGRAD)
def test_winograd(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(forced_winograd(name, monkeypatch), "winograd", tmp_path)


@pytest.mark.parametrize(
    ("rule", "inside", "size", "attributes"),
    [
        ("winograd", 64, 56, {}),
        ("winograd", 256, 14, {}),
        ("convolution", 3, 56, {}),
        ("convolution", 64, 7, {}),
        ("convolution", 64, 56, {"strides": [2, 2]}),
        ("convolution", 64, 56, {"group": 2}),
        ("convolution", 64, 56, {"dilations": [2, 2], "pads": [2] * 4}),
    ],
)
def test_winograd_is_chosen_by_the_model(
    rule: str, inside: int, size: int, attributes: dict[str, object]
) -> None:
    graph = importer.from_model(conv(inside, 128, size, size, **attributes), "net")
    (unit,) = units.form(graph)
    assert rules.lower(graph, unit, CudaTarget("sm_62"), {}).rule == rule
    direct = CudaTarget("sm_62", winograd=False)
    assert rules.lower(graph, unit, direct, {}).rule == "convolution"


@pytest.mark.parametrize(("results", "window"), [(4, 3), (3, 3), (2, 3), (2, 5)])
def test_winograd_transforms_are_exact(results: int, window: int) -> None:
    """In rational numbers, along one axis."""
    algorithm = winograd_algorithm.Algorithm(results, window)
    inputs = [Fraction(place * place + 1) for place in range(algorithm.inputs)]
    weights = [Fraction(3 - place) for place in range(window)]

    def times(matrix: winograd_algorithm.Matrix, values: list[Fraction]) -> list[Fraction]:
        return [sum(a * b for a, b in zip(row, values, strict=True)) for row in matrix]

    pairs = zip(
        times(algorithm.of_weights, weights), times(algorithm.of_inputs, inputs), strict=True
    )
    made = times(algorithm.of_results, [weight * value for weight, value in pairs])
    assert made == [
        sum(weight * inputs[first + place] for place, weight in enumerate(weights))
        for first in range(results)
    ]


@pytest.mark.parametrize("operator", ACTIVATIONS)
def test_activation(operator: str, tmp_path: Path) -> None:
    check(conv(4, 8, 8, 8, 1, after=operator), "convolution", tmp_path)


# ResNet-18 at 224 x 224: its convolutions with a window.
PROBLEMS = [
    (3, 64, 224, 112, 7, 2), (64, 64, 56, 56, 3, 1), (64, 128, 56, 28, 3, 2), (128, 128, 28, 28, 3, 1),
    (256, 256, 14, 14, 3, 1), (512, 512, 7, 7, 3, 1), (512, 512, 28, 28, 3, 1),
]  # fmt: skip


@pytest.mark.parametrize("arch", CUDA_LIMITS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_chosen_tiles_fit_every_gpu(arch: str, problem: tuple[int, ...]) -> None:
    inside, outside, size, results, kernel, stride = problem
    side = (kernel, kernel)
    pad = (kernel // 2, kernel // 2)
    window = Window(side, (stride, stride), (1, 1), pad, pad)
    shape = (size, size), (results, results)
    target = CudaTarget(arch)
    tile = convolution_tile.choose(
        convolution_tile.Problem(1, 1, inside, outside, *shape, window), target
    )
    assert tile.work().fits(target)
    pixels = results * results
    matrix = product.Problem(1, 1, outside, inside, pixels, True, pixels, pixels % 4 == 0)
    assert product.choose(matrix, target, (2, 4)).work().fits(target)


@pytest.mark.parametrize("arch", ["sm_53", "sm_62"])
def test_large_convolutions_spill_no_registers(arch: str) -> None:
    """AlexNet's second convolution and one of VGG-16, as direct sums and by Winograd's algorithm."""
    target, functions, launches = CudaTarget(arch), {}, []
    for model in (conv(64, 192, 27, 27, 5), conv(256, 512, 28, 28)):
        graph = importer.from_model(model, "net")
        (unit,) = units.form(graph)
        for rule in (convolution.lower, winograd.lower):
            for call in rule(graph, unit, target).calls:
                functions[f"k{len(functions)}"] = call.function
    module = ptx.build(functions, arch)
    for name, launch in module.launches.items():
        launches.append({"kernel": name, "block": launch.block})
    ptxas.check({"arch": arch, "ptx": module.ptx, "launches": launches})


def test_waste_is_avoided_where_results_are_multiples_of_seven() -> None:
    window = Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1))
    for size in (56, 28, 14, 7):
        problem = convolution_tile.Problem(1, 1, 256, 256, (size, size), (size, size), window)
        tile = convolution_tile.choose(problem, CudaTarget("sm_62"))
        rows, columns = tile.image_tiles
        assert rows * tile.along_rows * columns * tile.width == size * size


def test_a_window_larger_than_shared_memory_is_left_to_the_fallback() -> None:
    model = conv(4, 4, 300, 300, dilations=[140, 140], pads=[140] * 4)
    graph = importer.from_model(model, "net")
    (unit,) = units.form(graph)
    assert rules.lower(graph, unit, CudaTarget("sm_62"), {}).rule == "fallback"
