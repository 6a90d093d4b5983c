"""Element-wise operators as vector expressions, fused into an anchor or standing alone."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from functools import partial

import numpy as np
from tvm import tirx

from ..errors import Unsupported
from ..frontend.graph import Graph, Node, Tensor
from .kernel import Value, Weight
from .layout import PLAIN, lanes_of, stored_shape
from .min_max import extreme
from .target import CpuTarget
from .vector_math import LOWEST, Keep, Lets, erf, exp, log, quotient

Index = tuple[tirx.Expr, ...]
# Default alpha and gamma of Selu.
SELU = (1.67326319217681884765625, 1.05070102214813232421875)
# Their expressions read the operand several times.
TWICE = {
    "LeakyRelu", "PRelu", "Abs", "HardSwish", "Elu", "Selu", "Celu", "ThresholdedRelu", "Log",
    "Softplus", "Softsign", "Mish", "Swish", "Erf", "Gelu", "Pow", "Exp", "Min", "Max",
}  # fmt: skip
# Operators with long expressions, and how many of them a tile may have: they are unrolled for each of
# its results.
LONG = {
    "Log", "Softplus", "Mish", "Erf", "Gelu", "Exp", "Sigmoid", "Tanh", "Elu", "Selu", "Celu", "Swish",
}  # fmt: skip
MOST_LONG = 1
# Above this the exponential is computed from a smaller argument and scaled.
GREAT = 88.0
# The smallest normal float32.
SMALLEST = 2.0**-126


class TooLong(Unsupported):
    """The function would be too long, because each border kind has its own code."""


class Operands:
    """The tensors that an epilogue reads besides the anchor's result: other values and constants, as
    buffers.
    """

    def __init__(self, graph: Graph, layout: str, target: CpuTarget) -> None:
        self.graph = graph
        self.layout = layout
        self.target = target
        self.arguments: list[Value | Weight] = []
        self.placeholders: list[tirx.Buffer] = []
        self._known: dict[str, Callable[[Index], tirx.Expr]] = {}

    def add(self, argument: Value | Weight, shape: tuple[int, ...], dtype: str) -> tirx.Buffer:
        """Adds an argument of the function and returns its placeholder."""
        placeholder = tirx.decl_buffer(shape, dtype, name=f"p{len(self.placeholders)}")
        self.arguments.append(argument)
        self.placeholders.append(placeholder)
        return placeholder

    def read(self, name: str, result: Tensor) -> Callable[[Index], tirx.Expr]:
        """A reader of operand ``name`` at an index of ``result``, broadcast as in ONNX."""
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
        if lanes and (len(tensor.shape) != 4 or tensor.shape[1] != result.shape[1]):
            return self._same_for_all_channels(name, tensor, result)
        stored = stored_shape(tensor.shape, self.layout)
        placeholder = self.add(Value(name, self.layout, stored, "float32"), stored, "float32")
        padded = (1,) * (len(result.shape) - len(tensor.shape)) + stored
        skip = len(padded) - len(stored)
        return lambda index: placeholder[_broadcast(padded, index)[skip:]]

    def _same_for_all_channels(
        self, name: str, tensor: Tensor, result: Tensor
    ) -> Callable[[Index], tirx.Expr]:
        """Reads a plain operand of a packed image; one element is used for all lanes."""
        shape = (1,) * (len(result.shape) - len(tensor.shape)) + tensor.shape
        if len(shape) != 4 or shape[1] != 1 or len(result.shape) != 4:
            raise Unsupported("operand that cannot be packed")
        placeholder = self.add(
            Value(name, PLAIN, tuple(tensor.shape), "float32"), tuple(tensor.shape), "float32"
        )
        skip = 4 - len(tensor.shape)

        def read(index: Index) -> tirx.Expr:
            """A reader of operand ``name`` at an index of ``result``, broadcast as in ONNX."""
            element = placeholder[_broadcast(shape, index[:4])[skip:]]
            last = index[4]
            return tirx.Broadcast(element, last.lanes) if isinstance(last, tirx.Ramp) else element

        return read


def _broadcast(shape: tuple[int, ...], index: Index) -> Index:
    zero = tirx.const(0, "int32")
    return tuple(
        zero if extent == 1 else position for extent, position in zip(shape, index, strict=True)
    )


def pack_array(array: np.ndarray, lanes: int, filling: float = 0.0) -> np.ndarray:
    """A constant of shape (N, C, H, W) in packed layout.

    Lanes beyond C are ``filling``. A constant with one channel is repeated.
    """
    n, c, h, w = array.shape
    if c == 1:
        array, c = np.repeat(array, lanes, axis=1), lanes
    blocks = -(-c // lanes)
    full = np.full((n, blocks * lanes, h, w), filling, array.dtype)
    full[:, :c] = array
    return np.ascontiguousarray(full.reshape(n, blocks, lanes, h, w).transpose(0, 1, 3, 4, 2))


def apply(
    operands: Operands, nodes: list[Node], value: str, result: Tensor, keep: Keep | None = None
) -> Callable[[tirx.Expr, Index], tirx.Expr]:
    """The ``nodes`` as a function of the anchor's result ``value`` and its index.

    Chains of long operators need ``keep`` (see ``Lets``).
    """
    readers = {
        name: operands.read(name, result)
        for node in nodes
        for name in _tensor_inputs(node)
        if name != value and not any(name in other.outputs for other in nodes)
    }

    reads = [name for node in nodes for name in _tensor_inputs(node)]

    def evaluate(expression: tirx.Expr, index: Index) -> tirx.Expr:
        # A value that is read several times is computed once.
        lets = Lets(keep, operands.target)

        def once(name: str, made: tirx.Expr) -> tirx.Expr:
            return made if reads.count(name) < 2 else lets.bind("x", made)

        known = {value: once(value, expression)}
        for node in nodes:
            inputs = [
                known[name] if name in known else readers[name](index)
                for name in _tensor_inputs(node)
            ]
            if node.op in TWICE and not isinstance(inputs[0], tirx.Var):
                inputs[0] = lets.bind("x", inputs[0])
            made = _expression(operands.graph, node, inputs, lets)
            known[node.outputs[0]] = once(node.outputs[0], made)
        return lets.around(known[nodes[-1].outputs[0]] if nodes else expression)

    return evaluate


def check_short(nodes: list[Node]) -> None:
    """Raises ``Unsupported`` for operators that are cheaper in their own pass."""
    weight = sum((2 if node.op in ("Gelu", "Softplus") else 1) for node in nodes if node.op in LONG)
    if weight > MOST_LONG:
        raise Unsupported("operators too long to be written out for every result")


def _tensor_inputs(node: Node) -> list[str]:
    return node.inputs[:1] if node.op in ("Clip", "Pow") else [name for name in node.inputs if name]


def _expression(graph: Graph, node: Node, inputs: list[tirx.Expr], lets: Lets) -> tirx.Expr:
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
            return _exponential(first, lets)
        case "Relu":
            # With this operand order, a single maximum instruction propagates NaN.
            return tirx.max(number(0.0), first)
        case "LeakyRelu":
            return tirx.max(first, number(0.0)) + tirx.min(first, number(0.0)) * number(
                attribute("alpha", 0.01)
            )
        case "PRelu":
            return tirx.max(first, number(0.0)) + tirx.min(first, number(0.0)) * inputs[1]
        case "Clip":
            low, high = clip_bounds(graph, node)
            clipped = first if low is None else tirx.max(number(low), first)
            return clipped if high is None else tirx.min(number(high), clipped)
        case "Sigmoid":
            return quotient(number(1.0), number(1.0) + exp(number(0.0) - first, lets), lets)
        case "Tanh":
            grown = exp(first + first, lets) + number(1.0)
            return number(1.0) - quotient(number(2.0), grown, lets)
        case "HardSigmoid":
            line = first * number(attribute("alpha", 0.2)) + number(attribute("beta", 0.5))
            return tirx.max(number(0.0), tirx.min(number(1.0), line))
        case "HardSwish":
            line = first * number(1.0 / 6.0) + number(0.5)
            return first * tirx.max(number(0.0), tirx.min(number(1.0), line))
        case "Elu" | "Selu":
            alpha = attribute("alpha", 1.0 if node.op == "Elu" else SELU[0])
            gamma = attribute("gamma", 1.0 if node.op == "Elu" else SELU[1])
            below = number(alpha * gamma) * (exp(tirx.min(first, number(0.0)), lets) - number(1.0))
            return number(gamma) * tirx.max(first, number(0.0)) + below
        case "Celu":
            alpha = attribute("alpha", 1.0)
            below = exp(tirx.min(first, number(0.0)) * number(1.0 / alpha), lets) - number(1.0)
            return tirx.max(first, number(0.0)) + number(alpha) * below
        case "ThresholdedRelu":
            return tirx.Select(first > number(attribute("alpha", 1.0)), first, number(0.0) * first)
        case "Log":
            return logarithm(first, lets)
        case "Softplus":
            return _softplus(first, lets)
        case "Softsign":
            return first / (number(1.0) + tirx.max(first, number(0.0) - first))
        case "Mish":
            # tanh(log(y)) = (y² - 1) / (y² + 1); for large y it is 1, and y² would overflow.
            grown = number(1.0) + exp(tirx.min(first, number(30.0)), lets)
            part = quotient(number(2.0), grown * grown + number(1.0), lets)
            return first * (number(1.0) - part)
        case "Swish":
            gate = number(0.0) - first * number(attribute("alpha", 1.0))
            return quotient(first, number(1.0) + exp(gate, lets), lets)
        case "Erf":
            return erf(first, lets)
        case "Gelu":
            return _gelu(first, attribute("approximate", b"none"), lets)
        case "Reciprocal":
            return number(1.0) / first
        case "Floor":
            return tirx.floor(first)
        case "Ceil":
            return tirx.ceil(first)
        case "Pow":
            return _power(graph, node, first)
        case "Min" | "Max" | "Sum" | "Mean":
            extremes = {"Min": partial(extreme, False), "Max": partial(extreme, True)}
            result = functools.reduce(extremes.get(node.op, operator.add), inputs)
            return result * number(1.0 / len(inputs)) if node.op == "Mean" else result
    raise Unsupported(f"operator {node.op}")


def clip_bounds(graph: Graph, node: Node) -> tuple[float | None, float | None]:
    """Bounds of a Clip: attributes up to opset 10, constant inputs since."""
    bounds: list[float | None] = [node.attributes.get("min"), node.attributes.get("max")]
    for place, name in enumerate(node.inputs[1:3]):
        if name:
            array = graph.constants.get(name)
            if array is None or array.size != 1:
                raise Unsupported("bounds of a Clip that are not constant scalars")
            bounds[place] = float(array.reshape(-1)[0])
    return bounds[0], bounds[1]


def _like(x: tirx.Expr, value: float) -> tirx.Expr:
    """A constant in as many lanes as ``x`` has."""
    lanes = int(str(x.ty).partition("x")[2] or 1)
    number = tirx.const(value, "float32")
    return number if lanes == 1 else tirx.Broadcast(number, lanes)


def _exponential(x: tirx.Expr, lets: Lets) -> tirx.Expr:
    """e^x, with infinity and 0 out of range. Near the maximum, e^(x - 1) is scaled."""
    zero, one = _like(x, 0.0), _like(x, 1.0)
    large = lets.bind("large", tirx.Select(x > _like(x, GREAT), one, zero))
    scale = one + large * _like(x, math.e - 1.0)
    return tirx.Select(x < _like(x, LOWEST), zero, exp(x - large, lets) * scale)


def logarithm(x: tirx.Expr, lets: Lets) -> tirx.Expr:
    """Natural logarithm of any number."""
    zero, infinity = _like(x, 0.0), _like(x, math.inf)
    # Subnormal numbers are scaled by 2^23.
    tiny = lets.bind("tiny", tirx.Select(x < _like(x, SMALLEST), _like(x, 1.0), zero))
    scaled = lets.bind("scaled", x + x * tiny * _like(x, 2.0**23 - 1.0))
    of_number = log(scaled, lets) - tiny * _like(x, 23 * math.log(2.0))
    of_number = tirx.Select(x < infinity, of_number, x)
    beyond = tirx.Select(x >= zero, _like(x, -math.inf), _like(x, math.nan))
    return tirx.Select(x > zero, of_number, beyond)


def _softplus(x: tirx.Expr, lets: Lets) -> tirx.Expr:
    """log(1 + e^x); x where that overflows."""
    zero, one = tirx.const(0.0, "float32"), tirx.const(1.0, "float32")
    return tirx.max(x, zero) + log(one + exp(zero - tirx.max(x, zero - x), lets), lets)


def _gelu(x: tirx.Expr, approximate: bytes | str, lets: Lets) -> tirx.Expr:
    def number(value: float) -> tirx.Expr:
        return tirx.const(value, "float32")

    if approximate in (b"tanh", "tanh"):
        inner = number(math.sqrt(2 / math.pi)) * (x + number(0.044715) * (x * x * x))
        # (1 + tanh y) / 2 = 1 / (1 + e^-2y)
        return quotient(x, number(1.0) + exp(number(-2.0) * inner, lets), lets)
    return number(0.5) * x * (number(1.0) + erf(x * number(math.sqrt(0.5)), lets))


def _power(graph: Graph, node: Node, x: tirx.Expr) -> tirx.Expr:
    """A constant power, as a root or a product."""
    array = graph.constants.get(node.inputs[1])
    if array is None or array.size != 1:
        raise Unsupported("power that is not one constant")
    power = float(array.reshape(-1)[0])
    if power == 0.5:
        return tirx.sqrt(x)
    if power not in (1.0, 2.0, 3.0, 4.0):
        raise Unsupported(f"power {power}")
    return functools.reduce(operator.mul, [x] * int(power))
