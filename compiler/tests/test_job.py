"""The compiler as a process: its files, its events, and what it leaves unchanged."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tvm
from onnx.reference import ReferenceEvaluator

import models
from compiled import machine_of
from jobs import compiler, job

STAGES = [(0, None, "plain"), (0, 3, "packed"), (3, None, "packed")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[dict[str, Any]]]:
    """The model file, the output folder, and the events."""
    folder = tmp_path_factory.mktemp("job")
    model = folder / "net.onnx"
    onnx.save(models.residual(), model)
    outcome = compiler(str(job(folder, {"onnx": str(model)}, STAGES, folder / "out")))
    assert outcome.code == 0, outcome.log
    return model, folder / "out", outcome.events


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_events(built: tuple) -> None:
    events = built[2]
    assert events[-1] == {"event": "done"}
    steps = [event["step"] for event in events[:-1]]
    assert list(dict.fromkeys(steps)) == ["import", "lower", "kernels", "link"]
    assert all(0 <= event["done"] <= event["total"] for event in events[:-1])


def test_folder_holds_nothing_unfinished(built: tuple) -> None:
    out = built[1]
    assert {path.name for path in out.iterdir()} == {
        "network.json",
        "weights.bin",
        "stages",
        "objects",
        "reference",
    }
    assert {path.name for path in (out / "stages").iterdir()} == {
        "0-8-plain",
        "0-3-packed",
        "3-8-packed",
    }
    for stage in (out / "stages").iterdir():
        assert {path.name for path in stage.iterdir()} == {"stage.so", "stage.json"}
    assert all(path.suffix == ".o" for path in (out / "objects").iterdir())


def test_network_manifest(built: tuple) -> None:
    network = read(built[1] / "network.json")
    assert network["schema"] == 1 and network["name"] == "mine" and network["opset"] == 17
    digest = hashlib.sha256(built[0].read_bytes()).hexdigest()
    assert network["source"] == {"onnx": str(built[0]), "sha256": digest, "shapes": {}}
    assert len(network["boundaries"]) == len(network["units"]) + 1
    assert network["boundaries"][0]["tensors"] == [
        {"value": "x", "shape": [1, 3, 12, 12], "dtype": "float32", "bytes": 1728}
    ]
    assert network["units"][2]["operators"] == ["conv", "add", "relu"]
    assert network["macs"] == sum(unit["macs"] for unit in network["units"]) > 0


def test_stage_manifest_fits_its_files(built: tuple) -> None:
    out = built[1]
    size = (out / "weights.bin").stat().st_size
    for folder in (out / "stages").iterdir():
        stage = read(folder / "stage.json")
        library = (folder / stage["library"]).read_bytes()
        assert stage["library_sha256"] == hashlib.sha256(library).hexdigest()
        assert f"{stage['first_unit']}-{stage['end_unit']}-{stage['boundary']}" == folder.name
        for weight in stage["weights"]:
            count = int(np.prod(weight["shape"]))
            assert weight["offset"] % 64 == 0
            assert weight["bytes"] == count * np.dtype(weight["dtype"]).itemsize
            assert weight["offset"] + weight["bytes"] <= size
        units = [call["unit"] for call in stage["calls"]]
        assert set(units) == set(range(stage["first_unit"], stage["end_unit"]))


@pytest.mark.parametrize("chain", [["0-8-plain"], ["0-3-packed", "3-8-packed"]])
def test_stages_run_from_their_manifests_alone(built: tuple, chain: list[str]) -> None:
    """As in the runner: libraries, weights and manifests only."""
    model = onnx.load(built[0])
    feeds = models.feeds(model)
    weights = np.fromfile(built[1] / "weights.bin", np.uint8)
    values = {name: tvm.runtime.tensor(array) for name, array in feeds.items()}
    for name in chain:
        folder = built[1] / "stages" / name
        stage = read(folder / "stage.json")
        given = [values[item["value"]] for item in stage["inputs"]]
        for item in stage["weights"]:
            part = weights[item["offset"] : item["offset"] + item["bytes"]]
            given.append(tvm.runtime.tensor(part.view(item["dtype"]).reshape(item["shape"])))
        result = machine_of(folder / stage["library"])[stage["entry"]](*given)
        results = [result] if len(stage["outputs"]) == 1 else list(result)
        for item, tensor in zip(stage["outputs"], results, strict=True):
            assert list(tensor.shape) == item["shape"]
            values[item["value"]] = tensor
    (expected,) = ReferenceEvaluator(model).run(None, feeds)
    np.testing.assert_allclose(values["fc"].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_what_is_there_stays(built: tuple, tmp_path: Path) -> None:
    """A second job compiles nothing. A damaged stage is rebuilt; the rest is unchanged."""
    model, out, _ = built
    path = str(job(tmp_path, {"onnx": str(model)}, STAGES, out))
    stages = [out / "stages" / name for name in ("0-8-plain", "0-3-packed", "3-8-packed")]
    before = [(folder / "stage.so").stat().st_mtime_ns for folder in stages]
    weights = (out / "weights.bin").stat().st_mtime_ns
    assert [event["event"] for event in compiler(path).events] == ["done"]
    # Replaced, not overwritten: this process may have mapped it.
    (stages[1] / "stage.so").unlink()
    (stages[1] / "stage.so").write_bytes(b"damaged")
    assert compiler(path).code == 0
    after = [(folder / "stage.so").stat().st_mtime_ns for folder in stages]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]
    assert (out / "weights.bin").stat().st_mtime_ns == weights
    assert (stages[1] / "stage.so").stat().st_size > 1000


def test_changed_file_counts_as_new(tmp_path: Path) -> None:
    """The same path with other weights: stages and weights are rebuilt."""
    model = models.long_skip()
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    job_file = str(job(tmp_path, {"onnx": str(path)}, [(0, 1, "plain")], tmp_path / "out"))
    assert compiler(job_file).code == 0
    weights = (tmp_path / "out/weights.bin").read_bytes()
    first = read(tmp_path / "out/stages/0-1-plain/stage.json")
    bias = model.graph.initializer[1]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, bias.name))
    onnx.save(model, path)
    assert compiler(job_file).code == 0
    assert (tmp_path / "out/weights.bin").read_bytes() != weights
    second = read(tmp_path / "out/stages/0-1-plain/stage.json")
    assert first["source"]["sha256"] != second["source"]["sha256"]


def test_weights_do_not_depend_on_the_stages(built: tuple, tmp_path: Path) -> None:
    path = job(tmp_path, {"onnx": str(built[0])}, [(2, 4, "plain")], tmp_path / "out")
    assert compiler(str(path)).code == 0
    assert (tmp_path / "out/weights.bin").read_bytes() == (built[1] / "weights.bin").read_bytes()
    assert read(tmp_path / "out/network.json") == read(built[1] / "network.json")


def test_description_alone(built: tuple, tmp_path: Path) -> None:
    path = job(tmp_path, {"onnx": str(built[0])}, [], tmp_path / "out")
    assert compiler(str(path)).code == 0
    assert read(tmp_path / "out/network.json") == read(built[1] / "network.json")
    assert not (tmp_path / "out/weights.bin").exists()


def test_the_onnx_file_that_a_peer_needs_stays_when_stages_are_linked(tmp_path: Path) -> None:
    def run(stages: list[tuple[int, int | None, str]], model: bool) -> None:
        path = job(tmp_path, {"zoo": "tiny"}, stages, tmp_path / "out")
        path.write_text(json.dumps({**read(path), "model": model}), encoding="utf-8")
        outcome = compiler(str(path))
        assert outcome.code == 0, outcome.log

    run([(0, None, "plain")], True)
    assert (tmp_path / "out/model.onnx").is_file()
    run([(0, 3, "packed")], False)
    assert (tmp_path / "out/model.onnx").is_file()


def test_network_of_the_zoo(tmp_path: Path) -> None:
    path = job(tmp_path, {"name": "tiny", "zoo": "tiny"}, [(0, None, "plain")], tmp_path / "out")
    outcome = compiler(str(path))
    assert outcome.code == 0, outcome.log
    assert read(tmp_path / "out/network.json")["source"] == {"zoo": "tiny"}


def test_equal_functions_and_weights_are_stored_once(tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    onnx.save(models.loose(), model)
    path = job(tmp_path, {"onnx": str(model)}, [(0, None, "plain")], tmp_path / "out")
    assert compiler(str(path)).code == 0
    stage = read(tmp_path / "out/stages/0-4-plain/stage.json")
    functions = {unit: [] for unit in range(4)}
    for call in stage["calls"]:
        functions[call["unit"]].append(call["function"])
    assert functions[1][-1] == functions[2][-1]
    offsets = [weight["offset"] for weight in stage["weights"]]
    assert len(set(offsets)) == len(offsets)


def test_versions() -> None:
    (versions,) = compiler("--versions").events
    assert versions["tvm"].startswith("0.27") and {"llvm", "numpy", "onnx", "python"} <= set(
        versions
    )
