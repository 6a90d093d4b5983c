"""Reductions over contiguous float32 elements, in vectors."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from ..writer import Index, Writer, ramp, spread

Combine = Callable[[tirx.Expr, tirx.Expr], tirx.Expr]
# Partial results, to hide the latency of an addition.
IN_FLIGHT = 4


def flat(buffer: tirx.Buffer, place: Index, lanes: int) -> tuple[Index, ...]:
    """The index of ``lanes`` elements from ``place``, counted through the whole buffer.

    A 0-d buffer has one element.
    """
    if not buffer.shape:
        return ()
    return (*(0,) * (len(buffer.shape) - 1), ramp(place, lanes))


def across(
    w: Writer,
    length: int,
    lanes: int,
    neutral: float,
    combine: Combine,
    element: Callable[[Index, int], tirx.Expr],
) -> tirx.Expr:
    """Reduces ``element(place, lanes)`` over ``length`` contiguous places to one number."""
    vectors, left = divmod(length, lanes)
    held = [w.local(f"part{place}", lanes) for place in range(min(IN_FLIGHT, vectors))]
    whole = ramp(0, lanes)
    for part in held:
        w.store(part, spread(neutral, lanes), [whole])

    def add(part: tirx.Buffer, place: Index) -> None:
        w.store(part, combine(part[whole], element(place, lanes)), [whole])

    if held:
        with w.loop("v", vectors // len(held)) as v:
            for number, part in enumerate(held):
                add(part, (v * len(held) + number) * lanes)
        for number in range(vectors % len(held)):
            add(held[number], (vectors // len(held) * len(held) + number) * lanes)
    result = w.local("result", 1)
    w.store(result, tirx.const(neutral, "float32"), [0])
    if held:
        for part in held[1:]:
            w.store(held[0], combine(held[0][whole], part[whole]), [whole])
        w.store(result, combined(held[0], lanes, combine), [0])
    if left:
        with w.loop("e", left) as e:
            w.store(result, combine(result[0], element(vectors * lanes + e, 1)), [0])
    return w.bind("result", result[0])


def combined(part: tirx.Buffer, lanes: int, combine: Combine) -> tirx.Expr:
    """Reduces the lanes of a local vector."""
    values = [part[lane] for lane in range(lanes)]
    while len(values) > 1:
        pairs = zip(values[::2], values[1::2], strict=False)
        values = [combine(first, second) for first, second in pairs]
    return values[0]
