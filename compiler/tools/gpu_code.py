"""Instructions and loops of a kernel: from the machine code of a Maxwell or Pascal GPU, or from PTX."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FUNCTION = re.compile(r"\n\s+Function : ")
_INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?);\s+/\* 0x[0-9a-f]{16} \*/")
_CONTROL = re.compile(r"^\s+/\* 0x([0-9a-f]{16}) \*/")
_PREDICATE = re.compile(r"^@!?U?P[\dT]+\s+")
_BRANCH = re.compile(r"\bBRA\s+.*?0x([0-9a-f]+)")
_REGISTER = re.compile(r"^[-|~]*R(\d+)[|]?(?:\.H\d_H\d)?(\.reuse)?")
# Instructions of the arithmetic units, whose operands come from the four banks of registers.
_ARITHMETIC = (
    "FFMA", "FADD", "FMUL", "IADD", "XMAD", "LOP", "FMNMX", "ISCADD", "SEL", "HFMA2", "HADD2",
)  # fmt: skip
# A branch of PTX to a label, and a label.
_PTX_BRANCH = re.compile(r"\bbra(?:\.uni)?\s+(\$\w+)")
_PTX_LABEL = re.compile(r"^(\$\w+):")
BANKS = 4


@dataclass(frozen=True)
class Instruction:
    """An instruction: its text, the issue slots it takes, and the cycles until its warp may go on."""

    text: str
    slots: int
    stall: int

    @property
    def name(self) -> str:
        """The instruction without predicate, modifiers and operands."""
        return re.split(r"[.\s]", _PREDICATE.sub("", self.text), maxsplit=1)[0]

    @property
    def is_multiply_add(self) -> bool:
        """Whether it is a multiply-add of float32, or of a pair of float16."""
        named = self.name in ("FFMA", "FFMA32I", "HFMA2")
        return named or self.text.startswith(("fma.rn.f32", "fma.rn.f16x2"))

    @property
    def is_global_load(self) -> bool:
        """Whether it reads global memory."""
        return self.name == "LDG" or self.text.startswith("ld.global")

    @property
    def shared_wavefronts(self) -> int:
        """Cycles of shared memory, at most: one for 32 bits of each thread."""
        if self.name in ("LDS", "STS"):
            width = re.search(r"\.(64|128)", self.text.split()[0 if self.text[0] != "@" else 1])
            return int(width[1]) // 32 if width else 1
        if self.text.startswith(("ld.shared", "st.shared")):
            width = re.search(r"\.v(\d)", self.text)
            return int(width[1]) if width else 1
        return 0


@dataclass(frozen=True)
class Code:
    """The instructions of a kernel up to its end, and its loops as first and last instruction, in order."""

    instructions: list[Instruction]
    loops: list[tuple[int, int]]

    def enclosing(self, place: int) -> list[int]:
        """The loops that contain an instruction, outermost first."""
        return [at for at, (first, last) in enumerate(self.loops) if first <= place <= last]

    def children(self, loop: int | None) -> list[int]:
        """The loops directly inside a loop, or outside of all loops."""
        found = []
        for number, (first, _) in enumerate(self.loops):
            around = [other for other in self.enclosing(first) if other != number]
            if (around[-1] if around else None) == loop:
                found.append(number)
        return found


class ToolError(Exception):
    """A program of CUDA could not be used."""


def output_of(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a program. Raises ``ToolError`` if it cannot be started."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ToolError(
            f"failed to start {command[0]}: {error.strerror}; correct its path"
        ) from error


def of_cubin(path: Path, disassembler: str) -> dict[str, Code]:
    """The kernels of a cubin by name, by ``cuobjdump``. The layout is that of compute capability 5 and 6."""
    result = output_of([disassembler, "-sass", str(path)])
    if result.returncode != 0:
        raise ToolError(f"failed to disassemble with {disassembler}: {result.stderr.strip()}")
    found = {}
    for part in _FUNCTION.split(result.stdout)[1:]:
        name, _, text = part.partition("\n")
        found[name.strip()] = _of_sass(list(_decoded(text)))
    return found


def _decoded(text: str) -> Iterator[tuple[int, str, int]]:
    """Address, text and control bits of each instruction. A control word precedes three instructions.

    Its fields, from the lowest bit, are 21 bits each: 4 bits of stall, 1 of yield, barriers, and the reuse of
    operands (S. Gray, https://github.com/NervanaSystems/maxas/wiki/Control-Codes).
    """
    control, place = 0, 0
    for line in text.split("\n"):
        instruction = _INSTRUCTION.match(line)
        if instruction:
            yield (
                int(instruction[1], 16),
                instruction[2].strip(),
                control >> (21 * place) & 0x1FFFFF,
            )
            place += 1
            continue
        word = _CONTROL.match(line)
        if word:
            control, place = int(word[1], 16), 0


def _of_sass(decoded: list[tuple[int, str, int]]) -> Code:
    last = max(at for at, (_, text, _) in enumerate(decoded) if text.endswith("EXIT"))
    decoded = decoded[: last + 1]
    places = {address: place for place, (address, _, _) in enumerate(decoded)}
    instructions, held = [], {}
    for _, text, control in decoded:
        stall = control & 0xF
        extra, held = _bank_conflicts(text, held)
        # No stall: it is issued together with the next one.
        instructions.append(Instruction(text, (1 if stall else 0) + extra, stall + extra))
    loops = []
    for place, (address, text, _) in enumerate(decoded):
        branch = _BRANCH.search(text)
        target = int(branch[1], 16) if branch else address
        if target < address:
            # Addresses of control words are skipped.
            loops.append((places.get(target, places.get(target + 8, place)), place))
    return Code(instructions, _nested(loops))


def _bank_conflicts(text: str, held: dict[int, int]) -> tuple[int, dict[int, int]]:
    """Extra cycles because operands are in one bank, and the operands kept for the next instruction.

    The bank is the number of the register modulo 4. An operand marked ``reuse`` stays in its slot.
    """
    bare = _PREDICATE.sub("", text)
    if not bare.startswith(_ARITHMETIC) or " " not in bare:
        return 0, {}
    read: dict[int, set[int]] = {}
    kept: dict[int, int] = {}
    for slot, operand in enumerate(bare.split(None, 1)[1].split(",")[1:]):
        register = _REGISTER.match(operand.strip())
        if not register:
            continue
        number = int(register[1])
        if held.get(slot) != number:
            read.setdefault(number % BANKS, set()).add(number)
        if register[2]:
            kept[slot] = number
    return max((len(bank) for bank in read.values()), default=1) - 1, kept


def of_ptx(ptx: str) -> dict[str, Code]:
    """The kernels of a module by name. Each instruction of PTX counts as one of the machine."""
    found = {}
    for match in re.finditer(r"\.entry (\w+)\(.*?\n\{\n(.*?)\n\}\n", ptx, re.DOTALL):
        instructions: list[Instruction] = []
        labels: dict[str, int] = {}
        loops = []
        for line in match[2].split("\n"):
            text = re.sub(r"^@!?%p\d+\s+", "", line.strip())
            label = _PTX_LABEL.match(text)
            if label:
                labels[label[1]] = len(instructions)
            if not text or label or text.startswith((".", "//")):
                continue
            branch = _PTX_BRANCH.search(text)
            if branch and branch[1] in labels:
                loops.append((labels[branch[1]], len(instructions)))
            instructions.append(Instruction(text, 1, 1))
        found[match[1]] = Code(instructions, _nested(loops))
    return found


def _nested(loops: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """One loop for each start, outer ones first."""
    longest: dict[int, int] = {}
    for first, last in loops:
        longest[first] = max(last, longest.get(first, last))
    return sorted(longest.items(), key=lambda loop: (loop[0], -loop[1]))
