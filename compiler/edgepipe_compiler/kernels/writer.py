"""Writes the loops of a TIR function statement by statement.

TVM's schedules handle borders by padding and remainders by guards. Functions written here have separate
code for each kind of tile, so borders and remainders cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tvm import tirx

Index = int | tirx.Expr


class Writer:
    """A function body under construction. Statements are added to the innermost open loop."""

    def __init__(self) -> None:
        self._open: list[list[tirx.Stmt]] = [[]]

    @contextmanager
    def loop(
        self, name: str, extent: Index, begin: Index = 0, parallel: bool = False
    ) -> Iterator[Index]:
        """Opens a loop; a loop of extent 1 is omitted."""
        if isinstance(extent, tirx.IntImm):
            extent = int(extent)
        if isinstance(extent, int) and extent == 1:
            yield begin
            return
        variable = tirx.Var(name, "int32")
        self._open.append([])
        yield variable
        kind = tirx.ForKind.PARALLEL if parallel else tirx.ForKind.SERIAL
        body = self._close()
        zero = tirx.const(0, "int32")
        bounds = (tirx.const(begin, "int32") if isinstance(begin, int) else begin, extent)
        if isinstance(begin, int) and begin == 0:
            bounds = (zero, extent)
        self.add(tirx.For(variable, bounds[0], tirx.convert(bounds[1]), kind, body))

    @contextmanager
    def when(self, condition: tirx.Expr | None) -> Iterator[None]:
        """Statements that run only if ``condition`` holds; None means always."""
        if condition is None:
            yield
            return
        self._open.append([])
        yield
        self.add(tirx.IfThenElse(condition, self._close(), None))

    def store(self, buffer: tirx.Buffer, value: tirx.Expr, index: Sequence[Index]) -> None:
        """Stores ``value``: a vector if the last index is a ramp."""
        self.add(tirx.BufferStore(buffer, value, [_expression(place) for place in index]))

    def prefetch(self, buffer: tirx.Buffer, index: Sequence[Index]) -> None:
        """Starts to read the cache line of an element into the L2 cache. The element need not exist."""
        address = tirx.address_of(buffer[tuple(_expression(place) for place in index)])
        reading, second_level, of_data = 0, 2, 1
        self.add(
            tirx.Evaluate(
                tirx.call_intrin("void", "tirx.prefetch", address, reading, second_level, of_data)
            )
        )

    def bind(self, name: str, value: tirx.Expr) -> tirx.Expr:
        """Computes ``value`` here, once."""
        if isinstance(value, int):
            return tirx.const(value, "int32")
        variable = tirx.Var(name, value.ty)
        self.add(tirx.Bind(variable, value))
        return variable

    def local(self, name: str, elements: int, kind: str = "float32") -> tirx.Buffer:
        """A local buffer.

        Up to 1 KiB is on the stack, and in registers if every index is constant. Larger buffers would be
        allocated on the heap.
        """
        assert 8 * elements <= 1024 or (4 * elements <= 1024 and kind == "float32"), "too large"
        buffer = tirx.decl_buffer((elements,), kind, name)
        self.add(tirx.AllocBuffer(buffer))
        return buffer

    def function(self, arguments: Sequence[tirx.Buffer]) -> tirx.PrimFunc:
        """The function of all written statements."""
        function = tirx.PrimFunc(list(arguments), _sequence(self._open[0]))
        return function.with_attr("tirx.noalias", True).with_attr("s_tir", True)

    def _close(self) -> tirx.Stmt:
        return _sequence(self._open.pop())

    def add(self, statement: tirx.Stmt) -> None:
        """Adds a statement."""
        self._open[-1].append(statement)


def _sequence(statements: list[tirx.Stmt]) -> tirx.Stmt:
    if not statements:
        return tirx.Evaluate(tirx.const(0, "int32"))
    return statements[0] if len(statements) == 1 else tirx.SeqStmt(statements)


def _expression(place: Index) -> tirx.Expr:
    return tirx.const(place, "int32") if isinstance(place, int) else place


def ramp(begin: Index, lanes: int) -> tirx.Expr:
    """The index of a vector that starts at ``begin``, or of one element."""
    if lanes == 1:
        return _expression(begin)
    return tirx.Ramp(_expression(begin), tirx.const(1, "int32"), lanes)


def spread(value: float | tirx.Expr, lanes: int) -> tirx.Expr:
    """A float32 in all lanes."""
    element = tirx.const(value, "float32") if isinstance(value, float) else value
    return element if lanes == 1 else tirx.Broadcast(element, lanes)


def spans(
    w: Writer, length: int, lanes: int, parallel: bool = False
) -> Iterator[tuple[Index, int]]:
    """Covers ``length`` elements by vectors and single elements: start and lanes of each."""
    whole, left = divmod(length, lanes)
    if whole:
        with w.loop("v", whole, parallel=parallel) as v:
            yield v * lanes, lanes
    if left:
        with w.loop("e", left) as e:
            yield whole * lanes + e, 1
