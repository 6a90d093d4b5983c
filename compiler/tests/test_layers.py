"""The packages of the compiler import one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import edgepipe_compiler

ROOT = Path(edgepipe_compiler.__file__).parent
# A package imports itself and the packages of the rows above it.
LAYERS = (
    ("errors", "versions", "weights"),
    ("events", "zoo"),
    ("frontend",),
    ("kernels",),
    ("lowering",),
    ("linking",),
    ("job",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def _imported(path: Path) -> Iterator[tuple[str, ...]]:
    """Modules of the compiler that a file imports, in functions too, as the parts of their names."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            base += tuple(node.module.split(".")) if node.module else ()
            for item in node.names:
                whole = ROOT.joinpath(*base, item.name)
                is_module = whole.is_dir() or whole.with_suffix(".py").is_file()
                yield (*base, item.name) if is_module else base


def test_layers() -> None:
    files = [path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"]
    pairs = [
        (path.relative_to(ROOT).with_suffix("").parts[0], name[0], path.name)
        for path in files
        for name in _imported(path)
    ]
    assert len(pairs) > 300
    upwards = [pair for pair in pairs if LEVEL[pair[1]] > LEVEL[pair[0]]]
    sideways = [pair for pair in pairs if LEVEL[pair[1]] == LEVEL[pair[0]] and pair[0] != pair[1]]
    assert not upwards + sideways


def test_files_import_each_other_in_no_circle() -> None:
    graph = {
        path.relative_to(ROOT).with_suffix("").parts: set(_imported(path))
        for path in ROOT.rglob("*.py")
    }
    left = {name: names & graph.keys() for name, names in graph.items()}
    while left:
        ready = {name for name, names in left.items() if not names & left.keys()}
        assert ready, f"in a circle, or behind one: {sorted(left)}"
        left = {name: names for name, names in left.items() if name not in ready}
