"""An independent reference: an input frame and the expected outputs.

ONNX Runtime computes it, or ONNX's evaluator if ONNX Runtime lacks an operator. The runner compares the
compiled network with it on the board before anything is measured. A network that neither engine runs is
refused.

Runs in its own process (``python -m edgepipe_compiler.frontend.reference MODEL FOLDER``), so that a crash
or memory use of the engine does not end the compiler.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..errors import CompileError
from .graph import Graph, dtype_name

# Upper bounds for generated integers, tried in order: they may be indices into a table.
LIMITS = (8, 4, 3, 2, 1)
# Time limit; ONNX's evaluator runs in Python.
SECONDS = 300
SEED = 20231


def make(graph: Graph, model: Path, folder: Path) -> dict[str, Any]:
    """Writes the reference of ``graph`` below ``folder`` and returns its description: engine,
    ``integers_below``, inputs and outputs with their files. ``model`` is the ONNX file with fixed shapes.
    Raises ``CompileError``.
    """
    described = folder / "reference.json"
    if not described.is_file():
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            _run(graph, model, partial)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return dict(json.loads(described.read_text(encoding="utf-8")))


def _run(graph: Graph, model: Path, folder: Path) -> None:
    failed = f"failed to compute a reference for the network {graph.name}: "
    command = [sys.executable, "-m", __name__, str(model), str(folder)]
    package = str(Path(__file__).parents[2])
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": package},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CompileError(
            "unsupported_operator",
            f"{failed}ONNX Runtime lacks one of the network's operators, and ONNX's evaluator takes more "
            f"than {SECONDS} s; use a smaller input",
        ) from error
    print(done.stderr, file=sys.stderr, end="")
    if (folder / "reference.json").is_file():
        return
    if (folder / "refused.txt").is_file():
        text = (folder / "refused.txt").read_text(encoding="utf-8")
        node = next((item.name for item in graph.nodes if f"'{item.name}'" in text), None)
        raise CompileError("invalid_onnx", f"{failed}{text}; export the network again", node)
    if done.returncode in (-9, 137):
        raise MemoryError
    raise CompileError(
        "unsupported_operator",
        f"{failed}the process exited with code {done.returncode}; see its standard error in the log",
    )


def session(model: bytes | str) -> Any:  # noqa: ANN401 (ONNX Runtime has no type stubs)
    """A single-threaded ONNX Runtime session without graph optimizations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def fix_inputs(model: onnx.ModelProto, graph: Graph) -> None:
    """Writes the input shapes of ``graph`` into ``model``. Output shapes are cleared if dynamic."""
    for item in model.graph.input:
        if item.name in graph.inputs:
            shape = item.type.tensor_type.shape
            del shape.dim[:]
            for extent in graph.tensor(item.name).shape:
                shape.dim.add(dim_value=extent)
            shape.SetInParent()
    for item in model.graph.output:
        if any(dim.dim_value < 1 for dim in item.type.tensor_type.shape.dim):
            item.type.tensor_type.ClearField("shape")


def _inputs(model: onnx.ModelProto) -> list[tuple[str, tuple[int, ...], np.dtype]]:
    weights = {item.name for item in model.graph.initializer}
    return [
        (
            item.name,
            tuple(dim.dim_value for dim in item.type.tensor_type.shape.dim),
            np.dtype(dtype_name(item.type.tensor_type.elem_type)),
        )
        for item in model.graph.input
        if item.name not in weights
    ]


def frame(
    inputs: list[tuple[str, tuple[int, ...], np.dtype]], below: int, extreme: bool = False
) -> dict[str, np.ndarray]:
    """Generated inputs: floats uniform in [-1, 1), integers below ``below`` (the largest if ``extreme``)."""
    random = np.random.default_rng(SEED)
    made: dict[str, np.ndarray] = {}
    for name, shape, kind in inputs:
        if kind.kind == "b":
            made[name] = random.integers(0, 2, shape).astype(bool)
        elif kind.kind in "iu":
            values = random.integers(0, below, shape)
            made[name] = np.asarray(np.full(shape, below - 1) if extreme else values, kind)
        else:
            made[name] = np.asarray(random.uniform(-1, 1, shape), kind)
    return made


def _compute(path: Path, folder: Path) -> None:
    import onnxruntime

    model = onnx.load(str(path))
    inputs = _inputs(model)
    engine = f"ONNX Runtime {onnxruntime.__version__}"
    try:
        run = session(str(path)).run
    except Exception as error:  # ONNX Runtime has one exception class per status code.
        reason = _reason(error)
        if type(error).__name__ != "NotImplemented" and "is under development" not in reason:
            (folder / "refused.txt").write_text(f"ONNX Runtime refuses it ({reason})", "utf-8")
            return
        from onnx.reference import ReferenceEvaluator

        run = ReferenceEvaluator(model).run
        engine = f"ONNX's evaluator {onnx.__version__}"
    whole = any(kind.kind in "iu" for _, _, kind in inputs)
    names = [item.name for item in model.graph.output]
    for below in LIMITS if whole else LIMITS[:1]:
        try:
            with np.errstate(all="ignore"):
                if whole:
                    run(None, frame(inputs, below, extreme=True))
                fed = frame(inputs, below)
                given = run(None, fed)
            break
        except Exception as error:
            reason = _reason(error)
    else:
        (folder / "refused.txt").write_text(f"{engine} fails to run it ({reason})", "utf-8")
        return
    described: dict[str, Any] = {"engine": engine, "integers_below": below}
    for what, values in (("inputs", fed), ("outputs", dict(zip(names, given, strict=True)))):
        described[what] = []
        for place, (name, array) in enumerate(values.items()):
            file = f"{what[:-1]}{place}.bin"
            (folder / file).write_bytes(np.asarray(array, order="C").tobytes())
            described[what].append(
                {"value": name, "shape": list(array.shape), "dtype": array.dtype.name, "file": file}
            )
    (folder / "reference.json").write_text(json.dumps(described, indent=1) + "\n", "utf-8")


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].removeprefix("[ONNXRuntimeError] : ").rstrip(" .;")


if __name__ == "__main__":
    _compute(Path(sys.argv[1]), Path(sys.argv[2]))
