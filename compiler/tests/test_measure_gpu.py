"""The tool behind ``ci/gpu.sh``, on the stand-in driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cuda_driver
import edgepipe_compiler

TOOLS = Path(edgepipe_compiler.__file__).parents[1] / "tools"


def measure(
    out: Path, library: str, *options: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    # Python may not search the folder of the script: the tests run in safe mode.
    folders = os.pathsep.join(map(str, (TOOLS.parent, TOOLS)))
    command = [sys.executable, str(TOOLS / "measure_gpu.py"), "--network", "tiny"]
    return subprocess.run(
        [*command, "--out", str(out), "--library", library, *options],
        env={**os.environ, "PYTHONPATH": folders, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_outputs_are_compared_and_times_are_marked_as_emulated(tmp_path: Path) -> None:
    # A library that is not cuDNN is no reason to lose the rest.
    done = measure(tmp_path, os.environ[cuda_driver.LIBRARY], "--cudnn", "libm.so.6")
    assert done.returncode == 0, done.stderr
    assert "**Emulated on CPUs" in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| tiny |")]
    _, _, difference, kernels, launches, launched, graph, _ = row.split("|")
    assert 0 < float(difference) < 1e-4
    (plan,) = tmp_path.glob("tiny-*/stages/*/stage.cuda.json")
    assert int(launches) == len(json.loads(plan.read_text())["launches"])
    assert "not compared with cuDNN: failed to load cuDNN from libm.so.6: " in done.stdout
    assert all(float(time) > 0 for time in (kernels, launched, graph))


@pytest.mark.parametrize(
    ("library", "options", "faults", "code", "says"),
    [
        ("/nowhere/libcuda.so.1", [], "", 1, "failed to use a GPU by /nowhere/libcuda.so.1: "),
        (
            "",
            [],
            "cuInit=100",
            1,
            "cuInit failed: CUDA_ERROR_NO_DEVICE (100); install NVIDIA's driver",
        ),
        (
            "",
            [],
            "cuMemAlloc_v2=2",
            1,
            "failed to measure: cuMemAlloc_v2 failed: CUDA_ERROR_OUT_OF_MEMORY",
        ),
        (
            "",
            ["--network", "resnet18000"],
            "",
            2,
            "unknown network resnet18000; the zoo has alexnet",
        ),
        ("", ["--prepare", "sm_1"], "", 2, "sm_1"),
    ],
)
def test_what_cannot_be_measured_is_named(
    library: str, options: list[str], faults: str, code: int, says: str, tmp_path: Path
) -> None:
    library = library or os.environ[cuda_driver.LIBRARY]
    done = measure(tmp_path, library, *options, CUDA_STANDIN_FAULT=faults)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
