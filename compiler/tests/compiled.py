"""A network compiled for this machine, which can be cut anywhere and run in TVM's virtual machine."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnx
import tvm
from tvm import relax

from edgepipe_compiler import lowering
from edgepipe_compiler.frontend import importer, units
from edgepipe_compiler.frontend.graph import Graph
from edgepipe_compiler.kernels.target import CpuTarget
from edgepipe_compiler.linking import library, stage
from edgepipe_compiler.linking.objects import Objects
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


class Compiled:
    """A network lowered once, by default for this machine. Stages are built on first use."""

    def __init__(
        self,
        source: onnx.ModelProto | Graph,
        folder: Path,
        target: CpuTarget | None = None,
    ) -> None:
        self.folder = folder
        self.target = target or host_target()
        self.objects = Objects(folder / "objects", self.target)
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

    def stage(self, wanted: StageRange) -> tuple[Stage, relax.VirtualMachine]:
        """A stage and the virtual machine that runs it."""
        if wanted not in self._stages:
            planned = stage.plan(self.network, self.units, wanted)
            names = [step.function for step in planned.steps]
            functions = self.network.functions.by_name
            files = self.objects.of(names, functions, lambda done, total: None)
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
        values = {name: tvm.runtime.tensor(array) for name, array in feeds.items()}
        alive = stage.alive(self.graph, self.units)
        words = (boundary,) * (len(cuts) + 1) if isinstance(boundary, str) else boundary
        for first, end, word in zip((0, *cuts), (*cuts, len(self.units)), words, strict=True):
            planned, machine = self.stage(StageRange(first, end, word))
            assert {item.name for item in planned.inputs} <= set(alive[first])
            result = machine["main"](*self.arguments(planned, values))
            results = [result] if len(planned.outputs) == 1 else list(result)
            for value, tensor in zip(planned.outputs, results, strict=True):
                assert tuple(tensor.shape) == value.shape
                values[value.name] = tensor
            values = {name: tensor for name, tensor in values.items() if name in alive[end]}
        return {name: values[name].numpy() for name in self.graph.outputs}
