"""Compiles the small stage libraries the runner's tests run: make_stages.py FOLDER.

The network `net` of the tests, on frames of shape (1, 3, 16, 16):

    a = relu(conv(x, w0));  b = relu(a) * 2;  c = conv(b, w1)
    y = a + c;  z = mean of c over its last axis

and its stages: `head` (x -> a, b), `middle` (b -> c), `tail` (a, c -> y, z): `a` skips `middle`.
manifest.json tells shapes, weights and kernel calls of every library.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax, te
from tvm.s_tir import Schedule
from tvm.script import tirx as T

MASK = (1 << 64) - 1
Tensors = dict[str, tuple[tuple[int, ...], str]]


class Random:
    """The runner's generator for frames (xoshiro256++), written again to check the first."""

    def __init__(self, seed: int, stream: int) -> None:
        split = self.mix(seed) ^ self.mix(~stream & MASK)
        self.state = []
        for _ in range(4):
            split = (split + 0x9E3779B97F4A7C15) & MASK
            self.state.append(self.mix(split))

    @staticmethod
    def mix(value: int) -> int:
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
        return value ^ (value >> 31)

    def next(self) -> int:
        def left(value: int, bits: int) -> int:
            return ((value << bits) | (value >> (64 - bits))) & MASK

        a, b, c, d = self.state
        result = (left((a + d) & MASK, 23) + a) & MASK
        shifted = (b << 17) & MASK
        c ^= a
        d ^= b
        b ^= c
        a ^= d
        c ^= shifted
        self.state = [a, b, c, left(d, 45)]
        return result


def frame(seed: int, stream: int, shape: tuple[int, ...]) -> np.ndarray:
    random = Random(seed, stream)
    count = int(np.prod(shape))
    values = [(random.next() >> 40) / float(1 << 23) - 1.0 for _ in range(count)]
    return np.array(values, dtype="float32").reshape(shape)


def conv(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """3x3 convolution with padding 1, in float64."""
    padded = np.pad(x.astype("float64"), ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = x.shape[2:]
    out = np.zeros((1, w.shape[0], height, width))
    for row in range(3):
        for column in range(3):
            window = padded[:, :, row : row + height, column : column + width]
            out += np.einsum("nchw,oc->nohw", window, w[:, :, row, column].astype("float64"))
    return out


def calls_of(library: Path, arguments: list[np.ndarray]) -> list[str]:
    """Names of the kernel calls, as the virtual machine's instrument reports them."""
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
    names: list[str] = []

    def note(_function: Any, name: str, before: bool, *_: Any) -> int:
        if before and not name.startswith("vm.builtin."):
            names.append(name)
        return int(relax.VMInstrumentReturnKind.NO_OP)

    machine.set_instrument(note)
    machine["main"](*(tvm.runtime.tensor(argument) for argument in arguments))
    return names


class Maker:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stages: dict[str, Any] = {}
        self.weights = bytearray()
        self.places: dict[str, dict[str, Any]] = {}
        self.arrays: dict[str, np.ndarray] = {}

    def weight(self, name: str, array: np.ndarray) -> None:
        self.weights.extend(b"\0" * (-len(self.weights) % 64))
        self.places[name] = {
            "offset": len(self.weights),
            "tensor": {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)},
        }
        self.arrays[name] = array
        self.weights.extend(array.tobytes())

    def stage(
        self,
        name: str,
        inputs: Tensors,
        outputs: Tensors,
        weights: list[str],
        body: Callable[..., list[relax.Expr]],
        finish: Callable[[tvm.IRModule], tvm.IRModule] = lambda module: module,
        run: bool = True,
    ) -> None:
        def variable(name: str, shape: tuple[int, ...], dtype: str) -> relax.Var:
            return relax.Var(name, relax.TensorType(shape, dtype))

        takes = [variable(name, *about) for name, about in inputs.items()]
        takes += [variable(w, self.arrays[w].shape, str(self.arrays[w].dtype)) for w in weights]
        builder = relax.BlockBuilder()
        with builder.function("main", takes):
            results = body(builder, *takes)
            builder.emit_func_output(results[0] if len(results) == 1 else relax.Tuple(results))
        module = finish(builder.finalize())
        library = self.folder / f"{name}.so"
        tvm.compile(module, target="llvm").export_library(str(library))
        arguments = [np.zeros(shape, dtype) for shape, dtype in inputs.values()]
        arguments += [self.arrays[weight] for weight in weights]

        def tensors(named: Tensors) -> list[dict[str, Any]]:
            return [{"name": n, "shape": list(s), "dtype": d} for n, (s, d) in named.items()]

        self.stages[name] = {
            "inputs": tensors(inputs),
            "outputs": tensors(outputs),
            "weights": [self.places[weight] for weight in weights],
            "calls": calls_of(library, arguments) if run else [],
        }


def net(maker: Maker) -> None:
    x, a = ((1, 3, 16, 16), "float32"), ((1, 8, 16, 16), "float32")
    z = ((1, 8, 16), "float32")
    random = np.random.default_rng(1)
    maker.weight("w0", random.standard_normal((8, 3, 3, 3)).astype("float32"))
    maker.weight("w1", random.standard_normal((8, 8, 3, 3)).astype("float32"))

    def head(b: relax.BlockBuilder, x: relax.Var, w0: relax.Var) -> list[relax.Expr]:
        convolved = b.emit(relax.op.nn.conv2d(x, w0, padding=1))
        a = b.emit(relax.op.nn.relu(convolved))
        return [a, b.emit(relax.op.multiply(relax.op.nn.relu(a), relax.const(2.0, "float32")))]

    def middle(b: relax.BlockBuilder, of_b: relax.Var, w1: relax.Var) -> list[relax.Expr]:
        return [b.emit(relax.op.nn.conv2d(of_b, w1, padding=1))]

    def tail(b: relax.BlockBuilder, a: relax.Var, c: relax.Var) -> list[relax.Expr]:
        return [b.emit(relax.op.add(a, c)), b.emit(relax.op.mean(c, axis=3))]

    def whole(
        b: relax.BlockBuilder, x: relax.Var, w0: relax.Var, w1: relax.Var
    ) -> list[relax.Expr]:
        a, of_b = head(b, x, w0)
        return tail(b, a, middle(b, of_b, w1)[0])

    maker.stage("head", {"x": x}, {"a": a, "b": a}, ["w0"], head)
    maker.stage("middle", {"b": a}, {"c": a}, ["w1"], middle)
    maker.stage("tail", {"a": a, "c": a}, {"y": a, "z": z}, [], tail)
    maker.stage("net", {"x": x}, {"y": a, "z": z}, ["w0", "w1"], whole)

    # What the network gives for the frame of seed 7, computed here and by other means.
    frame_7 = frame(7, 0, x[0])
    of_a = np.maximum(conv(frame_7, maker.arrays["w0"]), 0)
    of_c = conv(of_a * 2, maker.arrays["w1"])
    maker.weight("expected_y", (of_a + of_c).astype("float32"))
    maker.weight("expected_z", of_c.mean(axis=3).astype("float32"))

    def expected(b: relax.BlockBuilder, _x: relax.Var, *known: relax.Var) -> list[relax.Expr]:
        zero = relax.const(0.0, "float32")
        return [b.emit(relax.op.add(value, zero)) for value in known]

    maker.stage("expected", {"x": x}, {"y": a, "z": z}, ["expected_y", "expected_z"], expected)


def onnx_net(maker: Maker) -> None:
    """`net` as a model for ONNX Runtime, and where that lies."""
    import onnxruntime
    from onnx import TensorProto, checker, helper, numpy_helper, save

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> Any:
        return helper.make_node(op, inputs, [output], **attributes)

    def value(name: str, shape: list[int]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    pads = {"pads": [1, 1, 1, 1]}
    graph = helper.make_graph(
        [
            node("Conv", ["x", "w0"], "before", **pads),
            node("Relu", ["before"], "a"),
            node("Mul", ["a", "two"], "b"),
            node("Conv", ["b", "w1"], "c", **pads),
            node("Add", ["a", "c"], "y"),
            node("ReduceMean", ["c"], "z", axes=[3], keepdims=0),
        ],
        "net",
        [value("x", [1, 3, 16, 16])],
        [value("y", [1, 8, 16, 16]), value("z", [1, 8, 16])],
        [
            *(numpy_helper.from_array(maker.arrays[name], name) for name in ("w0", "w1")),
            numpy_helper.from_array(np.array(2, dtype="float32"), "two"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(model)
    save(model, maker.folder / "net.onnx")
    folder = Path(onnxruntime.__file__).parent / "capi"
    [library] = folder.glob("libonnxruntime.so.*")
    (maker.folder / "onnxruntime").symlink_to(library)


def trivial(maker: Maker) -> None:
    one = ((1,), "float32")

    def relu(b: relax.BlockBuilder, x: relax.Var) -> list[relax.Expr]:
        return [b.emit(relax.op.nn.relu(x))]

    maker.stage("relu", {"x": one}, {"y": one}, [], relu)
    maker.stage("relu_again", {"y": one}, {"z": one}, [], relu)

    # Fails in about a quarter of all frames.
    def picky(b: relax.BlockBuilder, x: relax.Var) -> list[relax.Expr]:
        function = b.add_func(refuses_large.with_attr("s_tir.is_scheduled", True), "refuses_large")
        return [b.emit(relax.call_tir(function, [x], relax.TensorType((1,), "float32")))]

    maker.stage("picky", {"x": one}, {"y": one}, [], picky)


@T.prim_func(private=True)
def refuses_large(x: T.Buffer((1,), "float32"), y: T.Buffer((1,), "float32")):
    assert x[0] < T.float32(0.5), "this frame is too large"
    y[0] = x[0]


def busy(maker: Maker) -> None:
    """Stages of some milliseconds; `wide` uses all threads it is given."""
    square = ((160, 160), "float32")

    def multiply(b: relax.BlockBuilder, x: relax.Var) -> list[relax.Expr]:
        return [b.emit(relax.op.matmul(x, x))]

    maker.stage("busy", {"x": square}, {"y": square}, [], multiply)
    maker.stage("busy_again", {"y": square}, {"z": square}, [], multiply)

    def relu(b: relax.BlockBuilder, x: relax.Var) -> list[relax.Expr]:
        return [b.emit(relax.op.nn.relu(x))]

    maker.stage("light", {"x": square}, {"y": square}, [], relu)
    maker.stage("light_after", {"y": square}, {"z": square}, [], relu)

    def product(x: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, 160), "k")
        return te.compute((160, 160), lambda i, j: te.sum(x[i, k] * x[k, j], k), "product")

    def wide(b: relax.BlockBuilder, x: relax.Var) -> list[relax.Expr]:
        return [b.emit_te(product, x)]

    def parallel(module: tvm.IRModule) -> tvm.IRModule:
        schedule = Schedule(module)
        schedule.work_on("product")
        row, *_ = schedule.get_loops(schedule.get_sblock("product"))
        schedule.parallel(row)
        return schedule.mod

    maker.stage("wide", {"x": square}, {"y": square}, [], wide, parallel)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    maker = Maker(folder)
    net(maker)
    onnx_net(maker)
    trivial(maker)
    busy(maker)
    (folder / "weights.bin").write_bytes(bytes(maker.weights) + struct.pack("<4f", 0, 0, 0, 0))
    # Last of all: its presence says that the rest is complete.
    (folder / "manifest.json").write_text(json.dumps(maker.stages, indent=1))


if __name__ == "__main__":
    main()
