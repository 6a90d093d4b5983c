"""Turns a function of loops into CUDA kernels, with a thread for each iteration of its parallel loops.

The loops of a function run one after the other, each as a kernel. Intermediate buffers of the function become
values of the stage; buffers of a single iteration stay in the thread. Loops that must run in order stay loops
of the thread, so a function without parallel loops runs in one thread: slow, but right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import tvm
import tvm_ffi
from tvm import s_tir, tirx

from ..writer import Writer
from . import ptx
from .access import Accesses
from .writer import KernelWriter

# Threads of a block: several blocks fit on a multiprocessor, and small tensors reach several of them.
BLOCK = 128


@dataclass
class Part:
    """A kernel with its parameters: buffers that it only reads, then buffers that it writes.

    ``has_loops``: some of its threads run a loop.
    """

    function: tirx.PrimFunc
    read: list[tirx.Var]
    written: list[tirx.Var]
    has_loops: bool


@dataclass
class Parts:
    """Kernels in order. ``intermediate`` are buffers that no caller provides."""

    kernels: list[Part]
    parameters: list[tirx.Var]
    intermediate: list[tirx.Var]


def split(function: tirx.PrimFunc) -> Parts:
    """The kernels of ``function``, in order."""
    has_blocks = _has_blocks(function)
    statements = _flat(_without_blocks(function).body if has_blocks else function.body)
    intermediate: list[tirx.Var] = []
    if has_blocks:
        # TVM allocates the results of its operators here. Own functions have local variables.
        allocated = [item for item in statements if isinstance(item, tirx.AllocBuffer)]
        intermediate = [item.buffer for item in allocated]
        statements = [item for item in statements if item not in allocated]
    parameters = list(function.params)
    known = [*parameters, *intermediate]
    kernels = [_kernel(group, known) for group in _groups(statements) if _writes(group)]
    return Parts(kernels, parameters, intermediate)


def _writes(statements: list[tirx.Stmt]) -> bool:
    """Whether ``statements`` write anything; loops over nothing do not."""
    accesses = Accesses(statements)
    return bool(accesses.written) and all(int(loop.extent) for loop in _nest(statements, accesses))


def nothing(results: Sequence[tirx.Var]) -> tirx.PrimFunc:
    """A kernel without statements, for results without elements: every value comes from a launch."""
    return KernelWriter([1], [1]).function(results)


def _has_blocks(function: tirx.PrimFunc) -> bool:
    found: list[object] = []
    tvm_ffi.structural_walk(function.body, (s_tir.SBlock, lambda block: found.append(block)))
    return bool(found)


def _without_blocks(function: tirx.PrimFunc) -> tirx.PrimFunc:
    module = tvm.IRModule({"main": function})
    passes = s_tir.transform
    lowering = [
        passes.LowerInitBlock(),
        passes.ConvertBlocksToOpaque(),
        passes.LowerMatchBuffer(),
        passes.LowerOpaqueBlock(),
    ]
    return tvm.ir.transform.Sequential(lowering)(module)["main"]


def _flat(statement: tirx.Stmt) -> list[tirx.Stmt]:
    if isinstance(statement, tirx.SeqStmt):
        return [item for part in statement.seq for item in _flat(part)]
    if isinstance(statement, tirx.AttrStmt):  # A hint for TVM's schedules.
        return _flat(statement.body)
    return [statement]


def _groups(statements: Sequence[tirx.Stmt]) -> list[list[tirx.Stmt]]:
    """Statements that share a kernel, because a variable or a local buffer leads from one to the next."""
    groups: list[list[tirx.Stmt]] = []
    defined: list[set[tirx.Var]] = []
    for statement in statements:
        used = _variables(statement)
        # The statements since the first definition that this one uses.
        first = next((place for place, names in enumerate(defined) if names & used), len(groups))
        merged = [item for group in groups[first:] for item in group]
        names = set().union(*defined[first:], _defined(statement))
        groups[first:], defined[first:] = [[*merged, statement]], [names]
    return groups


def _variables(statement: tirx.Stmt) -> set[tirx.Var]:
    found: set[tirx.Var] = set()
    tvm_ffi.structural_walk(statement, (tirx.Var, found.add))
    return found


def _defined(statement: tirx.Stmt) -> set[tirx.Var]:
    if isinstance(statement, tirx.Bind):
        return {statement.var}
    return {statement.buffer} if isinstance(statement, tirx.AllocBuffer) else set()


def _kernel(statements: list[tirx.Stmt], known: list[tirx.Var]) -> Part:
    accesses = Accesses(statements)
    loops = _parallel(statements, accesses)
    extents = [int(loop.extent) for loop in loops]
    total = math.prod(extents)
    block = min(BLOCK, -(-total // 32) * 32 if total > 1 else 1)
    w = KernelWriter([-(-total // block)], [block])
    place = w.bind("thread", w.block_index[0] * block + w.thread_index[0])
    if total % block:
        with w.when(place < total):
            _body(w, statements, loops, place)
    else:
        _body(w, statements, loops, place)
    used = {access.buffer for access in accesses.all}
    written = [buffer for buffer in known if buffer in accesses.written]
    read = [buffer for buffer in known if buffer in used and buffer not in accesses.written]
    function = w.function([*read, *written])
    has_loops = len(loops) < len(accesses.ranges)
    return Part(_in_memory(function, accesses), read, written, has_loops)


def _parallel(statements: list[tirx.Stmt], accesses: Accesses) -> list[tirx.For]:
    """Nested loops, outermost first, whose iterations may run at the same time."""
    nest = _nest(statements, accesses)
    for count in range(len(nest), 0, -1):
        marked = [loop.loop_var for loop in nest[:count] if loop.kind == tirx.ForKind.PARALLEL]
        others = [loop.loop_var for loop in nest[:count] if loop.kind != tirx.ForKind.PARALLEL]
        if not others or accesses.disjoint(others, marked):
            return nest[:count]
    return []


def _nest(statements: list[tirx.Stmt], accesses: Accesses) -> list[tirx.For]:
    """Loops of a known extent, each the last statement of the one before.

    Each thread may run the statements before for itself.
    """
    found: list[tirx.For] = []
    while True:
        *before, last = statements
        if not _is_private(before, accesses):
            return found
        if isinstance(last, tirx.IfThenElse) and last.else_case is None:
            statements = _flat(last.then_case)
            continue
        if not isinstance(last, tirx.For) or accesses.ranges[last.loop_var] is None:
            return found
        if last.kind != tirx.ForKind.PARALLEL and _writes_outer(last, accesses):
            return found
        found.append(last)
        statements = _flat(last.body)


def _is_private(statements: list[tirx.Stmt], accesses: Accesses) -> bool:
    """Whether each thread may run ``statements`` for itself: short, and they write its own variables only."""
    own = Accesses(statements)
    return not own.ranges and not own.written - accesses.private


def _writes_outer(loop: tirx.For, accesses: Accesses) -> bool:
    """Whether the loop writes variables of its thread that it does not define itself."""
    return bool(Accesses([loop]).written & accesses.private)


def _body(w: Writer, statements: list[tirx.Stmt], loops: list[tirx.For], place: tirx.Expr) -> None:
    """Writes ``statements`` for the iteration ``place`` of ``loops``, the last one fastest."""
    for position, loop in enumerate(loops):
        inner = math.prod(int(other.extent) for other in loops[position + 1 :])
        value = place // inner if inner > 1 else place
        if position:
            value = value % int(loop.extent)
        w.add(tirx.Bind(loop.loop_var, value + loop.min))
    for statement in statements:
        w.add(_inside(statement, loops))


def _inside(statement: tirx.Stmt, loops: list[tirx.For]) -> tirx.Stmt:
    """``statement`` with ``loops`` replaced by their bodies."""
    if not loops:
        return statement
    if isinstance(statement, tirx.SeqStmt):
        return tirx.SeqStmt([*statement.seq[:-1], _inside(statement.seq[-1], loops)])
    if isinstance(statement, tirx.IfThenElse):
        return tirx.IfThenElse(statement.condition, _inside(statement.then_case, loops), None)
    if isinstance(statement, tirx.AttrStmt):
        return _inside(statement.body, loops)
    if statement.same_as(loops[0]):
        return _inside(statement.body, loops[1:])
    return statement


def _in_memory(function: tirx.PrimFunc, accesses: Accesses) -> tirx.PrimFunc:
    """``function`` with its local variables in the memory of a thread, and parameters without an offset."""
    moved = {
        buffer: tirx.decl_buffer(buffer.shape, buffer.dtype, buffer.name, scope="local")
        for buffer in accesses.private
    }
    parameters = [
        tirx.decl_buffer(buffer.shape, buffer.dtype, buffer.name) for buffer in function.params
    ]
    moved.update(zip(function.params, parameters, strict=True))
    body = tvm_ffi.structural_mutate(
        function.body, (tirx.Var, lambda variable, _: moved.get(variable, variable))
    )
    made = tirx.PrimFunc(parameters, body).with_attr(ptx.SCALAR, True)
    return made.with_attr("tirx.noalias", True).with_attr("s_tir", True)
