"""Object files of kernels: one per function, cached across jobs.

Stages of one network share most kernels, and the harness compiles the whole network before its stages. Each
function is compiled once; stages are linked from object files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tvm
from tvm import tirx

from ..kernels.target import CpuTarget
from ..versions import versions


def content_key(salt: str, name: str, function: tirx.PrimFunc) -> str:
    """A hash of a function, its name, and what else its code depends on."""
    content = "\0".join((salt, name, tvm.ir.save_json(function)))
    return hashlib.sha256(content.encode()).hexdigest()[:24]


class Objects:
    """Object files below ``folder``, named by the hash of their function, target and package versions."""

    def __init__(self, folder: Path, target: CpuTarget) -> None:
        self.folder = folder
        self._target = tvm.target.Target(target.tvm_target())
        self._salt = repr((target, sorted(versions().items())))

    def of(
        self,
        names: Iterable[str],
        functions: dict[str, tirx.PrimFunc],
        progress: Callable[[int, int], None],
    ) -> list[Path]:
        """Compiles the functions ``names`` and returns their object files.

        Each function keeps its name as symbol.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = list(dict.fromkeys(names))
        paths = []
        progress(0, len(wanted))
        # TVM releases the GIL while it compiles.
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            made = pool.map(lambda name: self._object(name, functions[name]), wanted)
            for path in made:
                paths.append(path)
                progress(len(paths), len(wanted))
        return paths

    def _object(self, name: str, function: tirx.PrimFunc) -> Path:
        path = self.folder / f"{name}-{content_key(self._salt, name, function)}.o"
        if path.exists():
            return path
        partial = self.folder / f".{path.stem}.{os.getpid()}.o"
        module = tvm.IRModule({name: function.with_attr("global_symbol", name)})
        try:
            tvm.tirx.build(module, self._target).write_to_file(str(partial))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path
