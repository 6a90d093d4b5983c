"""Machine code of kernels: one object file a function, kept from job to job.

Stages of one network share most of their kernels, and the harness asks for the whole network before it
asks for its stages. So a function is compiled once, and a stage is linked from object files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tvm
from tvm import tirx

from ..kernels.target import TargetDescription
from ..versions import versions


class Objects:
    """Object files below ``folder``, named by the hash of all that goes into them."""

    def __init__(self, folder: Path, target: TargetDescription) -> None:
        self.folder = folder
        self._target = tvm.target.Target(target.tvm_target())
        self._salt = repr((target, sorted(versions().items())))

    def of(
        self,
        names: Iterable[str],
        functions: dict[str, tirx.PrimFunc],
        progress: Callable[[int, int], None],
    ) -> list[Path]:
        """Object files of the functions ``names``, which call each other by these names."""
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = list(dict.fromkeys(names))
        paths = []
        progress(0, len(wanted))
        # TVM lets go of Python's lock while it works.
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            made = pool.map(lambda name: self._object(name, functions[name]), wanted)
            for path in made:
                paths.append(path)
                progress(len(paths), len(wanted))
        return paths

    def _object(self, name: str, function: tirx.PrimFunc) -> Path:
        content = tvm.ir.save_json(function)
        key = hashlib.sha256("\0".join((self._salt, name, content)).encode()).hexdigest()
        path = self.folder / f"{name}-{key[:24]}.o"
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
