"""Events for the harness: one JSON object per line on standard output."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

from .errors import CompileError

_stream: TextIO = sys.stdout


def own_stdout() -> None:
    """Reserves standard output for events; everything else that prints there goes to standard error."""
    global _stream
    sys.stdout.flush()
    _stream = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr


def progress(step: str, done: int, total: int) -> None:
    """Reports that ``done`` of ``total`` items of ``step`` (import, lower, kernels, link) are finished."""
    _emit({"event": "progress", "step": step, "done": done, "total": total})


def done() -> None:
    """Reports that the job is finished."""
    _emit({"event": "done"})


def error(failure: CompileError) -> None:
    """Reports why the job failed."""
    _emit(
        {
            "event": "error",
            "kind": failure.kind,
            "message": str(failure),
            "node": failure.node,
        }
    )


def _emit(event: dict[str, Any]) -> None:
    _stream.write(json.dumps(event) + "\n")
    _stream.flush()
