"""The properties of a processor that kernels depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

LANES = {"avx512": 16, "avx2": 8, "neon": 4, "generic": 4}
REGISTERS = {"avx512": 32, "avx2": 16, "neon": 32, "generic": 16}


@dataclass(frozen=True)
class CpuTarget:
    """A CPU cluster: ``isa`` determines vector width and registers, ``threads`` is the number per stage."""

    arch: str
    mcpu: str
    isa: str
    triple: str
    threads: int
    l1d_bytes: int
    l2_bytes: int
    kind: Literal["cpu"] = "cpu"

    @property
    def lanes(self) -> int:
        """float32 elements of a vector register."""
        return LANES[self.isa]

    @property
    def registers(self) -> int:
        """Number of vector registers."""
        return REGISTERS[self.isa]

    @property
    def slow_register_copies(self) -> bool:
        """Whether a register copy occupies a multiply unit while a load does not.

        NEON's multiply-add overwrites its accumulator, so initial values must be copied or reloaded.
        """
        return self.isa == "neon"

    @property
    def slow_division(self) -> bool:
        """Whether a vector quotient is cheaper by reciprocal estimate and Newton steps.

        A Cortex-A57 divides four floats in 34 cycles without overlap, but starts an estimate or a Newton
        step every cycle (LLVM 19, ``llvm-mca -mcpu=cortex-a57``).
        """
        return self.isa == "neon"

    def tvm_target(self) -> dict[str, Any]:
        """The target in TVM's format."""
        target: dict[str, Any] = {"kind": "llvm", "mtriple": self.triple, "mcpu": self.mcpu}
        if self.isa == "neon":
            target["mattr"] = ["+neon"]
            # Otherwise a maximum compiles to a comparison and a select, to handle NaN and -0.
            target["fast-math-nnan"] = target["fast-math-nsz"] = True
        return target
