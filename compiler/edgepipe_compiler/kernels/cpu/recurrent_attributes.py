"""Attributes and inputs of LSTM, GRU and RNN."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import Unsupported
from ...frontend.graph import Graph, Node

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
# Default alpha and beta of activations.
PARAMETERS = {
    "affine": (1.0, 0.0), "leakyrelu": (0.01, None), "thresholdedrelu": (1.0, None),
    "scaledtanh": (1.0, 1.0), "hardsigmoid": (0.2, 0.5), "elu": (1.0, None),
}  # fmt: skip
PLAIN_ACTIVATIONS = {
    name.lower(): name
    for name in (
        "Relu", "Tanh", "Sigmoid", "LeakyRelu", "ThresholdedRelu", "HardSigmoid", "Elu", "Softsign",
        "Softplus",
    )
}  # fmt: skip


@dataclass(frozen=True)
class Activation:
    """A function by its lower-case name, with its parameters."""

    name: str
    alpha: float | None
    beta: float | None


@dataclass(frozen=True)
class Layer:
    """A recurrent operator: extents, attributes, and names of its parameters ("" if absent)."""

    op: str
    steps: int
    batch: int
    inputs: int
    hidden: int
    backwards: tuple[bool, ...]
    batch_first: bool
    activations: list[list[Activation]]
    clip: float | None
    coupled: bool
    late_reset: bool
    weight: str
    recurrence: str
    bias: str
    peepholes: str
    lengths: str

    @property
    def gates(self) -> int:
        """Number of gates."""
        return GATES[self.op]

    @property
    def directions(self) -> int:
        """2 if bidirectional, otherwise 1."""
        return len(self.backwards)


def resolve(graph: Graph, node: Node) -> Layer:
    """The layer that a node describes. Raises ``Unsupported``."""
    attribute = node.attributes.get
    source = graph.tensor(node.inputs[0])
    inputs = [*node.inputs, *[""] * (8 - len(node.inputs))]
    if source.dtype != "float32":
        raise Unsupported("a recurrent layer of another type than float32")
    batch_first = bool(attribute("layout", 0))
    steps, batch, size = source.shape
    if batch_first:
        steps, batch = batch, steps
    directions, rows, _ = graph.tensor(inputs[1]).shape
    direction = _text(attribute("direction", "forward"))
    backwards = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[direction]
    if len(backwards) != directions:
        raise Unsupported(f"weights of {directions} directions in a {direction} layer")
    lengths = graph.constants.get(inputs[4])
    return Layer(
        op=node.op,
        steps=steps,
        batch=batch,
        inputs=size,
        hidden=rows // GATES[node.op],
        backwards=backwards,
        batch_first=batch_first,
        activations=_activations(node, directions),
        clip=attribute("clip"),
        coupled=bool(attribute("input_forget", 0)),
        late_reset=bool(attribute("linear_before_reset", 0)),
        weight=inputs[1],
        recurrence=inputs[2],
        bias=inputs[3],
        peepholes=inputs[7] if node.op == "LSTM" else "",
        lengths="" if lengths is not None and (lengths == steps).all() else inputs[4],
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _activations(node: Node, directions: int) -> list[list[Activation]]:
    """The functions of each direction. Parameters are listed only for functions that have them."""
    names = node.attributes.get("activations") or [*DEFAULTS[node.op]] * directions
    alphas = iter(node.attributes.get("activation_alpha", ()))
    betas = iter(node.attributes.get("activation_beta", ()))
    found = []
    for name in names:
        lower = _text(name).lower()
        alpha, beta = PARAMETERS.get(lower, (None, None))
        if lower not in PARAMETERS and lower not in PLAIN_ACTIVATIONS:
            raise Unsupported(f"the activation {_text(name)}")
        found.append(
            Activation(
                lower,
                None if alpha is None else next(alphas, alpha),
                None if beta is None else next(betas, beta),
            )
        )
    each = len(DEFAULTS[node.op])
    if len(found) != each * directions:
        raise Unsupported(f"{len(found)} activations for {directions} directions")
    return [found[each * place : each * (place + 1)] for place in range(directions)]
