"""Invalid inputs of the compiler, each with the kind of its error and the node it names."""

from __future__ import annotations

import errno
import json
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import models
from edgepipe_compiler.__main__ import failure_of
from edgepipe_compiler.errors import CompileError
from edgepipe_compiler.frontend import importer
from edgepipe_compiler.job import read
from edgepipe_compiler.linking import stage
from jobs import Stage, compiler, job


def dynamic_image() -> onnx.ModelProto:
    net = models.Net()
    return net.model(net.conv(net.input("image", "N", 3, "h", "w"), "conv", 3, 4))


def no_shape() -> onnx.ModelProto:
    net = models.Net()
    net.inputs.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, None))
    return net.model(net.op("Relu", "relu", "image"), check=False)


def data_dependent() -> onnx.ModelProto:
    net = models.Net()
    found = net.op("NonZero", "where", net.input("x", 4, 4))
    return net.model(net.op("Cast", "out", found, to=TensorProto.FLOAT))


def own_operator() -> onnx.ModelProto:
    net = models.Net()
    x = net.conv(net.input("x", 1, 3, 8, 8), "conv", 3, 4)
    return net.model(net.op("Sharpen", "sharpen", x, domain="example.org"), check=False)


def invented_operator() -> onnx.ModelProto:
    net = models.Net()
    return net.model(net.op("Sharpen", "sharpen", net.input("x", 1, 3, 8, 8)), check=False)


def operator_tvm_lacks() -> onnx.ModelProto:
    net = models.Net()
    x = net.op("Relu", "relu", net.input("x", 2, 4, 4))
    return net.model(net.op("Det", "determinant", x))


def missing_value() -> onnx.ModelProto:
    net = models.Net()
    net.input("x", 1, 3, 8, 8)
    return net.model(net.op("Relu", "relu", "nobody"), check=False)


def wrong_channels() -> onnx.ModelProto:
    net = models.Net()
    return net.model(net.conv(net.input("x", 1, 4, 8, 8), "conv", 3, 4), check=False)


def circle() -> onnx.ModelProto:
    net = models.Net()
    net.op("Add", "first", net.input("x", 1, 3), "second")
    return net.model(net.op("Relu", "second", "first"), check=False)


def two_nodes_of_one_name() -> onnx.ModelProto:
    net = models.Net()
    x = net.op("Relu", "relu", net.input("x", 1, 3))
    model = net.model(net.op("Neg", "neg", x))
    model.graph.node[1].name = model.graph.node[0].name
    return model


def two_values_of_one_name() -> onnx.ModelProto:
    net = models.Net()
    x = net.op("Relu", "relu", net.input("x", 1, 3))
    model = net.model(net.op("Neg", "neg", x))
    model.graph.node[0].output[0] = model.graph.node[1].output[0]
    return model


def newer_opset() -> onnx.ModelProto:
    net = models.Net(opset=999)
    return net.model(net.op("Relu", "relu", net.input("x", 1, 3)), check=False)


def statistics_of_other_channels() -> onnx.ModelProto:
    net = models.Net()
    x = net.input("x", 1, 4, 3, 3)
    parameters = [net.weight(name, 2) for name in "sbmv"]
    return net.model(net.op("BatchNormalization", "norm", x, *parameters), check=False)


def absent_operand() -> onnx.ModelProto:
    """ONNX Runtime crashes when it evaluates this constant."""
    net = models.Net()
    mean = net.op("Mean", "mean", net.weight("w", 3), "")
    return net.model(net.op("Add", "add", net.input("x", 3), mean), check=False)


def absent_operand_in_a_body() -> onnx.ModelProto:
    net = models.Net()
    net.op("Max", "inner", "x", "")
    body = helper.make_graph(net.nodes, "body", [], [helper.make_empty_tensor_value_info("inner")])
    net = models.Net()
    x = net.input("x", 3)
    always = net.constant("always", np.array(True))
    return net.model(net.op("If", "if", always, then_branch=body, else_branch=body), x, check=False)


def attribute_beyond_32_bits() -> onnx.ModelProto:
    net = models.Net()
    rois = net.constant("rois", np.array([[0, 0, 3, 3]], np.float32))
    batches = net.constant("batches", np.zeros(1, np.int64))
    x = net.input("x", 1, 1, 4, 4)
    return net.model(net.op("RoiAlign", "align", x, rois, batches, sampling_ratio=1 << 40))


def flag_of_two() -> onnx.ModelProto:
    net = models.Net(18)
    x = net.input("x", 1, 3, 4, 4)
    return net.model(net.op("ReduceMax", "max", x, noop_with_empty_axes=2))


def sequence_input() -> onnx.ModelProto:
    net = models.Net()
    x = net.op("Relu", "relu", net.input("x", 1, 3))
    model = net.model(x)
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))
    model.graph.input.append(helper.make_value_info("frames", kind))
    return model


def input_as_output() -> onnx.ModelProto:
    net = models.Net()
    x = net.input("x", 1, 3, 8, 8)
    return net.model(net.op("Relu", "relu", x), x, check=False)


def no_operator() -> onnx.ModelProto:
    net = models.Net()
    return net.model(net.input("x", 1, 3), check=False)


# The model, the kind of its error, the node or input it names.
MODELS: list[tuple[Callable[[], onnx.ModelProto], str, str | None]] = [
    (dynamic_image, "dynamic_shape", "image"),
    (no_shape, "dynamic_shape", "image"),
    (data_dependent, "dynamic_shape", "where"),
    (own_operator, "unsupported_operator", "sharpen"),
    (invented_operator, "unsupported_operator", "sharpen"),
    (operator_tvm_lacks, "unsupported_operator", "determinant"),
    (missing_value, "invalid_onnx", "relu"),
    (wrong_channels, "invalid_onnx", "conv"),
    (circle, "invalid_onnx", "first"),
    (two_nodes_of_one_name, "invalid_onnx", "relu"),
    (two_values_of_one_name, "invalid_onnx", "neg"),
    (newer_opset, "invalid_onnx", None),
    (statistics_of_other_channels, "invalid_onnx", "norm"),
    (absent_operand, "invalid_onnx", "mean"),
    (absent_operand_in_a_body, "invalid_onnx", "inner"),
    (attribute_beyond_32_bits, "unsupported_operator", "align"),
    (flag_of_two, "invalid_onnx", "max"),
    (sequence_input, "unsupported_operator", "frames"),
    (input_as_output, "invalid_onnx", "x"),
    (no_operator, "invalid_onnx", "x"),
]


def refusal(path: Path) -> CompileError:
    """The error of importing a file and forming its units."""
    from edgepipe_compiler.frontend import units

    with pytest.raises(CompileError) as caught:
        units.form(importer.from_file(path, "mine"))
    return caught.value


@pytest.mark.parametrize(
    ("model", "kind", "node"), MODELS, ids=lambda item: getattr(item, "__name__", "")
)
def test_models(
    tmp_path: Path, model: Callable[[], onnx.ModelProto], kind: str, node: str | None
) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(model(), path)
    error = refusal(path)
    assert (error.kind, error.node) == (kind, node), str(error)
    assert str(error).startswith("failed to ")


FILES = [
    ("text", b"this is no network\n" * 10, "not_onnx"),
    ("empty", b"", "not_onnx"),
    ("archive", b"PK\x03\x04" + bytes(range(256)), "not_onnx"),
    ("picture", b"\x89PNG\r\n\x1a\n" + bytes(64), "not_onnx"),
    ("zeros", bytes(4096), "not_onnx"),
]


@pytest.mark.parametrize(("name", "content", "kind"), FILES, ids=[name for name, _, _ in FILES])
def test_files(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    error = refusal(path)
    assert error.kind == kind, str(error)
    assert str(path) in str(error)


def test_missing_file(tmp_path: Path) -> None:
    error = refusal(tmp_path / "absent.onnx")
    assert error.kind == "not_onnx"
    assert "No such file" in str(error)


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    assert refusal(tmp_path).kind == "not_onnx"


def test_truncated_anywhere(tmp_path: Path) -> None:
    """A truncated file is reported as truncated, wherever it is cut."""
    content = models.depthwise().SerializeToString()
    path = tmp_path / "net.onnx"
    ends = [*range(2, 80), *range(80, len(content), 997), *range(len(content) - 30, len(content))]
    kinds = {}
    for end in ends:
        path.write_bytes(content[:end])
        try:
            importer.from_file(path, "mine")
            kinds[end] = "accepted"
        except CompileError as error:
            kinds[end] = error.kind
    wrong = {end: kind for end, kind in kinds.items() if kind != "truncated_onnx"}
    # The end of the file after the operator sets is optional.
    assert all(kind == "accepted" and end > len(content) - 30 for end, kind in wrong.items()), wrong


def test_external_data_missing(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(
        models.residual(), path, save_as_external_data=True, location="data", size_threshold=0
    )
    (tmp_path / "data").unlink()
    assert refusal(path).kind == "truncated_onnx"


def test_external_data_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(
        models.residual(), path, save_as_external_data=True, location="data", size_threshold=0
    )
    data = tmp_path / "data"
    data.write_bytes(data.read_bytes()[:1000])
    assert refusal(path).kind == "truncated_onnx"


RANGES: list[Stage] = [
    (-1, 2, "plain"),
    (2, 2, "plain"),
    (3, 1, "packed"),
    (0, 6, "plain"),
    (5, None, "plain"),
    (0, 2, "diagonal"),
]


@pytest.mark.parametrize(("first", "end", "boundary"), RANGES)
def test_ranges(first: int, end: int | None, boundary: str) -> None:
    with pytest.raises(CompileError) as caught:
        stage.resolve(first, end, boundary, 5)
    assert caught.value.kind == "bad_range"


FAILURES = [
    (MemoryError(), "out_of_memory"),
    (RuntimeError("std::bad_alloc"), "out_of_memory"),
    (OSError(errno.ENOSPC, "No space left on device", "/x/weights.bin"), "disk"),
    (PermissionError(errno.EACCES, "Permission denied", "/x"), "disk"),
    (ModuleNotFoundError("No module named 'numpy'"), "environment"),
    (ZeroDivisionError("division by zero"), "internal"),
    (CompileError("bad_range", "failed to cut"), "bad_range"),
]


@pytest.mark.parametrize(("error", "kind"), FAILURES, ids=[repr(error) for error, _ in FAILURES])
def test_kinds_of_failures(error: Exception, kind: str) -> None:
    failure = failure_of(error)
    assert failure.kind == kind
    assert str(failure).startswith("failed to ")


def event_of(
    tmp_path: Path, network: dict[str, str], out: Path, **how: object
) -> dict[str, object]:
    """The error event of a failing job."""
    outcome = compiler(str(job(tmp_path, network, [(0, None, "plain")], out)), **how)
    assert outcome.code == 1
    assert outcome.events[-1] == outcome.error
    assert set(outcome.error) == {"event", "kind", "message", "node"}
    return outcome.error


def test_process_names_node_and_kind(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(operator_tvm_lacks(), path)
    error = event_of(tmp_path, {"onnx": str(path)}, tmp_path / "out")
    assert (error["kind"], error["node"]) == ("unsupported_operator", "determinant")
    assert not (tmp_path / "out/network.json").exists()


def test_process_unknown_network(tmp_path: Path) -> None:
    error = event_of(tmp_path, {"zoo": "resnet_18"}, tmp_path / "out")
    assert error["kind"] == "unknown_network"
    assert "resnet18" in str(error["message"])


def test_process_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    error = event_of(tmp_path, {"zoo": "tiny"}, tmp_path / "file/out")
    assert error["kind"] == "disk"
    assert "file" in str(error["message"])


def test_process_full_disk(tmp_path: Path) -> None:
    """A file size limit simulates a full disk. No partial file remains."""
    limit = 4096
    error = event_of(
        tmp_path,
        {"zoo": "tiny"},
        tmp_path / "out",
        before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert error["kind"] == "disk"
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert left == []


def test_process_bad_job(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"schema": 1}), encoding="utf-8")
    outcome = compiler(str(path))
    assert (outcome.code, outcome.error["kind"]) == (1, "internal")


def test_job_for_an_unknown_kind_of_processor(tmp_path: Path) -> None:
    path = job(tmp_path, {"zoo": "tiny"}, [(0, None, "plain")], tmp_path / "out")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["target"]["kind"] = "tpu"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CompileError, match="unknown processor kind 'tpu', expected cpu"):
        read(path)


def test_process_bad_arguments() -> None:
    assert compiler().code == 2
    assert compiler("--help").code == 2


def test_graph_without_weights_is_left_alone() -> None:
    """Importing moves the weights out of the model; the arrays stay valid."""
    from edgepipe_compiler.frontend import graph as graphs

    model = models.residual()
    graph = graphs.from_model(model, "mine")
    assert not model.graph.initializer
    assert all(
        np.isfinite(array).all() for array in graph.constants.values() if array.dtype.kind == "f"
    )
