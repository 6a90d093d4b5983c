"""Exponential, logarithm and error function in vectors.

The code generator would call the C library for each lane. Range reduction and polynomial of the exponential
are those of Cephes' ``expf`` (S. Moshier, netlib.org/cephes, single precision): x = k ln 2 + r, e^r by a
polynomial of degree 6, 2^k by the exponent's bits. The error is below 3e-6 relative over the whole range of
float32; beyond it the result is that of the range's end. The logarithm is that of Cephes' ``logf``. The
error function is formula 7.1.26 of Abramowitz and Stegun, with an absolute error below 2e-7.
"""

from __future__ import annotations

from tvm import tirx

LOWEST, HIGHEST = -87.3365, 88.3762
LOG2_E, LN2_HIGH, LN2_LOW = 1.44269504088896341, 0.693359375, -2.12194440e-4
POLYNOMIAL = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
LOGARITHM = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
# The bits of the square root of 1/2, and those of a float32's fraction.
ROOT_HALF, FRACTION = 0x3F3504F3, 0x7FFFFF
ERROR = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


def exp(x: tirx.Expr) -> tirx.Expr:
    """e to the power of ``x``, a float32 or a vector of them."""

    def number(value: float) -> tirx.Expr:
        return tirx.const(value, "float32")

    floats = str(x.ty)
    integers = floats.replace("float32", "int32")
    clipped = tirx.Var("clipped", x.ty)
    scale = tirx.Var("scale", x.ty)
    rest = tirx.Var("rest", x.ty)
    sum_ = number(POLYNOMIAL[0])
    for factor in POLYNOMIAL[1:]:
        sum_ = sum_ * rest + number(factor)
    power = sum_ * (rest * rest) + rest + number(1.0)
    bits = tirx.shift_left(
        scale.astype(integers) + tirx.const(127, "int32"), tirx.const(23, "int32")
    )
    result = power * tirx.reinterpret(floats, bits)
    reduced = clipped - scale * number(LN2_HIGH) - scale * number(LN2_LOW)
    result = tirx.Let(rest, reduced, result)
    result = tirx.Let(scale, tirx.floor(clipped * number(LOG2_E) + number(0.5)), result)
    return tirx.Let(clipped, tirx.max(number(LOWEST), tirx.min(number(HIGHEST), x)), result)


def log(x: tirx.Expr) -> tirx.Expr:
    """The natural logarithm of a positive ``x``."""

    def number(value: float) -> tirx.Expr:
        return tirx.const(value, "float32")

    floats = str(x.ty)
    integers = floats.replace("float32", "int32")
    shifted = tirx.Var("shifted", tirx.reinterpret(integers, x).ty)
    rest = tirx.Var("rest", x.ty)
    power = tirx.Var("power", x.ty)
    sum_ = number(LOGARITHM[0])
    for factor in LOGARITHM[1:]:
        sum_ = sum_ * rest + number(factor)
    square = rest * rest
    low = sum_ * square * rest + power * number(LN2_LOW) - square * number(0.5)
    result = rest + low + power * number(LN2_HIGH)
    exponent = tirx.shift_right(shifted, tirx.const(23, "int32")).astype(floats)
    fraction = tirx.bitwise_and(shifted, tirx.const(FRACTION, "int32"))
    mantissa = tirx.reinterpret(floats, fraction + tirx.const(ROOT_HALF, "int32"))
    result = tirx.Let(rest, mantissa - number(1.0), result)
    result = tirx.Let(power, exponent, result)
    bits = tirx.reinterpret(integers, x) - tirx.const(ROOT_HALF, "int32")
    return tirx.Let(shifted, bits, result)


def erf(x: tirx.Expr) -> tirx.Expr:
    """The error function."""

    def number(value: float) -> tirx.Expr:
        return tirx.const(value, "float32")

    size = tirx.Var("size", x.ty)
    t = tirx.Var("t", x.ty)
    sum_ = number(ERROR[0])
    for factor in ERROR[1:]:
        sum_ = sum_ * t + number(factor)
    result = number(1.0) - sum_ * t * exp(number(0.0) - size * size)
    result = tirx.Let(t, number(1.0) / (number(1.0) + number(0.3275911) * size), result)
    result = tirx.Let(size, tirx.max(x, number(0.0) - x), result)
    return tirx.Select(x < number(0.0), number(0.0) - result, result)
