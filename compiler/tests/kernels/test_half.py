"""Kernels in half precision on the stand-in, compared with ONNX Runtime in single precision.

Inputs and constants are rounded to float16 before, so that both compute from the same numbers. A result is
then rounded once (2^-11 of its size), and up to 36 terms of a sum are added in half precision.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

import models
import ptxas
from compiled import GPU, HALF_GPU, Compiled, graph_of
from edgepipe_compiler.frontend import importer, units
from edgepipe_compiler.kernels.cuda import convolution, pointwise, ptx
from edgepipe_compiler.kernels.layout import HALF
from edgepipe_compiler.kernels.target import CUDA_LIMITS, CudaTarget
from edgepipe_compiler.linking.stage import StageRange
from kernels import test_cuda_rules, test_operators
from kernels.test_cuda_rules import conv
from models import Net
from test_structured import expected, feeds_of

# Relative to the largest result.
TOLERANCE = 3e-3
# Kernels without a rule for GPUs: copies, maps of indices, several results, sums by fallbacks, other types.
OPERATORS = (
    "Where float32", "Cast float32 bool", "Cast float16 float32", "Cast int8 float32", "Softplus scalar",
    "Split float32", "GatherND float32 ()", "ScatterElements add float32 (1,)", "CumSum 1 0 1", "TopK -1 0",
    "ReduceMean (0, 2)", "ReduceSum (0, 2)", "LayerNormalization", "MaxPool indices 2 0 1",
    "MaxPool empty row",
)  # fmt: skip


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with constants that float16 has."""
    for item in model.graph.initializer:
        if item.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(item).astype(np.float16).astype(np.float32)
            item.CopyFrom(numpy_helper.from_array(array, item.name))
    return model


def as_half(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name: array.astype(np.float16).astype(np.float32) if array.dtype == np.float32 else array
        for name, array in feeds.items()
    }


def check(model: onnx.ModelProto, folder: Path) -> Compiled:
    model = rounded(model)
    feeds = as_half(feeds_of(model))
    wanted = expected(model, feeds, "onnxruntime")
    compiled = Compiled(model, folder, HALF_GPU)
    made = compiled.run((), "plain", feeds)
    for array, expectation in zip(made.values(), wanted, strict=True):
        assert (array.shape, array.dtype) == (expectation.shape, np.float32)
        assert np.abs(array - expectation).max() <= TOLERANCE * np.abs(expectation).max()
    return compiled


@pytest.mark.parametrize("name", test_cuda_rules.CASES)
def test_kernel(name: str, tmp_path: Path) -> None:
    rule, model = test_cuda_rules.CASES[name]
    compiled = check(model(), tmp_path)
    assert [unit.rule for unit in compiled.network.units] == [rule]
    made = compiled.network.made
    assert {made[output].layout for output in compiled.graph.outputs} == {HALF}


@pytest.mark.parametrize("name", ["F(4x4, 3x3), odd sizes", "F(2x2, 3x3), vectors"])
def test_winograd(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = test_cuda_rules.forced_winograd(name, monkeypatch)
    compiled = check(model, tmp_path)
    assert [unit.rule for unit in compiled.network.units] == ["winograd"]


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name: str, tmp_path: Path) -> None:
    tried = test_operators.CASES[name]
    tried = replace(tried, arrays=[as_half({"": array})[""] for array in tried.arrays])
    compiled = Compiled(graph_of(tried.model()), tmp_path, HALF_GPU)
    made = compiled.run((), "plain", tried.inputs()).values()
    for array, expectation in zip(made, test_operators.expected(tried), strict=True):
        assert (array.shape, array.dtype) == (expectation.shape, expectation.dtype)
        if array.dtype == np.float32 and array.size:
            assert np.abs(array - expectation).max() <= TOLERANCE * np.abs(expectation).max()
        else:
            assert (array == expectation).all()


@pytest.mark.parametrize("name", ["residual", "squeeze_excite"])
def test_networks_whole_and_cut(name: str, tmp_path: Path) -> None:
    """Stages exchange float32 tensors, which are exactly what the stage before had in half precision."""
    model = rounded(models.ALL[name]())
    feeds = as_half(models.feeds(model))
    names = [item.name for item in model.graph.output]
    wanted = dict(zip(names, ReferenceEvaluator(model).run(None, feeds), strict=True))
    compiled = Compiled(model, tmp_path, HALF_GPU)
    whole = compiled.run((), "plain", feeds)
    for output, array in wanted.items():
        assert np.abs(whole[output] - array).max() <= TOLERANCE * np.abs(array).max()
    for cut in range(1, len(compiled.units)):
        made = compiled.run((cut,), "plain", feeds)
        assert all((made[output] == whole[output]).all() for output in names)


def test_weights_and_memory_shrink(tmp_path: Path) -> None:
    """Biases stay in single precision, and so do the tensors at the ends of a stage."""
    sizes = []
    for target in (GPU, HALF_GPU):
        folder = tmp_path / target.precision
        folder.mkdir()
        compiled = Compiled(models.residual(), folder, target)
        plan = compiled.launch_plan(StageRange(2, 6, "plain"))
        sizes.append((plan["arena_bytes"], sum(slot["bytes"] for slot in plan["weights"])))
    (arena, weights), (half_arena, half_weights) = sizes
    assert half_weights < 0.51 * weights and half_arena < 0.9 * arena


def test_a_fallback_stays_in_single_precision(tmp_path: Path) -> None:
    """The values around it are converted: a sum of 4096 terms of 1 stops at 2048 in half precision."""
    net = Net()
    x = net.op("Relu", "before", net.input("x", 1, 4096))
    model = net.model(net.op("CumSum", "sum", x, net.constant("axis", np.array(1, np.int64))))
    compiled = Compiled(model, tmp_path, HALF_GPU)
    assert [unit.rule for unit in compiled.network.units] == ["elementwise", "fallback"]
    (made,) = compiled.run((), "plain", {"x": np.ones((1, 4096), np.float32)}).values()
    assert made[0, -1] == 4096


def test_weights_beyond_the_range_stay_in_single_precision(tmp_path: Path) -> None:
    net = Net()
    weight = net.constant("w", np.full((8, 4, 3, 3), 1e5, np.float32))
    model = net.model(net.op("Conv", "conv", net.input("x", 1, 4, 6, 6), weight, pads=[1] * 4))
    compiled = Compiled(model, tmp_path, HALF_GPU)
    (made,) = compiled.run((), "plain", {"x": np.full((1, 4, 6, 6), 1e-3, np.float32)}).values()
    assert abs(made[0, 0, 3, 3] - 3600) < 4


@pytest.mark.parametrize("arch", CUDA_LIMITS)
def test_every_architecture(arch: str, tmp_path: Path) -> None:
    compiled = Compiled(models.squeeze_excite(), tmp_path, CudaTarget(arch, "fp16"))
    plan = compiled.launch_plan(StageRange(0, len(compiled.units), "plain"))
    assert (plan["arch"], plan["ptx_version"]) == (arch, CUDA_LIMITS[arch].ptx_version)
    ptxas.check(plan)


@pytest.mark.parametrize("kernel", [1, 3])
def test_long_sums_do_not_stop_growing(kernel: int, tmp_path: Path) -> None:
    """A float16 sum of ones stays at 2048; these have 4096 and 4608 terms."""
    channels = {1: 4096, 3: 512}[kernel]
    net = Net()
    weight = net.constant("w", np.ones((8, channels, kernel, kernel), np.float32))
    x = net.input("x", 1, channels, kernel, kernel)
    model = net.model(net.op("Conv", "conv", x, weight, pads=[kernel // 2] * 4))
    compiled = Compiled(model, tmp_path, HALF_GPU)
    ones = np.ones((1, channels, kernel, kernel), np.float32)
    (made,) = compiled.run((), "plain", {"x": ones}).values()
    middle = kernel // 2
    assert (made[0, :, middle, middle] == channels * kernel * kernel).all()


def test_large_kernels_multiply_pairs_and_spill_no_registers() -> None:
    functions, launches = {}, []
    for model in (
        conv(64, 192, 27, 27, 5),
        conv(256, 512, 28, 28),
        conv(3, 64, 224, 224, 7, strides=[2, 2]),
        conv(512, 512, 14, 14, 1),
        conv(256, 512, 7, 7, 1),
    ):
        graph = importer.from_model(model, "net")
        (unit,) = units.form(graph)
        rule = pointwise if graph.constants[unit.nodes[0].inputs[1]].shape[-1] == 1 else convolution
        functions[f"k{len(functions)}"] = rule.lower(graph, unit, HALF_GPU).calls[0].function
    module = ptx.build(functions, HALF_GPU.arch)
    assert all("fma.rn.f16x2" in part for part in module.ptx.split(".entry")[1:])
    for name, launch in module.launches.items():
        launches.append({"kernel": name, "block": launch.block})
    ptxas.check({"arch": HALF_GPU.arch, "ptx": module.ptx, "launches": launches})
