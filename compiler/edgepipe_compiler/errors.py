"""Errors of the compiler."""

from __future__ import annotations


class CompileError(Exception):
    """The job failed for a reason that the user can act on.

    The message starts with "failed to" and, after a semicolon, says what to do. ``kind`` becomes the exit
    code of the harness; ``node`` names the ONNX node or value.
    """

    def __init__(self, kind: str, message: str, node: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.node = node


class Unsupported(Exception):
    """A schedule rule does not support a unit; the next rule is tried. Never reaches the user."""
