"""Which iterations of a loop nest access the same elements of memory.

Indices are written as sums: a constant, and a factor for each loop variable. From these follows which loops
may run in parallel: if two of their iterations never access the same element of a buffer that is written.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import tvm_ffi
from tvm import ir, tirx

Span = tuple[int, int]


@dataclass
class Index:
    """``constant`` + sum of factor × variable. ``unknown``: variables that it depends on in another way."""

    constant: int
    factors: dict[tirx.Var, int]
    unknown: set[tirx.Var]

    def plus(self, other: Index, factor: int = 1) -> Index:
        """This index plus ``factor`` × ``other``."""
        factors = dict(self.factors)
        for variable, own in other.factors.items():
            factors[variable] = factors.get(variable, 0) + own * factor
        return Index(
            self.constant + other.constant * factor,
            {variable: own for variable, own in factors.items() if own},
            self.unknown | other.unknown,
        )


@dataclass
class Access:
    """An access of a buffer at an index of its elements in memory order."""

    buffer: tirx.Var
    index: Index
    writes: bool


class Accesses:
    """All accesses below ``statements``, and the range of each loop variable in them."""

    def __init__(self, statements: Collection[tirx.Stmt]) -> None:
        self.all: list[Access] = []
        self.ranges: dict[tirx.Var, Span | None] = {}
        self.private: set[tirx.Var] = set()
        self._bound: dict[tirx.Var, tirx.Expr] = {}
        for statement in statements:
            tvm_ffi.structural_walk(
                statement,
                [
                    (tirx.For, self._loop),
                    (tirx.Bind, self._bind),
                    (tirx.AllocBuffer, lambda found: self.private.add(found.buffer)),
                    (tirx.BufferStore, self._store),
                    (ir.TensorLoad, self._load),
                ],
                order="pre",
            )

    @property
    def written(self) -> set[tirx.Var]:
        """Buffers that are written and not private to a thread."""
        return {access.buffer for access in self.all if access.writes} - self.private

    def _loop(self, loop: tirx.For) -> None:
        begin, extent = _constant(loop.min), _constant(loop.extent)
        known = begin is not None and extent is not None
        self.ranges[loop.loop_var] = (begin, begin + extent - 1) if known else None

    def _bind(self, bind: tirx.Bind) -> None:
        self._bound[bind.var] = bind.value

    def _store(self, store: tirx.BufferStore) -> None:
        index = self._flat(store.buffer, store.indices)
        self.all.append(Access(store.buffer, index, True))

    def _load(self, load: ir.TensorLoad) -> None:
        if isinstance(load.source, tirx.Var):
            self.all.append(Access(load.source, self._flat(load.source, load.indices), False))

    def _flat(self, buffer: tirx.Var, indices: Collection[tirx.Expr]) -> Index:
        flat = Index(0, {}, set())
        for extent, index in zip(buffer.shape, indices, strict=True):
            flat = Index(0, {}, set()).plus(flat, int(extent)).plus(self.index(index))
        return flat

    def index(self, expression: tirx.Expr) -> Index:
        """``expression`` as a sum."""
        constant = _constant(expression)
        if constant is not None:
            return Index(constant, {}, set())
        if isinstance(expression, tirx.Var):
            if expression in self._bound:
                return self.index(self._bound[expression])
            return Index(0, {expression: 1}, set())
        if isinstance(expression, tirx.Cast):
            return self.index(expression.value)
        if isinstance(expression, tirx.Add | tirx.Sub):
            sign = 1 if isinstance(expression, tirx.Add) else -1
            return self.index(expression.a).plus(self.index(expression.b), sign)
        if isinstance(expression, tirx.Mul):
            for one, other in ((expression.a, expression.b), (expression.b, expression.a)):
                factor = self.index(one)
                if not factor.factors and not factor.unknown:
                    return Index(0, {}, set()).plus(self.index(other), factor.constant)
        return Index(0, {}, self._read(expression))

    def _read(self, expression: tirx.Expr) -> set[tirx.Var]:
        """Variables that a non-linear expression depends on, loaded buffers included."""
        found: set[tirx.Var] = set()

        def visit(variable: tirx.Var) -> None:
            bound = self._bound.get(variable)
            found.update({variable} if bound is None else self._read(bound))

        tvm_ffi.structural_walk(expression, (tirx.Var, visit))
        return found

    def disjoint(self, loops: Collection[tirx.Var], outer: Collection[tirx.Var]) -> bool:
        """Whether different iterations of ``loops`` access different elements of every written buffer.

        ``outer`` are variables with the same value in both iterations.
        """
        written = self.written
        return all(
            self._disjoint([access.index for access in self.all if access.buffer.same_as(buffer)],
                           loops, outer)
            for buffer in written
        )  # fmt: skip

    def _disjoint(
        self, indices: list[Index], loops: Collection[tirx.Var], outer: Collection[tirx.Var]
    ) -> bool:
        first = indices[0]
        factors = {variable: first.factors.get(variable, 0) for variable in loops}
        low, high = first.constant, first.constant
        for index in indices:
            # The unknown part of the only access is the same for both iterations, those of others may differ.
            if index.unknown and (len(indices) > 1 or not index.unknown <= set(outer)):
                return False
            if any(index.factors.get(variable, 0) != factors[variable] for variable in loops):
                return False
            if any(
                index.factors.get(variable, 0) != first.factors.get(variable, 0)
                for variable in outer
            ):
                return False
            least = most = index.constant
            for variable, factor in index.factors.items():
                if variable in loops or variable in outer:
                    continue
                span = self.ranges.get(variable)
                if span is None:
                    return False
                ends = sorted(factor * end for end in span)
                least, most = least + ends[0], most + ends[1]
            low, high = min(low, least), max(high, most)
        # Mixed radix: each factor exceeds the reach of the smaller ones.
        reach = high - low
        for variable in sorted(loops, key=lambda variable: abs(factors[variable])):
            span = self.ranges[variable]
            if span is None or abs(factors[variable]) <= reach:
                return False
            reach += abs(factors[variable]) * (span[1] - span[0])
        return True


def _constant(expression: tirx.Expr | int) -> int | None:
    if isinstance(expression, int):
        return expression
    return int(expression) if isinstance(expression, tirx.IntImm) else None
