"""The tool behind ``ci/gpu.sh``, on the stand-in driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cuda_driver
import edgepipe_compiler

TOOLS = Path(edgepipe_compiler.__file__).parents[1] / "tools"


def measure(out: Path, library: str) -> subprocess.CompletedProcess[str]:
    # Python may not search the folder of the script: the tests run in safe mode.
    folders = os.pathsep.join(map(str, (TOOLS.parent, TOOLS)))
    command = [sys.executable, str(TOOLS / "measure_gpu.py"), "--network", "tiny"]
    return subprocess.run(
        [*command, "--out", str(out), "--library", library],
        env={**os.environ, "PYTHONPATH": folders},
        capture_output=True,
        text=True,
        check=False,
    )


def test_outputs_are_compared_and_times_are_marked_as_emulated(tmp_path: Path) -> None:
    done = measure(tmp_path, os.environ[cuda_driver.LIBRARY])
    assert done.returncode == 0, done.stderr
    assert "**Emulated on CPUs" in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| tiny |")]
    _, _, difference, kernels, launches, launched, graph, _ = row.split("|")
    assert 0 < float(difference) < 1e-4
    (plan,) = tmp_path.glob("tiny-*/stages/*/stage.cuda.json")
    assert int(launches) == len(json.loads(plan.read_text())["launches"])
    assert all(float(time) > 0 for time in (kernels, launched, graph))


def test_a_machine_without_a_driver(tmp_path: Path) -> None:
    done = measure(tmp_path, "/nowhere/libcuda.so.1")
    assert done.returncode == 1
    assert "failed to load /nowhere/libcuda.so.1" in done.stderr
    assert "Traceback" not in done.stderr
