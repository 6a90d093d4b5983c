"""Element-wise operators for any type, as expressions of single elements.

Implementation-defined behaviour follows ONNX Runtime: integer division truncates towards zero, and values
that an integer type cannot hold wrap. Integer division by 0 gives 0, where other programs trap. Functions
without a vector form call the C library.
"""

from __future__ import annotations

import functools
import operator

import numpy as np
from tvm import tirx

from ...errors import Unsupported
from ...frontend.graph import Graph, Node
from ..min_max import extreme

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
TYPES = {*FLOATS, *INTEGERS, "bool"}
# C library functions; the float32 forms end in f.
LIBRARY = {
    "Sin": "sin", "Cos": "cos", "Tan": "tan", "Asin": "asin", "Acos": "acos", "Atan": "atan",
    "Sinh": "sinh", "Cosh": "cosh", "Tanh": "tanh", "Asinh": "asinh", "Acosh": "acosh",
    "Atanh": "atanh", "Exp": "exp", "Log": "log", "Erf": "erf",
}  # fmt: skip
COMPARISONS = {
    "Less": operator.lt, "Greater": operator.gt,
    "LessOrEqual": operator.le, "GreaterOrEqual": operator.ge,
}  # fmt: skip
ARITHMETIC = {"Add": operator.add, "Sub": operator.sub, "Mul": operator.mul}
KNOWN = {
    *LIBRARY, *COMPARISONS, *ARITHMETIC, "Div", "Mod", "Pow", "Equal", "And", "Or", "Xor", "Not",
    "Where", "Cast", "CastLike", "IsNaN", "IsInf", "BitShift", "BitwiseAnd", "BitwiseOr",
    "BitwiseXor", "BitwiseNot", "Round", "Floor", "Ceil", "Sign", "Neg", "Abs", "Sqrt",
    "Reciprocal", "Relu", "Min", "Max", "Sum", "Mean", "Clip", "Identity", "PRelu", "LeakyRelu",
    "Sigmoid", "Softplus",
}  # fmt: skip
# Exponent mask, fraction mask and sign bit of the float types.
BITS = {
    "float16": ("uint16", 0x7C00, 0x7FFF),
    "float32": ("uint32", 0x7F800000, 0x7FFFFFFF),
    "float64": ("uint64", 0x7FF0000000000000, 0x7FFFFFFFFFFFFFFF),
}
# A float is truncated to this type before it wraps to a small integer type.
THROUGH = {
    "int8": "int32", "uint8": "int32", "int16": "int32", "uint16": "int32", "uint32": "int64",
}  # fmt: skip


def expression(graph: Graph, node: Node, inputs: list[tirx.Expr | None]) -> tirx.Expr:
    """The result of ``node`` for one element of each input; None stands for an absent input."""
    first = inputs[0]
    assert first is not None, "only trailing inputs may be left out"
    kind = str(first.ty)
    given = [item for item in inputs if item is not None]
    attribute = node.attributes.get
    op = node.op
    if op in ("Cast", "CastLike", "Identity"):
        return cast(first, graph.tensor(node.outputs[0]).dtype)
    if op in ("IsNaN", "IsInf") and kind in FLOATS:
        return is_nan(first) if op == "IsNaN" else _is_infinite(first, node)
    if kind == "float16" and op not in ("Where", "Equal", *COMPARISONS):
        # As ONNX Runtime does: in float32, rounded once.
        wide = [
            item.astype("float32") if item is not None and str(item.ty) == "float16" else item
            for item in inputs
        ]
        return expression(graph, node, wide).astype(graph.tensor(node.outputs[0]).dtype)
    if op in LIBRARY and kind in FLOATS:
        return call(LIBRARY[op], first)
    if op in COMPARISONS:
        return COMPARISONS[op](first, inputs[1])
    if op in ARITHMETIC and kind != "bool":
        return ARITHMETIC[op](first, inputs[1])
    match op:
        case "Equal":
            same = tirx.Not(_apart(first, inputs[1])) if kind == "bool" else None
            return tirx.EQ(first, inputs[1]) if same is None else same
        case "And":
            return tirx.And(first, inputs[1])
        case "Or":
            return tirx.Or(first, inputs[1])
        case "Xor":
            return _apart(first, inputs[1])
        case "Not":
            return tirx.Not(first)
        case "Where":
            return tirx.Select(first, inputs[1], inputs[2])
        case "Min" | "Max":
            return functools.reduce(functools.partial(extreme, op == "Max"), given)
        case "Sum" | "Mean" if kind in FLOATS:
            total = functools.reduce(operator.add, given)
            return total / _number(len(given), kind) if op == "Mean" else total
        case "Clip":
            return _clip(node, inputs, kind)
        case "Pow":
            return power(first, inputs[1], graph.constants.get(node.inputs[1]))
        case "Div":
            return first / inputs[1] if kind in FLOATS else _quotient(first, inputs[1])
        case "Mod":
            return _remainder(first, inputs[1], bool(attribute("fmod", 0)))
        case "Abs":
            return absolute(first)
        case "Neg" if not kind.startswith("u"):
            return _number(0, kind) - first if kind in INTEGERS else _number(-1, kind) * first
        case "Sign":
            return _sign(first)
    if kind in INTEGERS:
        return _of_integers(node, inputs, kind)
    if kind in FLOATS:
        return _of_floats(node, inputs, kind)
    raise Unsupported(f"{op} of {kind}")


def _of_integers(node: Node, inputs: list[tirx.Expr | None], kind: str) -> tirx.Expr:
    first, *others = inputs
    match node.op:
        case "BitwiseAnd":
            return tirx.bitwise_and(first, others[0])
        case "BitwiseOr":
            return tirx.bitwise_or(first, others[0])
        case "BitwiseXor":
            return tirx.bitwise_xor(first, others[0])
        case "BitwiseNot":
            return tirx.bitwise_not(first)
        case "BitShift":
            # A shift by more bits than the type has is undefined in hardware. ONNX shifts all of them
            # out (to the right, the sign stays) and treats a negative count the same.
            wide = others[0].astype("int64")
            inside = tirx.And(wide >= 0, wide < np.dtype(kind).itemsize * 8)
            by = tirx.Select(inside, others[0], _number(0, kind))
            left = node.attributes["direction"] in (b"LEFT", "LEFT")
            shifted = tirx.shift_left(first, by) if left else tirx.shift_right(first, by)
            gone = _number(0, kind)
            if not left and kind.startswith("int"):
                gone = tirx.Select(first < gone, _number(-1, kind), gone)
            return tirx.Select(inside, shifted, gone)
        case "Relu":
            return tirx.max(first, _number(0, kind))
    raise Unsupported(f"{node.op} of {kind}")


def _of_floats(node: Node, inputs: list[tirx.Expr | None], kind: str) -> tirx.Expr:
    first, *others = inputs
    zero, one = _number(0, kind), _number(1, kind)
    match node.op:
        case "Round":
            return tirx.nearbyint(first)
        case "Floor":
            return tirx.floor(first)
        case "Ceil":
            return tirx.ceil(first)
        case "Sqrt":
            return tirx.sqrt(first)
        case "Reciprocal":
            return one / first
        case "Relu":
            return tirx.Select(tirx.LT(first, zero), zero, first)
        case "LeakyRelu":
            slope = _number(node.attributes.get("alpha", 0.01), kind)
            return tirx.Select(tirx.LT(first, zero), first * slope, first)
        case "PRelu":
            return tirx.Select(tirx.LT(first, zero), first * others[0], first)
        case "Sigmoid":
            return one / (one + call("exp", zero - first))
        case "Softplus":
            size = absolute(first)
            return tirx.max(first, zero) + call("log1p", call("exp", zero - size))
    raise Unsupported(f"{node.op} of {kind}")


def _apart(first: tirx.Expr, second: tirx.Expr) -> tirx.Expr:
    """Whether two booleans differ; the code generator would compare them as floats."""
    return tirx.Or(tirx.And(first, tirx.Not(second)), tirx.And(tirx.Not(first), second))


def _number(value: float, kind: str) -> tirx.Expr:
    return tirx.const(value, kind)


def call(name: str, *operands: tirx.Expr) -> tirx.Expr:
    """A call of a C library function."""
    kind = str(operands[0].ty)
    full = name if kind == "float64" else f"{name}f"
    return tirx.call_pure_extern(kind, full, *operands)


def cast(value: tirx.Expr, kind: str) -> tirx.Expr:
    """``value`` converted to another type, as in C."""
    before = str(value.ty)
    if before == kind:
        return value
    if kind == "bool":
        zero = _number(0, before)
        if before not in FLOATS:
            return tirx.NE(value, zero)
        return tirx.Or(tirx.Or(value > zero, value < zero), is_nan(value))
    if before == "bool":
        return tirx.Select(value, _number(1, kind), _number(0, kind))
    if before == "float16" and kind != "float32":
        value = value.astype("float32")
    if before in FLOATS and kind in THROUGH:
        value = value.astype(THROUGH[kind])
    return value.astype(kind)


def is_nan(value: tirx.Expr) -> tirx.Expr:
    """Whether a value is NaN, tested by its bits: the code generator may assume no NaN and drop a
    comparison.
    """
    bits, exponent, size = BITS[str(value.ty)]
    whole = tirx.bitwise_and(tirx.reinterpret(bits, value), tirx.const(size, bits))
    return tirx.GT(whole, tirx.const(exponent, bits))


def _is_infinite(value: tirx.Expr, node: Node) -> tirx.Expr:
    bits, exponent, size = BITS[str(value.ty)]
    word = tirx.reinterpret(bits, value)
    found = tirx.const(False, "bool")
    if node.attributes.get("detect_positive", 1):
        found = tirx.Or(found, tirx.EQ(word, tirx.const(exponent, bits)))
    if node.attributes.get("detect_negative", 1):
        negative = tirx.const(exponent + size + 1, bits)
        found = tirx.Or(found, tirx.EQ(word, negative))
    return found


def _clip(node: Node, inputs: list[tirx.Expr | None], kind: str) -> tirx.Expr:
    value, low, high = [*inputs, None, None][:3]
    low = _number(node.attributes["min"], kind) if "min" in node.attributes else low
    high = _number(node.attributes["max"], kind) if "max" in node.attributes else high
    # NaN is not less and not greater.
    if low is not None:
        value = tirx.Select(tirx.LT(value, low), low, value)
    return value if high is None else tirx.Select(tirx.GT(value, high), high, value)


def power(base: tirx.Expr, exponent: tirx.Expr, constant: np.ndarray | None = None) -> tirx.Expr:
    """``base`` to the power of ``exponent``, which may have another type.

    The result has the type of the base.
    """
    kind = str(base.ty)
    if constant is not None and constant.size == 1:
        whole = float(constant.reshape(-1)[0])
        if whole in (1.0, 2.0, 3.0, 4.0):
            return functools.reduce(operator.mul, [base] * int(whole))
        if whole == 0.5 and kind in FLOATS:
            return tirx.sqrt(base)
    wide = kind if kind == "float32" and str(exponent.ty) == "float32" else "float64"
    return cast(call("pow", base.astype(wide), exponent.astype(wide)), kind)


def _safe(over: tirx.Expr, under: tirx.Expr) -> tuple[tirx.Expr, tirx.Expr]:
    """Operands of an integer division, replaced where the processor would trap."""
    kind = str(under.ty)
    bad = tirx.EQ(under, _number(0, kind))
    if not kind.startswith("u"):
        # The minimum divided by -1 overflows.
        bad = tirx.Or(bad, tirx.EQ(under, _number(-1, kind)))
    return over, tirx.Select(bad, _number(1, kind), under)


def _quotient(over: tirx.Expr, under: tirx.Expr) -> tirx.Expr:
    kind = str(over.ty)
    zero = _number(0, kind)
    made = tirx.truncdiv(*_safe(over, under))
    if not kind.startswith("u"):
        made = tirx.Select(tirx.EQ(under, _number(-1, kind)), zero - over, made)
    return tirx.Select(tirx.EQ(under, zero), zero, made)


def _remainder(over: tirx.Expr, under: tirx.Expr, as_c: bool) -> tirx.Expr:
    """The remainder with the sign of the divisor, or of the dividend as in C."""
    kind = str(over.ty)
    if kind in FLOATS:
        rest = call("fmod", over, under)
        if as_c:
            return rest
        opposite = tirx.And(
            tirx.Not(tirx.EQ(rest, _number(0, kind))),
            _apart(tirx.LT(rest, _number(0, kind)), tirx.LT(under, _number(0, kind))),
        )
        return tirx.Select(opposite, rest + under, rest)
    zero = _number(0, kind)
    rest = tirx.truncmod(*_safe(over, under))
    if not as_c and not kind.startswith("u"):
        apart = tirx.And(tirx.NE(rest, zero), _apart(tirx.LT(rest, zero), tirx.LT(under, zero)))
        rest = tirx.Select(apart, rest + under, rest)
    return rest


def absolute(value: tirx.Expr) -> tirx.Expr:
    """Absolute value."""
    kind = str(value.ty)
    if kind in FLOATS:
        return tirx.abs(value)
    if kind.startswith("u"):
        return value
    return tirx.Select(tirx.LT(value, _number(0, kind)), _number(0, kind) - value, value)


def _sign(value: tirx.Expr) -> tirx.Expr:
    kind = str(value.ty)
    zero, one = _number(0, kind), _number(1, kind)
    above = tirx.Select(tirx.GT(value, zero), one, zero)
    if kind.startswith("u"):
        return above
    made = tirx.Select(tirx.LT(value, zero), _number(-1, kind), above)
    return tirx.Select(is_nan(value), value, made) if kind in FLOATS else made
