"""The model of a GPU counts what is in the code: iterations, multiply-adds, sectors, warps of a scheduler."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tvm import tirx

from edgepipe_compiler.frontend import importer, units
from edgepipe_compiler.kernels.cuda import convolution as direct
from edgepipe_compiler.kernels.cuda import pointwise, ptx
from edgepipe_compiler.kernels.cuda.writer import KernelWriter
from edgepipe_compiler.kernels.target import CudaTarget
from edgepipe_compiler.kernels.writer import ramp

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import gpu_code
import judge_cuda
import kernel_counts

# cuobjdump of a kernel for sm_62, shortened: a control word precedes three instructions.
SASS = """
		Function : loop
	.headerflags    @"EF_CUDA_SM62"
                                                                           /* 0x001fc400fe2007f6 */
        /*0008*/                   MOV R1, c[0x0][0x20] ;                  /* 0x4c98078000870001 */
        /*0010*/                   FFMA R4, R8, R12, R4 ;                  /* 0x59a0020000c70804 */
        /*0018*/                   FFMA R5, R9.reuse, R10, R5 ;            /* 0x59a0028000a70905 */
                                                                           /* 0x001fc400fe2007e0 */
        /*0028*/                   FFMA R6, R9, R13, R6 ;                  /* 0x59a0030000d70906 */
        /*0030*/               @P0 BRA 0x10 ;                              /* 0xe2400fffd8000000 */
        /*0038*/                   EXIT ;                                  /* 0xe30000000007000f */
"""


def convolution(channels: int, size: int, kernel: int) -> onnx.ModelProto:
    weight = np.ones((channels, channels, kernel, kernel), np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[kernel // 2] * 4)
    shape = [1, channels, size, size]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "net",
        [value("x", onnx.TensorProto.FLOAT, shape)],
        [value("y", onnx.TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


@pytest.mark.parametrize(("kernel", "size"), [(1, 28), (3, 28), (1, 56)])
def test_the_code_does_all_multiply_adds(kernel: int, size: int) -> None:
    # Tiles of these images have no waste, so the count is exact.
    graph = importer.from_model(convolution(64, size, kernel), "net")
    (unit,) = units.form(graph)
    rule = pointwise.lower if kernel == 1 else direct.lower
    (call,) = rule(graph, unit, CudaTarget("sm_62")).calls
    module = ptx.build({"kernel": call.function}, "sm_62")
    code = gpu_code.of_ptx(module.ptx)["kernel"]
    trips = judge_cuda.iterations(code, kernel_counts.of(call.function))
    done = sum(
        np.prod([trips[loop] for loop in code.enclosing(place)])
        for place, item in enumerate(code.instructions)
        if item.is_multiply_add
    )
    launch = module.launches["kernel"]
    threads = np.prod(launch.grid) * np.prod(launch.block)
    assert done * threads == units.macs(graph, unit)
    assert judge_cuda.main_share(code) > 0.7


def test_machine_code_has_slots_loops_and_bank_conflicts() -> None:
    code = gpu_code._of_sass(list(gpu_code._decoded(SASS)))
    assert code.loops == [(1, 4)]
    slots = [item.slots for item in code.instructions]
    # R8, R12 and R4 are in one bank: two more cycles. R5 and R9 are in another, R10 is not; in the next
    # one, R9 is held. The control of the fourth instruction has no stall: it is issued with the fifth.
    assert slots == [1, 3, 2, 0, 1, 1]
    assert [item.is_multiply_add for item in code.instructions] == [0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(("stride", "sectors"), [(1, 4), (2, 8), (8, 32), (0, 1)])
def test_sectors_of_a_warp(stride: int, sectors: int) -> None:
    w = KernelWriter((2,), (64,))
    source = tirx.decl_buffer((4096,), "float32", "source")
    out = tirx.decl_buffer((128,), "float32", "out")
    thread = w.thread_index[0]
    value = source[thread * stride] + source[thread * stride]
    w.store(out, value, [w.block_index[0] * 64 + thread])
    counts = kernel_counts.of(w.function([source, out]))
    # The second load is cached; four warps store four sectors each.
    assert counts.sectors == 4 * (sectors + 4)


def test_vectors_and_loops_multiply_sectors() -> None:
    w = KernelWriter((1,), (32,))
    source = tirx.decl_buffer((4096,), "float32", "source")
    out = tirx.decl_buffer((128,), "float32", "out")
    with w.loop("round", 5):
        index = ramp(w.thread_index[0] * 4, 4)
        w.store(out, source[index], [index])
    assert kernel_counts.of(w.function([source, out])).sectors == 5 * (16 + 16)


@pytest.mark.parametrize(
    ("warps", "blocks", "together", "fullest"),
    [(7, 1, 1, 2), (7, 2, 2, 4), (8, 7, 2, 14), (4, 14, 4, 14), (1, 3, 8, 1)],
)
def test_warps_of_the_fullest_scheduler(
    warps: int, blocks: int, together: int, fullest: int
) -> None:
    assert judge_cuda.fullest(warps, blocks, together) == fullest


def test_occupancy_is_limited_by_registers_and_shared_memory() -> None:
    target = CudaTarget("sm_62")
    assert judge_cuda.occupancy(256, judge_cuda.Assembled(128, 0, 0), target) == 2
    assert judge_cuda.occupancy(64, judge_cuda.Assembled(32, 0, 20000), target) == 3
    assert judge_cuda.occupancy(1024, judge_cuda.Assembled(32, 0, 0), target) == 2
