"""Refused networks: the node that the message names, and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepipe_compiler.errors import CompileError
from edgepipe_compiler.frontend import importer

FLOAT, HALF, BFLOAT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
Array = np.ndarray


def model(
    *nodes: onnx.NodeProto,
    opset: int = 17,
    kind: int = FLOAT,
    constants: dict[str, Array] | None = None,
    inputs: list[onnx.ValueInfoProto] | None = None,
) -> onnx.ModelProto:
    """Nodes between an input ``x`` of shape [1, 4, 6, 6] and an output ``y``."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", kind, [1, 4, 6, 6]), *(inputs or [])],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in (constants or {}).items()],
    )
    graph.output[0].type.tensor_type.elem_type = FLOAT
    domains = {node.domain for node in nodes if node.domain}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def node(
    op: str, inputs: list[str], outputs: list[str], domain: str = "", **how: object
) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, f"{op}_here", domain=domain, **how)


def one(op: str, *inputs: str, opset: int = 17, kind: int = FLOAT, domain: str = "",
        outputs: int = 1, constants: dict[str, Array] | None = None, **how: object
        ) -> Callable[[], onnx.ModelProto]:  # fmt: skip
    """A model of one operator."""
    names = ["y", *(f"y{place}" for place in range(1, outputs))]
    return lambda: model(
        node(op, list(inputs) or ["x"], names, domain, **how),
        opset=opset,
        kind=kind,
        constants=constants,
    )


def quantized() -> onnx.ModelProto:
    """Activations quantized to eight bits."""
    return model(
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        constants={"scale": np.float32(0.1), "zero": np.uint8(3)},
    )


def half_inside() -> onnx.ModelProto:
    """float16 inside, float32 at both ends."""
    return model(
        node("Cast", ["x"], ["h"], to=HALF),
        node("Relu", ["h"], ["r"]),
        helper.make_node("Cast", ["r"], ["y"], "back", to=FLOAT),
    )


def sequence_input() -> onnx.ModelProto:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, [2, 3]))
    item = helper.make_value_info("several", kind)
    return model(node("ConcatFromSequence", ["several"], ["y"], axis=0), inputs=[item])


def optional_input() -> onnx.ModelProto:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, [2, 3]))
    item = helper.make_value_info("maybe", kind)
    return model(node("OptionalGetElement", ["maybe"], ["y"]), inputs=[item])


def dropout(ratio: float | None, training: bool | None) -> Callable[[], onnx.ModelProto]:
    """``training`` None: a network input."""

    def build() -> onnx.ModelProto:
        constants = {} if ratio is None else {"ratio": np.float32(ratio)}
        inputs = []
        if training is None:
            inputs.append(helper.make_tensor_value_info("train", TensorProto.BOOL, []))
        else:
            constants["train"] = np.array(training)
        names = ["x", "" if ratio is None else "ratio", "train"]
        return model(node("Dropout", names, ["y"]), constants=constants, inputs=inputs)

    return build


def branch_by_data() -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"])],
        "b",
        [],
        [helper.make_tensor_value_info("r", FLOAT, None)],
    )
    return model(
        node("ReduceMax", ["x"], ["m"], keepdims=0),
        node("Cast", ["m"], ["c"], to=TensorProto.BOOL),
        node("If", ["c"], ["y"], then_branch=body, else_branch=body),
        node("Neg", ["y"], ["z"]),
    )


def loop(trips: Array | None) -> Callable[[], onnx.ModelProto]:
    """``trips`` None: computed from the data."""

    def build() -> onnx.ModelProto:
        body = helper.make_graph(
            [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Exp", ["a"], ["b"])],
            "b",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                helper.make_tensor_value_info("a", FLOAT, [1, 4, 6, 6]),
            ],
            [
                helper.make_tensor_value_info("on", TensorProto.BOOL, None),
                helper.make_tensor_value_info("b", FLOAT, None),
            ],
        )
        made = node("Loop", ["m", "", "x"], ["y"], body=body)
        if trips is not None:
            return model(made, constants={"m": trips})
        cast = node("Cast", ["s"], ["m"], to=TensorProto.INT64)
        return model(node("ReduceMax", ["x"], ["s"], keepdims=0), cast, made)

    return build


SCALE = {"s": np.float32(0.1), "z": np.uint8(1), "w": np.ones((4, 4, 1, 1), np.uint8)}
UNKNOWN, DYNAMIC = "unsupported_operator", "dynamic_shape"
# Name: the model, the kind of its error, the node or input it names, words of the message.
CASES: dict[str, tuple[Callable[[], onnx.ModelProto], str, str, str]] = {
    "quantized": (quantized, UNKNOWN, "QuantizeLinear_here", "float32 network"),
    "QLinearConv": (
        one("QLinearConv", "x", "s", "z", "w", "s", "z", "s", "z", kind=TensorProto.UINT8,
            constants=SCALE),
        UNKNOWN, "QLinearConv_here", "quantized",
    ),
    "ConvInteger": (
        one("ConvInteger", "x", "w", kind=TensorProto.UINT8, constants=SCALE),
        UNKNOWN, "ConvInteger_here", "quantized",
    ),
    "DynamicQuantizeLinear": (
        one("DynamicQuantizeLinear", outputs=3), UNKNOWN, "DynamicQuantizeLinear_here", "quantized",
    ),
    "com.microsoft": (
        one("FusedConv", domain="com.microsoft"), UNKNOWN, "FusedConv_here", "com.microsoft",
    ),
    "QGemm": (one("QGemm", domain="com.microsoft"), UNKNOWN, "QGemm_here", "quantized"),
    "other domain": (
        one("Sharpen", domain="example.org"), UNKNOWN, "Sharpen_here", "domain example.org",
    ),
    "float16": (one("Relu", kind=HALF), UNKNOWN, "x", "float32"),
    "bfloat16": (one("Relu", kind=BFLOAT), UNKNOWN, "x", "float32"),
    "float16 inside": (half_inside, UNKNOWN, "Cast_here", "float16"),
    "string": (one("Identity", kind=TensorProto.STRING), UNKNOWN, "x", "strings"),
    "sequence": (sequence_input, UNKNOWN, "several", "sequence"),
    "optional": (optional_input, UNKNOWN, "maybe", "optional"),
    "SequenceConstruct": (
        lambda: model(
            node("SequenceConstruct", ["x", "x"], ["s"]),
            node("ConcatFromSequence", ["s"], ["y"], axis=0),
        ),
        UNKNOWN, "SequenceConstruct_here", "sequences",
    ),
    "NonZero": (one("NonZero"), DYNAMIC, "NonZero_here", "depends on the data"),
    "Unique": (one("Unique"), DYNAMIC, "Unique_here", "depends on the data"),
    "Compress": (
        lambda: model(
            node("Cast", ["x"], ["c"], to=TensorProto.BOOL),
            node("Reshape", ["c", "flat"], ["f"]),
            node("Compress", ["x", "f"], ["y"]),
            constants={"flat": np.array([-1], np.int64)},
        ),
        DYNAMIC, "Compress_here", "depends on the data",
    ),
    "RandomNormalLike": (one("RandomNormalLike"), UNKNOWN, "RandomNormalLike_here", "random"),
    "RandomUniform": (
        lambda: model(
            node("RandomUniform", [], ["r"], shape=[1, 4, 6, 6]), node("Add", ["x", "r"], ["y"])
        ),
        UNKNOWN, "RandomUniform_here", "random",
    ),
    "Bernoulli": (one("Bernoulli"), UNKNOWN, "Bernoulli_here", "random"),
    "Dropout in training": (dropout(0.5, True), UNKNOWN, "Dropout_here", "training_mode false"),
    "Dropout by default": (dropout(None, True), UNKNOWN, "Dropout_here", "training_mode false"),
    "Dropout by input": (dropout(0.5, None), UNKNOWN, "Dropout_here", "network input"),
    "If": (branch_by_data, UNKNOWN, "If_here", "required branch only"),
    "Loop by data": (loop(None), UNKNOWN, "Loop_here", "not constant"),
    "Loop without end": (loop(np.array(1 << 50, np.int64)), UNKNOWN, "Loop_here", "iterations"),
    "DFT": (
        lambda: model(
            node("Unsqueeze", ["x", "last"], ["u"]), node("DFT", ["u"], ["y"], axis=3),
            constants={"last": np.array([4], np.int64)},
        ),
        UNKNOWN, "DFT_here", "spectra",
    ),
    "DeformConv": (
        lambda: model(
            node("Conv", ["x", "o"], ["offset"]), node("DeformConv", ["x", "w", "offset"], ["y"]),
            opset=19,
            constants={"w": np.ones((2, 4, 1, 1), np.float32),
                       "o": np.ones((2, 4, 1, 1), np.float32)},
        ),
        UNKNOWN, "DeformConv_here", "not supported",
    ),
}  # fmt: skip


def refusal(build: Callable[[], onnx.ModelProto], folder: Path) -> CompileError:
    path = folder / "net.onnx"
    onnx.save(build(), path)
    with pytest.raises(CompileError) as caught:
        importer.from_file(path, "mine")
    return caught.value


@pytest.mark.parametrize("name", CASES)
def test_refusal(name: str, tmp_path: Path) -> None:
    build, kind, blamed, words = CASES[name]
    error = refusal(build, tmp_path)
    assert (error.kind, error.node) == (kind, blamed), str(error)
    assert str(error).startswith("failed to ")
    assert words in str(error)


def dequantized_weights() -> onnx.ModelProto:
    """Only the weights are quantized."""
    weight = np.random.default_rng(3).integers(-100, 100, (5, 4, 3, 3)).astype(np.int8)
    constants = {"w": weight, "s": np.linspace(0.01, 0.1, 5, dtype=np.float32)}
    return model(
        node("DequantizeLinear", ["w", "s"], ["f"], axis=0),
        node("Conv", ["x", "f"], ["y"]),
        constants=constants,
    )


def half_weights() -> onnx.ModelProto:
    """Stored in float16, computed in float32."""
    constants = {"w": np.linspace(-1, 1, 80).astype(np.float16).reshape(5, 4, 2, 2)}
    return model(
        node("Cast", ["w"], ["f"], to=FLOAT), node("Conv", ["x", "f"], ["y"]), constants=constants
    )


def found_in_constants() -> onnx.ModelProto:
    """NonZero of a constant has a known shape."""
    constants = {"mask": np.array([0, 1, 1, 0], np.int64), "one": np.array([-1], np.int64)}
    return model(
        node("NonZero", ["mask"], ["n"]),
        node("Reshape", ["n", "one"], ["i"]),
        node("Gather", ["x", "i"], ["y"], axis=1),
        constants=constants,
    )


@pytest.mark.parametrize(
    "build",
    [
        dequantized_weights,
        half_weights,
        found_in_constants,
        dropout(0.0, True),
        dropout(0.5, False),
    ],
)
def test_accepted(build: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    """The same operators, evaluated at compile time."""
    path = tmp_path / "net.onnx"
    onnx.save(build(), path)
    graph = importer.from_file(path, "mine")
    assert {node.op for node in graph.nodes} <= {"Conv", "Gather", "Identity"}
