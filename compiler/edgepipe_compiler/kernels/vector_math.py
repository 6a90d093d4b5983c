"""Vectorized exponential, logarithm and error function.

The code generator would call the C library for each lane. The exponential uses range reduction and
polynomial of Cephes' ``expf`` (S. Moshier, netlib.org/cephes, single precision): x = k ln 2 + r, e^r by a
polynomial of degree 6, 2^k by the exponent bits. Its relative error is below 3e-6; arguments beyond the
float32 range are clamped. The logarithm is Cephes' ``logf``. The error function is formula 7.1.26 of
Abramowitz and Stegun, with an absolute error below 2e-7.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from .target import CpuTarget

Keep = Callable[[str, tirx.Expr], tirx.Expr]
LOWEST, HIGHEST = -87.3365, 88.3762
LOG2_E, LN2_HIGH, LN2_LOW = 1.44269504088896341, 0.693359375, -2.12194440e-4
# 1.5 * 2^23: a sum with it is rounded to an integer, which its lowest bits hold.
ROUNDING = 12582912.0
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
# The bits of sqrt(1/2), and the fraction mask of float32.
ROOT_HALF, FRACTION = 0x3F3504F3, 0x7FFFFF
ERROR = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


class Lets:
    """Values that an expression computes once each, in order.

    TVM's passes substitute bound values back into the expression, twenty times and more for each
    exponential, so a chain of several takes forever. In such chains ``keep`` computes a value in a
    statement before the expression.
    """

    def __init__(self, keep: Keep | None = None, target: CpuTarget | None = None) -> None:
        self._bound: list[tuple[tirx.Var, tirx.Expr]] = []
        self._keep = keep
        self.isa = target.isa if target is not None and target.estimates_reciprocals else None

    def bind(self, name: str, value: tirx.Expr) -> tirx.Expr:
        """Computes ``value`` once."""
        if self._keep is not None:
            return self._keep(name, value)
        variable = tirx.Var(name, value.ty)
        self._bound.append((variable, value))
        return variable

    def around(self, result: tirx.Expr) -> tirx.Expr:
        """The whole expression with ``result`` as its value."""
        for variable, value in reversed(self._bound):
            result = tirx.Let(variable, value, result)
        return result


def _number(value: float) -> tirx.Expr:
    return tirx.const(value, "float32")


def _polynomial(x: tirx.Expr, factors: tuple[float, ...]) -> tirx.Expr:
    sum_ = _number(factors[0])
    for factor in factors[1:]:
        sum_ = sum_ * x + _number(factor)
    return sum_


def quotient(over: tirx.Expr, under: tirx.Expr, lets: Lets) -> tirx.Expr:
    """``over / under`` for an ``under`` from 2^-126 to 2^126. Beyond 2^126, the result may be 0.

    Where a vector division is slow, it uses the processor's reciprocal estimate and Newton steps, each of
    which doubles the precision. The relative error is below 3e-7.
    """
    lanes = str(under.ty).removeprefix("float32x")
    match lets.isa, lanes:
        case "neon", "4":
            return over * _neon_reciprocal(under, lets)
        case "avx512", "16":
            return over * _avx512_reciprocal(under, lets)
    return over / under


def _neon_reciprocal(under: tirx.Expr, lets: Lets) -> tirx.Expr:
    """From an estimate of 8 bits. frecps computes 2 - a b."""

    def neon(name: str, *operands: tirx.Expr) -> tirx.Expr:
        return tirx.call_llvm_pure_intrin("float32x4", f"llvm.aarch64.neon.{name}", *operands)

    under = lets.bind("under", under)
    inverse = lets.bind("inverse", neon("frecpe", under))
    for _ in range(2):
        inverse = lets.bind("inverse", inverse * neon("frecps", under, inverse))
    return inverse


def _avx512_reciprocal(under: tirx.Expr, lets: Lets) -> tirx.Expr:
    """From an estimate of 14 bits."""
    under = lets.bind("under", under)
    # The mask selects all lanes, so none comes from the second operand.
    others, mask = tirx.Broadcast(_number(0.0), 16), tirx.const(-1, "int16")
    name = "llvm.x86.avx512.rcp14.ps.512"
    estimate = tirx.call_llvm_pure_intrin("float32x16", name, under, others, mask)
    inverse = lets.bind("inverse", estimate)
    return inverse + inverse * (_number(1.0) - under * inverse)


def exp(x: tirx.Expr, lets: Lets | None = None) -> tirx.Expr:
    """e to the power of ``x``, a float32 or a vector. Intermediate values go to ``lets``, if given."""
    if lets is None:
        own = Lets()
        return own.around(exp(x, own))
    floats = str(x.ty)
    integers = floats.replace("float32", "int32")
    clipped = lets.bind("clipped", tirx.max(_number(LOWEST), tirx.min(_number(HIGHEST), x)))
    # The sum's fraction bits hold k.
    shifted = lets.bind("shifted", clipped * _number(LOG2_E) + _number(ROUNDING))
    scale = lets.bind("scale", shifted - _number(ROUNDING))
    reduced = clipped - scale * _number(LN2_HIGH) - scale * _number(LN2_LOW)
    rest = lets.bind("rest", reduced)
    power = _polynomial(rest, POLYNOMIAL) * (rest * rest) + rest + _number(1.0)
    exponent = tirx.shift_left(tirx.reinterpret(integers, shifted), tirx.const(23, "int32"))
    # The bits of 1.0 have the exponent 0.
    return power * tirx.reinterpret(floats, exponent + tirx.const(0x3F800000, "int32"))


def log(x: tirx.Expr, lets: Lets | None = None) -> tirx.Expr:
    """Natural logarithm of a positive ``x``."""
    if lets is None:
        own = Lets()
        return own.around(log(x, own))
    floats = str(x.ty)
    integers = floats.replace("float32", "int32")
    bits = tirx.reinterpret(integers, x) - tirx.const(ROOT_HALF, "int32")
    shifted = lets.bind("shifted", bits)
    power = lets.bind("power", tirx.shift_right(shifted, tirx.const(23, "int32")).astype(floats))
    fraction = tirx.bitwise_and(shifted, tirx.const(FRACTION, "int32"))
    mantissa = tirx.reinterpret(floats, fraction + tirx.const(ROOT_HALF, "int32"))
    rest = lets.bind("rest", mantissa - _number(1.0))
    square = rest * rest
    low = _polynomial(rest, LOGARITHM) * square * rest
    low = low + power * _number(LN2_LOW) - square * _number(0.5)
    return rest + low + power * _number(LN2_HIGH)


def erf(x: tirx.Expr, lets: Lets) -> tirx.Expr:
    """Error function."""
    x = x if isinstance(x, tirx.Var) else lets.bind("x", x)
    # Beyond 10 the result is 1; infinity has no estimated reciprocal. This order of operands propagates NaN.
    size = lets.bind("size", tirx.min(_number(10.0), tirx.max(x, _number(0.0) - x)))
    t = lets.bind("t", quotient(_number(1.0), _number(1.0) + _number(0.3275911) * size, lets))
    sum_ = _polynomial(t, ERROR)
    error = _number(1.0) - sum_ * t * exp(_number(0.0) - size * size, lets)
    error = lets.bind("error", error)
    return tirx.Select(x < _number(0.0), _number(0.0) - error, error)
