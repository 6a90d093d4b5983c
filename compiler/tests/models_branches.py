"""Small models with ``If``, ``Loop`` and ``Scan`` whose control flow is static."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from operator_net import Model, Net

MODELS: dict[str, Model] = {}
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def _body(
    nodes: list[onnx.NodeProto],
    inputs: list[tuple[str, int, list[int] | None]],
    outputs: list[tuple[str, int]],
    constants: dict[str, np.ndarray] | None = None,
) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        "body",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )


def _model(build: Model) -> Model:
    MODELS[build.__name__] = build
    return build


def _branch(op: str, source: str, result: str) -> onnx.GraphProto:
    return _body([helper.make_node(op, [source], [result], "act")], [], [(result, FLOAT)])


@_model
def if_of_a_constant() -> onnx.ModelProto:
    """Both branches use the same names for their operator and value, and read a value from outside."""
    net = Net()
    x = net.conv(net.input(1, 3, 6, 5), 8, 3, 3, 3)
    no = net.constant(np.array(False))
    y = net.op(
        "If", no, then_branch=_branch("Relu", x, "y"), else_branch=_branch("Sigmoid", x, "y")
    )
    return net.build(net.conv(y, 4, 8, 1, 1))


@_model
def if_of_a_rank_squeezes() -> onnx.ModelProto:
    """PyTorch's ``squeeze``: drops an axis only if its extent is 1."""
    net = Net(13)
    x = net.op("Relu", net.input(2, 5, 1, 7))
    axis = net.constant([2], np.int64)
    extent = net.op("Gather", net.op("Shape", x), net.constant(2, np.int64))
    one = net.op("Equal", extent, net.constant(1, np.int64))
    yes = _body([helper.make_node("Squeeze", [x, axis], ["s"], "squeeze")], [], [("s", FLOAT)])
    no = _body([helper.make_node("Identity", [x], ["i"], "same")], [], [("i", FLOAT)])
    y = net.op("If", one, then_branch=yes, else_branch=no)
    return net.build(net.op("MatMul", y, net.weight(7, 6)))


@_model
def if_with_weights_and_two_outputs() -> onnx.ModelProto:
    """The second output is an initializer of the branch; the condition has shape [1]."""
    net = Net()
    x = net.input(1, 3, 6, 5)
    random = np.random.default_rng(3)
    weight = random.standard_normal((8, 3, 3, 3)).astype(np.float32)
    shift = random.standard_normal((1, 8, 1, 1)).astype(np.float32)
    branch = _body(
        [helper.make_node("Conv", [x, "w"], ["c"], "conv", pads=[1] * 4)],
        [], [("c", FLOAT), ("s", FLOAT)], {"w": weight, "s": shift},
    )  # fmt: skip
    other = _body(
        [helper.make_node("Identity", [x], ["c"])],
        [], [("c", FLOAT), ("s", FLOAT)], {"s": shift},
    )  # fmt: skip
    yes = net.constant(np.array([True]))
    left, right = net.node("If", yes, outputs=2, then_branch=branch, else_branch=other)
    return net.build(net.op("Mul", left, right))


@_model
def if_in_if() -> onnx.ModelProto:
    """The inner condition is computed in the outer branch from the shape of one of its values."""
    net = Net()
    x = net.op("Abs", net.input(1, 4, 6, 5))
    inner = [
        helper.make_node("Neg", [x], ["n"], "neg"),
        helper.make_node("Shape", ["n"], ["s"], "shape"),
        helper.make_node("Size", ["s"], ["r"], "rank"),
        helper.make_node("Equal", ["r", "four"], ["q"], "equal"),
        helper.make_node(
            "If", ["q"], ["y"], "inner",
            then_branch=_branch("Exp", "n", "z"), else_branch=_branch("Relu", x, "z"),
        ),
    ]  # fmt: skip
    outer = _body(inner, [], [("y", FLOAT)], {"four": np.array(4, np.int64)})
    y = net.op(
        "If",
        net.constant(np.array(True)),
        then_branch=outer,
        else_branch=_branch("Identity", x, "y"),
    )
    return net.build(y)


@_model
def ifs_in_a_row() -> onnx.ModelProto:
    """Each condition depends on the shape of the previous result."""
    net = Net(13)
    x = net.input(2, 3, 4, 5)
    for place in range(10):
        rank = net.op("Size", net.op("Shape", x))
        least = net.op("Greater", rank, net.constant(2, np.int64))
        shape = net.constant([2, -1] if place % 2 else [2, 3, -1], np.int64)
        reshape = helper.make_node("Reshape", [x, shape], ["y"], "reshape")
        x = net.op(
            "If",
            least,
            then_branch=_body([reshape], [], [("y", FLOAT)]),
            else_branch=_branch("Tanh", x, "y"),
        )
    return net.build(x)


@_model
def if_reads_what_an_identity_made() -> onnx.ModelProto:
    """A no-op before a branch that is taken late."""
    net = Net()
    x = net.op("Identity", net.op("Relu", net.input(1, 4, 3, 3)))
    y = net.op("Exp", x)
    known = net.op("Greater", net.op("Size", y), net.constant(3, np.int64))
    y = net.op(
        "If", known, then_branch=_branch("Neg", x, "a"), else_branch=_branch("Identity", x, "a")
    )
    return net.build(net.op("Add", x, y))


def _loop(*, stop: str = "", ends: int = 3) -> onnx.ModelProto:
    """x = relu(conv(x)) + number, ``ends`` times. Every x is also an output."""
    net = Net(13)
    x = net.input(1, 4, 5, 5)
    weight = net.weight(4, 4, 3, 3)
    nodes = [
        helper.make_node("Conv", ["a", weight], ["c"], "conv", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Cast", ["number"], ["f"], "cast", to=FLOAT),
        helper.make_node("Add", ["r", "f"], ["out"], "add"),
        helper.make_node("Identity", ["out"], ["row"], "row"),
    ]
    constants = {}
    if stop:
        nodes.append(helper.make_node("Add", ["count", "one"], ["more"], "more"))
        nodes.append(helper.make_node("Less", ["more", "last"], ["again"], "again"))
        constants = {"one": np.array(1, np.int64), "last": np.array(ends, np.int64)}
        counted = [("count", INT64, [])]
    else:
        nodes.append(helper.make_node("Identity", ["going"], ["again"], "again"))
        counted = []
    body = _body(
        nodes,
        [("number", INT64, []), ("going", BOOL, []), ("a", FLOAT, [1, 4, 5, 5]), *counted],
        [("again", BOOL), ("out", FLOAT), *([("more", INT64)] if stop else []), ("row", FLOAT)],
        constants,
    )
    trips = net.constant(1 << 40 if stop else ends, np.int64)
    more = [net.constant(0, np.int64)] if stop else []
    made = net.node(
        "Loop", trips, net.constant(np.array(True)), x, *more, outputs=2 + len(more), body=body
    )
    return net.build(made[0], made[-1])


MODELS["loop_of_three"] = lambda: _loop(ends=3)
MODELS["loop_with_a_counter"] = lambda: _loop(stop="counter", ends=4)


def _scan(**attributes: object) -> onnx.ModelProto:
    """A running mean of slices, which are also outputs."""
    net = Net(11)
    axis = attributes.get("scan_input_axes", [0])[0]
    shape = [3, 4]
    shape.insert(axis, 6)
    x = net.input(*shape)
    start = net.vector(4)
    body = _body(
        [
            helper.make_node("Add", ["state", "slice"], ["sum"], "sum"),
            helper.make_node("Tanh", ["sum"], ["next"], "next"),
            helper.make_node("Identity", ["next"], ["row"], "row"),
        ],
        [("state", FLOAT, [3, 4]), ("slice", FLOAT, [3, 4])],
        [("next", FLOAT), ("row", FLOAT)],
    )
    begin = net.op("Expand", start, net.constant([3, 4], np.int64))
    return net.build(
        *net.node("Scan", begin, x, outputs=2, body=body, num_scan_inputs=1, **attributes)
    )


MODELS["scan"] = lambda: _scan()
MODELS["scan_backwards"] = lambda: _scan(
    scan_input_axes=[1], scan_output_axes=[1], scan_input_directions=[1], scan_output_directions=[1]
)


@_model
def if_among_names_like_its_own() -> onnx.ModelProto:
    """The network already uses the names that the branch's values and nodes would get."""
    net = Net()
    x = net.input(1, 4, 3, 3)
    branch = _body(
        [helper.make_node("Exp", [x], ["y"], "act"), helper.make_node("Neg", ["y"], ["z"], "out0")],
        [], [("z", FLOAT)],
    )  # fmt: skip
    net._nodes.append(helper.make_node("Abs", [x], ["choice.y"], "choice.act"))
    yes = net.constant(np.array(True))
    net._nodes.append(
        helper.make_node("If", [yes], ["made"], "choice", then_branch=branch, else_branch=branch)
    )
    return net.build(net.op("Add", "choice.y", "made"))
