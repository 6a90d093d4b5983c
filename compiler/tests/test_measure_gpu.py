"""The tool behind ``ci/gpu.sh``, on the stand-in driver."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cuda_driver
import edgepipe_compiler

TOOLS = Path(edgepipe_compiler.__file__).parents[1] / "tools"


def measure(out: Path, library: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOLS / "measure_gpu.py"), "--network", "tiny"]
    return subprocess.run(
        [*command, "--out", str(out), "--library", library],
        env={**os.environ, "PYTHONPATH": str(TOOLS.parent)},
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
    assert int(launches) == 10
    assert all(float(time) > 0 for time in (kernels, launched, graph))


def test_a_machine_without_a_driver(tmp_path: Path) -> None:
    done = measure(tmp_path, "/nowhere/libcuda.so.1")
    assert done.returncode == 1
    assert "failed to load /nowhere/libcuda.so.1" in done.stderr
    assert "Traceback" not in done.stderr
