"""Chooses the tile of a convolution or product by a closed form of its time.

A block computes a tile of channels by a tile of pixels, and each thread ``a`` channels by ``b`` pixels. The
model counts the instructions that a thread issues for one step of the sum, and the loads, stores and
latencies around them. It ranks tiles and does not predict times.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..target import REGISTERS_PER_MULTIPROCESSOR, SHARED_BYTES_PER_BLOCK, CudaTarget

# Multiprocessors of the board with each architecture, over which blocks are spread: Jetson Nano, TX2, AGX
# Xavier, Orin; desktop GPUs have dozens.
MULTIPROCESSORS = {"sm_53": 1, "sm_62": 2, "sm_72": 8, "sm_87": 16}
MANY = 40
# Blocks per multiprocessor that leave nothing to gain by sharing sums.
MANY_BLOCKS = 16
SCHEDULERS = 4
# Registers of a thread besides sums, operands and what it copies.
OTHER_REGISTERS = 30
WARP = 32
# Cycles, estimated: a barrier with the accesses to shared memory around it, and a load from global memory.
BARRIER, GLOBAL_LOAD = 130, 450
# Cycles to start a block, and to launch another kernel.
BLOCK, LAUNCH = 800, 8000
# Bytes per cycle between L2 and a multiprocessor, and from DRAM to the GPU of the boards above: two thirds of
# the memory's bandwidth, at the GPU's highest clock; estimated.
L2_BYTES = 64
DRAM_BYTES = {"sm_53": 20, "sm_62": 31, "sm_72": 66, "sm_87": 105}
MANY_DRAM_BYTES = 200


def multiprocessors(target: CudaTarget) -> int:
    """Multiprocessors that a launch should occupy."""
    return MULTIPROCESSORS.get(target.arch, MANY)


def dram_cycles(elements: int, target: CudaTarget) -> float:
    """Cycles to move float32 ``elements`` between DRAM and the GPU."""
    return 4 * elements / DRAM_BYTES.get(target.arch, MANY_DRAM_BYTES)


@dataclass(frozen=True)
class Work:
    """A launch: ``blocks`` of ``threads``, each with ``steps`` of ``instructions`` and a ``last`` part.

    ``registers`` per thread and ``shared`` bytes per block limit the resident blocks. ``fetched`` are the
    bytes that a block loads per step, and ``wavefronts`` the cycles in which a warp occupies shared memory
    per step, at most.
    """

    blocks: int
    threads: int
    steps: int
    instructions: float
    last: float
    registers: int
    shared: int
    fetched: int
    wavefronts: int

    def fits(self, target: CudaTarget) -> bool:
        """Whether a block of this size can run."""
        registers = min(self.registers + 16, 255) * -(-self.threads // WARP) * WARP
        return (
            registers <= target.limits.registers_per_block and self.shared <= SHARED_BYTES_PER_BLOCK
        )

    def cycles(self, target: CudaTarget) -> float:
        """Estimated time."""
        limits, warps = target.limits, -(-self.threads // WARP)
        resident = min(
            limits.blocks_per_multiprocessor,
            limits.threads_per_multiprocessor // (warps * WARP),
            REGISTERS_PER_MULTIPROCESSOR // (self.registers * warps * WARP),
            limits.shared_bytes_per_multiprocessor // max(1, self.shared),
        )
        each = -(-self.blocks // multiprocessors(target))
        together = max(1, min(resident, each))
        whole, left = divmod(each, together)
        rounds = whole + (left > 0)
        # Each scheduler issues an instruction per cycle; the one with most warps is the last to finish.
        fullest = whole * -(-together * warps // SCHEDULERS) + -(-left * warps // SCHEDULERS)
        issue = fullest * (self.steps * self.instructions + self.last)
        # One warp alone: it issues at most an instruction per cycle, and waits at the barrier of each step.
        waiting = max(self.instructions + BARRIER, GLOBAL_LOAD)
        latency = rounds * (self.steps * waiting + self.last + BLOCK)
        l2 = self.blocks * self.steps * self.fetched / (L2_BYTES * multiprocessors(target))
        shared = each * warps * self.steps * self.wavefronts
        return max(issue, latency, l2, shared) + 0.1 * min(issue, latency)


def adding(outputs: int, slices: int, target: CudaTarget) -> float:
    """Cycles to add the parts of ``outputs`` sums that ``slices`` blocks share, in a second launch."""
    return 0.0 if slices == 1 else LAUNCH + dram_cycles(outputs * (2 * slices + 1), target)
