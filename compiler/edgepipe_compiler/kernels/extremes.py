"""The greater or the lesser of two numbers, as ONNX has it for NaN."""

from __future__ import annotations

from tvm import tirx


def extreme(largest: bool, first: tirx.Expr, second: tirx.Expr) -> tirx.Expr:
    """The greater or the lesser one; NaN if either is."""
    kind = str(first.ty)
    if kind == "bool":
        return tirx.Or(first, second) if largest else tirx.And(first, second)
    if kind.startswith("float"):
        better = tirx.GT if largest else tirx.LT
        # NaN is neither better nor equal, and a sum with it is NaN. "Not better" must not be asked as "at
        # most": TVM takes that for the opposite of "better", as for integers, and drops the third case.
        equal = tirx.Select(tirx.EQ(first, second), second, first + second)
        return tirx.Select(
            better(first, second), first, tirx.Select(better(second, first), second, equal)
        )
    return tirx.max(first, second) if largest else tirx.min(first, second)
