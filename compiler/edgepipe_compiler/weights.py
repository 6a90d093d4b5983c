"""The file with all weights of a network for one target.

Each weight starts at a multiple of 64 bytes, equal weights are stored once, and the order is that of the
units, so that the file is the same byte for byte whenever it is made.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

# TVM's kernels and every cache line of the processors at hand want this alignment.
ALIGNMENT = 64


@dataclass(frozen=True)
class Slot:
    """Where a weight lies in the file: offset and size in bytes, extents, element type."""

    offset: int
    bytes: int
    shape: tuple[int, ...]
    dtype: str


class WeightsFile:
    """Writes weights one by one, so that no more than one packed weight is in memory.

    The file appears under its name when the ``with`` block ends well; an equal one that is there already
    is left as it is.
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
        """Stores ``array`` unless an equal one is stored, and says where."""
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
