"""Schedules tensor expressions without a reduction."""

from __future__ import annotations

from tvm import IRModule, te, tirx
from tvm.s_tir import Schedule

from ..target import CpuTarget


def spatial(source: te.Tensor, result: te.Tensor, target: CpuTarget) -> tirx.PrimFunc:
    """The function from ``source`` to ``result``: vectors along the last axis, threads over the rest."""
    s = Schedule(IRModule({"main": te.create_prim_func([source, result])}))
    *outer, last = s.get_loops(s.get_sblock(result.op.name))
    extent = int(s.get(last).extent)
    if extent % target.lanes == 0 and extent > target.lanes:
        chunk, last = s.split(last, [None, target.lanes])
        outer.append(chunk)
        extent = target.lanes
    if 1 < extent <= 4 * target.lanes:
        s.vectorize(last)
    loops = outer[:-1] or outer
    if target.threads > 1 and loops:
        s.parallel(s.fuse(*loops))
    return s.mod["main"]
