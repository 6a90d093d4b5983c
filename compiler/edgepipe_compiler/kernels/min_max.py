"""Minimum and maximum with ONNX's semantics for NaN."""

from __future__ import annotations

from tvm import tirx


def extreme(largest: bool, first: tirx.Expr, second: tirx.Expr) -> tirx.Expr:
    """The larger or the smaller number; NaN if either is NaN."""
    kind = str(first.ty)
    if kind == "bool":
        return tirx.Or(first, second) if largest else tirx.And(first, second)
    if kind.startswith("float"):
        better, other = (tirx.GT, tirx.GE) if largest else (tirx.LT, tirx.LE)
        # If neither comparison holds, the sum is right: NaN, or the same infinity. The second one compares
        # the difference; otherwise TVM simplifies it to the negation of the first and drops the sum.
        difference = second - first
        beyond = tirx.Select(other(difference, _zero(difference)), second, first + second)
        return tirx.Select(better(first, second), first, beyond)
    return tirx.max(first, second) if largest else tirx.min(first, second)


def _zero(like: tirx.Expr) -> tirx.Expr:
    kind, _, lanes = str(like.ty).partition("x")
    zero = tirx.const(0, kind)
    return tirx.Broadcast(zero, int(lanes)) if lanes else zero
