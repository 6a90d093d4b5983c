"""Assembles PTX with CUDA's assembler, which finds what the stand-in driver accepts and a GPU refuses."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import pytest

from edgepipe_compiler.kernels.target import SHARED_BYTES_PER_BLOCK, CudaTarget

KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?(?P<spills>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Usage:
    """What a kernel needs: registers of a thread, shared and spilled bytes."""

    registers: int
    shared: int
    spilled: int


def assemble(text: str, arch: str) -> dict[str, Usage]:
    """What each kernel of a PTX module needs on ``arch``. Fails the test if the module is refused."""
    package = util.find_spec("nvidia.cuda_nvcc")
    if package is None or not package.submodule_search_locations:
        pytest.fail(
            "the package nvidia-cuda-nvcc-cu12 is missing: run this with `cargo xtask test`"
        )
    program = Path(package.submodule_search_locations[0]) / "bin" / "ptxas"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.ptx"
        path.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [program, "-v", "-arch", arch, path, "-o", path.with_suffix(".cubin")],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return {
        found["name"]: Usage(
            int(found["registers"]),
            sum(map(int, re.findall(r"(\d+) bytes smem", found["rest"]))),
            int(found["spills"]) + int(found["loads"]),
        )
        for found in KERNEL.finditer(done.stderr)
    }


def check(plan: dict[str, object]) -> None:
    """Every kernel of a launch plan can be launched on its architecture, and spills no register."""
    arch = plan["arch"]
    usage = assemble(plan["ptx"], arch)
    limits = CudaTarget(arch).limits
    for launch in plan["launches"]:
        name, used = launch["kernel"], usage[launch["kernel"]]
        x, y, z = launch["block"]
        # Registers are given to warps, in groups of 8 a thread.
        registers = -(-used.registers // 8) * 8 * -(-x * y * z // 32) * 32
        assert registers <= limits.registers_per_block, f"{name} needs {registers} registers"
        assert used.shared <= SHARED_BYTES_PER_BLOCK, f"{name} needs {used.shared} shared bytes"
        assert used.spilled == 0, f"{name} spills {used.spilled} bytes"
