"""Sums of a thread in half precision: pairs of products are added as float16, and every few terms as float32.

A multiply-add of a pair (``fma.rn.f16x2``) takes an issue slot, like one of float32. The sum of a few
products in half precision has a relative error of 2^-11 for each addition; that of the sums is exact to
float32.
"""

from __future__ import annotations

from tvm import tirx

from ..writer import ramp
from .writer import KernelWriter, lane

# Most terms that are added in half precision.
TERMS = 36
# Issue slots to add a pair of float16 sums to float32 sums: two conversions and two additions.
FOLD = 4
FMA = "llvm.fma"


def steps(terms: int) -> int:
    """Steps of ``terms`` products that are added in half precision."""
    return max(1, TERMS // terms)


def overhead(terms: int) -> float:
    """Issue slots per multiply-add of a pair for adding sums as float32, if a step has ``terms`` products."""
    return FOLD / (terms * steps(terms))


class HalfSums:
    """Float16 sums of pairs of rows, ``rows`` by ``columns``, that are added to the float32 sums ``whole``.

    A sum of ``whole`` is at row * columns + column.
    """

    def __init__(self, w: KernelWriter, whole: tirx.Buffer, rows: int, columns: int) -> None:
        self._w, self._whole, self._rows, self._columns = w, whole, rows, columns
        self._pairs = w.registers("pairs", rows * columns, "float16")
        self._clear()

    def _clear(self) -> None:
        zero = tirx.Broadcast(tirx.const(0.0, "float16"), 2)
        for place in range(self._rows * self._columns // 2):
            self._w.store(self._pairs, zero, [ramp(2 * place, 2)])

    def add(self, pair: int, column: int, weights: tirx.Expr, value: tirx.Expr) -> None:
        """Adds the products of two float16 ``weights`` with a ``value`` to rows 2 pair and 2 pair + 1."""
        place = ramp(2 * (pair * self._columns + column), 2)
        both = tirx.Broadcast(value, 2)
        fma = tirx.call_llvm_pure_intrin("float16x2", FMA, weights, both, self._pairs[place])
        self._w.store(self._pairs, fma, [place])

    def fold(self) -> None:
        """Adds the sums to the float32 sums, and starts again."""
        w, columns = self._w, self._columns
        for pair in range(self._rows // 2):
            for column in range(columns):
                held = self._pairs[ramp(2 * (pair * columns + column), 2)]
                for number in range(2):
                    place = (2 * pair + number) * columns + column
                    value = lane(held, number).astype("float32")
                    w.store(self._whole, self._whole[place] + value, [place])
        self._clear()
