"""Lowers a model unit by unit, runs the kernels, and compares with the ONNX reference evaluator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import tvm
from onnx.reference import ReferenceEvaluator

from edgepipe_compiler.frontend import graph as graphs
from edgepipe_compiler.frontend import simplify, units
from edgepipe_compiler.kernels import rules
from edgepipe_compiler.kernels.cpu.layout_conversion import convert
from edgepipe_compiler.kernels.kernel import Call, Value, Weight
from edgepipe_compiler.kernels.layout import PLAIN
from edgepipe_compiler.kernels.target import CpuTarget

# Guard elements around a result, and the initial content of memory.
FENCE, FILLING = 256, 12345
LINUX = "x86_64-unknown-linux-gnu"
MCPU = {"avx512": "x86-64-v4", "avx2": "x86-64-v3", "generic": "x86-64"}
NEON = CpuTarget("aarch64", "cortex-a57", "neon", "aarch64-unknown-linux-gnu", 1, 32 << 10, 2 << 20)


def runnable() -> list[str]:
    """Instruction sets of this machine, widest first. The generic one has 4 lanes, like NEON."""
    flags = Path("/proc/cpuinfo").read_text().split("\nflags")[1].split("\n")[0].split()
    found = ["avx512"] if "avx512vl" in flags else []
    return found + (["avx2"] if "avx2" in flags else []) + ["generic"]


def x86(isa: str, threads: int = 1) -> CpuTarget:
    """A target that this machine can run, if ``isa`` is in ``runnable``."""
    return CpuTarget("x86_64", MCPU[isa], isa, LINUX, threads, 32 << 10, 1 << 20)


class Lowered:
    """A model lowered for a target: calls in order, with layout conversions."""

    def __init__(self, model: onnx.ModelProto, target: CpuTarget) -> None:
        self.graph = graphs.from_model(model, "model")
        simplify.simplify(self.graph)
        self.calls: list[Call] = []
        self.rules: list[str] = []
        self._target = target
        self._at_hand = {(name, PLAIN): self._plain(name) for name in self.graph.inputs}
        native = dict.fromkeys(self.graph.inputs, PLAIN)
        for unit in units.form(self.graph):
            kernel = rules.lower(self.graph, unit, target, native)
            self.rules.append(kernel.rule)
            for call in kernel.calls:
                for argument in call.arguments:
                    if isinstance(argument, Value):
                        self._provide(argument)
                self._append(call)
                native.update((value.name, value.layout) for value in call.results)
        for name in self.graph.outputs:
            self._provide(self._plain(name))

    def _plain(self, name: str) -> Value:
        tensor = self.graph.tensor(name)
        return Value(name, PLAIN, tensor.shape, tensor.dtype)

    def _append(self, call: Call) -> None:
        self.calls.append(call)
        self._at_hand.update(((value.name, value.layout), value) for value in call.results)

    def _provide(self, wanted: Value) -> None:
        if (wanted.name, wanted.layout) in self._at_hand:
            return
        source = next(value for (name, _), value in self._at_hand.items() if name == wanted.name)
        logical = self.graph.tensor(wanted.name).shape
        self._append(convert(source, wanted.layout, logical, self._target))

    def compile(self) -> object:
        """The machine code of all calls; function ``f<n>`` is call n."""
        functions = {
            f"f{place}": call.function.with_attr("global_symbol", f"f{place}")
            for place, call in enumerate(self.calls)
        }
        target = tvm.target.Target(self._target.tvm_target())
        return tvm.compile(tvm.IRModule(functions), target=target)

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Runs the calls.

        Memory is filled with large numbers first: lanes without a channel must not affect a result, every
        element of a result must be written, and nothing around it.
        """
        library = self.compile().jit()
        memory = {(name, PLAIN): tvm.runtime.tensor(array) for name, array in inputs.items()}
        for place, call in enumerate(self.calls):
            arguments = [
                tvm.runtime.tensor(np.ascontiguousarray(argument.array))
                if isinstance(argument, Weight)
                else memory[argument.name, argument.layout]
                for argument in call.arguments
            ]
            around = []
            for value in call.results:
                fenced, inside = _fenced(value)
                around.append(fenced)
                # numpy's strides of an array without elements differ from those that TVM expects.
                memory[value.name, value.layout] = (
                    tvm.runtime.from_dlpack(inside)
                    if inside.size
                    else tvm.runtime.empty(value.shape, value.dtype)
                )
                arguments.append(memory[value.name, value.layout])
            library[f"f{place}"](*arguments)
            for fenced in around:
                filling = np.array(FILLING).astype(fenced.dtype)
                assert (fenced[:FENCE] == filling).all() and (fenced[-FENCE:] == filling).all()
        return [memory[name, PLAIN].numpy() for name in self.graph.outputs]


def _fenced(value: Value) -> tuple[np.ndarray, np.ndarray]:
    """Memory with guard elements, and the aligned part between them for the value."""
    size = int(np.prod(value.shape))
    room = np.full(size + 2 * FENCE + 64, np.array(FILLING).astype(value.dtype))
    begin = -(room.ctypes.data // room.itemsize + FENCE) % (64 // room.itemsize)
    fenced = room[begin : begin + size + 2 * FENCE]
    return fenced, fenced[FENCE : FENCE + size].reshape(value.shape)


def inputs_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Seeded inputs."""
    random = np.random.default_rng(7)
    return {
        item.name: random.standard_normal(
            [dim.dim_value for dim in item.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for item in model.graph.input
    }


def compare(given: list[np.ndarray], results: list[np.ndarray]) -> None:
    """Every result is as expected, relative to its largest number."""
    for made, wanted in zip(given, results, strict=True):
        assert made.shape == wanted.shape
        scale = max(float(np.abs(wanted).max()), 1e-6)
        assert float(np.abs(made - wanted).max()) <= 1e-4 * scale


def check(model: onnx.ModelProto, rules: list[str] | None, target: CpuTarget) -> None:
    """The units are lowered by ``rules`` (None: any but the fallback) and match the reference evaluator."""
    inputs = inputs_of(model)
    # Lowering moves the constants out of the model.
    expected = ReferenceEvaluator(model).run(None, inputs)
    lowered = Lowered(model, target)
    assert rules is None or lowered.rules == rules
    assert "fallback" not in lowered.rules
    compare(lowered.run(inputs), expected)
