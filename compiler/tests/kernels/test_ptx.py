"""Kernels written as TIR become entries of a PTX module, with the launch that fits them."""

from __future__ import annotations

import re

import pytest
from tvm import tirx

from edgepipe_compiler.errors import Unsupported
from edgepipe_compiler.kernels.cuda import ptx
from edgepipe_compiler.kernels.cuda.writer import KernelWriter
from edgepipe_compiler.kernels.writer import ramp

# The PTX version that LLVM writes for each architecture. A driver takes versions up to its own: 10.2, the
# last one for a Jetson TX2, takes 6.5.
VERSIONS = {
    "sm_53": "4.2",
    "sm_62": "5.0",
    "sm_72": "6.1",
    "sm_75": "6.3",
    "sm_87": "7.4",
    "sm_89": "7.8",
    "sm_90": "7.8",
}


def reversing(function: object = tirx.floor) -> tirx.PrimFunc:
    """Each block reads 512 elements, and writes `function` of 128 of them in another order.

    The parameters `first` and `last` are named so that TVM exchanges them; `unused` is not read.
    """
    w = KernelWriter((8,), (128,))
    source = tirx.decl_buffer((8, 512), "float32", "last")
    unused = tirx.decl_buffer((4,), "float32", "unused")
    out = tirx.decl_buffer((1024,), "float32", "first")
    held = w.shared("held", 512)
    (block, *_), (thread, *_) = w.block_index, w.thread_index
    w.store(held, source[block, ramp(thread * 4, 4)], [ramp(thread * 4, 4)])
    w.barrier()
    w.store(out, function(held[511 - thread]), [block * 128 + thread])
    return w.function([source, unused, out])


@pytest.mark.parametrize("arch", VERSIONS)
def test_each_function_becomes_an_entry(arch: str) -> None:
    module = ptx.build({"u001_a": reversing(), "u002_b": reversing(tirx.ceil)}, arch)
    assert module.ptx_version == VERSIONS[arch]
    assert f".target {arch}\n" in module.ptx
    assert re.findall(r"\.entry (\w+)\(", module.ptx) == ["u001_a", "u002_b"]
    assert module.ptx.count(".maxntid 128, 1, 1") == 2
    assert ".func" not in module.ptx, "TVM's helpers are gone"
    assert "cvt.rmi.f32.f32" in module.ptx
    assert "cvt.rpi.f32.f32" in module.ptx


def test_memory_accesses_stay_whole() -> None:
    text = ptx.build({"kernel": reversing()}, "sm_62").ptx
    assert "ld.global.nc.v4.b32" in text
    assert "st.shared.v4.b32" in text
    assert text.count("bar.sync") == 1


def test_the_launch_maps_parameters_of_the_entry_to_those_of_the_function() -> None:
    launch = ptx.build({"kernel": reversing()}, "sm_62").launches["kernel"]
    assert launch == ptx.Launch((8, 1, 1), (128, 1, 1), launch.order)
    assert sorted(launch.order) == [0, 2], "the unused parameter is left out"


def test_unknown_functions_are_refused() -> None:
    def of_a_library(value: tirx.Expr) -> tirx.Expr:
        return tirx.call_extern("float32", "of_a_library", value)

    with pytest.raises(Unsupported, match="of_a_library"):
        ptx.build({"kernel": reversing(of_a_library)}, "sm_62")


def test_a_function_of_two_kernels_is_refused() -> None:
    first, second = reversing(), reversing(tirx.ceil)
    body = tirx.SeqStmt([first.body, second.body])
    both = tirx.PrimFunc([*first.params, *second.params], body).with_attr("s_tir", True)
    with pytest.raises(Unsupported, match="kernel"):
        ptx.build({"both": both}, "sm_62")
