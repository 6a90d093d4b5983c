"""A network compiled for this machine or a GPU, which can be cut anywhere.

It runs in TVM's virtual machine, or through the CUDA driver API.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relax

import cuda_driver
import ptxas
from edgepipe_compiler import lowering
from edgepipe_compiler.frontend import graph as graphs
from edgepipe_compiler.frontend import importer, simplify, units
from edgepipe_compiler.frontend.graph import Graph
from edgepipe_compiler.kernels.target import CpuTarget, CudaTarget, Target
from edgepipe_compiler.linking import launch_plan, library, stage
from edgepipe_compiler.linking.objects import Objects
from edgepipe_compiler.linking.ptx_files import PtxFiles
from edgepipe_compiler.linking.stage import Stage, StageRange
from edgepipe_compiler.weights import Slot, WeightsFile


def host_target() -> CpuTarget:
    """This machine, one thread."""
    machine = platform.machine()
    flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    if machine == "x86_64" and {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"} <= flags:
        isa, mcpu = "avx512", "x86-64-v4"
    elif machine == "x86_64" and {"avx2", "fma"} <= flags:
        isa, mcpu = "avx2", "x86-64-v3"
    elif machine == "aarch64":
        isa, mcpu = "neon", "generic"
    else:
        isa, mcpu = "generic", "x86-64"
    return CpuTarget(machine, mcpu, isa, f"{machine}-unknown-linux-gnu", 1, 32 << 10, 1 << 20)


def tensor_of(weights: np.ndarray, slot: Slot) -> tvm.runtime.Tensor:
    """A weight from the bytes of a weights file."""
    part = weights[slot.offset : slot.offset + slot.bytes]
    return tvm.runtime.tensor(part.view(slot.dtype).reshape(slot.shape))


def machine_of(path: Path) -> relax.VirtualMachine:
    """A virtual machine that has loaded the library ``path``."""
    return relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())


# The GPU that the stand-in driver emulates by default.
GPU = CudaTarget("sm_62")
HALF_GPU = CudaTarget("sm_62", "fp16")
TARGETS: dict[str, Target | None] = {"cpu": None, "cuda": GPU}


def graph_of(model: onnx.ModelProto) -> Graph:
    """A simplified graph of any operators, without the importer's refusals and decompositions."""
    graph = graphs.from_model(model, "model")
    simplify.simplify(graph)
    return graph


def boundaries(target: Target | None) -> tuple[str, ...]:
    """The layouts at cuts that a target supports; None is this machine."""
    return ("plain",) if isinstance(target, CudaTarget) else stage.BOUNDARIES


class Compiled:
    """A network lowered once, by default for this machine. Stages are built on first use.

    For a GPU: ``checked`` finds invalid accesses and races, ``apart`` gives each value memory of its own, and
    every module is assembled for the GPU.
    """

    def __init__(
        self,
        source: onnx.ModelProto | Graph,
        folder: Path,
        target: Target | None = None,
        checked: bool = True,
        apart: bool = True,
    ) -> None:
        self.folder = folder
        self.target = target or host_target()
        self.checked, self.apart = checked, apart
        if isinstance(source, Graph):
            self.graph = source
        else:
            self.graph = importer.from_model(source, "net")
        self.units = units.form(self.graph)
        with WeightsFile(folder / "weights.bin") as weights:
            self.network = lowering.lower(
                self.graph, self.units, self.target, weights, lambda done, total: None
            )
        self.weights = np.fromfile(folder / "weights.bin", np.uint8)
        self._stages: dict[StageRange, tuple[Stage, relax.VirtualMachine]] = {}
        self._programs: dict[StageRange, tuple[Stage, cuda_driver.Program]] = {}

    def launch_plan(self, wanted: StageRange) -> dict[str, Any]:
        """The program of a stage for a GPU."""
        planned = stage.plan(self.network, self.units, wanted)
        names = [step.function for step in planned.steps]
        files = PtxFiles(self.folder / "objects", self.target)
        functions = self.network.functions.by_name
        module = files.module(names, functions, lambda done, total: None)
        return launch_plan.build(planned, module, self.target)

    def program(self, wanted: StageRange) -> tuple[Stage, cuda_driver.Program]:
        """A stage for a GPU, and the program that runs it."""
        if wanted not in self._programs:
            planned = stage.plan(self.network, self.units, wanted)
            plan = self.launch_plan(wanted)
            if self.checked:
                ptxas.check(plan)
            driver = cuda_driver.standin(self.checked)
            program = cuda_driver.Program(driver, plan, self.weights, self.apart)
            self._programs[wanted] = planned, program
        return self._programs[wanted]

    def stage(self, wanted: StageRange) -> tuple[Stage, relax.VirtualMachine]:
        """A stage and the virtual machine that runs it."""
        if wanted not in self._stages:
            planned = stage.plan(self.network, self.units, wanted)
            names = [step.function for step in planned.steps]
            functions = self.network.functions.by_name
            objects = Objects(self.folder / "objects", self.target)
            files = objects.of(names, functions, lambda done, total: None)
            path = self.folder / f"{wanted.folder}.so"
            library.build(planned, files, self.target, ["cc"], path)
            self._stages[wanted] = planned, machine_of(path)
        return self._stages[wanted]

    def arguments(self, planned: Stage, values: dict[str, tvm.runtime.Tensor]) -> list[object]:
        """The arguments of a stage's entry function."""
        weights = [tensor_of(self.weights, slot) for slot in planned.weights]
        return [*(values[item.name] for item in planned.inputs), *weights]

    def run(
        self, cuts: tuple[int, ...], boundary: str | tuple[str, ...], feeds: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Outputs of the network cut at ``cuts``; ``boundary`` is one for all stages, or one per stage.

        A stage receives only the values that are alive at its cut.
        """
        values = dict(feeds)
        alive = stage.alive(self.graph, self.units)
        words = (boundary,) * (len(cuts) + 1) if isinstance(boundary, str) else boundary
        for first, end, word in zip((0, *cuts), (*cuts, len(self.units)), words, strict=True):
            values |= self._computed(StageRange(first, end, word), values, alive[first])
            values = {name: array for name, array in values.items() if name in alive[end]}
        return {name: values[name] for name in self.graph.outputs}

    def _computed(
        self, wanted: StageRange, values: dict[str, np.ndarray], alive: list[str]
    ) -> dict[str, np.ndarray]:
        """The outputs of a stage."""
        if isinstance(self.target, CudaTarget):
            planned, program = self.program(wanted)
            made = [np.empty(value.shape, value.dtype) for value in planned.outputs]
            program.run([values[item.name] for item in planned.inputs], made)
        else:
            planned, machine = self.stage(wanted)
            tensors = {name: tvm.runtime.tensor(array) for name, array in values.items()}
            result = machine["main"](*self.arguments(planned, tensors))
            results = [result] if len(planned.outputs) == 1 else list(result)
            made = [tensor.numpy() for tensor in results]
        assert {item.name for item in planned.inputs} <= set(alive)
        for value, array in zip(planned.outputs, made, strict=True):
            assert array.shape == value.shape
        return {value.name: array for value, array in zip(planned.outputs, made, strict=True)}
