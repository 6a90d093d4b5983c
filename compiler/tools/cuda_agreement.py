"""How far networks of the zoo on an emulated GPU differ from ONNX Runtime, as a Markdown table.

``python -m cuda_agreement [--precision fp16] [--output FILE] [NETWORK ...]`` with ``compiler``,
``compiler/tests`` and ``compiler/tools`` in ``PYTHONPATH``, and the path of the stand-in driver in
``EDGEPIPE_TEST_LIBCUDA``. Exit codes: 0 all agree; 1 one differs by more than 1e-4, or in half precision
1e-2; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from compiled import GPU, Compiled
from edgepipe_compiler import zoo
from edgepipe_compiler.kernels.target import CudaTarget
from edgepipe_compiler.linking.stage import StageRange

TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2}
HEAD = """# Networks on an emulated GPU

Outputs of the compiler's kernels for {arch}{half}, interpreted by `cuda-standin` on a CPU, compared with ONNX
Runtime {version} on one frame of normal random numbers. Differences are relative to the largest value of an
output; the table has the largest difference of all outputs. Fallback units run loops in their threads, which
may be slow.

| network | units | fallback units | kernels | launches | largest difference |
|---|--:|--:|--:|--:|--:|
"""


@dataclass(frozen=True)
class Agreement:
    """A network's kernels, and how far its outputs are from the expected ones."""

    network: str
    units: int
    fallback: int
    kernels: int
    launches: int
    difference: float

    def row(self) -> str:
        """The line of the table."""
        cells = (self.network, self.units, self.fallback, self.kernels, self.launches)
        return f"| {' | '.join(map(str, cells))} | {self.difference:.1e} |\n"


def compare(network: str, folder: Path, checked: bool, target: CudaTarget = GPU) -> Agreement:
    """Compiles a network as one stage, and runs it on the stand-in driver and in ONNX Runtime.

    ``checked``: with all checks of the driver, each value in memory of its own, and assembled by ptxas.
    """
    model = zoo.build(network)
    random = np.random.default_rng(5)
    feeds = {
        item.name: random.standard_normal(
            [dim.dim_value for dim in item.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for item in model.graph.input
    }
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [item.name for item in model.graph.output]
    expected = dict(zip(names, session.run(None, feeds), strict=True))
    del session
    compiled = Compiled(model, folder, target, checked, apart=checked)
    made = compiled.run((), "plain", feeds)
    differences = []
    for name, array in expected.items():
        if made[name].shape != array.shape:
            raise ValueError(f"{network}: output {name} has shape {made[name].shape}")
        largest = max(float(np.abs(array).max()), 1e-6)
        differences.append(float(np.abs(made[name] - array).max()) / largest)
    _, program = compiled.program(StageRange(0, len(compiled.units), "plain"))
    launches = program.plan["launches"]
    return Agreement(
        network,
        len(compiled.units),
        sum(unit.rule == "fallback" for unit in compiled.network.units),
        len({launch["kernel"] for launch in launches}),
        len(launches),
        max(differences),
    )


def main(arguments: list[str]) -> int:
    """Writes the table after each network, and returns the exit code."""
    parser = argparse.ArgumentParser("cuda_agreement", description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="default: the whole zoo")
    parser.add_argument("--precision", choices=TOLERANCES, default="fp32", help="default: fp32")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.networks if name not in zoo.names()]
    if unknown:
        print(
            f"error: unknown network {unknown[0]!r}; use {', '.join(zoo.names())}", file=sys.stderr
        )
        return 2
    target = CudaTarget(GPU.arch, options.precision)
    half = " in half precision" if options.precision == "fp16" else ""
    head = HEAD.format(arch=GPU.arch, half=half, version=onnxruntime.__version__)
    rows: list[Agreement] = []
    for network in options.networks or zoo.names():
        with tempfile.TemporaryDirectory() as folder:
            rows.append(compare(network, Path(folder), False, target))
        print(rows[-1].row(), end="", file=sys.stderr, flush=True)
        if options.output is not None:
            table = head + "".join(row.row() for row in rows)
            options.output.write_text(table, encoding="utf-8")
    if options.output is None:
        print(head + "".join(row.row() for row in rows), end="")
    return 1 if any(not row.difference < TOLERANCES[options.precision] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
