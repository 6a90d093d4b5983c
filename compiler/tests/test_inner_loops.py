"""Inner loops are found in assembly as printed by LLVM."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import inner_loops

NESTED = """
\t.text
kernel:                                 // @kernel
.LBB0_1:                                // outer
\tldr\tq0, [x0]
.LBB0_2:                                // inner
\tldr\tq1, [x1], #16
\tfmla\tv2.4s, v0.4s, v1.4s
\tfmla\tv3.4s, v0.4s, v1.s[2]
\tcbz\tx3, .LBB0_3
\tfmla\tv4.2s, v0.2s, v1.2s
.LBB0_3:
\tsubs\tx2, x2, #1
\tb.ne\t.LBB0_2
\tfmadd\ts5, s6, s7, s5
\tcbnz\tx4, .LBB0_1
.LBB0_4:                                // copies only
\tstr\tq2, [x5], #16
\ttbnz\tw6, #0, .LBB0_4
.LBB0_5:
\tfmadd\ts5, s6, s7, s5
\tb.lt\t.LBB0_5
\tret
"""


def test_loops_without_loops_inside_are_found() -> None:
    loops = inner_loops.innermost(NESTED)
    assert [loop.multiply_adds for loop in loops] == [4 + 4 + 2, 1]
    assert loops[0].instructions[0] == "ldr q1, [x1], #16"
    assert loops[0].instructions[-1] == "b.ne .LBB0_2"


def test_the_busiest_is_that_of_whole_tiles() -> None:
    assert inner_loops.busiest(NESTED).multiply_adds == 10
    assert inner_loops.busiest("kernel:\n\tret\n") is None
