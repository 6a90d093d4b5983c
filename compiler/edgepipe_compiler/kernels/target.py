"""What a kernel has to know of a processor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LANES = {"avx512": 16, "avx2": 8, "neon": 4, "generic": 4}
REGISTERS = {"avx512": 32, "avx2": 16, "neon": 32, "generic": 16}


@dataclass(frozen=True)
class TargetDescription:
    """A CPU: ``isa`` sets vector width and registers, ``threads`` those of one stage."""

    arch: str
    mcpu: str
    isa: str
    triple: str
    threads: int
    l1d_bytes: int
    l2_bytes: int

    @property
    def lanes(self) -> int:
        """float32 elements of a vector register."""
        return LANES[self.isa]

    @property
    def registers(self) -> int:
        """Vector registers."""
        return REGISTERS[self.isa]

    @property
    def copies_are_dear(self) -> bool:
        """Whether to copy a vector costs time of the units that multiply, and a load does not. A multiply-add
        of NEON overwrites its sum, so that whatever a sum begins with has to be copied; or loaded anew."""
        return self.isa == "neon"

    @property
    def division_is_dear(self) -> bool:
        """Whether a vector's quotients had better be estimated and improved: a Cortex-A57 divides four floats
        in 34 cycles, in which it divides nothing else, and begins an estimate or a step of improving one in
        every cycle (LLVM 19, ``llvm-mca -mcpu=cortex-a57``)."""
        return self.isa == "neon"

    def tvm_target(self) -> dict[str, Any]:
        """The same in TVM's words."""
        target: dict[str, Any] = {"kind": "llvm", "mtriple": self.triple, "mcpu": self.mcpu}
        if self.isa == "neon":
            target["mattr"] = ["+neon"]
            # Without these a maximum becomes a comparison and a selection, for the sake of NaN and -0.
            target["fast-math-nnan"] = target["fast-math-nsz"] = True
        return target
