"""Finds the innermost loop with the most work in the assembly of a kernel, as printed by LLVM."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Multiply-adds per AArch64 instruction, by the arrangement of its first operand.
_LANES = {"4s": 4, "2s": 2}
_FUSED = re.compile(r"^f(?:mla|mls)\s+v\d+\.(4s|2s)")
_SCALAR = re.compile(r"^fn?madd\s+s\d+")
_BRANCH = re.compile(r"^(?:b|b\.\w+|cbn?z|tbn?z)\s+(?:.*,\s*)?(\.L\w+)$")
_LABEL = re.compile(r"^(\.L\w+):")


@dataclass(frozen=True)
class Loop:
    """Instructions of one iteration, and the float32 multiply-adds among them."""

    instructions: tuple[str, ...]
    multiply_adds: int


def multiply_adds(instruction: str) -> int:
    """float32 elements that an instruction multiplies and adds."""
    fused = _FUSED.match(instruction)
    if fused:
        return _LANES[fused[1]]
    return 1 if _SCALAR.match(instruction) else 0


def innermost(assembly: str) -> list[Loop]:
    """Loops without inner loops and with at least one multiply-add, in order."""
    lines = [_clean(line) for line in assembly.splitlines()]
    lines = [line for line in lines if line]
    labels = {match[1]: at for at, line in enumerate(lines) if (match := _LABEL.match(line))}
    spans = []
    for at, line in enumerate(lines):
        branch = _BRANCH.match(line)
        if branch and labels.get(branch[1], at) < at:
            spans.append((labels[branch[1]], at))
    # A loop with several back edges ends with the last of them.
    ends: dict[int, int] = {}
    for begin, end in spans:
        ends[begin] = max(end, ends.get(begin, end))
    loops = []
    for begin, end in sorted(ends.items()):
        if any(begin < other <= ends[other] <= end for other in ends if other != begin):
            continue
        body = tuple(line for line in lines[begin : end + 1] if not line.endswith(":"))
        total = sum(multiply_adds(line) for line in body)
        if total:
            loops.append(Loop(body, total))
    return loops


def busiest(assembly: str) -> Loop | None:
    """The innermost loop with the most multiply-adds per iteration: that of full tiles."""
    return max(innermost(assembly), key=lambda loop: loop.multiply_adds, default=None)


def _clean(line: str) -> str:
    line = line.split("//")[0].strip()
    if line.startswith(".") and not _LABEL.match(line):
        return ""
    return re.sub(r"\s+", " ", line)
