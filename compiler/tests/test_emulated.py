"""Code for the Cortex-A57, run on an emulated one, gives what ONNX Runtime gives on this machine.

Needs the runner and the linker for aarch64 (``EDGEPIPE_KIT``) and an emulator
(``EDGEPIPE_EMULATOR``), which ``cargo xtask test`` names where the machine can have them.
``cargo xtask emulate`` runs everything, the whole zoo included.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

import emulated
import models
import models_combined
import models_operators
from edgepipe_compiler import zoo

pytestmark = pytest.mark.skipif(
    "aarch64" in os.environ.get("EDGEPIPE_SKIP", "").split(","),
    reason="EDGEPIPE_SKIP names aarch64",
)
OPERATORS = {**models_operators.MODELS, **models_combined.MODELS, **models.ALL}
# One of each kind of kernel by default; the others take minutes.
USUAL = ("winograd", "residual", "branches", "depthwise", "squeeze_excite", "shuffle")
SMALL_ZOO = ("tiny", "mobilenet_v1_025_128")
ALL = "EDGEPIPE_EMULATED_ALL" in os.environ
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def runner() -> Iterator[emulated.Runner]:
    started = emulated.Runner()
    yield started
    started.close()


def check(runner: emulated.Runner, source: dict[str, str], model: Path, folder: Path) -> None:
    """Compiles, runs, and compares every output, relative to its largest element."""
    import onnxruntime

    cpus = runner.cpus()[:1]
    feeds, given = runner.outputs(emulated.compile_whole(source, folder), folder, cpus)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    expected = dict(zip(names, session.run(names, feeds), strict=True))
    assert set(given) == set(expected)
    for name, array in expected.items():
        assert given[name].shape == array.shape
        assert np.isfinite(given[name]).all()
        worst = np.abs(given[name] - array).max() / max(np.abs(array).max(), 1e-30)
        assert worst < TOLERANCE, f"{name}: {worst:.1e} off"
        print(f"{name}: {worst:.1e} off")


@pytest.mark.parametrize("name", OPERATORS if ALL else USUAL)
def test_operators(name: str, runner: emulated.Runner, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(OPERATORS[name](), path)
    check(runner, {"onnx": str(path)}, path, tmp_path)


def test_winograd_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(models.winograd(), path)
    stage = emulated.compile_whole({"onnx": str(path)}, tmp_path)
    assert stage["rules"].count("winograd") == 2
    # 25 tiles of 6 x 6 inputs, instead of 400 results with 9 products each.
    done = [made for made in stage["multiply_adds"] if made is not None]
    assert done == [36 * 25 * 32 * 32] * 2


@pytest.mark.parametrize("name", zoo.names() if ALL else SMALL_ZOO)
def test_zoo(name: str, runner: emulated.Runner, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(zoo.build(name), path)
    check(runner, {"zoo": name}, path, tmp_path)


def test_the_runner_is_the_boards(runner: emulated.Runner) -> None:
    assert runner.hello["runner"]
    assert runner.state()["arch"] == "aarch64"


def test_a_trial_on_two_processors(runner: emulated.Runner, tmp_path: Path) -> None:
    """Warm-up and measured window of a small network, as on a board."""
    stage = emulated.compile_whole({"zoo": "tiny"}, tmp_path)
    measured = runner.ask(
        "trial",
        schedule=emulated.schedule(stage, runner.cpus()[:1]),
        frames={"seed": 1, "distinct": 2, "integers_below": 8},
        queue_depth=2,
        load="saturating",
        isolate=None,
        warm_up={"min_frames": 2, "min_ns": 0, "max_ns": 20_000_000_000},
        measure={"min_frames": 5, "min_ns": 0, "max_ns": 60_000_000_000, "max_frames": 5},
        timeline_frames=0,
        sysfs="/sys",
    )
    completed = measured["window"]["completed_ns"]
    assert len(completed) == 5 and completed == sorted(completed)
    assert measured["before"]["arch"] == "aarch64"
