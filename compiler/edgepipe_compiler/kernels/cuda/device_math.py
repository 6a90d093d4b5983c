"""Mathematical functions for kernels, as LLVM IR: CUDA's own device library is not needed.

Everything is computed in double precision, for float32 too, which costs time but no thought about rounding:
relative errors are below 1e-13 for double results (sine, cosine and tangent: absolute, for arguments up to
1e9) and below 1e-7 for float32 results. Kernels for which speed matters use ``vector_math``. Range reductions
follow W. Cody and W. Waite, "Software Manual for the Elementary Functions", 1980. Polynomials are Taylor
series, except for the error function: exp(x²) erfc(x) is interpolated at Chebyshev points in
t = (x - 3) / (x + 3) (after J. Schonfelder, Mathematics of Computation 32, 1978).
"""

from __future__ import annotations

import functools
import math
import re
import struct
from collections.abc import Callable, Sequence

import numpy as np

# Added and subtracted, it rounds to an integer, whose low bits are then those of the sum.
MAGIC = 1.5 * 2.0**52
LN2_HIGH = 6.93147180369123816490e-01
LN2_LOW = 1.90821492927058770002e-10
# π / 2 as a sum of three doubles.
HALF_PI = (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591833e-33)
ROOT_HALF = 0.7071067811865476
SUBNORMAL = 2.0**-1022
ONE = 1 << 52  # In the exponent of a double.
LARGE = 1e8
# Here erf(x) is 1 in double precision.
ERROR_END = 6.0
DECLARATION = re.compile(r"^declare (float|double) @((?:__nv_)?(\w+))\(.*$", re.MULTILINE)


class Number:
    """A double, an integer of 64 bits, or a condition in a function under construction."""

    def __init__(self, lines: list[str], kind: str, text: str) -> None:
        self.lines, self.kind, self.text = lines, kind, text

    def _of(self, kind: str, operation: str) -> Number:
        name = f"%v{len(self.lines)}"
        self.lines.append(f"  {name} = {operation}")
        return Number(self.lines, kind, name)

    def _other(self, value: Number | float) -> str:
        if isinstance(value, Number):
            return value.text
        if self.kind == "double":
            return f"0x{struct.pack('>d', value).hex().upper()}"
        return str(value)

    def number(self, value: float) -> Number:
        """A constant of the same kind."""
        return Number(self.lines, self.kind, self._other(value))

    def _binary(self, name: str, other: Number | float) -> Number:
        return self._of(self.kind, f"{name} {self.kind} {self.text}, {self._other(other)}")

    def __add__(self, other: Number | float) -> Number:
        return self._binary("fadd" if self.kind == "double" else "add", other)

    def __sub__(self, other: Number | float) -> Number:
        return self._binary("fsub" if self.kind == "double" else "sub", other)

    def __mul__(self, other: Number | float) -> Number:
        return self._binary("fmul" if self.kind == "double" else "mul", other)

    def __truediv__(self, other: Number | float) -> Number:
        return self._binary("fdiv", other)

    def __neg__(self) -> Number:
        return self._of("double", f"fneg double {self.text}")

    def __and__(self, other: Number | int) -> Number:
        return self._binary("and", other)

    def __or__(self, other: Number) -> Number:
        return self._binary("or", other)

    def __lshift__(self, count: int) -> Number:
        return self._binary("shl", count)

    def __rshift__(self, count: int) -> Number:
        return self._binary("ashr", count)

    def _compare(self, name: str, other: Number | float) -> Number:
        operation = f"fcmp o{name}" if self.kind == "double" else f"icmp {name}"
        return self._of("i1", f"{operation} {self.kind} {self.text}, {self._other(other)}")

    def __lt__(self, other: Number | float) -> Number:
        return self._compare("lt" if self.kind == "double" else "slt", other)

    def __gt__(self, other: Number | float) -> Number:
        return self._compare("gt" if self.kind == "double" else "sgt", other)

    def equals(self, other: Number | float) -> Number:
        """Whether both are the same; NaN is not."""
        return self._compare("eq", other)

    def is_number(self) -> Number:
        """Whether this is not NaN."""
        return self._of("i1", f"fcmp ord double {self.text}, {self.text}")

    def inverted(self) -> Number:
        """Whether this condition does not hold."""
        return self._of("i1", f"xor i1 {self.text}, true")

    def select(self, yes: Number, no: Number | float) -> Number:
        """``yes`` if this condition holds, otherwise ``no``."""
        operands = f"{yes.kind} {yes.text}, {yes.kind} {yes._other(no)}"
        return self._of(yes.kind, f"select i1 {self.text}, {operands}")

    def intrinsic(self, name: str, *others: Number | float) -> Number:
        """The result of the LLVM intrinsic ``name`` for doubles."""
        operands = ", ".join(f"double {self._other(item)}" for item in (self, *others))
        return self._of("double", f"call double @llvm.{name}.f64({operands})")

    def bits(self) -> Number:
        """The bits of a double as an integer."""
        return self._of("i64", f"bitcast double {self.text} to i64")

    def double(self) -> Number:
        """The double with these bits."""
        return self._of("double", f"bitcast i64 {self.text} to double")

    def converted(self) -> Number:
        """An integer as a double of the same value."""
        return self._of("double", f"sitofp i64 {self.text} to double")


def _rounded(x: Number) -> tuple[Number, Number]:
    """The nearest integer of ``x``, up to 2^51, as a double and as an integer."""
    shifted = x + MAGIC
    return shifted - MAGIC, shifted.bits() - (shifted.number(MAGIC).bits())


def _series(x: Number, factors: Sequence[float]) -> Number:
    """The polynomial with ``factors``, that of the highest power first."""
    total = x.number(factors[0])
    for factor in factors[1:]:
        total = total.intrinsic("fma", x, factor)
    return total


def _size(x: Number) -> Number:
    return x.intrinsic("fabs")


def _signed(size: Number, like: Number) -> Number:
    return size.intrinsic("copysign", like)


def _power_of_two(exponent: Number) -> Number:
    return ((exponent + 1023) << 52).double()


def exp(x: Number) -> Number:
    """x = n ln 2 + r; 2^n in two factors, for subnormal results."""
    x = (x > 710.0).select(x.number(710.0), x)
    x = (x < -746.0).select(x.number(-746.0), x)
    n, whole = _rounded(x * (1 / math.log(2)))
    rest = n.intrinsic("fma", -LN2_HIGH, x)
    rest = n.intrinsic("fma", -LN2_LOW, rest)
    power = _series(rest, [1 / math.factorial(k) for k in range(14, -1, -1)])
    half = whole >> 1
    return power * _power_of_two(half) * _power_of_two(whole - half)


def _exp_less_one(x: Number) -> Number:
    small = x * _series(x, [1 / math.factorial(k) for k in range(17, 0, -1)])
    return (_size(x) < 0.5).select(small, exp(x) - 1.0)


def log(x: Number) -> Number:
    """x = 2^k m with m near 1; log m = 2 atanh((m - 1) / (m + 1))."""
    tiny = x < SUBNORMAL
    normal = tiny.select(x * 2.0**54, x)
    bits = normal.bits()
    exponent = (bits - normal.number(ROOT_HALF).bits()) >> 52
    mantissa = (bits - (exponent << 52)).double()
    power = exponent.converted() + tiny.select(x.number(-54.0), 0.0)
    share = (mantissa - 1.0) / (mantissa + 1.0)
    square = share * share
    series = _series(square, [2 / (2 * k + 1) for k in range(11, -1, -1)])
    made = power * LN2_HIGH + (power * LN2_LOW + share * series)
    made = (x < math.inf).select(made, x)
    made = (x < 0.0).select(x.number(math.nan), made)
    return x.equals(0.0).select(x.number(-math.inf), made)


def log1p(x: Number) -> Number:
    """The rounding of 1 + x is corrected."""
    sum_ = x + 1.0
    lost = ((sum_ - 1.0) - x) / sum_
    lost = lost.is_number().select(lost, 0.0)
    return log(sum_) - lost


def pow_(x: Number, y: Number) -> Number:
    """exp(y log x); integer powers by repeated squaring, which is exact if the result is an integer."""
    size = _size(x)
    made = exp(y * log(size))
    whole = y.intrinsic("rint").equals(y)
    few = whole & (_size(y) < 1024.0)
    _, count = _rounded(few.select(_size(y), 0.0))
    product, factor = x.number(1.0), size
    for _ in range(10):
        odd = (count & 1).equals(1)
        product = odd.select(product * factor, product)
        factor, count = factor * factor, count >> 1
    product = (y < 0.0).select(product.number(1.0) / product, product)
    made = few.select(product, made)
    made = (size.equals(1.0) & _size(y).equals(math.inf)).select(x.number(1.0), made)
    half = y * 0.5
    odd = whole & half.intrinsic("rint").equals(half).inverted()
    made = ((x.bits() < 0) & odd).select(-made, made)
    undefined = (x < 0.0) & (x > -math.inf) & whole.inverted()
    made = undefined.select(x.number(math.nan), made)
    one = y.equals(0.0) | x.equals(1.0)
    return one.select(x.number(1.0), made)


def _turn(x: Number) -> tuple[Number, Number, Number]:
    """Sine and cosine of x minus quarter turns, and the number of quarter turns."""
    n, quarters = _rounded(x * (2 / math.pi))
    for part in HALF_PI:
        x = n.intrinsic("fma", -part, x)
    square = x * x
    sine = [(-1) ** k / math.factorial(2 * k + 1) for k in range(8, -1, -1)]
    cosine = [(-1) ** k / math.factorial(2 * k) for k in range(9, -1, -1)]
    return x * _series(square, sine), _series(square, cosine), quarters


def _of_turn(x: Number, shift: int) -> Number:
    sine, cosine, quarters = _turn(x)
    quarters = quarters + shift
    made = (quarters & 1).equals(0).select(sine, cosine)
    return (quarters & 2).equals(0).select(made, -made)


def sin(x: Number) -> Number:
    """Sine."""
    return _of_turn(x, 0)


def cos(x: Number) -> Number:
    """Cosine."""
    return _of_turn(x, 1)


def tan(x: Number) -> Number:
    """Sine over cosine."""
    sine, cosine, quarters = _turn(x)
    return (quarters & 1).equals(0).select(sine / cosine, -(cosine / sine))


def atan(x: Number) -> Number:
    """Reduced to arguments below tan(π/8)."""
    size = _size(x)
    inverted = size > 1.0
    t = inverted.select(size.number(1.0) / size, size)
    shifted = t > math.tan(math.pi / 8)
    t = shifted.select((t - 1.0) / (t + 1.0), t)
    square = t * t
    made = t * _series(square, [(-1) ** k / (2 * k + 1) for k in range(22, -1, -1)])
    made = shifted.select(made + math.pi / 4, made)
    made = inverted.select(made.number(math.pi / 2) - made, made)
    return _signed(made, x)


def atan2(y: Number, x: Number) -> Number:
    """The angle of the point (x, y)."""
    above, across = _size(y), _size(x)
    share = above / across
    both_infinite = above.equals(math.inf) & across.equals(math.inf)
    share = both_infinite.select(share.number(1.0), share)
    share = (above.equals(0.0) & across.equals(0.0)).select(share.number(0.0), share)
    made = atan(share)
    made = (x.bits() < 0).select(made.number(math.pi) - made, made)
    return _signed(made, y)


def asin(x: Number) -> Number:
    """By the arc tangent."""
    return atan(x / ((x.number(1.0) - x) * (x + 1.0)).intrinsic("sqrt"))


def acos(x: Number) -> Number:
    """By the arc tangent of half the angle."""
    return atan(((x.number(1.0) - x) / (x + 1.0)).intrinsic("sqrt")) * 2.0


def sinh(x: Number) -> Number:
    """By e^x - 1, which is precise near 0."""
    size = _size(x)
    part = _exp_less_one(size)
    made = (part + part / (part + 1.0)) * 0.5
    # Half of the exponent, because e^x overflows before its half does.
    root = exp(size * 0.5)
    return _signed((size > 30.0).select(root * 0.5 * root, made), x)


def cosh(x: Number) -> Number:
    """(e^x + e^-x) / 2."""
    size = _size(x)
    root = exp(size * 0.5)
    power = exp(size)
    made = (power + power.number(1.0) / power) * 0.5
    return (size > 30.0).select(root * 0.5 * root, made)


def tanh(x: Number) -> Number:
    """1 beyond 20."""
    size = _size(x)
    size = (size > 20.0).select(size.number(20.0), size)
    part = _exp_less_one(size * 2.0)
    return _signed(part / (part + 2.0), x)


def asinh(x: Number) -> Number:
    """log(x + sqrt(x² + 1))."""
    size = _size(x)
    square = size * size
    near = log1p(size + square / ((square + 1.0).intrinsic("sqrt") + 1.0))
    return _signed((size > LARGE).select(log(size) + math.log(2), near), x)


def acosh(x: Number) -> Number:
    """log(x + sqrt(x² - 1)); NaN below 1."""
    above = x - 1.0
    near = log1p(above + (above * 2.0 + above * above).intrinsic("sqrt"))
    made = (x > LARGE).select(log(x) + math.log(2), near)
    return (x < 1.0).select(x.number(math.nan), made)


def atanh(x: Number) -> Number:
    """log((1 + x) / (1 - x)) / 2."""
    size = _size(x)
    return _signed(log1p(size * 2.0 / (size.number(1.0) - size)) * 0.5, x)


@functools.cache
def _error_factors() -> tuple[float, ...]:
    """Factors of a polynomial in t for exp(x²) erfc(x), the highest power first."""
    degree = 28
    low, high = -1.0, (ERROR_END - 3) / (ERROR_END + 3)
    nodes = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    t = (nodes + 1) / 2 * (high - low) + low
    x = 3 * (1 + t) / (1 - t)
    scaled = [math.exp(value * value) * math.erfc(value) for value in x]
    fitted = np.polynomial.Polynomial.fit(t, scaled, degree, domain=[low, high])
    return tuple(float(factor) for factor in fitted.convert(domain=[-1, 1]).coef[::-1])


def erf(x: Number) -> Number:
    """A series below 0.5."""
    size = _size(x)
    square = size * size
    near = [(-1) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(15, -1, -1)]
    small = size * _series(square, near) * (2 / math.sqrt(math.pi))
    far = (size > ERROR_END).select(size.number(ERROR_END), size)
    t = (far - 3.0) / (far + 3.0)
    rest = exp(-(far * far)) * _series(t, _error_factors())
    return _signed((size < 0.5).select(small, rest.number(1.0) - rest), x)


def fmod(x: Number, y: Number) -> Number:
    """The remainder with the sign of ``x``, for quotients up to 2^53."""
    over, under = _size(x), _size(y)
    quotient = (over / under).intrinsic("trunc")
    rest = (-quotient).intrinsic("fma", under, over)
    rest = (rest < 0.0).select(rest + under, rest)
    rest = (under.equals(math.inf) & (over < math.inf)).select(over, rest)
    return _signed(rest, x)


def _scaled(function: Callable[[Number], Number], before: float, after: float) -> Callable:
    return lambda x: function(x * before) * after


FUNCTIONS: dict[str, Callable[..., Number]] = {
    "exp": exp, "exp2": _scaled(exp, math.log(2), 1.0), "exp10": _scaled(exp, math.log(10), 1.0),
    "expm1": _exp_less_one, "log": log, "log2": _scaled(log, 1.0, 1 / math.log(2)),
    "log10": _scaled(log, 1.0, 1 / math.log(10)), "log1p": log1p, "pow": pow_, "sin": sin,
    "cos": cos, "tan": tan, "asin": asin, "acos": acos, "atan": atan, "atan2": atan2,
    "sinh": sinh, "cosh": cosh, "tanh": tanh, "asinh": asinh, "acosh": acosh, "atanh": atanh,
    "erf": erf, "fmod": fmod,
    "hypot": lambda x, y: (x * x + y * y).intrinsic("sqrt"),
    "rsqrt": lambda x: x.number(1.0) / x.intrinsic("sqrt"),
    "nearbyint": lambda x: x.intrinsic("rint"),
    "copysign": _signed,
}  # fmt: skip
TWO_OPERANDS = {"pow", "atan2", "fmod", "hypot", "copysign"}


def define(ir: str) -> str:
    """LLVM IR in which the mathematical functions that ``ir`` declares are defined.

    Known are those of CUDA's device library (``__nv_expf``) and of C (``expf``).
    """
    used: set[str] = set()

    def defined(match: re.Match[str]) -> str:
        kind, symbol, name = match.groups()
        name = name.removesuffix("f") if kind == "float" else name
        if name not in FUNCTIONS:
            return match[0]
        used.add(name)
        return _wrapper(kind, symbol, name)

    ir = DECLARATION.sub(defined, ir)
    return "\n".join([ir, *map(_definition, sorted(used))])


def _parameters(name: str) -> tuple[str, ...]:
    return ("%x", "%y") if name in TWO_OPERANDS else ("%x",)


def _definition(name: str) -> str:
    """The function for doubles."""
    lines: list[str] = []
    operands = [Number(lines, "double", operand) for operand in _parameters(name)]
    result = FUNCTIONS[name](*operands)
    head = ", ".join(f"double {operand.text}" for operand in operands)
    return "\n".join(
        [
            f"define internal double @edgepipe_{name}({head}) alwaysinline {{",
            *lines,
            f"  ret double {result.text}",
            "}",
        ]
    )


def _wrapper(kind: str, symbol: str, name: str) -> str:
    """The function ``symbol``, which converts its operands to double and back."""
    operands = _parameters(name)
    head = ", ".join(f"{kind} {operand}" for operand in operands)
    lines = [f"define internal {kind} @{symbol}({head}) alwaysinline {{"]
    if kind == "float":
        lines += [f"  {operand}d = fpext float {operand} to double" for operand in operands]
        operands = tuple(f"{operand}d" for operand in operands)
    given = ", ".join(f"double {operand}" for operand in operands)
    lines.append(f"  %r = call double @edgepipe_{name}({given})")
    if kind == "float":
        lines += ["  %s = fptrunc double %r to float", "  ret float %s", "}"]
    else:
        lines += ["  ret double %r", "}"]
    return "\n".join(lines)
