"""Reports of the suite."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from . import execute
from .judge import FAILED, OUT_OF_SCOPE, REFUSED, RIGHT, Result

OUTCOMES = (RIGHT, REFUSED, OUT_OF_SCOPE, FAILED)


def write_json(results: Sequence[Result], path: Path) -> None:
    """Writes all results, one per line, so that two runs can be compared with ``diff``."""
    ordered = sorted(results, key=lambda result: (result.case, result.variant, result.isa))
    lines = ",\n".join(json.dumps(result.as_dict()) for result in ordered)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def summary(results: Sequence[Result]) -> str:
    """A table of outcomes by instruction set, then failures by kind."""
    isas = list(dict.fromkeys(result.isa for result in results))
    counts = Counter((result.isa, result.outcome) for result in results)
    lines = [f"| {'outcome':<12} | " + " | ".join(f"{isa:>8}" for isa in isas) + " |"]
    lines.append(f"|{'-' * 14}|" + "|".join(f"{'-' * 9}:" for _ in isas) + "|")
    for outcome in OUTCOMES:
        cells = " | ".join(f"{counts[isa, outcome]:>8}" for isa in isas)
        lines.append(f"| {outcome:<12} | {cells} |")
    found = Counter((result.isa, _what(result)) for result in results if result.outcome == FAILED)
    if found:
        lines.append("")
        kinds = sorted({kind for _, kind in found})
        for kind in kinds:
            each = ", ".join(f"{found[isa, kind]} on {isa}" for isa in isas if found[isa, kind])
            lines.append(f"failed, {kind}: {each}")
    return "\n".join(lines)


def failures(results: Sequence[Result]) -> str:
    """Failures by operator in Markdown. Variants and instruction sets with the same failure share a line."""
    grouped: dict[str, dict[tuple[str, str], list[Result]]] = {}
    for result in results:
        if result.outcome == FAILED:
            same = grouped.setdefault(result.operator, {})
            same.setdefault((result.case, result.reason), []).append(result)
    lines = []
    for operator, cases in sorted(grouped.items()):
        lines.append(f"\n### {operator}\n")
        for (case, reason), alike in cases.items():
            variants = ", ".join(dict.fromkeys(result.variant for result in alike))
            isas = ", ".join(dict.fromkeys(result.isa for result in alike))
            step = next((result.finding.step for result in alike if result.finding.step), "")
            at = f" ({step})" if step else ""
            lines.append(f"- `{case}` [{variants}] on {isas}{at}: {reason}")
    return "\n".join(lines) + "\n"


def _what(result: Result) -> str:
    if result.finding.finding == execute.REFUSED:
        return result.reason.split(":")[0].split(" (")[0]
    return result.finding.finding
