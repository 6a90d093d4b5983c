"""Estimates the time of a network's kernels on a GPU from their machine code, without a GPU.

    python judge_cuda.py --arch sm_62 [--network NAME ...] [--ptxas PROGRAM] [--disassembler CUOBJDUMP]

Prints a Markdown table of kernels with registers, spills and shared memory as ``ptxas`` assigns them, and a
time by a simple model whose constants are estimates. No figure was measured on a GPU. With ``cuobjdump`` of
CUDA 12 the model counts machine instructions, otherwise those of PTX.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import gpu_code
import kernel_counts
from edgepipe_compiler.kernels.target import (
    PRECISIONS,
    REGISTERS_PER_MULTIPROCESSOR,
    CudaTarget,
)
from edgepipe_compiler.zoo import UnknownNetwork
from gpu_code import Code
from kernel_counts import Counts, Loop

NETWORKS = ("resnet18", "mobilenet_v1")
WARP, SCHEDULERS = 32, 4
# Registers and shared memory are assigned in such pieces.
REGISTER_PIECE, SHARED_PIECE = 256, 256
_COMPILED = re.compile(r"Compiling entry function '(\w+)'(.*?)(?=Compiling entry|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Gpu:
    """A board's GPU, with rates that are estimates: clock and DRAM as configured and usable, L2 as bytes per
    cycle and multiprocessor.
    """

    board: str
    multiprocessors: int
    hertz: float
    dram_bytes: float
    l2_bytes_per_cycle: float
    launch_seconds: float

    @property
    def l2_bytes(self) -> float:
        """Bytes per second between L2 and the multiprocessors."""
        return self.l2_bytes_per_cycle * self.multiprocessors * self.hertz

    @property
    def peak(self) -> float:
        """Multiply-adds per second."""
        return self.multiprocessors * SCHEDULERS * WARP * self.hertz


GPUS = {
    "sm_62": Gpu("Jetson TX2", 2, 1.3e9, 40e9, 64, 6e-6),
    "sm_53": Gpu("Jetson Nano", 1, 0.9216e9, 18e9, 64, 6e-6),
}
# Cycles: a step of a loop waits for a barrier and shared memory; a block starts and ends.
WAIT, BLOCK = 100, 800


@dataclass(frozen=True)
class Assembled:
    """What ``ptxas`` assigned to a kernel; sizes in bytes."""

    registers: int
    spilled: int
    shared: int


@dataclass
class Judged:
    """A kernel with all its launches in a network."""

    units: list[str]
    name: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    assembled: Assembled
    resident: int
    share: float | None
    seconds: float
    bound: str
    macs: int

    @property
    def launches(self) -> int:
        """Launches in an inference."""
        return len(self.units)


def assemble(ptx: str, arch: str, ptxas: str, folder: Path) -> dict[str, Assembled]:
    """Assembles ``kernels.cubin`` in ``folder``. Ends the program if ``ptxas`` refuses the module."""
    source = folder / "kernels.ptx"
    source.write_text(ptx, encoding="utf-8")
    command = [ptxas, f"-arch={arch}", "-v", str(source), "-o", str(folder / "kernels.cubin")]
    result = gpu_code.output_of(command)
    if result.returncode != 0:
        sys.exit(f"failed to assemble the kernels with {ptxas}: {result.stderr.strip()}")
    found = {}
    for name, text in _COMPILED.findall(result.stderr):
        shared = re.search(r"(\d+) bytes smem", text)
        spilled = sum(int(size) for size in re.findall(r"(\d+) bytes spill", text))
        registers = int(re.search(r"Used (\d+) registers", text)[1])
        found[name] = Assembled(registers, spilled, int(shared[1]) if shared else 0)
    return found


def occupancy(threads: int, used: Assembled, target: CudaTarget) -> int:
    """Blocks that are resident on a multiprocessor."""
    limits, warps = target.limits, -(-threads // WARP)
    per_warp = -(-used.registers * WARP // REGISTER_PIECE) * REGISTER_PIECE
    shared = -(-used.shared // SHARED_PIECE) * SHARED_PIECE
    by_memory = limits.shared_bytes_per_multiprocessor // shared if shared else 32
    return min(
        limits.blocks_per_multiprocessor,
        limits.threads_per_multiprocessor // (warps * WARP),
        REGISTERS_PER_MULTIPROCESSOR // (per_warp * warps),
        by_memory,
    )


def iterations(code: Code, counts: Counts) -> list[float]:
    """Iterations of each loop of the code, per iteration of the loop around it.

    Loops of the code are those of the kernel's statements in order, unless LLVM has unrolled some. A loop
    that holds several steps of the statement's loop has fewer iterations, and so has one whose first steps
    are before the loop.
    """
    trips = [1.0] * len(code.loops)

    def count(number: int, loop: Loop, around: int | None, alone: bool) -> None:
        before = 0
        if alone and loop.multiply_adds >= 4:
            before = _multiply_adds(code, around) // loop.multiply_adds
        steps = max(1, loop.extent - before)
        trips[number] = max(1.0, steps / _steps(code, number, loop))

    def match(around: int | None, of_counts: list[Loop]) -> None:
        of_code = code.children(around)
        of_counts = [loop for loop in of_counts if loop.extent > 1]
        if len(of_code) == len(of_counts):
            for number, loop in zip(of_code, of_counts, strict=True):
                count(number, loop, around, len(of_code) == 1)
                match(number, loop.inner)
            return
        # The largest loop of the code does the work of the largest loop of the statements.
        if of_code and of_counts:
            largest = max(of_code, key=lambda number: code.loops[number][1] - code.loops[number][0])
            loop = max(of_counts, key=lambda loop: loop.extent * (loop.multiply_adds + loop.loads))
            count(largest, loop, around, len(of_code) == 1)
            match(largest, loop.inner)

    match(None, counts.body.inner)
    return trips


def _multiply_adds(code: Code, loop: int | None) -> int:
    """Multiply-adds in a loop, or outside of all, without those of the loops in it."""
    return sum(
        item.is_multiply_add
        for place, item in enumerate(code.instructions)
        if (code.enclosing(place) or [None])[-1] == loop
    )


def _steps(code: Code, number: int, loop: Loop) -> float:
    """Iterations of a statement's loop in one of the code's loop."""
    first, last = code.loops[number]
    own = [
        code.instructions[place]
        for place in range(first, last + 1)
        if code.enclosing(place)[-1] == number
    ]
    if loop.multiply_adds >= 4:
        return max(1.0, _multiply_adds(code, number) / loop.multiply_adds)
    if loop.loads:
        return max(1.0, sum(item.is_global_load for item in own) / loop.loads)
    return 1.0


def predict(
    code: Code, counts: Counts, blocks: int, threads: int, resident: int, moved: int, gpu: Gpu
) -> dict[str, float]:
    """Seconds of a launch by each limit; the largest is the prediction."""
    trips = iterations(code, counts)
    slots = latency = shared = 0.0
    for place, item in enumerate(code.instructions):
        times = 1.0
        for loop in code.enclosing(place):
            times *= trips[loop]
        slots += item.slots * times
        latency += item.stall * times
        shared += item.shared_wavefronts * times
    steps = sum(trips[loop] for loop in code.children(None))
    warps = -(-threads // WARP)
    each = -(-blocks // gpu.multiprocessors)
    together = max(1, min(each, resident))
    rounds = -(-each // together)
    return {
        "issue": slots * fullest(warps, each, together) / gpu.hertz,
        "latency": rounds * (latency + WAIT * steps + BLOCK) / gpu.hertz,
        "shared memory": shared * warps * each / gpu.hertz,
        "DRAM": moved / gpu.dram_bytes,
        "L2": counts.sectors * kernel_counts.SECTOR / gpu.l2_bytes,
    }


def fullest(warps: int, blocks: int, together: int) -> int:
    """Warps of the fullest scheduler of a multiprocessor: ``blocks`` of ``warps``, some ``together``."""
    whole, left = divmod(blocks, together)
    return whole * -(-together * warps // SCHEDULERS) + -(-left * warps // SCHEDULERS)


def main_share(code: Code) -> float:
    """Share of multiply-adds among the issue slots of the loop that has most of them; 0 without a loop."""
    best = (0, 0.0)
    for number, (first, last) in enumerate(code.loops):
        own = [
            code.instructions[place]
            for place in range(first, last + 1)
            if code.enclosing(place)[-1] == number
        ]
        found = sum(item.is_multiply_add for item in own)
        best = max(best, (found, found / max(1, len(own))))
    return best[1]


def judge(network: str, target: CudaTarget, ptxas: str, disassembler: str | None) -> list[Judged]:
    """The kernels of a network of the zoo, in order of their first launch."""
    from edgepipe_compiler import lowering
    from edgepipe_compiler.frontend import importer, units
    from edgepipe_compiler.kernels.cuda import ptx
    from edgepipe_compiler.weights import WeightsFile

    arch, gpu = target.arch, GPUS[target.arch]
    graph = importer.from_zoo(network, network)
    formed = units.form(graph)
    macs = [units.macs(graph, unit) for unit in formed]
    with tempfile.TemporaryDirectory() as name, WeightsFile(Path(name) / "weights") as weights:
        folder = Path(name)
        lowered = lowering.lower(graph, formed, target, weights, lambda done, total: None)
        module = ptx.build(lowered.functions.by_name, arch)
        assembled = assemble(module.ptx, arch, ptxas, folder)
        if disassembler is None:
            codes = gpu_code.of_ptx(module.ptx)
        else:
            codes = gpu_code.of_cubin(folder / "kernels.cubin", disassembler)
    counts = {name: kernel_counts.of(f) for name, f in lowered.functions.by_name.items()}
    judged: dict[str, Judged] = {}
    for unit, made, multiply_adds in zip(formed, lowered.units, macs, strict=True):
        working = max(made.steps, key=lambda step: counts[step.function].multiply_adds)
        for step in made.steps:
            launch, used = module.launches[step.function], assembled[step.function]
            name = step.function
            if name in judged:
                judged[name].units.append(unit.name)
                continue
            blocks = launch.grid[0] * launch.grid[1] * launch.grid[2]
            threads = launch.block[0] * launch.block[1] * launch.block[2]
            resident = occupancy(threads, used, target)
            moved = sum(_bytes(item) for item in (*step.arguments, *step.results))
            times = predict(codes[name], counts[name], blocks, threads, resident, moved, gpu)
            bound = max(times, key=times.__getitem__)
            judged[name] = Judged(
                [unit.name],
                name,
                launch.grid,
                launch.block,
                used,
                resident,
                None if disassembler is None else main_share(codes[name]),
                times[bound],
                bound,
                multiply_adds if step is working else 0,
            )
    return list(judged.values())


def _bytes(item: object) -> int:
    import numpy as np

    elements = int(np.prod(item.shape)) if item.shape else 1
    return elements * np.dtype(item.dtype).itemsize


def table(network: str, judged: list[Judged], arch: str) -> str:
    """The kernels of a network and their sum, as Markdown."""
    target, gpu = CudaTarget(arch), GPUS[arch]
    lines = [
        f"## {network}",
        "",
        "| unit | launches | kernel | grid | block | registers | spilled bytes | shared bytes "
        "| blocks per multiprocessor | multiply-adds in the loop | predicted µs | bound by | of peak |",
        "|---|---:|---|---|---|---:|---:|---:|---:|---:|---:|---|---:|",
    ]
    for item in judged:
        share = "no disassembler" if item.share is None else f"{item.share:.0%}"
        peak = f"{item.macs / item.seconds / gpu.peak:.0%}" if item.macs else ""
        threads = item.block[0] * item.block[1] * item.block[2]
        per_block = item.assembled.registers * -(-threads // WARP) * WARP
        mark = " ✗" if per_block > target.limits.registers_per_block else ""
        lines.append(
            f"| {item.units[0]} | {item.launches} | {item.name} | {_size(item.grid)} "
            f"| {_size(item.block)} | {item.assembled.registers}{mark} | {item.assembled.spilled} "
            f"| {item.assembled.shared} | {item.resident} | {share} | {item.seconds * 1e6:.1f} "
            f"| {item.bound} | {peak} |"
        )
    launches = sum(item.launches for item in judged)
    seconds = sum(item.seconds * item.launches for item in judged)
    macs = sum(item.macs * item.launches for item in judged)
    total = seconds + launches * gpu.launch_seconds
    lines += [
        "",
        f"Sum: {seconds * 1e3:.2f} ms in kernels and {launches} launches of "
        f"{gpu.launch_seconds * 1e6:.0f} µs = {total * 1e3:.2f} ms for {macs / 1e6:.0f} million "
        f"multiply-adds, {macs / total / gpu.peak:.0%} of the peak.",
        "",
    ]
    return "\n".join(lines)


def _size(extents: tuple[int, int, int]) -> str:
    used = [extents[0], *([extents[1]] if extents[1:] != (1, 1) else [])]
    return "×".join(str(extent) for extent in (*used, *([extents[2]] if extents[2] > 1 else [])))


def header(arch: str, command: str, disassembler: str | None) -> str:
    """What the figures are."""
    gpu = GPUS[arch]
    counted = "machine code" if disassembler else "PTX, because no disassembler was given"
    return (
        f"# Kernels for {arch}, estimated without a GPU\n\n"
        f"Generated by `{command}`. **Nothing here was measured on a {gpu.board}.** Registers, spills and "
        "shared memory are what `ptxas` assigns. Times come from a model that counts the instructions "
        f"of {counted}. Its constants are estimates: {gpu.multiprocessors} multiprocessors at "
        f"{gpu.hertz / 1e9:.2f} GHz with {SCHEDULERS} schedulers each, {gpu.dram_bytes / 1e9:.0f} GB/s of "
        f"DRAM, {gpu.l2_bytes / 1e9:.0f} GB/s of L2, {gpu.launch_seconds * 1e6:.0f} µs per launch, {WAIT} "
        f"cycles of waiting per step of a loop, and {BLOCK} cycles per block.\n\n"
        "The time of a kernel is the largest of: issue (slots of the fullest scheduler, with register bank "
        "conflicts and dual issue if machine code is counted), latency (one warp alone), shared memory (32 "
        "bits of each thread take a cycle, an upper limit), DRAM (each tensor once), and L2 (sectors that "
        "a warp in the middle of the grid moves; outside of loops, what it reads again is cached). "
        "Multiply-adds are those of direct sums: Winograd's algorithm needs fewer, and may exceed the peak. "
        "The peak is that of float32; in half precision, an instruction has two multiply-adds.\n"
    )


def default_ptxas() -> str | None:
    """``ptxas`` of the Python package ``nvidia-cuda-nvcc-cu12``, if it is installed."""
    for folder in sys.path:
        program = Path(folder) / "nvidia" / "cuda_nvcc" / "bin" / "ptxas"
        if program.is_file():
            return str(program)
    return None


def main() -> None:
    """Reads the command line and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="sm_62", choices=sorted(GPUS), help="architecture")
    parser.add_argument(
        "--precision", default="fp32", choices=PRECISIONS, help="of float32 tensors"
    )
    parser.add_argument("--network", action="append", help="network of the zoo; default: two")
    parser.add_argument("--ptxas", default=default_ptxas(), help="assembler of CUDA 12")
    parser.add_argument("--disassembler", help="cuobjdump of CUDA 12")
    options = parser.parse_args()
    if options.ptxas is None:
        sys.exit(
            "failed to find ptxas: install the Python package nvidia-cuda-nvcc-cu12, or name the "
            "program with --ptxas"
        )
    networks = options.network or list(NETWORKS)
    named = "".join(f" --network {name}" for name in options.network or [])
    named += f" --precision {options.precision}" if options.precision != "fp32" else ""
    named += " --disassembler cuobjdump" if options.disassembler else ""
    command = f"cargo xtask kernels --cuda {options.arch}{named}"
    print(header(options.arch, command, options.disassembler))
    for network in networks:
        print(f"{network} …", file=sys.stderr, flush=True)
        try:
            target = CudaTarget(options.arch, options.precision)
            judged = judge(network, target, options.ptxas, options.disassembler)
        except (UnknownNetwork, gpu_code.ToolError) as error:
            sys.exit(str(error))
        print(table(network, judged, options.arch))


if __name__ == "__main__":
    main()
