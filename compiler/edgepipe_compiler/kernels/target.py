"""The properties of a processor that kernels depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

LANES = {"avx512": 16, "avx2": 8, "neon": 4, "generic": 4}
REGISTERS = {"avx512": 32, "avx2": 16, "neon": 32, "generic": 16}


@dataclass(frozen=True)
class CpuTarget:
    """A CPU cluster: ``isa`` determines vector width and registers, ``threads`` is the number per stage.

    ``winograd``: whether convolutions may use Winograd's algorithm.
    """

    arch: str
    mcpu: str
    isa: str
    triple: str
    threads: int
    l1d_bytes: int
    l2_bytes: int
    winograd: bool = True
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
    def estimates_reciprocals(self) -> bool:
        """Whether a vector quotient is cheaper by reciprocal estimate and Newton steps.

        A Cortex-A57 divides four floats in 34 cycles without overlap, but starts an estimate or a Newton
        step every cycle (LLVM 19, ``llvm-mca -mcpu=cortex-a57``). An Ice Lake Xeon divides sixteen in 16
        cycles, and starts an estimate every two (uops.info: VDIVPS, VRCP14PS).
        """
        return self.isa in ("neon", "avx512")

    def tvm_target(self) -> dict[str, Any]:
        """The target in TVM's format."""
        target: dict[str, Any] = {"kind": "llvm", "mtriple": self.triple, "mcpu": self.mcpu}
        if self.isa == "neon":
            target["mattr"] = ["+neon"]
            # Otherwise a maximum compiles to a comparison and a select, to handle NaN and -0.
            target["fast-math-nnan"] = target["fast-math-nsz"] = True
        return target


@dataclass(frozen=True)
class Limits:
    """What a GPU of one compute capability allows.

    Source: CUDA C++ Programming Guide, appendix "Compute Capabilities"; the PTX version is the first one that
    knows the architecture.
    """

    ptx_version: str
    registers_per_block: int
    threads_per_multiprocessor: int
    blocks_per_multiprocessor: int
    shared_bytes_per_multiprocessor: int


CUDA_LIMITS = {
    "sm_53": Limits("4.2", 32 << 10, 2048, 32, 64 << 10),
    "sm_62": Limits("5.0", 32 << 10, 2048, 32, 64 << 10),
    "sm_72": Limits("6.1", 64 << 10, 2048, 32, 96 << 10),
    "sm_75": Limits("6.3", 64 << 10, 1024, 16, 64 << 10),
    "sm_87": Limits("7.4", 64 << 10, 1536, 16, 164 << 10),
    "sm_89": Limits("7.8", 64 << 10, 1536, 24, 100 << 10),
    "sm_90": Limits("7.8", 64 << 10, 2048, 32, 228 << 10),
}
PRECISIONS = ("fp32", "fp16")
THREADS_PER_BLOCK = 1024
REGISTERS_PER_MULTIPROCESSOR = 64 << 10
# Shared memory that is declared in the PTX; more needs an opt-in of the program that launches the kernel.
SHARED_BYTES_PER_BLOCK = 48 << 10


@dataclass(frozen=True)
class CudaTarget:
    """A GPU of the architecture ``arch``, such as ``sm_62``. A newer GPU compiles the PTX of an older one.

    ``precision`` is that of the float32 tensors of a network: ``fp16`` keeps them in half precision between
    the kernels of a stage (see ``cuda/half.py``). ``winograd``: whether convolutions may use Winograd's
    algorithm. To the rules that compute element by element
    (``kernels/cpu``), it is a processor with one lane and many threads.
    """

    arch: str
    precision: Literal["fp32", "fp16"] = "fp32"
    winograd: bool = True
    kind: Literal["cuda"] = "cuda"

    @property
    def limits(self) -> Limits:
        """What a GPU of this architecture allows."""
        return CUDA_LIMITS[self.arch]

    @property
    def lanes(self) -> int:
        """float32 elements that an instruction of one thread computes."""
        return 1

    @property
    def registers(self) -> int:
        """Registers that a thread may use for results, so that several blocks fit on a multiprocessor."""
        return 32

    @property
    def threads(self) -> int:
        """Number of threads of a multiprocessor."""
        return self.limits.threads_per_multiprocessor

    @property
    def estimates_reciprocals(self) -> bool:
        """GPUs have no reciprocal estimate that the CPU rules could use."""
        return False


Target = CpuTarget | CudaTarget
