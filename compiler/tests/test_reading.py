"""Files as exporters, converters and model hubs write them, compared with ONNX Runtime."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from compiled import Compiled
from edgepipe_compiler.errors import CompileError
from edgepipe_compiler.frontend import importer, onnx_file, reference

Shape = list[int | str | None]


def model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    shape: Shape = (1, 3, 6, 6),
    opset: int = 17,
    outputs: tuple[str, ...] = ("y",),
) -> onnx.ModelProto:
    """A model with the input ``x`` and outputs without shapes."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 8
    return made


def op(kind: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    """A node named after its output; ``inputs`` are separated by spaces."""
    names = ["" if name == "-" else name for name in inputs.split()]
    made = helper.make_node(kind, names, output.split(), name=f"make_{output.split()[0]}")
    made.domain = str(attributes.pop("domain", ""))
    for name, value in attributes.items():
        listed = onnx.AttributeProto.INTS if value == [] else None
        made.attribute.append(helper.make_attribute(name, value, attr_type=listed))
    return made


RANDOM = np.random.default_rng(5)
WEIGHT = RANDOM.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)
CHANNELS = {name: RANDOM.uniform(0.5, 1.5, 3).astype(np.float32) for name in ("s", "b", "m", "v")}
EACH = {
    name: RANDOM.uniform(0.5, 1.5, (3, 6, 6)).astype(np.float32) for name in ("s", "b", "m", "v")
}
VIEW = [
    op("Relu", "x", "r"), op("Shape", "r", "shape"), op("Gather", "shape first", "n", axis=0),
    op("Unsqueeze", "n axes", "u"), op("Concat", "u rest", "wanted", axis=0),
    op("Reshape", "r wanted", "y"),
]  # fmt: skip
VIEW_CONSTANTS = {
    "first": np.array(0), "axes": np.array([0]), "rest": np.array([-1]),
}  # fmt: skip


def sparse() -> onnx.ModelProto:
    """A weight without its zeros, with flat or with full indices."""
    made = model([op("Add", "x p", "a"), op("Mul", "a q", "y")], {}, (2, 3))
    for name, indices in (("p", np.array([1, 5])), ("q", np.array([[0, 1], [1, 2]]))):
        values = numpy_helper.from_array(np.array([2, 3], np.float32), name)
        places = numpy_helper.from_array(indices, f"{name}.indices")
        made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [2, 3]))
    return made


def function() -> onnx.ModelProto:
    """An operator defined in the file."""
    made = model([op("Double", "x", "d", domain="local"), op("Neg", "d", "y")], {})
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    imports = [helper.make_opsetid("", 17)]
    made.functions.append(helper.make_function("local", "Double", ["a"], ["b"], body, imports))
    made.opset_import.append(helper.make_opsetid("local", 1))
    return made


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "unsorted": lambda: model(
        [op("Neg", "c", "y"), op("Conv", "r w", "c"), op("Relu", "x", "r")], {"w": WEIGHT}
    ),
    "sparse": sparse,
    "function": function,
    "view by a scalar index": lambda: model(VIEW, VIEW_CONSTANTS),
    "pick by a scalar index": lambda: model(
        [op("Gather", "x i", "y", axis=1)], {"i": np.array(-1)}
    ),
    "scalar constants": lambda: model(
        [op("Mul", "x half", "a"), op("Clip", "a low high", "y")],
        {"half": np.float32(0.5), "low": np.float32(-0.1), "high": np.float32(0.2)},
    ),
    "computed bound": lambda: model(
        [op("ReduceMax", "x", "top", keepdims=0), op("Clip", "x - top", "c"), op("Neg", "c", "y")],
        {},
    ),
    "dropout with ratio and mask": lambda: model(
        [op("Dropout", "x ratio", "d mask"), op("Neg", "d", "a"), op("Cast", "mask", "k", to=1),
         op("Add", "a k", "y")],
        {"ratio": np.float32(0.5)},
    ),
    "dropout in training that keeps all": lambda: model(
        [op("Dropout", "x ratio train", "d"), op("Neg", "d", "y")],
        {"ratio": np.float32(0), "train": np.array(True)},
    ),
    "shape of a folded constant": lambda: model(
        [op("Range", "zero four one", "row"), op("Shape", "row", "s"), op("Concat", "s rest", "w", axis=0),
         op("Reshape", "x w", "y")],
        {"zero": np.array(0), "four": np.array(4), "one": np.array(1), "rest": np.array([-1])},
        (1, 4, 5),
    ),
    "size": lambda: model(
        [op("Size", "x", "n"), op("Cast", "n", "f", to=1), op("Div", "x f", "y")], {}
    ),
    "many rounds of shape arithmetic": lambda: model(
        [node for k in range(12) for node in (
            op("Shape", f"r{k}" if k else "x", f"s{k}"),
            op("Reshape", f"{f'r{k}' if k else 'x'} s{k}", f"t{k}"),
            op("Relu", f"t{k}", f"r{k + 1}"))] + [op("Neg", "r12", "y")],
        {},
    ),
    "cast like a constant": lambda: model(
        [op("CastLike", "i f", "c"), op("Mul", "x c", "y")],
        {"i": np.array([2], np.int64), "f": np.float32(1)}, opset=19,
    ),
    "weight made by ConstantOfShape": lambda: model(
        [op("ConstantOfShape", "s", "w", value=numpy_helper.from_array(np.array([0.01], np.float32))),
         op("Gemm", "x w", "y", transB=1)],
        {"s": np.array([4, 6])}, (1, 6),
    ),
    "constant output": lambda: model(
        [op("Relu", "x", "y"), op("Identity", "w", "z")],
        {"w": WEIGHT}, outputs=("y", "z"),
    ),
    "weight as output": lambda: model(
        [op("Conv", "x w", "y")], {"w": WEIGHT}, outputs=("y", "w")
    ),
    "constant output that is read": lambda: model(
        [op("Add", "p p", "z"), op("Mul", "x z", "y")],
        {"p": np.float32(2)}, outputs=("y", "z"),
    ),
    "same value twice": lambda: model(
        [op("Relu", "x", "r"), op("Identity", "r", "y"), op("Identity", "r", "z")],
        {}, outputs=("y", "z"),
    ),
    "batch norm in training form": lambda: model(
        [op("BatchNormalization", "x s b m v", "n p q", training_mode=1), op("Relu", "n", "y")], CHANNELS
    ),
    "batch norm in training form with statistics": lambda: model(
        [op("BatchNormalization", "x s b m v", "y p q", training_mode=1, momentum=0.8)],
        CHANNELS, outputs=("y", "p", "q"),
    ),
    "batch norm of a vector": lambda: model(
        [op("BatchNormalization", "x s b m v", "y")], CHANNELS, (2, 3)
    ),
    "batch norm with computed statistics": lambda: model(
        [op("Abs", "v", "w"), op("ReduceMean", "x", "mean", axes=[0, 2, 3], keepdims=0),
         op("BatchNormalization", "x s b mean w", "y")],
        CHANNELS,
    ),
    "batch norm of each element": lambda: model(
        [op("BatchNormalization", "x s b m v", "y", spatial=0)], EACH, opset=8
    ),
    "depth of columns": lambda: model(
        [op("DepthToSpace", "x", "y", blocksize=2, mode="CRD")], {}, (1, 8, 3, 5)
    ),
    "space to depth": lambda: model([op("SpaceToDepth", "x", "y", blocksize=3)], {}),
    "space to depth of columns": lambda: model(
        [op("SpaceToDepth", "x", "y", blocksize=2, mode="CRD")], {}, (1, 3, 4, 6), opset=28
    ),
    "empty list": lambda: model([op("ReduceSum", "x", "y", axes=[], keepdims=1)], {}, opset=11),
    "double precision": lambda: model(
        [op("Cast", "x", "d", to=TensorProto.DOUBLE), op("Gemm", "d w c", "g", alpha=0.5, beta=2.0),
         op("Cast", "g", "y", to=TensorProto.FLOAT)],
        {"w": RANDOM.normal(0, 1, (4, 3)), "c": RANDOM.normal(0, 1, (2, 3))}, (2, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_model(tmp_path: Path, name: str) -> None:
    made = MODELS[name]()
    whole = onnx.ModelProto()
    whole.CopyFrom(made)
    compiled = Compiled(made, tmp_path)
    kinds = [
        (value, compiled.graph.tensor(value).shape, np.dtype("float32"))
        for value in compiled.graph.inputs
    ]
    fed = reference.frame(kinds, 8)
    wanted = reference.session(whole.SerializeToString()).run(None, fed)
    for cuts in ((), *((cut,) for cut in range(1, len(compiled.units)))):
        given = compiled.run(cuts, "packed", fed)
        for output, right in zip(whole.graph.output, wanted, strict=True):
            assert given[output.name].shape == right.shape
            assert given[output.name].dtype == right.dtype
            np.testing.assert_allclose(given[output.name], right, rtol=1e-4, atol=1e-5)


SHAPES: list[tuple[Shape, dict[str, list[int]], tuple[int, ...], str]] = [
    (["batch", 3, 6, 6], {}, (1, 3, 6, 6), "[batch, 3, 6, 6]"),
    ([-1, 3, 6, 6], {}, (1, 3, 6, 6), "[-1, 3, 6, 6]"),
    ([None, 3, 6, 6], {}, (1, 3, 6, 6), "[?, 3, 6, 6]"),
    (["n", 3, "h", "w"], {"x": [2, 3, 8, 4]}, (2, 3, 8, 4), ""),
    ([-1, 3, -1, -1], {"x": [1, 3, 8, 4]}, (1, 3, 8, 4), ""),
    ([1, 3, 6, 6], {"x": [1, 3, 6, 6]}, (1, 3, 6, 6), ""),
]


@pytest.mark.parametrize(("written", "shapes", "shape", "note"), SHAPES)
def test_open_shapes(
    tmp_path: Path, written: Shape, shapes: dict[str, list[int]], shape: tuple[int, ...], note: str
) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(model([op("Conv", "x w", "y")], {"w": WEIGHT}, written), path)
    graph = importer.from_file(path, "net", shapes)
    assert graph.tensor("x").shape == shape
    assert graph.tensor("y").shape == (shape[0], 4, shape[2] - 2, shape[3] - 2)
    assert bool(graph.notes) == bool(note) and note in "".join(graph.notes)


BAD_SHAPES: list[tuple[Shape, dict[str, list[int]], str]] = [
    (["n", 3, "h", "w"], {}, "`shapes: { x: [1, 3, 224, 224] }`"),
    (["n", "c", 6, 6], {}, "`shapes: { x: [1, 3, 6, 6] }`"),
    ([1, 3, 6, 6], {"x": [1, 3, 7, 6]}, "the file has [1, 3, 6, 6]"),
    (["n", 3, "h", "w"], {"x": [3, 8, 8]}, "the file has [n, 3, h, w]"),
    ([1, 3, 6, 6], {"image": [1, 3, 6, 6]}, "the inputs are 'x'"),
]


@pytest.mark.parametrize(("written", "shapes", "words"), BAD_SHAPES)
def test_shapes_that_do_not_fit(
    tmp_path: Path, written: Shape, shapes: dict[str, list[int]], words: str
) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(model([op("Conv", "x w", "y")], {"w": WEIGHT}, written), path)
    with pytest.raises(CompileError) as caught:
        importer.from_file(path, "net", shapes)
    assert words in str(caught.value)


def old(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A model of operator set 6, in which weights are also inputs."""
    made = model(nodes, constants, opset=6)
    made.ir_version = 3
    made.graph.input.extend(
        helper.make_tensor_value_info(item.name, TensorProto.FLOAT, item.dims)
        for item in made.graph.initializer
    )
    return made


ROW = np.linspace(-1, 2, 6).astype(np.float32)
SLOPES = np.array([-1, 0.5, 2], np.float32)
# A model of operator set 6, and the same network by a later one.
OLD = {
    "bias of channels": (
        old([op("Conv", "x w", "c"), op("Add", "c b", "a", broadcast=1, axis=1), op("Relu", "a", "y")],
            {"w": WEIGHT, "b": ROW[:4]}),
        model([op("Conv", "x w b", "a"), op("Relu", "a", "y")], {"w": WEIGHT, "b": ROW[:4]}),
    ),
    "rows": (
        old([op("Mul", "x b", "y", broadcast=1)], {"b": ROW}),
        model([op("Mul", "x b", "y")], {"b": ROW}),
    ),
    "scale of columns": (
        old([op("Div", "x b", "y", broadcast=1, axis=-2)], {"b": ROW}),
        model([op("Div", "x b", "y")], {"b": ROW[:, None]}),
    ),
    "slope of channels": (
        old([op("PRelu", "x s", "y")], {"s": SLOPES}),
        model([op("PRelu", "x s", "y")], {"s": SLOPES[:, None, None]}),
    ),
    "batch norm": (
        old([op("Relu", "x", "r"), op("BatchNormalization", "r s b m v", "y", is_test=1)], CHANNELS),
        model([op("Relu", "x", "r"), op("BatchNormalization", "r s b m v", "y")], CHANNELS),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_old_operator_sets(tmp_path: Path, name: str) -> None:
    before, now = OLD[name]
    whole = onnx.ModelProto()
    whole.CopyFrom(before)
    compiled = Compiled(whole, tmp_path)
    fed = reference.frame([("x", (1, 3, 6, 6), np.dtype("float32"))], 8)
    (right,) = reference.session(now.SerializeToString()).run(None, fed)
    np.testing.assert_allclose(compiled.run((), "packed", fed)["y"], right, rtol=1e-5, atol=1e-5)


def external(folder: Path) -> Path:
    path = folder / "net.onnx"
    made = model([op("Conv", "x w", "y")], {"w": WEIGHT})
    onnx.save(made, path, save_as_external_data=True, location="net.data", size_threshold=0)
    return path


def test_linked_files(tmp_path: Path) -> None:
    """As in model hubs: the model and its data are links into a content store."""
    store, folder = tmp_path / "blobs", tmp_path / "snapshot"
    store.mkdir()
    folder.mkdir()
    path = external(folder)
    for place, file in enumerate((path, folder / "net.data")):
        shutil.move(file, store / str(place))
        file.symlink_to(store / str(place))
    graph = importer.from_file(path, "net")
    np.testing.assert_array_equal(graph.constants["w"], WEIGHT)


@pytest.mark.parametrize("location", ["/etc/hostname", "../net.data", "", "a/../../net.data"])
def test_data_outside_the_folder(tmp_path: Path, location: str) -> None:
    path = external(tmp_path)
    made = onnx.load(path, load_external_data=False)
    (entry,) = [item for item in made.graph.initializer[0].external_data if item.key == "location"]
    entry.value = location
    onnx.save(made, path)
    with pytest.raises(CompileError) as caught:
        onnx_file.load(path)
    assert (caught.value.kind, caught.value.node) == ("invalid_onnx", "w")


def test_the_reference_is_what_onnx_runtime_computes(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(model([op("Conv", "x w", "y")], {"w": WEIGHT}), path)
    graph = importer.from_file(path, "net")
    described = reference.make(graph, path, tmp_path / "reference")
    assert described["engine"] == f"ONNX Runtime {onnxruntime.__version__}"
    (taken,), (given,) = described["inputs"], described["outputs"]
    frame = np.fromfile(tmp_path / "reference" / taken["file"], taken["dtype"]).reshape(
        taken["shape"]
    )
    right = np.fromfile(tmp_path / "reference" / given["file"], given["dtype"])
    (wanted,) = reference.session(str(path)).run(None, {"x": frame})
    np.testing.assert_array_equal(right.reshape(given["shape"]), wanted)


def test_made_up_indices_stay_within_the_table(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    made = model(
        [op("Add", "i one", "j"), op("Gather", "table j", "row"), op("Mul", "x row", "y")],
        {"table": RANDOM.normal(0, 1, (4, 3)).astype(np.float32), "one": np.array([1])}, (1, 3),
    )  # fmt: skip
    made.graph.input.append(helper.make_tensor_value_info("i", TensorProto.INT64, [1]))
    onnx.save(made, path)
    graph = importer.from_file(path, "net")
    assert reference.make(graph, path, tmp_path / "reference")["integers_below"] == 3


def test_what_onnx_runtime_refuses_is_refused(tmp_path: Path) -> None:
    """A slope that does not broadcast: a valid file, but an invalid network."""
    path = tmp_path / "net.onnx"
    slope = np.ones(5, np.float32)
    onnx.save(model([op("PRelu", "x slope", "y")], {"slope": slope}), path)
    with pytest.raises(CompileError) as caught:
        graph = importer.from_file(path, "net")
        reference.make(graph, path, tmp_path / "reference")
    assert caught.value.kind == "invalid_onnx"
    assert caught.value.node == "make_y"
