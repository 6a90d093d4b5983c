"""Checks and times compiled networks on a GPU.

    python measure_gpu.py [--network NAME ...] [--library LIBCUDA] [--cudnn LIBCUDNN] [--out FOLDER]
    python measure_gpu.py --prepare [ARCH]     # compile only; needs no GPU if ARCH is named

For each network it compares the outputs with those of ONNX Runtime, times every launch by events, and times
whole frames with one launch per kernel and as one CUDA graph. With cuDNN it times each convolution in float32
without TF32, alternating with edgepipe's kernel. It also times copies. Prints Markdown.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cudnn
from cuda_driver import Driver, DriverError, Program
from edgepipe_compiler import zoo
from edgepipe_compiler.frontend import importer, units
from edgepipe_compiler.kernels.target import CUDA_LIMITS

# Rounds of a measurement, fewer if they take longer than this many seconds.
ROUNDS, SECONDS = 15, 10
COPIES = (64 << 10, 1 << 20, 16 << 20)
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
WITH_FLAGS = (11, 4)  # First driver with cuGraphInstantiateWithFlags
# Largest difference from ONNX Runtime, relative to the largest value.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Compiled:
    """A network as one stage: launch plan, bytes of the weights, ONNX Runtime's inputs and outputs."""

    name: str
    plan: dict[str, Any]
    weights: np.ndarray
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]


@dataclass
class Measured:
    """Medians, in ms: each launch, and whole frames without copies."""

    difference: float
    launches: list[float]
    launched: float
    graph: float | None


def compile_network(name: str, arch: str, folder: Path) -> Compiled:
    """Compiles a network of the zoo as one stage, unless ``folder`` has it already."""
    out = folder / f"{name}-{arch}"
    out.mkdir(parents=True, exist_ok=True)
    job = {
        "schema": 1,
        "network": {"name": name, "zoo": name},
        "target": {"kind": "cuda", "arch": arch, "precision": "fp32", "winograd": True},
        "stages": [{"first_unit": 0, "end_unit": None, "boundary": "plain"}],
        "out": str(out),
    }
    path = out / "job.json"
    path.write_text(json.dumps(job))
    command = [sys.executable, "-m", "edgepipe_compiler", str(path)]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode != 0:
        sys.exit(f"failed to compile {name} for {arch}; the compiler's message is above")
    described = json.loads((out / "network.json").read_text())
    (manifest,) = out.glob("stages/*/stage.json")
    stage = json.loads(manifest.read_text())
    reference = described["reference"]

    def read(items: list[dict[str, Any]]) -> list[np.ndarray]:
        return [
            np.fromfile(out / "reference" / item["file"], item["dtype"]).reshape(item["shape"])
            for item in items
        ]

    return Compiled(
        name,
        json.loads((manifest.parent / stage["library"]).read_text()),
        np.fromfile(out / "weights.bin", np.uint8),
        read(reference["inputs"]),
        read(reference["outputs"]),
    )


def difference(program: Program, network: Compiled) -> float:
    """Largest difference from the reference, relative to its largest value; infinite for NaN."""
    made = [np.full_like(array, np.nan) for array in network.outputs]
    program.run(network.inputs, made)
    worst = 0.0
    for array, expected in zip(made, network.outputs, strict=True):
        error = np.abs(array.astype(np.float64) - expected).max()
        worst = max(worst, float(error / max(1e-30, np.abs(expected).max())))
        if np.isnan(error):
            return float("inf")
    return worst


def graph_of(driver: Driver, program: Program) -> ctypes.c_void_p | None:
    """The launches of a frame as a CUDA graph; None if the driver has none."""
    graph, instance, stream = ctypes.c_void_p(), ctypes.c_void_p(), driver.stream
    try:
        driver.call("cuStreamBeginCapture_v2", stream, ctypes.c_int(2))  # relaxed
        start_all(program, program.plan["launches"])
        driver.call("cuStreamEndCapture", stream, ctypes.byref(graph))
        made, none = ctypes.byref(instance), ctypes.c_void_p()
        if driver.version() < WITH_FLAGS:
            driver.call("cuGraphInstantiate", made, graph, none, none, ctypes.c_size_t(0))
        else:
            driver.call("cuGraphInstantiateWithFlags", made, graph, ctypes.c_uint64(0))
    except (AttributeError, DriverError):
        return None
    return instance


def start_all(program: Program, launches: list[dict[str, Any]]) -> None:
    """Puts launches on the stream."""
    for launch in launches:
        program.launch(launch)


def rounds() -> Iterator[int]:
    """Numbers of the rounds, at least one."""
    begin = time.monotonic()
    for number in range(ROUNDS):
        yield number
        if time.monotonic() - begin > SECONDS:
            return


def frame_ms(driver: Driver, start: Callable[[], None]) -> float:
    """Wall time from the first launch to the end of the last kernel."""
    begin = time.perf_counter()
    start()
    driver.synchronize()
    return (time.perf_counter() - begin) * 1e3


def measure(driver: Driver, network: Compiled) -> tuple[Program, Measured]:
    """Compares and times a network. Frames by launches and by a graph alternate."""
    program = Program(driver, network.plan, network.weights)
    worst = difference(program, network)
    graph = graph_of(driver, program)

    launched = functools.partial(start_all, program, network.plan["launches"])
    as_graph = functools.partial(driver.call, "cuGraphLaunch", graph, driver.stream)
    kernels, frames, graphs = [], [], []
    for _ in rounds():
        kernels.append(program.times())
        frames.append(frame_ms(driver, launched))
        if graph is not None:
            graphs.append(frame_ms(driver, as_graph))
    median = np.median(np.array(kernels), axis=0).tolist()
    whole = float(np.median(graphs)) if graphs else None
    return program, Measured(worst, median, float(np.median(frames)), whole)


def against_cudnn(
    driver: Driver, library: cudnn.Cudnn, network: Compiled, program: Program
) -> list[tuple[str, float, float | str]]:
    """Unit, edgepipe's ms and cuDNN's ms of each convolution, or why cuDNN does not compute it.

    cuDNN's time is without bias and activation.
    """
    graph = importer.from_zoo(network.name, network.name)
    found: list[tuple[str, float, float | str]] = []
    for number, unit in enumerate(units.form(graph)):
        node = next((node for node in unit.nodes if node.op == "Conv"), None)
        if node is None:
            continue
        own = [launch for launch in network.plan["launches"] if launch["unit"] == number]
        shapes = [graph.tensor(name).shape for name in (*node.inputs[:2], node.outputs[0])]
        ours, theirs = [], []
        start = functools.partial(start_all, program, own)
        try:
            with library.convolution(driver, shapes, node.attributes) as convolution:
                for _ in rounds():
                    ours.append(driver.elapsed(start))
                    theirs.append(driver.elapsed(convolution.run))
        except cudnn.CudnnError as error:
            found.append((unit.name, driver.elapsed(start), str(error)))
        else:
            found.append((unit.name, float(np.median(ours)), float(np.median(theirs))))
    return found


def copies(driver: Driver) -> str:
    """Copies from and to ordinary memory, as a table."""
    lines = ["| bytes | to the GPU, GB/s | from the GPU, GB/s |", "|---:|---:|---:|"]
    for size in COPIES:
        host, place = np.zeros(size, np.uint8), driver.allocate(size)
        rates = []
        for copy in (driver.write, driver.read):
            times = []
            for _ in rounds():
                begin = time.perf_counter()
                copy(place, host)
                times.append(time.perf_counter() - begin)
            rates.append(size / float(np.median(times)) / 1e9)
        driver.free(place)
        lines.append(f"| {size} | {rates[0]:.2f} | {rates[1]:.2f} |")
    return "\n".join(lines)


def architecture(driver: Driver) -> str:
    """The newest architecture that the compiler knows and the device runs."""
    number = 10 * driver.attribute(MAJOR) + driver.attribute(MINOR)
    fits = [arch for arch in CUDA_LIMITS if int(arch.removeprefix("sm_")) <= number]
    if not fits:
        sys.exit(f"failed to choose an architecture: the GPU is sm_{number}, older than all known")
    return max(fits, key=lambda arch: int(arch.removeprefix("sm_")))


def report(driver: Driver, names: list[str], folder: Path, library: cudnn.Cudnn | str) -> bool:
    """Prints the tables. ``library``: cuDNN, or why there is none. Returns whether all outputs agree."""
    arch, version = architecture(driver), driver.version()
    print(
        f"# Kernels on {driver.name()}\n\nCompiled for {arch}; driver for CUDA {version[0]}.{version[1]}."
    )
    if driver.is_emulated():
        print(
            "\n**Emulated on CPUs: outputs are those of the kernels, times are not those of a GPU.**"
        )
    print(f"\nMedians of up to {ROUNDS} rounds. Difference: the largest one from ONNX Runtime,")
    print("relative to its largest value.\n")
    print("| network | difference | kernels ms | launches | frame by launches ms | as a graph ms |")
    print("|---|---:|---:|---:|---:|---:|")
    agree, ratios = True, []
    for name in names:
        network = compile_network(name, arch, folder)
        program, found = measure(driver, network)
        agree &= found.difference <= TOLERANCE
        graph = "–" if found.graph is None else f"{found.graph:.3f}"
        mark = "" if found.difference <= TOLERANCE else " ✗"
        print(
            f"| {name} | {found.difference:.1e}{mark} | {sum(found.launches):.3f} "
            f"| {len(found.launches)} | {found.launched:.3f} | {graph} |",
            flush=True,
        )
        if isinstance(library, cudnn.Cudnn):
            ratios.append((name, against_cudnn(driver, library, network, program)))
    print(f"\n## Copies\n\n{copies(driver)}")
    if isinstance(library, str):
        print(f"\nConvolutions were not compared with cuDNN: {library}.")
    else:
        print(f"\ncuDNN {library.version}, float32 without TF32.")
    for name, layers in ratios:
        print(f"\n## {name} and cuDNN\n\n| unit | edgepipe ms | cuDNN ms | cuDNN / edgepipe |")
        print("|---|---:|---:|---:|")
        compared = []
        for unit, ours, theirs in layers:
            if isinstance(theirs, str):
                print(f"| {unit} | {ours:.4f} | {theirs} | – |")
                continue
            compared.append((ours, theirs))
            print(f"| {unit} | {ours:.4f} | {theirs:.4f} | {theirs / ours:.2f} |")
        if compared:
            ours, theirs = (sum(times[column] for times in compared) for column in (0, 1))
            print(f"| sum of the compared | {ours:.3f} | {theirs:.3f} | {theirs / ours:.2f} |")
    return agree


def main() -> None:
    """Reads the command line. Exit code 1: outputs differ or nothing can be measured; 2: wrong arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="append", help="network of the zoo; default: all")
    parser.add_argument("--library", default="libcuda.so.1", help="driver library")
    parser.add_argument("--cudnn", default=ctypes.util.find_library("cudnn"), help="cuDNN library")
    parser.add_argument("--out", type=Path, default=Path("target/edgepipe/gpu"), help="cache")
    parser.add_argument(
        "--prepare",
        metavar="ARCH",
        nargs="?",
        const="",
        choices=["", *sorted(CUDA_LIMITS)],
        help="compile only, by default for the GPU of this machine",
    )
    options = parser.parse_args()
    names = options.network or zoo.names()
    if unknown := [name for name in names if name not in zoo.names()]:
        parser.error(f"unknown network {unknown[0]}; the zoo has {', '.join(zoo.names())}")
    if options.prepare:
        prepare(names, options.prepare, options.out)
        return
    try:
        driver = Driver(options.library)
    except (OSError, DriverError) as error:
        sys.exit(
            f"failed to use a GPU by {options.library}: {error}; "
            "install NVIDIA's driver, or name its library"
        )
    if options.prepare is not None:
        prepare(names, architecture(driver), options.out)
        return
    try:
        agree = report(driver, names, options.out, load_cudnn(options.cudnn))
    except DriverError as error:
        sys.exit(f"failed to measure: {error}")
    sys.exit(0 if agree else 1)


def prepare(names: list[str], arch: str, folder: Path) -> None:
    """Compiles networks for an architecture."""
    for name in names:
        compile_network(name, arch, folder)
        print(f"{name}: compiled for {arch}", file=sys.stderr)


def load_cudnn(path: str | None) -> cudnn.Cudnn | str:
    """cuDNN, or why it cannot be used."""
    if path is None:
        return "the dynamic linker finds no libcudnn; name it with --cudnn (ci/gpu.sh: CUDNN=FILE)"
    try:
        return cudnn.Cudnn(path)
    except cudnn.CudnnError as error:
        return str(error)


if __name__ == "__main__":
    main()
