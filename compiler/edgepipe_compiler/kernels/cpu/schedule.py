"""Helpers for schedules of tensor expressions."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import IRModule, te
from tvm.s_tir import Schedule

from ..target import CpuTarget


def create(arguments: Sequence[te.Tensor], results: Sequence[te.Tensor]) -> Schedule:
    """A schedule of the function that computes ``results`` from ``arguments``."""
    function = te.create_prim_func([*arguments, *results])
    return Schedule(IRModule({"main": function}))


def parallel(s: Schedule, target: CpuTarget, loops: Sequence[object]) -> None:
    """Distributes the fused ``loops`` over the threads of the stage. No effect for one thread."""
    if target.threads > 1 and loops:
        s.parallel(s.fuse(*loops))


def spatial(s: Schedule, target: CpuTarget, block: str) -> None:
    """Schedules a block without a reduction: vectors along the last axis, threads over the rest."""
    *outer, last = s.get_loops(s.get_sblock(block))
    extent = int(s.get(last).extent)
    if extent % target.lanes == 0 and extent > target.lanes:
        chunk, last = s.split(last, [None, target.lanes])
        outer.append(chunk)
        extent = target.lanes
    if 1 < extent <= 4 * target.lanes:
        s.vectorize(last)
    parallel(s, target, outer[:-1] or outer)


def unroll_tile(s: Schedule, loops: list[object]) -> None:
    """Vectorizes the last loop and unrolls the others."""
    s.vectorize(loops[-1])
    for loop in loops[:-1]:
        s.unroll(loop)


def inner_loops(s: Schedule, block: object, outer: object) -> list[object]:
    """Loops of ``block`` inside ``outer``."""
    loops = s.get_loops(block)
    place = next(i for i, loop in enumerate(loops) if s.get(loop).same_as(s.get(outer)))
    return list(loops[place + 1 :])
