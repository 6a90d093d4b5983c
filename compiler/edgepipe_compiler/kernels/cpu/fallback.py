"""TVM's own lowering, for operators without a schedule rule. Slow; the report names these units.

TVM's importer ignores some attributes. Shapes and types are therefore compared with the graph's, and the
network with an independent reference before it is measured.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings

import numpy as np
import tvm
from tvm import relax, te, tirx
from tvm.relax.frontend.onnx import from_onnx
from tvm.s_tir import Schedule, ScheduleError

from ...errors import CompileError
from ...frontend import graph as graphs
from ...frontend.graph import Graph
from ...frontend.units import Unit
from ..kernel import Call, Kernel, Value, Weight
from ..layout import PLAIN
from ..target import Target

# C library functions without a vector form in TVM's code generator.
SCALAR = {
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "copysign", "cosh", "erf", "fmod", "hypot",
    "ldexp", "log1p", "nextafter", "sinh", "tan",
}  # fmt: skip
Item = Value | Weight
Known = dict[object, Item | list[Item]]


def lower(graph: Graph, unit: Unit, target: Target) -> Kernel:
    """Lowers any unit with Relax's ONNX importer and TVM's default rules. Raises ``CompileError``."""
    function, module = _import(graph, unit)
    known: Known = {}
    names = {graph_name: graph_name for graph_name in unit.inputs}
    for parameter, name in zip(function.params, names, strict=True):
        tensor = graph.tensor(name)
        known[parameter] = Value(name, PLAIN, tensor.shape, tensor.dtype)
    calls = _calls(unit, function, module, known, target)
    _name_outputs(graph, unit, function, known, calls)
    return Kernel(calls, "fallback")


def _refusal(unit: Unit, reason: str) -> CompileError:
    operators = ", ".join(dict.fromkeys(unit.operators))
    return CompileError(
        "unsupported_operator",
        f"failed to lower the operator {operators}: {reason}; replace it in the network",
        unit.nodes[0].name,
    )


def _import(graph: Graph, unit: Unit) -> tuple[relax.Function, tvm.IRModule]:
    model = graphs.submodel(graph, unit.nodes, unit.inputs, unit.outputs)
    # The importer renames some inputs; these names stay.
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
    except Exception as error:  # TVM's converters raise any type.
        raise _refusal(unit, f"TVM fails ({_reason(error)})") from error
    return module["main"], module


def _reason(error: Exception) -> str:
    """The reason in a TVM error: its last line, without notes of TVM's printer."""
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith(("#", "File ", "Stack trace"))]
    return lines[-1][:200] if lines else type(error).__name__


def _calls(
    unit: Unit,
    function: relax.Function,
    module: tvm.IRModule,
    known: Known,
    target: Target,
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


def _alias(unit: Unit, known: Known, value: object) -> Item | list[Item]:
    if isinstance(value, relax.TupleGetItem):
        whole = known[value.tuple_value]
        assert isinstance(whole, list), "only tuples are taken apart"
        return whole[value.index]
    if isinstance(value, relax.Tuple):
        return [_argument(known, item) for item in value.fields]
    if isinstance(value, relax.Var | tvm.ir.GenericConst):
        return _argument(known, value)
    raise _refusal(unit, f"TVM does not lower {str(value).splitlines()[-1]}")


def _argument(known: Known, item: object) -> Item:
    if isinstance(item, tvm.ir.GenericConst):
        return Weight(np.asarray(item.value.numpy(), order="C"))
    found = known[item]
    assert not isinstance(found, list), "a tuple is no argument"
    return found


def _results(unit: Unit, kind: object, number: int) -> list[Value]:
    fields = list(kind.fields) if isinstance(kind, relax.TupleType) else [kind]
    made = []
    for place, field in enumerate(fields):
        try:
            shape = tuple(int(extent) for extent in field.shape)
        except TypeError as error:  # A variable instead of a number.
            raise _refusal(unit, f"TVM infers the dynamic shape {field.shape}") from error
        name = f"{unit.name}/{number}.{place}"
        made.append(Value(name, PLAIN, shape, str(field.dtype)))
    return made


def _name_outputs(
    graph: Graph,
    unit: Unit,
    function: relax.Function,
    known: Known,
    calls: list[Call],
) -> None:
    """Gives outputs of the unit their names in the graph."""
    body = function.body.body
    result = known[body] if isinstance(body, relax.Var) else _alias(unit, known, body)
    results = result if isinstance(result, list) else [result]
    if len(results) < len(unit.outputs):
        raise _refusal(unit, f"TVM produces {len(results)} of {len(unit.outputs)} outputs")
    named: set[Value] = set()
    for name, value in zip(unit.outputs, results, strict=False):
        tensor = graph.tensor(name)
        renamed = Value(name, PLAIN, tuple(tensor.shape), tensor.dtype)
        array = value.array if isinstance(value, Weight) else None
        shape = tuple(value.shape) if array is None else array.shape
        dtype = value.dtype if array is None else array.dtype.name
        if (shape, dtype) != (renamed.shape, renamed.dtype):
            raise _refusal(
                unit,
                f"TVM infers {dtype} {list(shape)} for {name!r}, ONNX {renamed.dtype} "
                f"{list(renamed.shape)}",
            )
        if value in named or not any(value in call.results for call in calls):
            # An input, a constant, or a repeated value.
            calls.append(Call(_copy(shape, dtype), [value], [renamed], "copy"))
            continue
        named.add(renamed)
        for call in calls:
            call.results = [renamed if item == value else item for item in call.results]
            call.arguments = [renamed if item == value else item for item in call.arguments]


def _copy(shape: tuple[int, ...], dtype: str) -> tirx.PrimFunc:
    source = te.placeholder(shape, dtype, name="source")
    return te.create_prim_func(
        [source, te.compute(shape, lambda *index: source[index], name="copy")]
    )


def _schedule(function: tirx.PrimFunc, target: Target) -> tirx.PrimFunc:
    """Vectorizes and parallelizes blocks without a reduction."""
    if target.lanes == 1:
        return function
    s = Schedule(tvm.IRModule({"main": function}))
    try:
        blocks = s.get_child_blocks(s.get_sblock("root"))
    except ScheduleError:  # TVM has written the loops already.
        return function
    for block in blocks:
        if any(int(iterator.iter_type) != 0 for iterator in s.get(block).iter_vars):
            continue
        loops = s.get_loops(block)
        if not loops or _calls_scalar_functions(s.get(block)):
            continue
        fused = s.fuse(*loops)
        extent = int(s.get(fused).extent)
        if extent % target.lanes == 0 and extent > target.lanes:
            outer, lanes = s.split(fused, [None, target.lanes])
            s.vectorize(lanes)
            if target.threads > 1:
                s.parallel(outer)
    return s.mod["main"]


def _calls_scalar_functions(block: tirx.SBlock) -> bool:
    """Whether a block calls functions without a vector form."""
    return not SCALAR.isdisjoint(re.findall(r"T\.(\w+)\(", block.body.script()))
