"""Every text that the compiler can send to a user, as a table to be read as prose.

The table is generated from the source, so it includes texts that no test triggers. To update it, run the test
with EDGEPIPE_WRITE_MESSAGES=1 and read the diff.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import edgepipe_compiler

ROOT = Path(edgepipe_compiler.__file__).parent
TABLE = Path(__file__).parent / "messages.txt"
# Exceptions that never reach the user, and words that no message of this product uses.
INTERNAL = {"Unsupported", "TooLong"}
# Ends of a message that another text of the table completes.
OPEN = (": ", "{reason}", "{list(shape)}", "{path}")
# LLVM IR, and regular expressions.
CODE = re.compile(
    r"^=? ?(define|declare|attributes|internal|local_unnamed_addr|ptr) |\\[.(w@/]|\[\^"
)
UNUSUAL = re.compile(r"\b(told|mend|wants?|lies|stands|is there|had better|nobody|speaks?)\b")


def template(node: ast.expr) -> str | None:
    """A string with its parts in braces, as the source has it; None for another expression."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(
                item.value if isinstance(item, ast.Constant) else f"{{{ast.unparse(item.value)}}}"
                for item in values
            )
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            parts = template(left), template(right)
            return None if None in parts else "".join(parts)
    return None


def texts(node: ast.AST) -> Iterator[str]:
    """Texts of several words below ``node``, except docstrings, assertions and texts to search for."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Assert | ast.Compare):
            continue
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue
        if isinstance(child, ast.Call) and getattr(child.func, "id", "") in INTERNAL:
            continue
        text = template(child) if isinstance(child, ast.expr) else None
        if text is not None and CODE.search(text):
            continue
        if text is None or " " not in text.strip():
            yield from texts(child)
        elif len(re.findall(r"[A-Za-z]{2,}", re.sub(r"\{.*?\}", "", text))) >= 3:
            yield text.replace("\n", "\\n")


def table() -> str:
    """A section for each file of the compiler."""
    lines = []
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT)
        found = sorted(set(texts(ast.parse(path.read_text(encoding="utf-8")))))
        if found:
            lines += [f"## {name}", *found, ""]
    return "\n".join(lines)


def test_messages_are_those_of_the_table() -> None:
    made = table()
    if os.environ.get("EDGEPIPE_WRITE_MESSAGES"):
        TABLE.write_text(made, encoding="utf-8")
    assert made == TABLE.read_text(encoding="utf-8"), "see the module's docstring"


def test_errors_say_what_failed_and_what_to_do() -> None:
    """A message begins with "failed to", and ends with the remedy or with a part that holds it."""
    whole = [line for line in table().splitlines() if line.startswith("failed to")]
    assert len(whole) > 40
    for line in whole:
        assert "; " in line or line.endswith(OPEN), line


def test_messages_have_usual_words() -> None:
    found = [line for line in table().splitlines() if UNUSUAL.search(line)]
    assert not found
