"""The weights file: all weights of a network for one target.

Each weight starts at a multiple of 64 bytes, and equal weights are stored once. Weights are in unit order,
so the file is reproducible byte for byte.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

# TVM's kernels require it, and it is the cache line size of the supported processors.
ALIGNMENT = 64


@dataclass(frozen=True)
class Slot:
    """Location of a weight in the file: offset and size in bytes, shape, element type."""

    offset: int
    bytes: int
    shape: tuple[int, ...]
    dtype: str


class WeightsFile:
    """Writes weights one by one, so that at most one packed weight is in memory.

    A context manager. The file gets its final name when the block succeeds; an existing equal file is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._slots: dict[tuple[bytes, tuple[int, ...], str], Slot] = {}
        self._end = 0

    def __enter__(self) -> WeightsFile:
        self._file = self._partial.open("wb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._file.close()
            if kind is None:
                same = self.path.exists() and filecmp.cmp(self._partial, self.path, shallow=False)
                if not same:
                    self._partial.replace(self.path)
        finally:
            self._partial.unlink(missing_ok=True)

    def add(self, array: np.ndarray) -> Slot:
        """Stores ``array``, unless an equal one is stored already, and returns its slot."""
        array = np.asarray(array, order="C")
        content = memoryview(array.reshape(-1)).cast("B") if array.size else memoryview(b"")
        key = (hashlib.sha256(content).digest(), tuple(array.shape), array.dtype.name)
        slot = self._slots.get(key)
        if slot is None:
            offset = -(-self._end // ALIGNMENT) * ALIGNMENT
            self._file.write(b"\0" * (offset - self._end))
            self._file.write(content)
            self._end = offset + array.nbytes
            slot = Slot(offset, array.nbytes, tuple(array.shape), array.dtype.name)
            self._slots[key] = slot
        return slot
