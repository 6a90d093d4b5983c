"""What the compiler tells the harness: one JSON object a line on standard output."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

from .errors import CompileError

_stream: TextIO = sys.stdout


def own_stdout() -> None:
    """Keeps standard output for events alone: whatever else prints there goes to standard error."""
    global _stream
    sys.stdout.flush()
    _stream = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr


def progress(step: str, done: int, total: int) -> None:
    """Says that ``done`` of ``total`` of ``step`` (import, lower, kernels, link) are finished."""
    _emit({"event": "progress", "step": step, "done": done, "total": total})


def done() -> None:
    """Says that everything the job asks for is in its folder."""
    _emit({"event": "done"})


def error(failure: CompileError) -> None:
    """Says why the job could not be done."""
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
