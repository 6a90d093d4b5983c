"""Networks compiled for a Cortex-A57, run by the board's runner under emulation."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepipe_compiler import job
from edgepipe_compiler.kernels.target import CpuTarget

A57 = CpuTarget("aarch64", "cortex-a57", "neon", "aarch64-unknown-linux-gnu", 1, 32 << 10, 2 << 20)
KIT, EMULATOR = "EDGEPIPE_KIT", "EDGEPIPE_EMULATOR"


def named(variable: str) -> str:
    """What `cargo xtask test` passes: the runner for aarch64, or an emulator."""
    if variable not in os.environ:
        pytest.fail(
            f"{variable} is not set: run this with `cargo xtask test`; EDGEPIPE_SKIP=aarch64 skips it"
        )
    return os.environ[variable]


def compile_whole(source: dict[str, str], folder: Path, threads: int = 1) -> dict[str, Any]:
    """Compiles a network as one stage, as the harness does, and returns its manifest."""
    target = {**asdict(A57), "threads": threads, "linker": [f"{named(KIT)}/cc"]}
    asked = {
        "schema": job.SCHEMA,
        "network": {"name": "net", **source},
        "target": target,
        "stages": [{"first_unit": 0, "end_unit": None, "boundary": "plain"}],
        "out": str(folder / "out"),
    }
    path = folder / "job.json"
    path.write_text(json.dumps(asked), encoding="utf-8")
    job.run(job.read(path))
    (described,) = (folder / "out" / "stages").glob("*/stage.json")
    stage = json.loads(described.read_text(encoding="utf-8"))
    stage["folder"] = str(described.parent)
    stage["weights_file"] = str(folder / "out" / "weights.bin")
    return stage


def schedule(stage: dict[str, Any], cpus: list[int]) -> dict[str, Any]:
    """The stage as a schedule in the format of the protocol."""

    def tensor(item: dict[str, Any], name: str) -> dict[str, Any]:
        return {"name": name, "shape": item["shape"], "dtype": item["dtype"]}

    given, made = stage["inputs"], stage["outputs"]
    inputs = list(range(len(given)))
    outputs = [len(given) + place for place in range(len(made))]
    return {
        "kind": "single",
        "values": [tensor(item, item["value"]) for item in [*given, *made]],
        "inputs": inputs,
        "outputs": outputs,
        "stages": [
            {
                "processor": {
                    "kind": "cpu",
                    "name": "a57",
                    "cpus": cpus,
                    "threads": len(cpus),
                },
                "program": {
                    "library": {
                        "path": f"{stage['folder']}/{stage['library']}",
                        "entry": stage["entry"],
                        "weights": {
                            "path": stage["weights_file"],
                            "offsets": [item["offset"] for item in stage["weights"]],
                            "tensors": [
                                tensor(item, f"weight{place}")
                                for place, item in enumerate(stage["weights"])
                            ],
                        },
                    }
                },
                "inputs": inputs,
                "outputs": outputs,
            }
        ],
    }


class Runner:
    """The board's runner on the emulated processor."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [named(EMULATOR), f"{named(KIT)}/runner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.hello = self._event()["hello"]
        self.requests = 0

    def close(self) -> None:
        """Ends the runner as the harness does: closes its standard input."""
        self.process.stdin.close()
        assert self.process.wait(30) == 0

    def ask(self, kind: str, **request: object) -> dict[str, Any]:
        """Sends a request and returns the body of the answer."""
        self.requests += 1
        line = json.dumps({kind: {"id": self.requests, **request}})
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        while True:
            ((name, body),) = self._event().items()
            assert name != "failed", body["message"]
            if name not in ("phase", "heartbeat"):
                return body

    def _event(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        assert line, f"the runner has ended: {self.process.wait(10)}"
        return json.loads(line)

    def state(self) -> dict[str, Any]:
        """The machine's state."""
        return self.ask("state", sysfs="/sys", thorough=False)["state"]

    def cpus(self) -> list[int]:
        """CPUs that the runner may use."""
        return self.state()["allowed_cpus"]

    def outputs(
        self, stage: dict[str, Any], folder: Path, cpus: list[int]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Runs the stage on a seeded frame; returns its outputs by name."""
        frames = {"seed": 7, "distinct": 1, "integers_below": 8}
        self.ask("capture", schedule=schedule(stage, cpus), frames=frames, folder=str(folder))

        def read(side: str) -> dict[str, np.ndarray]:
            return {
                item["value"]: np.fromfile(folder / f"0-{side}{place}.bin", item["dtype"]).reshape(
                    item["shape"]
                )
                for place, item in enumerate(stage[f"{side}s"])
            }

        return read("input"), read("output")
