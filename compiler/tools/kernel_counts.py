"""What a kernel's TIR says about its work: iterations of loops, and sectors of global memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import tirx

WARP, SECTOR = 32, 32


@dataclass
class Loop:
    """A loop: its iterations, and the multiply-adds, loads and loops of one iteration."""

    extent: int
    multiply_adds: int = 0
    loads: int = 0
    inner: list[Loop] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Multiply-adds of all iterations."""
        return self.extent * (self.multiply_adds + sum(loop.total for loop in self.inner))


@dataclass
class Counts:
    """The loops of a kernel as a tree, the threads of its launch, and the sectors of global memory it moves.

    The sectors are those of one warp in the middle of the grid, for all warps; conditions count as true. What
    a warp reads again outside of loops comes from its first-level cache.
    """

    body: Loop
    threads: int
    sectors: float

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of a launch."""
        return self.threads * self.body.total


def of(function: tirx.PrimFunc) -> Counts:
    """Counts a kernel."""
    counter = _Counter(function)
    counter.statement(function.body, counter.body, 1)
    warps = -(-counter.threads // WARP) * counter.blocks
    threads = counter.threads * counter.blocks
    return Counts(counter.body, threads, counter.sectors * warps)


class _Counter:
    """Walks over the statements and computes indices for the threads of a warp."""

    def __init__(self, function: tirx.PrimFunc) -> None:
        self.body = Loop(1)
        self.parameters = set(function.params)
        self.known: dict[object, np.ndarray | None] = {}
        self.blocks = self.threads = 1
        self.sectors = 0.0
        self.cached: set[tuple[object, int]] = set()
        self.axes: dict[str, tuple[object, int]] = {}

    def statement(self, s: tirx.Stmt, loop: Loop, times: int) -> None:
        if isinstance(s, tirx.SeqStmt):
            for each in s.seq:
                self.statement(each, loop, times)
        elif isinstance(s, tirx.AttrStmt):
            if s.attr_key == "thread_extent":
                self._axis(s)
            self.statement(s.body, loop, times)
        elif isinstance(s, tirx.For):
            extent = self._constant(s.extent)
            inner = Loop(extent)
            loop.inner.append(inner)
            self.known[s.loop_var] = self.value(s.min)
            self.statement(s.body, inner, times * extent)
        elif isinstance(s, tirx.IfThenElse):
            self.statement(s.then_case, loop, times)
            if s.else_case is not None:
                self.statement(s.else_case, loop, times)
        elif isinstance(s, tirx.Bind):
            self.expression(s.value, loop, times)
            self.known[s.var] = self.value(s.value)
        elif isinstance(s, tirx.BufferStore):
            self.expression(s.value, loop, times)
            self._access(s.buffer, s.indices, times, stored=True)
        elif isinstance(s, tirx.Evaluate):
            self.expression(s.value, loop, times)

    def _axis(self, s: tirx.AttrStmt) -> None:
        tag, extent = str(s.node.thread_tag), int(s.value)
        if tag.startswith("blockIdx"):
            self.blocks *= extent
            self.known[s.node.var] = np.full(WARP, extent // 2)
            return
        self.axes[tag] = s.node.var, extent
        self.threads *= extent
        number = np.arange(WARP)
        for axis in "xyz":
            if f"threadIdx.{axis}" in self.axes:
                variable, size = self.axes[f"threadIdx.{axis}"]
                self.known[variable] = number % size
                number = number // size

    def expression(self, e: object, loop: Loop, times: int) -> None:
        """Counts the loads and multiply-adds in an expression."""
        if isinstance(e, tvm.ir.TensorLoad):
            if e.source in self.parameters:
                loop.loads += 1
            self._access(e.source, e.indices, times, stored=False)
            for index in e.indices:
                self.expression(index, loop, times)
            return
        is_sum = isinstance(e, tirx.Add | tirx.Sub) and str(e.ty).startswith("float32")
        if is_sum and (isinstance(e.a, tirx.Mul) or isinstance(e.b, tirx.Mul)):
            loop.multiply_adds += 1
        if isinstance(e, tvm.ir.Call) and str(e.ty) == "float16x2":
            loop.multiply_adds += 1  # Of a pair, in one instruction.
        for child in _children(e):
            self.expression(child, loop, times)

    def _access(self, buffer: object, indices: list, times: int, stored: bool) -> None:
        if buffer not in self.parameters:
            return
        place, lanes = np.zeros(WARP, np.int64), 1
        for index, extent in zip(indices, buffer.shape, strict=True):
            if isinstance(index, tirx.Ramp):
                lanes, index = int(index.lanes), index.base
            value = self.value(index)
            if value is None:
                # Unknown: as if adjacent threads had adjacent elements.
                value = np.arange(WARP)
            place = place * int(extent) + value
        size = _bytes(buffer)
        active = place[: min(WARP, self.threads)]
        first, last = active * size // SECTOR, ((active + lanes) * size - 1) // SECTOR
        touched = np.unique(np.concatenate([first, last]))
        if times == 1 and not stored:
            touched = [sector for sector in touched if (buffer, sector) not in self.cached]
            self.cached.update((buffer, sector) for sector in touched)
        self.sectors += times * len(touched)

    def _constant(self, e: object) -> int:
        value = self.value(e)
        return 1 if value is None else max(1, int(value.max()))

    def value(self, e: object) -> np.ndarray | None:
        """An integer expression for the threads of the warp; None if it depends on data."""
        if isinstance(e, int):
            return np.full(WARP, e)
        if isinstance(e, tirx.IntImm):
            return np.full(WARP, int(e.value))
        if isinstance(e, tirx.Var):
            return self.known.get(e)
        if isinstance(e, tirx.Cast):
            return self.value(e.value)
        if isinstance(e, tirx.Select):
            condition = self.value(e.condition)
            yes, no = self.value(e.true_value), self.value(e.false_value)
            return (
                None
                if condition is None
                else _apply(lambda a, b: np.where(condition, a, b), yes, no)
            )
        if isinstance(e, tvm.ir.Call):
            # The instruction that hides an expression from LLVM returns it.
            hides = len(e.args) == 4 and "prmt" in str(e.args[0])
            return self.value(e.args[1]) if hides else None
        operation = _OPERATIONS.get(type(e))
        return None if operation is None else _apply(operation, self.value(e.a), self.value(e.b))


def _apply(operation: object, first: np.ndarray | None, second: np.ndarray | None) -> object:
    return None if first is None or second is None else operation(first, second)


_OPERATIONS = {
    tirx.Add: np.add,
    tirx.Sub: np.subtract,
    tirx.Mul: np.multiply,
    tirx.FloorDiv: np.floor_divide,
    tirx.FloorMod: np.mod,
    tirx.Div: np.floor_divide,
    tirx.Mod: np.mod,
    tirx.Min: np.minimum,
    tirx.Max: np.maximum,
    tirx.LT: np.less,
    tirx.LE: np.less_equal,
    tirx.GT: np.greater,
    tirx.GE: np.greater_equal,
    tirx.EQ: np.equal,
    tirx.NE: np.not_equal,
    tirx.And: np.logical_and,
    tirx.Or: np.logical_or,
    tirx.BitwiseAnd: np.bitwise_and,
    tirx.LShift: np.left_shift,
    tirx.RShift: np.right_shift,
}


def _children(e: object) -> list:
    if isinstance(e, tvm.ir.Call):
        return list(e.args)
    if isinstance(e, tirx.Shuffle):
        return list(e.vectors)
    names = ("a", "b", "condition", "true_value", "false_value", "value", "body")
    return [getattr(e, name) for name in names if hasattr(e, name)]


def _bytes(buffer: object) -> int:
    return np.dtype(str(buffer.dtype)).itemsize if str(buffer.dtype) != "bool" else 1
