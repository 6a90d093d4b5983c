"""Each rule and family of shapes: the rule is selected, and its result is right for every vector width."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
import tvm

from edgepipe_compiler.kernels.cpu.layout_conversion import convert
from edgepipe_compiler.kernels.kernel import Value
from edgepipe_compiler.kernels.layout import PLAIN, packed
from edgepipe_compiler.kernels.target import CpuTarget
from kernels.lowered import NEON, Lowered, check, runnable, x86
from operator_net import Net

Case = tuple[list[str], Callable[[Net], str]]
WIDEST = runnable()[0]
CONV, DEPTHWISE, POOL = "convolution", "depthwise", "pooling"


def conv(
    made: int, *shape: int, kernel: tuple[int, int], **attributes: object
) -> Callable[[Net], str]:
    return lambda net: net.conv(net.input(*shape), made, shape[1], *kernel, **attributes)


def one(op: str, *shape: int, **attributes: object) -> Callable[[Net], str]:
    return lambda net: net.op(op, net.input(*shape), **attributes)


def few_channels(net: Net) -> str:
    """An image and a mask."""
    x = net.op(
        "Concat", net.input(2, 3, 9, 7, name="image"), net.input(2, 1, 9, 7, name="mask"), axis=1
    )
    return net.conv(x, 20, 4, 3, 3, pads=[1] * 4)


def residual(net: Net) -> str:
    x = net.op("Relu", net.input(1, 24, 9, 10))
    y = net.op("Relu", net.conv(x, 24, 24, 3, 3, pads=[1] * 4))
    return net.op("Relu", net.op("Add", net.conv(y, 24, 24, 1, 1), x))


def gated(net: Net) -> str:
    x = net.conv(net.input(1, 20, 6, 5), 36, 20, 1, 1)
    return net.op("Mul", x, net.op("Sigmoid", x))


def activations(net: Net) -> str:
    """Five long activations in a row."""
    x = net.op("Tanh", net.op("Softplus", net.input(2, 3, 5, 7)))
    x = net.op("Mul", x, net.op("Sigmoid", x))
    return net.op("Exp", net.op("Erf", net.op("Elu", x)))


def hard_swish(net: Net) -> str:
    return net.op("HardSwish", net.conv(net.input(1, 20, 6, 5), 36, 20, 3, 3, pads=[1] * 4))


def concatenated(*channels: int) -> Callable[[Net], str]:
    def write(net: Net) -> str:
        x = net.input(1, 8, 7, 5)
        parts = [net.op("Relu", net.conv(x, made, 8, 1, 1)) for made in channels]
        return net.op("Concat", *parts, axis=1)

    return write


def classifier(batch: int, channels: int) -> Callable[[Net], str]:
    def write(net: Net) -> str:
        x = net.conv(net.input(batch, 16, 6, 7), channels, 16, 3, 3)
        x = net.op("Flatten", net.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]))
        x = net.op(
            "Relu", net.op("Gemm", x, net.weight(37, channels * 4), net.vector(37), transB=1)
        )
        return net.op("MatMul", x, net.weight(37, 50))

    return write


def shuffled(net: Net) -> str:
    """The channel shuffle of ShuffleNet, after a split."""
    left, right = net.node("Split", net.input(2, 12, 5, 7), net.constant([5, 7]), outputs=2, axis=1)
    x = net.op("Concat", right, left, axis=1)
    x = net.op("Reshape", x, net.constant([2, 3, 4, 5, 7]))
    x = net.op("Transpose", x, perm=[0, 2, 1, 3, 4])
    return net.op("Reshape", x, net.constant([2, 12, 5, 7]))


def squeezed(net: Net) -> str:
    x = net.conv(net.input(1, 16, 8, 8), 40, 16, 3, 3, pads=[1] * 4)
    gate = net.op("GlobalAveragePool", x)
    gate = net.op("Relu", net.conv(gate, 12, 40, 1, 1))
    gate = net.op("HardSigmoid", net.conv(gate, 40, 12, 1, 1))
    return net.op("Mul", x, gate)


def product(rows: int, inner: int, columns: int) -> Callable[[Net], str]:
    """Product of two computed matrices in a batch of two."""
    return lambda net: net.op(
        "MatMul",
        net.input(2, rows, inner, name="a"),
        net.input(2, inner, columns, name="b"),
    )


def divided(net: Net) -> str:
    x = net.conv(net.input(1, 16, 5, 5), 18, 16, 1, 1)
    below = net.constant(np.linspace(1, 2, 18, dtype=np.float32).reshape(1, 18, 1, 1))
    return net.conv(net.op("Div", x, below), 6, 18, 3, 3)


def transposed(
    made: int, *shape: int, kernel: tuple[int, ...], group: int = 1, **attributes: object
) -> Callable[[Net], str]:
    return lambda net: net.op(
        "ConvTranspose",
        net.input(*shape),
        net.weight(shape[1], made // group, *kernel),
        net.vector(made),
        group=group,
        **attributes,
    )


LINE, TRANSPOSED = "reshape", "transposed_convolution"
# Windows too long for separate code at every border.
LONG: dict[str, Case] = {
    "long window, one channel": (
        [LINE, "first_convolution", LINE],
        conv(33, 1, 1, 1200, kernel=(400,), strides=[160], pads=[200, 199]),
    ),
    "long window": (
        [LINE, CONV, LINE],
        conv(20, 2, 16, 200, kernel=(64,), strides=[3], pads=[32, 31]),
    ),
    "long window, dilated, odd channels": (
        [LINE, "first_convolution", LINE],
        conv(20, 1, 17, 150, kernel=(40,), dilations=[3], pads=[60, 57]),
    ),
    "long window, groups": (
        [LINE, CONV, LINE],
        conv(32, 1, 32, 200, kernel=(90,), group=4, pads=[45, 45]),
    ),
    "long window, depthwise": (
        [LINE, DEPTHWISE, LINE],
        conv(20, 1, 20, 300, kernel=(100,), group=20, pads=[50, 50]),
    ),
    "long window, two results a channel": (
        [LINE, DEPTHWISE, LINE],
        conv(42, 1, 21, 120, kernel=(40,), group=21, strides=[2]),
    ),
    "long row, high image": (
        [CONV],
        conv(24, 1, 16, 3, 128, kernel=(2, 64), pads=[1, 32, 0, 31]),
    ),
    "long column": ([CONV], conv(24, 1, 16, 128, 1, kernel=(100, 1), pads=[50, 0, 49, 0])),
    "long column, depthwise": (
        [DEPTHWISE],
        conv(18, 1, 18, 200, 2, kernel=(100, 1), pads=[50, 0, 49, 0], group=18),
    ),
    "few results": ([LINE, "thin_convolution", LINE], conv(2, 1, 19, 90, kernel=(31,))),
    "few results of an image": (
        ["thin_convolution"],
        conv(1, 2, 9, 9, 21, kernel=(3, 5), strides=[2, 1], dilations=[1, 2], pads=[1, 4, 2, 3]),
    ),
    "few results, a column": (
        ["thin_convolution"],
        conv(2, 1, 2, 70, 1, kernel=(9, 1), pads=[4, 0, 4, 0], group=2),
    ),
    "long transposed": (
        [LINE, TRANSPOSED, LINE],
        transposed(32, 2, 32, 100, kernel=(101,), strides=[2], pads=[50, 49]),
    ),
    "long transposed to one channel": (
        [LINE, TRANSPOSED, LINE],
        transposed(1, 1, 65, 9, kernel=(129,), strides=[32], pads=[7, 3], output_padding=[2]),
    ),
    "long transposed, dilated": (
        [LINE, TRANSPOSED, LINE],
        transposed(6, 2, 6, 20, kernel=(30,), strides=[3], dilations=[2], pads=[5, 40]),
    ),
    "long transposed rows": (
        [TRANSPOSED],
        transposed(5, 1, 17, 4, 20, kernel=(3, 40), strides=[2, 1], pads=[1, 9, 0, 20]),
    ),
    "long transposed column": (
        [TRANSPOSED],
        transposed(2, 1, 17, 20, 1, kernel=(40, 1), strides=[3, 1], pads=[9, 0, 20, 0]),
    ),
    "long max pool": (
        [POOL],
        one("MaxPool", 1, 20, 2, 700, kernel_shape=[1, 300]),
    ),
    "long average pool": (
        [LINE, POOL, LINE],
        one("AveragePool", 1, 20, 300, kernel_shape=[100], pads=[50, 49], strides=[3]),
    ),
}

CASES: dict[str, Case] = {
    **LONG,
    "first 3x3": (["first_convolution"], conv(34, 1, 3, 21, 19, kernel=(3, 3), pads=[1] * 4)),
    "first 3x3/2": (["first_convolution"], conv(32, 2, 3, 24, 25, kernel=(3, 3), strides=[2, 2])),
    "first 7x7/2": (
        ["first_convolution"],
        conv(64, 1, 3, 40, 36, kernel=(7, 7), strides=[2, 2], pads=[3] * 4),
    ),
    "first 11x11/4": (
        ["first_convolution"],
        conv(24, 1, 3, 51, 47, kernel=(11, 11), strides=[4, 4], pads=[2] * 4),
    ),
    "first gray": (["first_convolution"], conv(8, 1, 1, 9, 9, kernel=(5, 5), pads=[2] * 4)),
    "3x3": ([CONV], conv(64, 1, 32, 28, 28, kernel=(3, 3), pads=[1] * 4)),
    "3x3 odd": ([CONV], conv(50, 2, 19, 13, 30, kernel=(3, 3), pads=[1] * 4)),
    "3x3/2": ([CONV], conv(32, 1, 32, 15, 14, kernel=(3, 3), strides=[2, 2], pads=[1] * 4)),
    "3x3 narrow": ([CONV], conv(32, 1, 48, 7, 7, kernel=(3, 3), pads=[1] * 4)),
    "3x3 narrower than the window": ([CONV], conv(16, 1, 16, 2, 1, kernel=(3, 3), pads=[1] * 4)),
    "3x3 dilated": (
        [CONV],
        conv(16, 1, 16, 14, 14, kernel=(3, 3), dilations=[6, 5], pads=[6, 5, 6, 5]),
    ),
    "3x3 dilated, strided": (
        [CONV],
        conv(16, 1, 16, 17, 15, kernel=(3, 3), dilations=[2, 3], strides=[3, 2], pads=[2, 3, 1, 0]),
    ),
    "asymmetric": ([CONV], conv(16, 1, 16, 9, 12, kernel=(4, 2), pads=[2, 0, 1, 1])),
    "padded past the window": ([CONV], conv(16, 1, 16, 5, 5, kernel=(2, 2), pads=[3] * 4)),
    "1x7": ([CONV], conv(32, 1, 32, 17, 17, kernel=(1, 7), pads=[0, 3, 0, 3])),
    "7x1": ([CONV], conv(32, 1, 32, 17, 17, kernel=(7, 1), pads=[3, 0, 3, 0])),
    "same upper": (
        [CONV],
        conv(16, 1, 16, 8, 7, kernel=(3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
    ),
    "1x1": ([CONV], conv(96, 1, 64, 14, 14, kernel=(1, 1))),
    "1x1 odd": ([CONV], conv(51, 3, 23, 7, 5, kernel=(1, 1))),
    "1x1/2": ([CONV], conv(32, 1, 32, 15, 15, kernel=(1, 1), strides=[2, 2])),
    "1x1 padded": ([CONV], conv(16, 1, 16, 4, 4, kernel=(1, 1), pads=[1] * 4)),
    "one pixel": ([CONV], conv(24, 1, 40, 1, 1, kernel=(1, 1))),
    "whole groups": ([CONV], conv(64, 1, 64, 9, 9, kernel=(3, 3), group=2, pads=[1] * 4)),
    "thin groups": ([CONV], conv(32, 1, 64, 9, 9, kernel=(3, 3), group=16, pads=[1] * 4)),
    "odd groups": ([CONV], conv(30, 1, 21, 8, 8, kernel=(3, 3), group=3, pads=[1] * 4)),
    "depthwise multiplier": ([CONV], conv(40, 1, 20, 8, 8, kernel=(3, 3), group=20)),
    "depthwise": ([DEPTHWISE], conv(40, 2, 40, 15, 17, kernel=(3, 3), group=40, pads=[1] * 4)),
    "depthwise/2": (
        [DEPTHWISE],
        conv(32, 1, 32, 15, 14, kernel=(5, 5), group=32, strides=[2, 2], pads=[2] * 4),
    ),
    "depthwise dilated": (
        [DEPTHWISE],
        conv(16, 1, 16, 11, 12, kernel=(3, 3), group=16, dilations=[2, 4], pads=[2, 4, 2, 4]),
    ),
    "depthwise 1x1": ([DEPTHWISE], conv(18, 1, 18, 5, 5, kernel=(1, 1), group=18)),
    "depthwise large": (
        [DEPTHWISE],
        conv(16, 1, 16, 20, 21, kernel=(11, 11), group=16, pads=[5] * 4),
    ),
    "max pool": (
        [POOL],
        one("MaxPool", 1, 20, 13, 14, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
    ),
    "max pool ceil": (
        [POOL],
        one("MaxPool", 2, 16, 11, 12, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    ),
    "max pool dilated": (
        [POOL],
        one("MaxPool", 1, 16, 9, 9, kernel_shape=[2, 3], dilations=[3, 2]),
    ),
    "average pool": ([POOL], one("AveragePool", 1, 20, 9, 10, kernel_shape=[3, 3], pads=[1] * 4)),
    "average pool with padding": (
        [POOL],
        one(
            "AveragePool", 1, 20, 9, 10, kernel_shape=[3, 2], pads=[1, 0, 1, 1], count_include_pad=1
        ),
    ),
    "global pool": ([POOL], one("GlobalAveragePool", 2, 35, 7, 9)),
    "global mean": ([POOL], one("ReduceMean", 1, 35, 13, 1, axes=[2, 3])),
    "flat mean": ([POOL], one("ReduceMean", 2, 35, 5, 6, axes=[2, 3], keepdims=0)),
    "flat mean of whole vectors": ([POOL], one("ReduceMean", 1, 32, 5, 6, axes=[2, 3], keepdims=0)),
    "sigmoid": (["elementwise"], one("Sigmoid", 2, 3, 5, 16)),
    "tanh": (["elementwise"], one("Tanh", 2, 3, 5, 7)),
    "activations in a row": (["elementwise"], activations),
    "elu": (["elementwise"], one("Elu", 1, 64, alpha=0.5)),
    "shuffled": (["move", "concat", "channels"], shuffled),
    "packed, then flat": (
        [CONV, "reshape"],
        lambda net: net.op("Flatten", net.conv(net.input(2, 16, 5, 7), 21, 16, 1, 1)),
    ),
    "1x1 of five blocks": ([CONV], conv(80, 1, 32, 14, 14, kernel=(1, 1))),
    "3x3 of thirteen blocks": ([CONV], conv(205, 2, 16, 5, 7, kernel=(3, 3), pads=[1] * 4)),
    "depthwise of two tiles": (
        [DEPTHWISE],
        conv(20, 1, 20, 28, 28, kernel=(3, 3), group=20, pads=[1] * 4),
    ),
    "upsampling by eight": (
        ["transposed_convolution"],
        lambda net: net.op(
            "ConvTranspose",
            net.input(1, 5, 4, 3),
            net.weight(5, 21, 16, 16),
            net.vector(21),
            strides=[8, 8],
            pads=[4] * 4,
        ),
    ),
    "upsampling, cut short": (
        ["transposed_convolution"],
        lambda net: net.op(
            "ConvTranspose",
            net.input(2, 20, 5, 4),
            net.weight(20, 17, 2, 3),
            net.vector(17),
            strides=[4, 3],
            pads=[1, 0, 2, 1],
        ),
    ),
    "resized plain": (
        ["resize"],
        lambda net: net.op(
            "Resize",
            net.input(2, 3, 9, 7),
            "",
            net.constant([1, 1, 1.5, 2.5], np.float32),
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        ),
    ),
    "transposed": (["move"], one("Transpose", 2, 3, 4, 5, perm=[3, 0, 2, 1])),
    "concat along rows": (
        ["first_convolution"] * 2 + ["move"],
        lambda net: net.op(
            "Concat", *(net.conv(x, 4, 4, 1, 1) for x in [net.input(1, 4, 5, 9)] * 2), axis=-2
        ),
    ),
    "residual": (["elementwise", CONV, CONV], residual),
    "gated": ([CONV], gated),
    "hard swish": ([CONV], hard_swish),
    "concat": (["first_convolution"] * 3 + ["concat"], concatenated(16, 32, 20)),
    # With four lanes, four channels fill a vector.
    "concat of few channels": (
        ["move", "first_convolution"] if WIDEST != "generic" else ["concat", CONV],
        few_channels,
    ),
    "1x1 of a vector and a half": ([CONV], conv(36, 1, 24, 13, 9, kernel=(1, 1))),
    "3x3 of two vectors and a half": ([CONV], conv(20, 2, 40, 7, 6, kernel=(3, 3), strides=[2, 2])),
    "1x1 of three vectors and ten lanes": ([CONV], conv(58, 1, 58, 7, 7, kernel=(1, 1))),
    "concat split": (["first_convolution"] * 3 + ["concat"], concatenated(5, 18, 7)),
    "classifier": ([CONV, POOL, "dense", "dense"], classifier(1, 32)),
    "classifier, batch": ([CONV, POOL, "dense", "dense"], classifier(3, 33)),
    **{
        f"product of {columns} columns": (["product"], product(5, 6, columns))
        for columns in (1, 7, 9, 17, 23, 31, 33, 47, 50, 97)
    },
    "squeeze": ([CONV, POOL, CONV, CONV, "elementwise"], squeezed),
    "divided": ([CONV, CONV], divided),
}


def build(name: str) -> onnx.ModelProto:
    net = Net()
    return net.build(CASES[name][1](net))


def direct(isa: str, threads: int = 1) -> CpuTarget:
    """Without Winograd's algorithm, which has tests of its own."""
    return replace(x86(isa, threads), winograd=False)


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str) -> None:
    check(build(name), CASES[name][0], direct(WIDEST))


@pytest.mark.parametrize("isa", runnable()[1:])
@pytest.mark.parametrize(
    "name",
    sorted(name for name in CASES if sorted(CASES).index(name) % 3 == 0 or "product" in name),
)
def test_rule_with_other_vectors(name: str, isa: str) -> None:
    check(build(name), None, direct(isa))


@pytest.mark.parametrize("name", sorted(CASES)[1::4])
def test_rule_with_threads(name: str) -> None:
    check(build(name), CASES[name][0], direct(WIDEST, threads=2))


@pytest.mark.parametrize("name", ["3x3", "depthwise", "max pool", "classifier", "first 3x3/2"])
def test_neon_code_is_generated(name: str) -> None:
    assembly = Lowered(build(name), NEON).compile().mod.inspect_source("asm")
    wanted = "fmaxnm" if name == "max pool" else "fmla"
    assert f"{wanted}\tv" in assembly


def test_neon_estimates_quotients_of_whole_vectors() -> None:
    """2 x 3 x 5 x 16 elements are whole vectors of 4."""
    assembly = Lowered(build("sigmoid"), NEON).compile().mod.inspect_source("asm")
    assert "frecpe\tv" in assembly and "frecps\tv" in assembly
    assert "fdiv\tv" not in assembly


@pytest.mark.parametrize("isa", runnable())
@pytest.mark.parametrize("op", ["Sigmoid", "Tanh", "Swish", "Mish", "Gelu"])
def test_activations_are_exact_in_the_whole_range(op: str, isa: str) -> None:
    """Including arguments whose exponential is beyond the range of float32."""
    x = np.linspace(-100, 100, 4096, dtype=np.float32).reshape(1, 4, 32, 32)
    net = Net(opset=20)
    given = net.input(*x.shape)
    if op == "Swish":
        made = net.op("Mul", given, net.op("Sigmoid", given))
    else:
        made = net.op(op, given)
    (result,) = Lowered(net.build(made), x86(isa)).run({"x": x})
    wide = x.astype(np.float64)
    sigmoid = 1 / (1 + np.exp(-wide))
    error_function = np.vectorize(math.erf)(wide / math.sqrt(2))
    expected = {
        "Sigmoid": sigmoid,
        "Tanh": np.tanh(wide),
        "Swish": wide * sigmoid,
        "Mish": wide * np.tanh(np.log1p(np.exp(wide))),
        "Gelu": wide / 2 * (1 + error_function),
    }[op]
    assert np.abs(result - expected).max() <= 1e-6 * max(1, np.abs(expected).max()) + 1e-6
    if op == "Sigmoid":
        inside = wide > -87
        assert np.abs(result / expected - 1)[inside].max() <= 3e-6


@pytest.mark.parametrize("isa", runnable())
@pytest.mark.parametrize("shape", [(1, 32, 8, 8), (2, 21, 5, 7), (1, 3, 9, 11), (2, 17, 1, 2)])
def test_layouts_convert_both_ways(shape: tuple[int, ...], isa: str) -> None:
    target = x86(isa)
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    plain = Value("x", PLAIN, shape, "float32")
    there = convert(plain, packed(target.lanes), shape, target)
    back = convert(there.results[0], PLAIN, shape, target)
    functions = {
        name: call.function.with_attr("global_symbol", name)
        for name, call in (("there", there), ("back", back))
    }
    library = tvm.compile(
        tvm.IRModule(functions), target=tvm.target.Target(target.tvm_target())
    ).jit()
    stored = tvm.runtime.tensor(np.full(there.results[0].shape, np.nan, np.float32))
    returned = tvm.runtime.tensor(np.full(shape, np.nan, np.float32))
    library["there"](tvm.runtime.tensor(array), stored)
    library["back"](stored, returned)
    lanes = stored.numpy().transpose(0, 1, 4, 2, 3).reshape(shape[0], -1, *shape[2:])
    assert np.array_equal(lanes[:, : shape[1]], array)
    assert not lanes[:, shape[1] :].any()
    assert np.array_equal(returned.numpy(), array)
