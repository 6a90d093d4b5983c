"""The output folder of a network for one target: what is complete, and how files are added."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .stage import StageRange


class Artifacts:
    """Paths below ``root``: ``network.json``, ``weights.bin``, ``reference/``, ``objects/`` and
    ``stages/<first>-<end>-<boundary>/``. Files are written to a temporary name and renamed, so a reader
    never sees a partial one.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.network = root / "network.json"
        self.weights = root / "weights.bin"
        self.stages = root / "stages"
        self.objects = root / "objects"
        self.model = root / "model.onnx"
        self.reference = root / "reference"

    def prepare(self) -> None:
        """Creates the folder."""
        self.stages.mkdir(parents=True, exist_ok=True)

    def known_network(
        self, name: str, source: dict[str, str], schema: int
    ) -> dict[str, Any] | None:
        """The stored network description, if it exists and matches name, source and schema."""
        found = _read(self.network)
        wanted = {"schema": schema, "name": name, "source": source}
        same = found is not None and all(found.get(key) == item for key, item in wanted.items())
        return found if same else None

    def write_network(self, manifest: dict[str, Any]) -> None:
        """Writes the network description, unless an equal one exists."""
        if _read(self.network) != manifest:
            write_atomically(self.network, text_of(manifest))

    def write_model(self, model: bytes) -> None:
        """Writes the network as an ONNX file."""
        partial = self.model.with_name(f".{self.model.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(model)
            partial.replace(self.model)
        finally:
            partial.unlink(missing_ok=True)

    def has_stage(self, stage: StageRange, same: dict[str, Any]) -> bool:
        """Whether the stage exists, is complete, has its weights, and its manifest contains ``same``."""
        folder = self.stages / stage.folder
        found = _read(folder / "stage.json")
        if found is None or any(found.get(key) != item for key, item in same.items()):
            return False
        try:
            end = max((item["offset"] + item["bytes"] for item in found["weights"]), default=0)
            whole = sha256(folder / found["library"]) == found["library_sha256"]
            return whole and (end == 0 or self.weights.stat().st_size >= end)
        except (OSError, KeyError, TypeError):
            return False

    @contextlib.contextmanager
    def new_stage(self, stage: StageRange) -> Iterator[Path]:
        """A temporary folder for a new stage. It is renamed to the stage's folder if the block succeeds."""
        final = self.stages / stage.folder
        partial = self.stages / f".{stage.folder}.{os.getpid()}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            # rename() needs an empty destination; an existing stage is damaged or outdated.
            if final.exists():
                shutil.rmtree(final)
            partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def write_atomically(path: Path, text: str) -> None:
    """Replaces ``path`` atomically: a reader sees the old content or the new."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def text_of(manifest: dict[str, Any]) -> str:
    """Formats a manifest as JSON."""
    return json.dumps(manifest, indent=1) + "\n"


def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
