"""Writes the statements of one CUDA kernel: threads, shared memory, barriers and vectors."""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import tirx

from ..writer import Writer

AXES = ("x", "y", "z")
# TVM's own barrier does not pass LLVM's verifier.
BARRIER = "llvm.nvvm.barrier.cta.sync.aligned.all"
# Threads that execute an instruction together.
WARP = 32


class KernelWriter(Writer):
    """A kernel under construction: a grid of blocks of threads, up to three axes each, x first.

    ``block_index`` and ``thread_index`` hold the position of the running thread.
    """

    def __init__(self, grid: Sequence[int], block: Sequence[int]) -> None:
        super().__init__()
        self.grid, self.block = _three(grid), _three(block)
        self._axes: list[tuple[str, tirx.Var, int]] = []
        self.block_index = self._bind_axes("blockIdx", self.grid)
        self.thread_index = self._bind_axes("threadIdx", self.block)

    def _bind_axes(self, kind: str, extents: tuple[int, ...]) -> list[tirx.Expr]:
        indices: list[tirx.Expr] = []
        for axis, extent in zip(AXES, extents, strict=True):
            # The x axes are bound even if they have one position: without them it is no kernel.
            if extent == 1 and axis != "x":
                indices.append(tirx.const(0, "int32"))
                continue
            variable = tirx.Var(f"{kind}_{axis}", "int32")
            self._axes.append((f"{kind}.{axis}", variable, extent))
            indices.append(variable)
        return indices

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.block[0] * self.block[1] * self.block[2]

    def shared(self, name: str, elements: int, kind: str = "float32") -> tirx.Buffer:
        """A buffer in the memory that the threads of a block share."""
        buffer = tirx.decl_buffer((elements,), kind, name, scope="shared")
        self.add(tirx.AllocBuffer(buffer))
        return buffer

    def registers(self, name: str, elements: int, kind: str = "float32") -> tirx.Buffer:
        """A buffer of one thread, which stays in registers if every index is constant."""
        buffer = tirx.decl_buffer((elements,), kind, name, scope="local")
        self.add(tirx.AllocBuffer(buffer))
        return buffer

    def variable(self, name: str, value: tirx.Expr | float, kind: str = "float32") -> tirx.Buffer:
        """One element that can be assigned again; read and stored at index 0."""
        buffer = self.registers(name, 1, kind)
        given = value if isinstance(value, tirx.Expr) else tirx.const(value, kind)
        self.store(buffer, given, [0])
        return buffer

    def barrier(self) -> None:
        """Waits until all threads of the block are here. Not allowed in code that some threads skip."""
        none = tirx.const(0, "int32")
        self.add(tirx.Evaluate(tirx.op.call_llvm_intrin("void", BARRIER, none)))

    def opaque(self, name: str, value: tirx.Expr) -> tirx.Expr:
        """``value``, an int32 or float32, by an instruction that copies it and that LLVM cannot see through.

        LLVM keeps a vector access whole only if it can prove the alignment of its index, and looks six
        levels deep. The index ``4 * opaque`` is a multiple of 4 at once. And ptxas then chooses registers for
        a sum without regard to what becomes of it: adjacent ones, as a vector store needs, would often be in
        the same bank as the operands.
        """
        kind = str(value.ty)
        given = value if kind == "int32" else tirx.reinterpret("int32", value)
        zero, copy = tirx.const(0, "int32"), tirx.const(0x3210, "int32")
        call = tirx.op.call_llvm_pure_intrin("int32", "llvm.nvvm.prmt", given, zero, copy)
        return self.bind(name, call if kind == "int32" else tirx.reinterpret(kind, call))

    def function(self, arguments: Sequence[tirx.Buffer]) -> tirx.PrimFunc:
        """The kernel of all written statements. Its thread axes are ``thread_extent`` attributes."""
        body = self._close()
        for tag, variable, extent in reversed(self._axes):
            zero, size = tirx.const(0, "int32"), tirx.const(extent, "int32")
            range_ = tvm.ir.Range.from_min_extent(zero, size)
            axis = tirx.IterVar(range_, variable, tirx.IterVar.ThreadIndex, tag)
            body = tirx.AttrStmt(axis, "thread_extent", size, body)
        function = tirx.PrimFunc(list(arguments), body)
        return function.with_attr("tirx.noalias", True).with_attr("s_tir", True)


def _three(extents: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = (*extents, 1, 1)[:3]
    return x, y, z


def lane(vector: tirx.Expr, place: int) -> tirx.Expr:
    """One element of a vector."""
    return tirx.Shuffle([vector], [tirx.const(place, "int32")])


def lanes_of(vector: tirx.Expr, first: int, count: int) -> tirx.Expr:
    """``count`` adjacent elements of a vector."""
    places = [tirx.const(first + number, "int32") for number in range(count)]
    return tirx.Shuffle([vector], places)


def vector(elements: Sequence[tirx.Expr]) -> tirx.Expr:
    """A vector of ``elements``."""
    if len(elements) == 1:
        return elements[0]
    return tirx.Shuffle(list(elements), [tirx.const(at, "int32") for at in range(len(elements))])
