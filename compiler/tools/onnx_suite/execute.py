"""Compiles and runs one case as a user's ONNX file: import, units, kernels, stages, comparison."""

from __future__ import annotations

import platform
import re
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import cases
from .cases import Case

if TYPE_CHECKING:
    from compiled import Compiled
    from edgepipe_compiler.kernels.target import Target

# Findings of a run. ``judge`` decides whether a refusal is acceptable.
RIGHT = "right"
REFUSED = "refused"
WRONG_VALUE, WRONG_SHAPE, WRONG_DTYPE = "wrong value", "wrong shape", "wrong dtype"
TRACEBACK, BROKEN_RULE = "traceback", "traceback printed"
CRASH, TIME, MEMORY = "crash", "time limit", "memory limit"
NO_REFERENCE, OTHER_INPUT = "no reference", "other input"

# Tolerance relative to the largest expected value, for rounding in float32.
RELATIVE_TO_LARGEST = 1e-5
# The name of the GPU that the stand-in driver emulates, among instruction sets.
CUDA = "cuda"
# The layout of values that are not packed.
PLAIN = "plain"
# Networks of at most this many units are cut after every unit.
SMALL = 6


@dataclass
class Finding:
    """The result of a case on one instruction set."""

    finding: str
    message: str = ""
    kind: str = ""
    node: str | None = None
    step: str = ""
    # Rule and operators of each unit.
    units: list[tuple[str, list[str]]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {key: value for key, value in asdict(self).items() if value}


def isas() -> list[str]:
    """Instruction sets that this machine supports, best first."""
    from compiled import host_target

    best = host_target().isa
    below = {"avx512": ["avx512", "avx2", "generic"], "avx2": ["avx2", "generic"]}
    return below.get(best, [best])


def run(case: Case, isa: str, folder: Path) -> Finding:
    """Compiles, runs and compares; ``folder`` is a scratch folder of the case."""
    if case.is_computed:
        try:
            case = cases.with_outputs(case)
        except Exception as error:
            return _without_reference(case, folder, error)
    step = "import"
    try:
        path = _path(case, folder)
        graph, formed, compiled = _imported(path)
        for name in graph.inputs:
            fixed, given = graph.tensor(name).shape, np.shape(case.inputs[name])
            if fixed != given:
                said = f"the compiler takes input {name!r} as {list(fixed)}, not as {list(given)}"
                return Finding(OTHER_INPUT, said)
        step = "lower"
        network = compiled(graph, folder, isa)
        lowered = [
            (made.rule, unit.operators)
            for made, unit in zip(network.network.units, formed, strict=True)
        ]
        for cuts, boundary in _cuts(network):
            step = f"stages cut at {list(cuts)} {boundary}" if cuts else "the whole network"
            given = network.run(cuts, boundary, case.inputs)
            wrong = _compare(case, given)
            if wrong is not None:
                wrong.step, wrong.units = step, lowered
                return wrong
        return Finding(RIGHT, units=lowered)
    except Exception as error:
        return failed(error, step)


def _without_reference(case: Case, folder: Path, error: Exception) -> Finding:
    """No other implementation runs the file, so the compiler must refuse it."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    try:
        graph, _, compiled = _imported(_path(case, folder))
        compiled(graph, folder, isas()[0])
    except Exception as own:
        return failed(own, "import")
    return Finding(NO_REFERENCE, f"the compiler accepts it, other implementations do not: {text}")


def _path(case: Case, folder: Path) -> Path:
    """The ONNX file: that of the case, beside its external data, or one written to ``folder``."""
    if case.file is not None:
        return case.file
    path = folder / "model.onnx"
    path.write_bytes(case.model.SerializeToString())
    return path


def _imported(path: Path) -> tuple[Any, Any, Any]:
    from compiled import Compiled
    from edgepipe_compiler.frontend import importer, units
    from edgepipe_compiler.linking import manifest

    graph = importer.from_file(path, "net")
    formed = units.form(graph)
    manifest.network(graph, formed, {"onnx": str(path)}, {})
    return graph, formed, lambda graph, folder, isa: Compiled(graph, folder, target(isa))


def target(isa: str) -> Target:
    """A target like this machine, with the instruction set ``isa``, or an emulated GPU."""
    from edgepipe_compiler.kernels.target import CpuTarget, CudaTarget

    if isa == CUDA:
        return CudaTarget("sm_62")
    machine = platform.machine()
    mcpu = {"avx512": "x86-64-v4", "avx2": "x86-64-v3", "generic": "x86-64"}.get(isa, "generic")
    mcpu = mcpu if machine == "x86_64" else "generic"
    return CpuTarget(machine, mcpu, isa, f"{machine}-unknown-linux-gnu", 1, 32 << 10, 1 << 20)


def failed(error: Exception, step: str) -> Finding:
    """The finding for an exception. An internal error is a traceback."""
    from edgepipe_compiler.__main__ import failure_of

    failure = failure_of(error)
    if failure.kind == "out_of_memory":
        return Finding(MEMORY, str(failure), failure.kind, step=step)
    if failure.kind in ("internal", "disk"):
        return Finding(TRACEBACK, _last_lines(error), failure.kind, failure.node, step)
    return Finding(REFUSED, str(failure), failure.kind, failure.node, step)


def _last_lines(error: Exception) -> str:
    """The error and the innermost line of the compiler in its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "edgepipe_compiler" in frame.filename]
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}" if own else ""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    text = lines[-1].strip()[:300] if lines else ""
    return f"{type(error).__name__}: {text} ({place})"


def _cuts(network: Compiled) -> list[tuple[tuple[int, ...], str]]:
    """Cut positions, with the boundary layout."""
    units = len(network.units)
    whole: list[tuple[tuple[int, ...], str]] = [((), "plain")]
    if units == 1:
        return whole
    everywhere = tuple(range(1, units))
    some = tuple(sorted({units // 4 or 1, units // 2, 3 * units // 4}))
    plain, packed = (everywhere, everywhere) if units <= SMALL else ((units // 2,), some)
    if all(value.layout == PLAIN for value in network.network.made.values()):
        return [*whole, (some if units > SMALL else plain, "plain")]
    return [*whole, (plain, "plain"), (packed, "packed")]


def _compare(case: Case, given: dict[str, np.ndarray]) -> Finding | None:
    for name, wanted in case.outputs.items():
        if name not in given:
            return Finding(WRONG_SHAPE, f"output {name!r} is missing")
        finding = compare(np.asarray(wanted), given[name], case.rtol, case.atol)
        if finding is not None:
            finding.message = f"output {name!r}: {finding.message}"
            return finding
    return None


def compare(wanted: np.ndarray, given: np.ndarray, rtol: float, atol: float) -> Finding | None:
    """The first relevant difference: dtype, shape, then values. NaN equals NaN."""
    if wanted.dtype != given.dtype:
        return Finding(WRONG_DTYPE, f"expected {wanted.dtype}, got {given.dtype}")
    if wanted.shape != given.shape:
        return Finding(WRONG_SHAPE, f"expected {list(wanted.shape)}, got {list(given.shape)}")
    if wanted.dtype.kind != "f":
        different = wanted != given
    else:
        finite = np.abs(wanted[np.isfinite(wanted)], dtype=np.float64)
        largest = float(finite.max()) if finite.size else 0.0
        if wanted.dtype == np.float16:
            rtol, atol = max(rtol, 1e-2), max(atol, 1e-3)
        atol = max(atol, 1e-6, RELATIVE_TO_LARGEST * largest)
        with np.errstate(all="ignore"):
            different = ~np.isclose(given, wanted, rtol, atol, equal_nan=True)
    if not different.any():
        return None
    place = tuple(int(index) for index in np.argwhere(different)[0])
    return Finding(
        WRONG_VALUE,
        f"{int(different.sum())} of {different.size} values differ, first at {list(place)}: "
        f"expected {wanted[place]!r}, got {given[place]!r}",
    )


def has_remedy(message: str) -> bool:
    """Whether a refusal has a remedy after a semicolon."""
    return re.search(r"; |\. [A-Z][a-z]+ ", message) is not None


def printed_traceback(text: str) -> str | None:
    """The last line of a traceback that the compiler printed."""
    if "Traceback (most recent call last)" not in text:
        return None
    lines = [line for line in text.splitlines() if re.match(r"\w[\w.]*(Error|Exception)?: ", line)]
    return lines[-1] if lines else "a traceback"
