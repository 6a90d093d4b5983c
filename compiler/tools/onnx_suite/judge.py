"""Decides whether a case passes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import onnx

from . import execute, lists
from .cases import Case
from .execute import Finding

RIGHT, REFUSED, OUT_OF_SCOPE, FAILED = "right", "refused", "out of scope", "failed"


@dataclass
class Result:
    """A case on one instruction set: its outcome, and for failures the reason."""

    case: str
    variant: str
    operator: str
    kind: str
    isa: str
    outcome: str
    reason: str
    finding: Finding
    seconds: float

    @property
    def title(self) -> str:
        """Case, variant and instruction set."""
        return f"{self.case}[{self.variant}] on {self.isa}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        own = {key: value for key, value in vars(self).items() if key != "finding"}
        own["seconds"] = round(self.seconds, 2)
        return {**own, **{f"_{key}": item for key, item in self.finding.as_dict().items()}}


def judge(case: Case, isa: str, finding: Finding, seconds: float) -> Result:
    """The result of a case."""
    outcome, reason = _outcome(case, finding)
    reason = " ".join(reason.split())
    return Result(
        case.name, case.variant, case.operator, case.kind, isa, outcome, reason, finding, seconds
    )


def _outcome(case: Case, finding: Finding) -> tuple[str, str]:
    if finding.finding == execute.RIGHT:
        return RIGHT, ""
    scope = lists.out_of_scope(case)
    if scope and finding.finding == execute.OTHER_INPUT:
        return OUT_OF_SCOPE, scope
    if finding.finding != execute.REFUSED:
        said = f"{finding.finding}: {finding.message}"
        if scope and finding.finding not in (execute.CRASH, execute.TIME, execute.MEMORY,
                                             execute.TRACEBACK):  # fmt: skip
            said = f"accepted although out of scope ({scope}), then {said}"
        return FAILED, said
    nameless = _nameless(case, finding)
    if nameless:
        return FAILED, f"{nameless}: {finding.message}"
    if scope:
        return OUT_OF_SCOPE, scope
    if case.file is not None:
        return REFUSED, finding.message
    for name, reason in lists.REFUSED_TYPES.items():
        if name in lists.types_of(case) and name.lower() in finding.message.lower():
            return REFUSED, reason
    node = blamed(case, finding)
    if finding.kind not in lists.REFUSAL_KINDS:
        return FAILED, f"refused although valid ({finding.kind}): {finding.message}"
    if node is not None:
        for reason, condition in lists.REFUSED.get(node.op_type, ()):
            if condition(case, node):
                return REFUSED, reason
    return FAILED, f"refused although not on the list ({finding.kind}): {finding.message}"


def _nameless(case: Case, finding: Finding) -> str | None:
    """What a refusal lacks: a name or a remedy."""
    operators = {node.op_type for node in lists.nodes_of(case.model.graph)}
    named = finding.node or any(
        re.search(rf"\b{re.escape(operator)}\b", finding.message) for operator in operators
    )
    if not named and not case.file is not None:
        return "refused without a name"
    if not execute.has_remedy(finding.message):
        return "refused without saying what to do"
    return None


def blamed(case: Case, finding: Finding) -> onnx.NodeProto | None:
    """The node that a refusal names, or the operator that its message names."""
    nodes = list(lists.nodes_of(case.model.graph))
    for node in nodes:
        names = [_plain(name) for name in (node.name, *node.output) if name]
        if finding.node and _plain(finding.node) in names:
            return node
    for node in nodes:
        # The compiler names replacement nodes after the original.
        names = [name for name in (node.name, *node.output) if name]
        if any((finding.node or "").startswith(f"{name}.") for name in names):
            return node
    said = [node for node in nodes if re.search(rf"\b{node.op_type}\b", finding.message)]
    return said[0] if said else (nodes[0] if len(nodes) == 1 else None)


def _plain(name: str) -> str:
    """A name without the characters that the compiler replaces."""
    return re.sub(r"\W+", "", name)
