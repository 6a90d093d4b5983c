"""Runs the compiler as the harness does: a job file in, events out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import edgepipe_compiler
from compiled import host_target

Stage = tuple[int, int | None, str]


@dataclass
class Outcome:
    """Exit code, events and standard error of a compiler process."""

    code: int
    events: list[dict[str, Any]]
    log: str

    @property
    def error(self) -> dict[str, Any]:
        """The one error event."""
        (event,) = [event for event in self.events if event["event"] == "error"]
        return event


def compiler(*arguments: str, before: Callable[[], None] | None = None) -> Outcome:
    """Runs ``python -m edgepipe_compiler``."""
    path = Path(edgepipe_compiler.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "edgepipe_compiler", *arguments],
        env={**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=before,
    )
    return Outcome(
        done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr
    )


def job(
    folder: Path,
    network: dict[str, str],
    stages: list[Stage],
    out: Path,
    target: dict[str, str] | None = None,
) -> Path:
    """Writes a job file, by default for this machine."""
    path = folder / "job.json"
    keys = ("first_unit", "end_unit", "boundary")
    content = {
        "schema": 1,
        "network": {"name": "mine", **network},
        "target": target or asdict(host_target()),
        "stages": [dict(zip(keys, entry, strict=True)) for entry in stages],
        "out": str(out),
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
