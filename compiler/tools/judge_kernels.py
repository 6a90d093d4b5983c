"""Simulates the inner loops of kernels with ``llvm-mca``.

    python judge_kernels.py --mca PROGRAM --mcpu cortex-a57 [--network NAME ...]

Prints a Markdown table: multiply-adds per cycle of the innermost loop of each convolution and depthwise
kernel, compared with the peak. LLVM's model covers dispatch, execution units and latencies. It assumes that
every load hits the L1 cache, so the result bounds the loop and does not predict the time of the kernel. The
peak is simulated with independent multiply-adds on whole vectors.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import inner_loops
from edgepipe_compiler.kernels.target import CpuTarget

GOAL = 0.75
NETWORKS = ("resnet18", "mobilenet_v1", "mobilenet_v2", "squeezenet1_1", "inception_v3",
            "efficientnet_b0")  # fmt: skip
WINOGRAD = "winograd"
RULES = ("convolution", "first_convolution", "depthwise", WINOGRAD)
# Cheap operators after a convolution, which the table omits.
PLAIN_STEPS = ("Relu", "Clip", "Add")
TRIPLE = "aarch64-unknown-linux-gnu"
_CYCLES = re.compile(r"^Total Cycles:\s+(\d+)", re.MULTILINE)
TURNS = 200


@dataclass(frozen=True)
class Judged:
    """A kernel: its network, its share of the multiply-adds, and the simulated loop."""

    network: str
    unit: str
    kind: str
    macs: int
    loop: inner_loops.Loop
    cycles: float
    bare: float | None = None  # The rate without the epilogue, if it was computed.

    @property
    def rate(self) -> float:
        """Multiply-adds of the loop per cycle."""
        return self.loop.multiply_adds / self.cycles


class Model:
    """``llvm-mca`` for one processor."""

    def __init__(self, program: str, mcpu: str) -> None:
        self.command = [program, f"-mtriple={TRIPLE}", f"-mcpu={mcpu}", f"-iterations={TURNS}",
                        "-instruction-info=false", "-resource-pressure=false"]  # fmt: skip
        self.mcpu = mcpu

    def cycles(self, instructions: tuple[str, ...]) -> float:
        """Cycles per iteration in steady state."""
        # llvm-mca does not follow the branch at the end of the loop.
        text = "\n".join(re.sub(r"\.L\w+", "0", line) for line in instructions) + "\n"
        result = subprocess.run(
            self.command, input=text, capture_output=True, text=True, check=False
        )
        found = _CYCLES.search(result.stdout)
        if result.returncode != 0 or not found:
            sys.exit(f"failed to simulate a loop with {self.command[0]}: {result.stderr.strip()}")
        return int(found[1]) / TURNS

    def peak(self) -> float:
        """Peak multiply-adds per cycle with full vectors, limited by the registers."""
        loop = tuple(f"fmla v{place}.4s, v30.4s, v31.4s" for place in range(24))
        return 4 * len(loop) / self.cycles(loop)

    def version(self) -> str:
        """LLVM's version."""
        told = subprocess.run(
            [self.command[0], "--version"], capture_output=True, text=True, check=True
        )
        found = re.search(r"LLVM version (\S+)", told.stdout)
        return found[1] if found else "unknown"


def kernels_of(network: str, mcpu: str) -> Iterator[tuple[str, str, int, str]]:
    """Unit, kind, multiply-adds and assembly of each distinct kernel of a network."""
    from edgepipe_compiler import lowering
    from edgepipe_compiler.frontend import importer, units
    from edgepipe_compiler.linking import manifest
    from edgepipe_compiler.weights import WeightsFile

    target = _target(mcpu)
    graph = importer.from_zoo(network, network)
    formed = units.form(graph)
    described = manifest.network(graph, formed, {"zoo": network}, {})["units"]
    kinds = [_kind(graph, unit) for unit in formed]
    with tempfile.TemporaryDirectory() as folder, WeightsFile(Path(folder) / "w") as weights:
        lowered = lowering.lower(graph, formed, target, weights, lambda done, total: None)
    macs: dict[str, int] = {}
    first: dict[str, int] = {}
    for place, unit in enumerate(lowered.units):
        if unit.rule in RULES:
            name = unit.steps[-1].function
            first.setdefault(name, place)
            done = unit.multiply_adds or described[place]["macs"]
            macs[name] = macs.get(name, 0) + done
            if unit.rule == WINOGRAD:
                kinds[place] = kinds[place].replace("packed", "Winograd", 1)

    functions = [lowered.functions.by_name[name] for name in macs]
    with ThreadPoolExecutor(2) as pool:
        texts = pool.map(lambda function: _assembly(function, target), functions)
        for name, text in zip(macs, texts, strict=True):
            place = first[name]
            yield formed[place].name, kinds[place], macs[name], text


def bare(network: str, mcpu: str, names: set[str]) -> Iterator[tuple[str, str]]:
    """Name and assembly of the named units without their epilogue."""
    from edgepipe_compiler.frontend import importer, units
    from edgepipe_compiler.kernels import rules

    graph = importer.from_zoo(network, network)
    for unit in units.form(graph):
        if unit.name in names and unit.nodes[0].op == "Conv" and len(unit.nodes) > 1:
            part = units.between(
                unit.name, unit.nodes[:1], unit.nodes[1:], set(unit.outputs), graph
            )
            kernel = rules.lower(graph, part, _target(mcpu), {})
            yield unit.name, _assembly(kernel.calls[-1].function, _target(mcpu))


def _target(mcpu: str) -> CpuTarget:
    return CpuTarget("aarch64", mcpu, "neon", TRIPLE, 1, 32 << 10, 2 << 20)


def _assembly(function: object, target: CpuTarget) -> str:
    import tvm

    named = function.with_attr("global_symbol", "kernel")
    compiled_for = tvm.target.Target(target.tvm_target())
    module = tvm.tirx.build(tvm.IRModule({"kernel": named}), compiled_for)
    parts = [module, *getattr(module, "imports", [])]
    for part in parts:
        try:
            text = part.inspect_source("asm")
        except (RuntimeError, ValueError):
            continue
        if "\n" in text:
            return text
    raise RuntimeError("the compiled kernel has no assembly")


def _kind(graph: object, unit: object) -> str:
    conv = next((node for node in unit.nodes if node.op == "Conv"), None)
    if conv is None:
        return ""
    shape = graph.constants[conv.inputs[1]].shape
    source, group = graph.tensor(conv.inputs[0]).shape, conv.attributes.get("group", 1)
    strides = conv.attributes.get("strides", [1, 1])
    result = graph.tensor(conv.outputs[0]).shape
    window = f"{shape[2]}x{shape[3]}"
    name = (
        "depthwise" if group == source[1] and group > 1 else "first" if source[1] == 3 else "packed"
    )
    stride = "" if max(strides) == 1 else f" stride {max(strides)}"
    size = f"{source[1]}→{shape[0]}" if name != "depthwise" else f"{source[1]}"
    after = "".join(f" + {node.op}" for node in unit.nodes[1:] if node.op not in PLAIN_STEPS)
    return f"{name} {window}{stride}, {size}, {result[2]}×{result[3]}{after}"


def judge(networks: list[str], model: Model) -> tuple[list[Judged], list[str]]:
    """All kernels of the networks in order, and those too small to have a loop."""
    judged, without = [], []
    for network in networks:
        print(f"{network} …", file=sys.stderr, flush=True)
        for unit, kind, macs, text in kernels_of(network, model.mcpu):
            loop = inner_loops.busiest(text)
            if loop is None:
                without.append(f"{network} {unit} ({kind})")
                continue
            judged.append(Judged(network, unit, kind, macs, loop, model.cycles(loop.instructions)))
    return judged, without


def strip(judged: list[Judged], peak: float, model: Model) -> list[Judged]:
    """Simulates kernels below the goal again without their epilogue."""
    below: dict[str, set[str]] = {}
    for item in judged:
        if item.rate / peak < GOAL:
            below.setdefault(item.network, set()).add(item.unit)
    rates: dict[tuple[str, str], float] = {}
    for network, names in below.items():
        for unit, text in bare(network, model.mcpu, names):
            loop = inner_loops.busiest(text)
            if loop is not None:
                rates[network, unit] = loop.multiply_adds / model.cycles(loop.instructions)
    return [replace(item, bare=rates.get((item.network, item.unit))) for item in judged]


def table(judged: list[Judged], without: list[str], peak: float, model: Model, command: str) -> str:
    """The table, with the command that produced it."""
    lines = [
        f"# Inner loops on {model.mcpu}, simulated with llvm-mca",
        "",
        f"Generated by `{command}` with llvm-mca of LLVM {model.version()}. These are predictions of LLVM's "
        f"processor model, not measurements on a {model.mcpu}; every load hits the L1 cache.",
        "",
        f"Peak: {peak:.2f} multiply-adds per cycle, simulated with independent `fmla` on 128-bit vectors. "
        f"Goal: {GOAL:.0%} of the peak in the innermost loop with the most multiply-adds, including loads, "
        "stores, activation and address arithmetic. Kernels below the goal are simulated again without the "
        "operators after the convolution (last column): a hard swish takes four instructions per result, a "
        "swish more than twenty, a 3x3 depthwise convolution nine. Winograd's algorithm is judged by its "
        "product of matrices, whose multiply-adds are counted; its transforms are not simulated.",
        "",
        "| kernels | simulated | at goal | at goal without epilogue | minimum "
        "| mean, weighted by multiply-adds |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    groups: dict[str, list[Judged]] = {}
    for item in judged:
        groups.setdefault(_group(item.kind), []).append(item)
    for name, items in sorted(groups.items()):
        shares = [item.rate / peak for item in items]
        # Total time of the loops.
        weight = sum(item.macs for item in items)
        mean = weight / sum(item.macs / (item.rate / peak) for item in items)
        met = sum(share >= GOAL for share in shares)
        bare = sum(max(item.rate, item.bare or 0) / peak >= GOAL for item in items)
        lines.append(f"| {name} | {len(items)} | {met} | {bare} | {min(shares):.0%} | {mean:.0%} |")
    if without:
        lines += ["", f"Not simulated, because the code has no loop: {', '.join(without)}."]
    lines += [
        "",
        "| network | unit | kernel | million multiply-adds | per iteration | cycles per iteration "
        "| per cycle | of peak | without epilogue |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for item in judged:
        share = item.rate / peak
        mark = "" if share >= GOAL else " ✗"
        bare = f"{item.bare / peak:.0%}" if item.bare else ""
        lines.append(
            f"| {item.network} | {item.unit} | {item.kind} | {item.macs / 1e6:.1f} "
            f"| {item.loop.multiply_adds} | {item.cycles:.1f} | {item.rate:.2f} "
            f"| {share:.0%}{mark} | {bare} |"
        )
    return "\n".join(lines) + "\n"


def _group(kind: str) -> str:
    head, _, size = (part.strip() for part in kind.split(","))
    name, window = head.split(" ", 1)
    if name == "depthwise":
        return f"{name} {window}"
    if name == "Winograd":
        return "Winograd's algorithm, products"
    if name == "first":
        return "first convolution"
    if window.startswith("1x1"):
        return "packed 1x1, one pixel" if size.split(" ")[0] == "1×1" else f"packed {window}"
    return "packed strided" if "stride" in window else "packed windows"


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mca", required=True, help="llvm-mca")
    parser.add_argument("--mcpu", default="cortex-a57", help="LLVM's name of the processor")
    parser.add_argument(
        "--network", action="append", help="network of the zoo; default: six networks"
    )
    parser.add_argument("--show", metavar="UNIT", help="print the loop of this unit instead")
    options = parser.parse_args()
    networks = options.network or list(NETWORKS)
    model = Model(options.mca, options.mcpu)
    judged, without = judge(networks, model)
    if options.show:
        for item in judged:
            if item.unit == options.show:
                print("\n".join(item.loop.instructions))
        return
    named = "".join(f" --network {name}" for name in options.network or [])
    command = f"cargo xtask kernels --mcpu {options.mcpu}{named}"
    peak = model.peak()
    print(table(strip(judged, peak, model), without, peak, model, command), end="")


if __name__ == "__main__":
    main()
