"""Stages for a GPU: whole and cut, values in memory of their own and in one arena, and the files of a job."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import cuda_driver
import models
import ptxas
import test_stages
from compiled import GPU, Compiled
from edgepipe_compiler import job as jobs_read
from edgepipe_compiler.errors import CompileError
from edgepipe_compiler.kernels.target import CUDA_LIMITS, CudaTarget
from edgepipe_compiler.linking import memory_plan
from edgepipe_compiler.linking.memory_plan import Lifetime
from edgepipe_compiler.linking.stage import StageRange
from jobs import compiler, job

TARGET = {"kind": "cuda", "arch": "sm_62", "precision": "fp32", "winograd": True}
Case = tuple[Compiled, dict[str, np.ndarray], dict[str, np.ndarray]]


@pytest.fixture(scope="module", params=models.ALL)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A network compiled for a GPU, its inputs, and its expected outputs."""
    model = models.ALL[request.param]()
    feeds = models.feeds(model)
    names = [item.name for item in model.graph.output]
    expected = dict(zip(names, ReferenceEvaluator(model).run(None, feeds), strict=True))
    return Compiled(model, tmp_path_factory.mktemp(request.param), GPU), feeds, expected


def test_whole(case: Case) -> None:
    test_stages.check(case, (), "plain")


def test_every_cut(case: Case) -> None:
    for cut in range(1, len(case[0].units)):
        test_stages.check(case, (cut,), "plain")


def test_values_share_one_arena(case: Case) -> None:
    """Twice in a row: no launch relies on what another frame left."""
    compiled, feeds, expected = case
    planned, program = compiled.program(StageRange(0, len(compiled.units), "plain"))
    shared = cuda_driver.Program(program.driver, program.plan, compiled.weights)
    for _ in range(2):
        made = [np.full(value.shape, np.nan, value.dtype) for value in planned.outputs]
        shared.run([feeds[value.name] for value in planned.inputs], made)
        for value, array in zip(planned.outputs, made, strict=True):
            largest = np.abs(expected[value.name]).max()
            assert np.abs(array - expected[value.name]).max() < 1e-4 * largest


@pytest.mark.parametrize("arch", CUDA_LIMITS)
def test_every_architecture(arch: str, tmp_path: Path) -> None:
    compiled = Compiled(models.squeeze_excite(), tmp_path, CudaTarget(arch))
    plan = compiled.launch_plan(StageRange(0, len(compiled.units), "plain"))
    assert (plan["arch"], plan["ptx_version"]) == (arch, CUDA_LIMITS[arch].ptx_version)
    ptxas.check(plan)


def overlap(first: tuple[int, Lifetime], second: tuple[int, Lifetime]) -> bool:
    """Whether two values are alive at the same time and share memory."""
    (one, value), (other, another) = first, second
    together = value.first <= another.last and another.first <= value.last
    return together and one < other + another.bytes and other < one + value.bytes


def test_places_of_living_values_do_not_overlap() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        values = []
        for _ in range(random.integers(1, 40)):
            first = int(random.integers(-1, 20))
            values.append(
                Lifetime(int(random.integers(0, 5000)), first, first + int(random.integers(0, 6)))
            )
        offsets, size = memory_plan.places(values)
        placed = list(zip(offsets, values, strict=True))
        assert all(offset % memory_plan.ALIGNMENT == 0 for offset in offsets)
        assert all(offset + value.bytes <= size for offset, value in placed)
        assert not any(
            overlap(one, other) for place, one in enumerate(placed) for other in placed[:place]
        )


def test_a_chain_needs_two_places() -> None:
    chain = [Lifetime(1024, step - 1, step) for step in range(10)]
    assert memory_plan.places(chain)[1] == 2048


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The model file and the output folder of a job for a GPU."""
    folder = tmp_path_factory.mktemp("job")
    model = folder / "net.onnx"
    onnx.save(models.residual(), model)
    stages = [(0, None, "plain"), (0, 3, "plain"), (3, None, "plain")]
    path = job(folder, {"onnx": str(model)}, stages, folder / "out", TARGET)
    outcome = compiler(str(path))
    assert outcome.code == 0, outcome.log
    steps = [event.get("step") for event in outcome.events]
    assert list(dict.fromkeys(steps)) == ["import", "lower", "kernels", "link", None]
    return model, folder / "out"


@pytest.mark.parametrize("chain", [["0-8-plain"], ["0-3-plain", "3-8-plain"]])
def test_stages_run_from_their_files_alone(built: tuple[Path, Path], chain: list[str]) -> None:
    """As in the runner."""
    model = onnx.load(built[0])
    feeds = models.feeds(model)
    weights = np.fromfile(built[1] / "weights.bin", np.uint8)
    values = dict(feeds)
    for name in chain:
        folder = built[1] / "stages" / name
        assert {path.name for path in folder.iterdir()} == {"stage.json", "stage.cuda.json"}
        described = json.loads((folder / "stage.json").read_text())
        content = (folder / described["library"]).read_bytes()
        assert described["library_sha256"] == hashlib.sha256(content).hexdigest()
        assert described["target"] == TARGET
        assert described["entry"] == "main"
        plan = json.loads(content)
        assert [(call["function"], call["unit"]) for call in described["calls"]] == [
            (launch["kernel"], launch["unit"]) for launch in plan["launches"]
        ]
        assert plan["weights"] == [
            {"offset": slot["offset"], "bytes": slot["bytes"]} for slot in described["weights"]
        ]
        for place in ("inputs", "outputs"):
            names = [plan["values"][value]["name"] for value in plan[place]]
            assert names == [value["value"] for value in described[place]]
            assert {value["layout"] for value in described[place]} <= {"plain"}
        made = [np.empty(value["shape"], value["dtype"]) for value in described["outputs"]]
        inputs = [values[value["value"]] for value in described["inputs"]]
        cuda_driver.Program(cuda_driver.standin(checked=True), plan, weights).run(inputs, made)
        values.update(
            (value["value"], array) for value, array in zip(described["outputs"], made, strict=True)
        )
    (expected,) = ReferenceEvaluator(model).run(None, feeds)
    np.testing.assert_allclose(values["fc"], expected, rtol=1e-4, atol=1e-4)


def test_damaged_files_of_kernels_are_written_again(built: tuple[Path, Path]) -> None:
    model, out = built
    first, *_ = sorted((out / "objects").iterdir())
    before = first.read_bytes()
    first.write_bytes(before[: len(before) // 2])
    stages = [(0, 1, "plain"), (0, None, "plain"), (3, 4, "plain")]
    path = job(out.parent, {"onnx": str(model)}, stages, out, TARGET)
    assert compiler(str(path)).code == 0
    assert first.read_bytes() == before


@pytest.mark.parametrize(
    ("target", "boundary", "message"),
    [
        (TARGET | {"arch": "sm_61"}, "plain", "unknown GPU architecture 'sm_61', expected sm_53"),
        ({"kind": "cuda"}, "plain", "{'kind': 'cuda'}, expected arch, kind, precision, winograd"),
        (TARGET | {"precision": "int8"}, "plain", "unknown precision 'int8', expected fp32, fp16"),
        (TARGET | {"winograd": "no"}, "plain", "invalid winograd 'no', expected true or false"),
        ({"kind": "tpu", "arch": "v5"}, "plain", "unknown processor kind 'tpu', expected cpu or cuda"),
        (TARGET, "packed", "boundaries ['packed'] on a GPU"),
    ],
)  # fmt: skip
def test_wrong_targets_are_refused(
    target: dict[str, str], boundary: str, message: str, tmp_path: Path
) -> None:
    path = job(tmp_path, {"zoo": "tiny"}, [(0, None, boundary)], tmp_path / "out", target)
    with pytest.raises(CompileError) as refusal:
        jobs_read.read(path)
    assert message in str(refusal.value)
