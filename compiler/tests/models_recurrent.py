"""Small models of LSTM, GRU and RNN, with every attribute and every optional input and output."""

from __future__ import annotations

import numpy as np
import onnx

from operator_net import Model, Net

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
MODELS: dict[str, Model] = {}


def _layer(
    op: str,
    *,
    steps: int = 5,
    batch: int = 1,
    size: int = 7,
    hidden: int = 9,
    opset: int = 14,
    outputs: tuple[int, ...] = (0,),
    bias: bool = True,
    lengths: list[int] | None = None,
    initial: str = "",
    peepholes: bool = False,
    computed: bool = False,
    **attributes: object,
) -> Model:
    """One layer.

    ``outputs`` are the indices of its used outputs; ``initial`` is "constant" or "input"; ``computed``:
    weights are computed in each frame.
    """

    def build() -> onnx.ModelProto:
        net = Net(opset)
        first = attributes.get("layout", 0)
        directions = 2 if attributes.get("direction") == "bidirectional" else 1
        gates = GATES[op]
        random = np.random.default_rng(11)

        def weight(*shape: int) -> str:
            if computed:
                return net.op("Tanh", net.input(*shape, name=f"weight{len(net._inputs)}"))
            scale = 1.5 / np.sqrt(shape[-1])
            return net.constant((random.standard_normal(shape) * scale).astype(np.float32))

        state = (batch, directions, hidden) if first else (directions, batch, hidden)
        states = ["", ""]
        x = net.input(batch, steps, size) if first else net.input(steps, batch, size)
        for place in range(2 if op == "LSTM" else 1):
            if initial == "constant":
                states[place] = weight(*state)
            elif initial == "input":
                states[place] = net.input(*state, name=f"initial{place}")
        inputs = [
            x,
            weight(directions, gates * hidden, size),
            weight(directions, gates * hidden, hidden),
            weight(directions, 2 * gates * hidden) if bias else "",
            "" if lengths is None else net.constant(lengths, np.int32),
            *states[: 2 if op == "LSTM" else 1],
        ]
        if peepholes:
            inputs.append(weight(directions, 3 * hidden))
        while not inputs[-1]:
            inputs.pop()
        count = max(outputs) + 1
        made = net.node(op, *inputs, outputs=count, hidden_size=hidden, **attributes)
        for place, name in enumerate(made):
            if place not in outputs:
                output = net._nodes[-1].output
                output[list(output).index(name)] = ""
        return net.build(*(made[place] for place in outputs))

    return build


for _op in GATES:
    every = (0, 1, 2) if _op == "LSTM" else (0, 1)
    name = _op.lower()
    MODELS |= {
        name: _layer(_op),
        f"{name}_opset_7": _layer(_op, opset=7, outputs=every, hidden=16, batch=2),
        f"{name}_reverse": _layer(_op, direction="reverse", outputs=every, batch=2),
        f"{name}_bidirectional": _layer(
            _op, direction="bidirectional", outputs=every, batch=3, hidden=17, initial="constant"
        ),
        f"{name}_initial_inputs": _layer(_op, outputs=every, batch=2, initial="input", hidden=33),
        f"{name}_last_state_only": _layer(_op, outputs=(1,), steps=3, hidden=32, size=16),
        f"{name}_without_bias": _layer(_op, bias=False, steps=1, size=1, hidden=1, outputs=every),
        f"{name}_clipped": _layer(_op, clip=0.4, outputs=every, initial="constant"),
        f"{name}_lengths": _layer(
            _op, lengths=[3, 5, 1], batch=3, direction="bidirectional", outputs=every,
            initial="constant",
        ),
        f"{name}_of_computed_weights": _layer(
            _op, computed=True, direction="bidirectional", outputs=every, batch=2
        ),
        f"{name}_full_lengths": _layer(_op, lengths=[5, 5], batch=2, outputs=every),
    }  # fmt: skip
MODELS |= {
    "lstm_peepholes": _layer("LSTM", peepholes=True, outputs=(0, 1, 2), initial="constant"),
    "lstm_peepholes_bidirectional": _layer(
        "LSTM", peepholes=True, direction="bidirectional", outputs=(0, 2), clip=0.7
    ),
    "lstm_behind_an_operator": _layer("LSTM", outputs=(1,), computed=True, lengths=[4]),
    "lstm_cell_only": _layer("LSTM", outputs=(2,)),
    "lstm_coupled": _layer("LSTM", input_forget=1, outputs=(0, 1, 2)),
    "lstm_coupled_peepholes": _layer("LSTM", input_forget=1, peepholes=True, outputs=(0, 2)),
    "gru_late_reset": _layer("GRU", linear_before_reset=1, outputs=(0, 1), hidden=20),
    "gru_late_reset_bidirectional": _layer(
        "GRU", linear_before_reset=1, direction="bidirectional", outputs=(0, 1), clip=0.5,
        lengths=[2, 5], batch=2, initial="input",
    ),
    "lstm_computed_peepholes": _layer("LSTM", peepholes=True, computed=True, hidden=16),
    "gru_computed_late_reset": _layer("GRU", linear_before_reset=1, computed=True, hidden=16),
    "gru_late_reset_without_bias": _layer("GRU", linear_before_reset=1, bias=False),
    "lstm_relu_softsign_affine": _layer(
        "LSTM", activations=["HardSigmoid", "Softsign", "Affine"], activation_alpha=[0.3, 0.5],
        activation_beta=[0.4, 0.1],
    ),
    "gru_named_parameters": _layer(
        "GRU", direction="bidirectional",
        activations=["HardSigmoid", "ScaledTanh", "Sigmoid", "LeakyRelu"],
        activation_alpha=[0.3, 0.5, 0.2], activation_beta=[0.4, 0.7],
    ),
    "gru_default_parameters": _layer("GRU", activations=["HardSigmoid", "LeakyRelu"]),
}  # fmt: skip
for _name, _alpha in (
    ("Relu", None), ("Tanh", None), ("Sigmoid", None), ("Affine", 0.4), ("LeakyRelu", 0.2),
    ("ThresholdedRelu", 0.1), ("ScaledTanh", 0.6), ("HardSigmoid", 0.3), ("Elu", 0.5),
    ("Softsign", None), ("Softplus", None),
):  # fmt: skip
    _how = {} if _alpha is None else {"activation_alpha": [_alpha]}
    if _name in ("Affine", "ScaledTanh", "HardSigmoid"):
        _how["activation_beta"] = [0.25]
    MODELS[f"rnn_{_name.lower()}"] = _layer("RNN", activations=[_name], **_how)
# Layers with the batch first, which ONNX Runtime does not support.
BATCH_FIRST = {
    f"{op.lower()}_batch_first_{direction}": (op, direction)
    for op in GATES
    for direction in ("forward", "bidirectional")
}


def batch_first(op: str, direction: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A layer of layout 1, and the same between transpositions in layout 0."""
    outputs = (0, 1, 2) if op == "LSTM" else (0, 1)
    how = {"batch": 2, "direction": direction, "outputs": outputs, "initial": "constant"}
    return _layer(op, layout=1, **how)(), _layer(op, **how)()


def recognizer() -> onnx.ModelProto:
    """A text recognizer: columns of an image, two bidirectional layers, a class for each column."""
    net = Net()
    x = net.op("Relu", net.conv(net.input(1, 3, 8, 24), 12, 3, 3, 3, pads=[1] * 4))
    x = net.op("MaxPool", x, kernel_shape=[8, 2], strides=[8, 2])
    x = net.op("Transpose", net.op("Squeeze", x, net.constant([2], np.int64)), perm=[2, 0, 1])
    for size in (12, 20):
        made = net.node(
            "LSTM", x, net.weight(2, 40, size), net.weight(2, 40, 10),
            hidden_size=10, direction="bidirectional", outputs=3,
        )  # fmt: skip
        x = net.op("Transpose", made[0], perm=[0, 2, 1, 3])
        x = net.op("Reshape", x, net.constant([0, 0, -1], np.int64))
    return net.build(net.op("Softmax", net.op("MatMul", x, net.weight(20, 11)), axis=2))


MODELS["recognizer"] = recognizer
