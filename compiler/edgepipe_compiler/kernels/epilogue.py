"""Element-wise operators as expressions, fused behind an anchor or standing alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import te, tirx

from ..graph import Graph, Node, Tensor
from .exponential import exp
from .kernel import Value, Weight
from .layout import lanes_of, stored_shape

Index = tuple[tirx.Expr, ...]


class Unsupported(Exception):
    """The rule does not know this; the next one may."""


class Operands:
    """The tensors an epilogue reads besides the anchor's result: other values and constants. They are
    tensors of an expression, or buffers for functions that are ``written`` statement by statement."""

    def __init__(self, graph: Graph, layout: str, written: bool = False) -> None:
        self.graph = graph
        self.layout = layout
        self.arguments: list[Value | Weight] = []
        self.placeholders: list[te.Tensor | tirx.Buffer] = []
        self._declare = tirx.decl_buffer if written else te.placeholder
        self._known: dict[str, Callable[[Index], tirx.Expr]] = {}

    def add(
        self, argument: Value | Weight, shape: tuple[int, ...], dtype: str
    ) -> te.Tensor | tirx.Buffer:
        """Adds an argument of the function and returns its placeholder."""
        placeholder = self._declare(shape, dtype, name=f"p{len(self.placeholders)}")
        self.arguments.append(argument)
        self.placeholders.append(placeholder)
        return placeholder

    def read(self, name: str, result: Tensor) -> Callable[[Index], tirx.Expr]:
        """How to read operand ``name`` at an index of ``result``, broadcast as ONNX does."""
        if name not in self._known:
            constant = self.graph.constants.get(name)
            if constant is not None:
                self._known[name] = self._constant(constant, result)
            else:
                self._known[name] = self._value(name, result)
        return self._known[name]

    def _constant(self, array: np.ndarray, result: Tensor) -> Callable[[Index], tirx.Expr]:
        if array.dtype != np.float32:
            raise Unsupported(f"constant of type {array.dtype}")
        if array.size == 1:
            scalar = tirx.const(float(array.reshape(-1)[0]), "float32")
            return lambda _: scalar
        shape = (1,) * (len(result.shape) - array.ndim) + array.shape
        lanes = lanes_of(self.layout)
        if lanes:
            # Ones fill the lanes beyond the channels: nothing may be divided by zero there.
            stored = pack_array(array.reshape(shape), lanes, filling=1.0)
        else:
            stored = array.reshape(shape)
        placeholder = self.add(Weight(stored), stored.shape, "float32")
        return lambda index: placeholder[_broadcast(stored.shape, index)]

    def _value(self, name: str, result: Tensor) -> Callable[[Index], tirx.Expr]:
        tensor = self.graph.tensor(name)
        if tensor.dtype != "float32":
            raise Unsupported(f"operand of type {tensor.dtype}")
        lanes = lanes_of(self.layout)
        if lanes and (len(tensor.shape) != 4 or tensor.shape[1] not in (1, result.shape[1])):
            raise Unsupported("operand that cannot be packed")
        if lanes and tensor.shape[1] != result.shape[1]:
            raise Unsupported("operand broadcast over channels")
        stored = stored_shape(tensor.shape, self.layout)
        placeholder = self.add(Value(name, self.layout, stored, "float32"), stored, "float32")
        padded = (1,) * (len(result.shape) - len(tensor.shape)) + stored
        skip = len(padded) - len(stored)
        return lambda index: placeholder[_broadcast(padded, index)[skip:]]


def _broadcast(shape: tuple[int, ...], index: Index) -> Index:
    zero = tirx.const(0, "int32")
    return tuple(
        zero if extent == 1 else position for extent, position in zip(shape, index, strict=True)
    )


def pack_array(array: np.ndarray, lanes: int, filling: float = 0.0) -> np.ndarray:
    """A constant of shape (N, C, H, W) in packed layout; lanes beyond C hold ``filling``. One that is
    the same for all channels is repeated."""
    n, c, h, w = array.shape
    if c == 1:
        array, c = np.repeat(array, lanes, axis=1), lanes
    blocks = -(-c // lanes)
    full = np.full((n, blocks * lanes, h, w), filling, array.dtype)
    full[:, :c] = array
    return np.ascontiguousarray(full.reshape(n, blocks, lanes, h, w).transpose(0, 1, 3, 4, 2))


def apply(
    operands: Operands, nodes: list[Node], value: str, result: Tensor
) -> Callable[[tirx.Expr, Index], tirx.Expr]:
    """The epilogue ``nodes`` as a function of the anchor's result ``value`` and its index."""
    readers = {
        name: operands.read(name, result)
        for node in nodes
        for name in _tensor_inputs(node)
        if name != value and not any(name in other.outputs for other in nodes)
    }

    def evaluate(expression: tirx.Expr, index: Index) -> tirx.Expr:
        known = {value: expression}
        for node in nodes:
            inputs = [
                known[name] if name in known else readers[name](index)
                for name in _tensor_inputs(node)
            ]
            known[node.outputs[0]] = _expression(operands.graph, node, inputs)
        return known[nodes[-1].outputs[0]] if nodes else expression

    return evaluate


def _tensor_inputs(node: Node) -> list[str]:
    return node.inputs[:1] if node.op == "Clip" else [name for name in node.inputs if name]


def _expression(graph: Graph, node: Node, inputs: list[tirx.Expr]) -> tirx.Expr:
    first = inputs[0]
    attribute = node.attributes.get

    def number(value: float) -> tirx.Expr:
        return tirx.const(value, "float32")

    match node.op:
        case "Add":
            return first + inputs[1]
        case "Sub":
            return first - inputs[1]
        case "Mul":
            return first * inputs[1]
        case "Div":
            return first / inputs[1]
        case "Neg":
            return number(0.0) - first
        case "Abs":
            return tirx.max(first, number(0.0) - first)
        case "Sqrt":
            return tirx.sqrt(first)
        case "Exp":
            return exp(first)
        case "Relu":
            return tirx.max(first, number(0.0))
        case "LeakyRelu":
            return tirx.max(first, number(0.0)) + tirx.min(first, number(0.0)) * number(
                attribute("alpha", 0.01)
            )
        case "PRelu":
            return tirx.max(first, number(0.0)) + tirx.min(first, number(0.0)) * inputs[1]
        case "Clip":
            low, high = clip_bounds(graph, node)
            clipped = first if low is None else tirx.max(first, number(low))
            return clipped if high is None else tirx.min(clipped, number(high))
        case "Sigmoid":
            return number(1.0) / (number(1.0) + exp(number(0.0) - first))
        case "Tanh":
            return number(1.0) - number(2.0) / (exp(first + first) + number(1.0))
        case "HardSigmoid":
            line = first * number(attribute("alpha", 0.2)) + number(attribute("beta", 0.5))
            return tirx.max(number(0.0), tirx.min(number(1.0), line))
        case "HardSwish":
            line = first * number(1.0 / 6.0) + number(0.5)
            return first * tirx.max(number(0.0), tirx.min(number(1.0), line))
        case "Elu":
            return tirx.max(first, number(0.0)) + number(attribute("alpha", 1.0)) * (
                exp(tirx.min(first, number(0.0))) - number(1.0)
            )
    raise Unsupported(f"operator {node.op}")


def clip_bounds(graph: Graph, node: Node) -> tuple[float | None, float | None]:
    """Bounds of a Clip: attributes up to opset 10, constants since."""
    bounds: list[float | None] = [node.attributes.get("min"), node.attributes.get("max")]
    for place, name in enumerate(node.inputs[1:3]):
        if name:
            array = graph.constants.get(name)
            if array is None:
                raise Unsupported("bounds of a Clip that are not constant")
            bounds[place] = float(array)
    return bounds[0], bounds[1]
