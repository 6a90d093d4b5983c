"""TVM's own lowering, for operators no rule knows: right, but slow. The report names these units."""

from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.relax.frontend.onnx import from_onnx
from tvm.s_tir import Schedule

from .. import graph as graphs
from ..errors import CompileError
from ..graph import Graph
from ..units import Unit
from .kernel import Call, Kernel, Value, Weight
from .layout import PLAIN
from .target import TargetDescription


def lower(graph: Graph, unit: Unit, target: TargetDescription) -> Kernel:
    """Lowers any unit through Relax's ONNX importer and TVM's own rules."""
    function, module = _import(graph, unit)
    known: dict[object, Value | Weight | list[Value]] = {}
    names = {graph_name: graph_name for graph_name in unit.inputs}
    for parameter, name in zip(function.params, names, strict=True):
        tensor = graph.tensor(name)
        known[parameter] = Value(name, PLAIN, tensor.shape, tensor.dtype)
    calls = _calls(unit, function, module, known, target)
    _name_outputs(graph, unit, function, known, calls)
    return Kernel(calls, "fallback")


def _import(graph: Graph, unit: Unit) -> tuple[relax.Function, tvm.IRModule]:
    model = graphs.submodel(graph, unit.nodes, unit.inputs, unit.outputs)
    # The importer renames inputs it dislikes; give it names it likes.
    plain = {name: f"input{place}" for place, name in enumerate(unit.inputs)}
    for item in model.graph.input:
        item.name = plain[item.name]
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = plain.get(name, name)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = from_onnx(model, keep_params_in_input=False)
        passes = [
            relax.transform.DecomposeOpsForInference(),
            relax.transform.FoldConstant(),
            relax.transform.LegalizeOps(),
            relax.transform.FoldConstant(),
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.FuseOps(),
            relax.transform.FuseTIR(),
            relax.transform.CanonicalizeBindings(),
            relax.transform.DeadCodeElimination(["main"]),
        ]
        module = tvm.transform.Sequential(passes)(module)
    except Exception as error:  # TVM raises whatever its converters raise.
        operators = ", ".join(dict.fromkeys(unit.operators))
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise CompileError(
            "unsupported_operator",
            f"failed to import the operator {operators}: TVM cannot ({reason}); replace it in the "
            "network",
            unit.nodes[0].name,
        ) from error
    return module["main"], module


def _calls(
    unit: Unit,
    function: relax.Function,
    module: tvm.IRModule,
    known: dict[object, Value | Weight | list[Value]],
    target: TargetDescription,
) -> list[Call]:
    calls: list[Call] = []
    for block in function.body.blocks:
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, relax.Call) and value.op.name == "relax.call_tir":
                made = _results(unit, binding.var.ty, len(calls))
                arguments = [_argument(known, item) for item in value.args[1].fields]
                scheduled = _schedule(module[value.args[0]], target)
                calls.append(Call(scheduled, arguments, made, value.args[0].name_hint))
                known[binding.var] = made if len(made) > 1 else made[0]
            else:
                known[binding.var] = _alias(unit, known, value)
    return calls


def _alias(
    unit: Unit, known: dict[object, Value | Weight | list[Value]], value: object
) -> Value | Weight | list[Value]:
    if isinstance(value, relax.TupleGetItem):
        whole = known[value.tuple_value]
        assert isinstance(whole, list), "only tuples are taken apart"
        return whole[value.index]
    if isinstance(value, relax.Tuple):
        parts = [_argument(known, item) for item in value.fields]
        return [part for part in parts if isinstance(part, Value)]
    if isinstance(value, relax.Var | tvm.ir.GenericConst):
        return _argument(known, value)
    raise CompileError(
        "unsupported_operator",
        f"failed to lower the operator {', '.join(unit.operators)}: TVM leaves {value} in it; replace "
        "it in the network",
        unit.nodes[0].name,
    )


def _argument(known: dict[object, Value | Weight | list[Value]], item: object) -> Value | Weight:
    if isinstance(item, tvm.ir.GenericConst):
        return Weight(np.asarray(item.value.numpy(), order="C"))
    found = known[item]
    assert not isinstance(found, list), "a tuple is no argument"
    return found


def _results(unit: Unit, kind: object, number: int) -> list[Value]:
    fields = list(kind.fields) if isinstance(kind, relax.TupleType) else [kind]
    made = []
    for place, field in enumerate(fields):
        shape = tuple(int(extent) for extent in field.shape)
        name = f"{unit.name}/{number}.{place}"
        made.append(Value(name, PLAIN, shape, str(field.dtype)))
    return made


def _name_outputs(
    graph: Graph,
    unit: Unit,
    function: relax.Function,
    known: dict[object, Value | Weight | list[Value]],
    calls: list[Call],
) -> None:
    """Gives the values that leave the unit their names in the graph."""
    body = function.body.body
    result = known[body] if isinstance(body, relax.Var) else _alias(unit, known, body)
    results = result if isinstance(result, list) else [result]
    for name, value in zip(unit.outputs, results, strict=True):
        tensor = graph.tensor(name)
        renamed = Value(name, PLAIN, tensor.shape, tensor.dtype)
        made = any(value in call.results for call in calls)
        if not made:
            raise CompileError(
                "unsupported_operator",
                f"failed to lower {', '.join(unit.operators)}: its output {name!r} is an input or a "
                "constant; remove the operator from the network",
                unit.nodes[0].name,
            )
        for call in calls:
            call.results = [renamed if item == value else item for item in call.results]
            call.arguments = [renamed if item == value else item for item in call.arguments]


def _schedule(function: tirx.PrimFunc, target: TargetDescription) -> tirx.PrimFunc:
    """Vectors and threads for blocks without a reduction; the rest stays as it is."""
    s = Schedule(tvm.IRModule({"main": function}))
    for block in s.get_child_blocks(s.get_sblock("root")):
        if any(int(iterator.iter_type) != 0 for iterator in s.get(block).iter_vars):
            continue
        loops = s.get_loops(block)
        if not loops:
            continue
        fused = s.fuse(*loops)
        extent = int(s.get(fused).extent)
        if extent % target.lanes == 0 and extent > target.lanes:
            outer, lanes = s.split(fused, [None, target.lanes])
            s.vectorize(lanes)
            if target.threads > 1:
                s.parallel(outer)
    return s.mod["main"]
