"""The exponential function in vectors: the code generator would call the C library for each lane.

Range reduction and polynomial are those of Cephes' ``expf`` (S. Moshier, netlib.org/cephes, single
precision): x = k ln 2 + r, e^r by a polynomial of degree 6, 2^k by the exponent's bits. The error is below
3e-6 relative over the whole range of float32; beyond it the result is that of the range's end.
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
