"""PTX of kernels: one file per function, cached across jobs, and joined to the module of a stage."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tvm import tirx

from ..kernels.cuda import ptx
from ..kernels.cuda.ptx import Launch, Module
from ..kernels.target import CudaTarget
from ..versions import versions
from .artifacts import write_atomically
from .objects import content_key

# The last line of a module's head.
HEAD_END = ".address_size 64\n"


class PtxFiles:
    """Files below ``folder``, named by the hash of their function, target and package versions."""

    def __init__(self, folder: Path, target: CudaTarget) -> None:
        self.folder = folder
        self._target = target
        self._salt = repr((target, sorted(versions().items())))

    def module(
        self,
        names: Iterable[str],
        functions: dict[str, tirx.PrimFunc],
        progress: Callable[[int, int], None],
    ) -> Module:
        """The module of the functions ``names``, each of which is one kernel."""
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = list(dict.fromkeys(names))
        progress(0, len(wanted))
        made: list[Module] = []
        # TVM releases the GIL while it compiles.
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for module in pool.map(lambda name: self._kernel(name, functions[name]), wanted):
                made.append(module)
                progress(len(made), len(wanted))
        head = made[0].ptx.partition(HEAD_END)[0]
        bodies = [module.ptx.partition(HEAD_END)[2].strip() for module in made]
        launches = {name: launch for module in made for name, launch in module.launches.items()}
        text = "\n\n".join([head + HEAD_END, *bodies]) + "\n"
        return Module(text, made[0].ptx_version, launches)

    def _kernel(self, name: str, function: tirx.PrimFunc) -> Module:
        path = self.folder / f"{name}-{content_key(self._salt, name, function)}.ptx.json"
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            launch = Launch(*(tuple(known[key]) for key in ("grid", "block", "order")))
            return Module(known["ptx"], known["ptx_version"], {name: launch})
        except (OSError, ValueError, KeyError, TypeError):  # Not there, or damaged.
            pass
        module = ptx.build({name: function}, self._target.arch)
        launch = module.launches[name]
        content = {
            "ptx": module.ptx,
            "ptx_version": module.ptx_version,
            "grid": launch.grid,
            "block": launch.block,
            "order": launch.order,
        }
        write_atomically(path, json.dumps(content) + "\n")
        return module
