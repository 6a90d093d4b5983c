"""Errors a user can mend, each with the kind that the harness turns into an exit code."""

from __future__ import annotations


class CompileError(Exception):
    """A refusal. The message finishes the sentence "failed to ..."."""

    def __init__(self, kind: str, message: str, node: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.node = node
