"""``python -m edgepipe_compiler JOB.json`` compiles; ``--versions`` prints versions as JSON.

Exit codes: 0 done; 1 an error event was printed; 2 wrong arguments.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from . import events
from .errors import CompileError


def main(arguments: list[str]) -> int:
    """Runs a job and returns the exit code."""
    if arguments == ["--versions"]:
        from .versions import versions

        print(json.dumps(versions()))
        return 0
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m edgepipe_compiler JOB.json | --versions", file=sys.stderr)
        return 2
    events.own_stdout()
    try:
        from . import job

        job.run(job.read(Path(arguments[0])))
    except Exception as error:
        failure = failure_of(error)
        if failure.kind == "internal":
            traceback.print_exc()
        events.error(failure)
        return 1
    events.done()
    return 0


def failure_of(error: Exception) -> CompileError:
    """Converts any exception into the error that is reported to the harness."""
    if isinstance(error, CompileError):
        return error
    if isinstance(error, MemoryError) or "bad_alloc" in str(error):
        return CompileError(
            "out_of_memory",
            "failed to compile: out of memory; close other programs or compile fewer networks "
            "at a time",
        )
    if isinstance(error, ImportError):
        program = os.environ.get("EDGEPIPE_PROGRAM", "cargo xtask")
        remedy = (
            "the file system is mounted noexec: set CARGO_TARGET_DIR to a folder on another one"
            if "failed to map segment" in str(error)
            else f"run `{program} setup` to repair the private Python environment"
        )
        return CompileError(
            "environment", f"failed to load the compiler's modules: {error}; {remedy}"
        )
    if isinstance(error, OSError):
        place = f" {error.filename}" if error.filename else ""
        return CompileError(
            "disk",
            f"failed to write{place}: {error.strerror or error}; free disk space or correct the permissions",
        )
    text = (str(error).strip().splitlines() or [""])[-1]
    return CompileError(
        "internal",
        f"failed to compile: {type(error).__name__}: {text}; this is a bug, report it with the log",
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
