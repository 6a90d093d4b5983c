"""Counts of parameters and multiply-adds, worked out by hand for small models."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgepipe_compiler.zoo import Counts, count

Shape = tuple[int, ...]


def model(
    nodes: list[onnx.NodeProto], inputs: dict[str, Shape | None], weights: dict[str, Shape]
) -> onnx.ModelProto:
    """A model whose output is that of its last node."""
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(nodes[-1].output[0], 1, None)],
        [
            numpy_helper.from_array(np.ones(shape, np.float32), name)
            for name, shape in weights.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def node(
    op: str, *inputs: str, name: str = "", output: str = "y", **attributes: object
) -> onnx.NodeProto:
    """A node with one output."""
    return helper.make_node(op, inputs, [output], name=name or op, **attributes)


@pytest.mark.parametrize(
    ("built", "parameters", "macs"),
    [
        pytest.param(
            model(
                [node("Conv", "x", "w", "b")], {"x": (1, 3, 8, 8)}, {"w": (4, 3, 3, 3), "b": (4,)}
            ),
            4 * 27 + 4,
            4 * 6 * 6 * 27,
            id="convolution",
        ),
        pytest.param(
            model(
                [node("Conv", "x", "w", group=6, strides=[2, 2], pads=[0, 0, 1, 1])],
                {"x": (2, 6, 8, 8)},
                {"w": (12, 1, 3, 3)},
            ),
            12 * 9,
            2 * 12 * 4 * 4 * 9,
            id="grouped, strided, padded on one side, batch of 2",
        ),
        pytest.param(
            model(
                [node("ConvTranspose", "x", "w", group=2, strides=[2, 2])],
                {"x": (1, 4, 5, 5)},
                {"w": (4, 3, 2, 2)},
            ),
            4 * 3 * 4,
            4 * 5 * 5 * 3 * 4,
            id="transposed convolution",
        ),
        pytest.param(
            model([node("Gemm", "x", "w", "b", transA=1)], {"x": (7, 3)}, {"w": (7, 5), "b": (5,)}),
            7 * 5 + 5,
            3 * 7 * 5,
            id="matrix product, first transposed",
        ),
        pytest.param(
            model(
                [node("MatMul", "x", "w", output="p"), node("Add", "p", "b")],
                {"x": (2, 4, 7)},
                {"w": (7, 5), "b": (5,)},
            ),
            7 * 5 + 5,
            2 * 4 * 7 * 5,
            id="matrix product and its bias",
        ),
        pytest.param(
            model(
                [node("MatMul", "x", "z", output="p"), node("Add", "p", "b")],
                {"x": (2, 4, 7), "z": (2, 7, 3)},
                {"b": (3,)},
            ),
            0,
            2 * 4 * 7 * 3,
            id="product of two activations learns nothing",
        ),
        pytest.param(
            model(
                [node("BatchNormalization", "x", "g", "b", "m", "v")],
                {"x": (1, 6, 2, 2)},
                {"g": (6,), "b": (6,), "m": (6,), "v": (6,)},
            ),
            12,
            0,
            id="normalization without its running statistics",
        ),
        pytest.param(
            model(
                [
                    node("Conv", "x", "w", name="one", output="a", pads=[1, 1, 1, 1]),
                    node("Conv", "a", "w", name="two", pads=[1, 1, 1, 1]),
                ],
                {"x": (1, 2, 4, 4)},
                {"w": (2, 2, 3, 3)},
            ),
            2 * 2 * 9,
            2 * 2 * 4 * 4 * 2 * 9,
            id="a shared weight counts once, its work twice",
        ),
        pytest.param(
            model([node("Conv", "x", "w")], {"x": (1, 96, 3, 3)}, {"w": (96, 96, 3, 3)}),
            96 * 96 * 9,
            96 * 96 * 9,
            id="a weight too large for shape inference to read",
        ),
    ],
)
def test_count(built: onnx.ModelProto, parameters: int, macs: int) -> None:
    assert count(built) == Counts(parameters, macs)


def test_weight_in_a_constant_node() -> None:
    value = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32))
    constant = helper.make_node("Constant", [], ["w"], value=value)
    built = model([constant, node("Conv", "x", "w")], {"x": (1, 3, 5, 5)}, {})
    assert count(built) == Counts(12, 4 * 5 * 5 * 3)


def test_unknown_shape_names_the_node() -> None:
    built = model([node("Conv", "x", "w", name="stem")], {"x": None}, {"w": (4, 3, 3, 3)})
    with pytest.raises(ValueError, match="failed to count the multiply-adds of node 'stem'"):
        count(built)


def test_counting_leaves_the_model_alone() -> None:
    built = model([node("Conv", "x", "w")], {"x": (1, 96, 3, 3)}, {"w": (96, 96, 3, 3)})
    before = built.SerializeToString(deterministic=True)
    count(built)
    assert built.SerializeToString(deterministic=True) == before
