"""Builds a stage into a shared library for TVM's virtual machine.

The library holds the kernels and the function ``main(inputs..., weights...)``, which calls them in order.
Intermediate tensors share storage as TVM plans it. Outputs are allocated by each call, so the caller may
keep them.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import tvm
from tvm import relax
from tvm.relax import transform

from ..errors import CompileError
from ..kernels.kernel import Value
from ..kernels.target import CpuTarget
from ..weights import Slot
from .stage import Stage

ENTRY = "main"


def build(
    stage: Stage,
    objects: Sequence[Path],
    target: CpuTarget,
    linker: Sequence[str],
    path: Path,
) -> None:
    """Writes the shared library ``path``.

    ``objects`` are the object files of the kernels. ``linker`` is a C compiler for the target, with leading
    arguments. Raises ``CompileError`` if linking fails.
    """
    passes = [
        transform.ToNonDataflow(),
        transform.RemovePurityChecking(),
        transform.CallTIRRewrite(),
        transform.StaticPlanBlockMemory(),
        transform.LowerAllocTensor(),
        transform.KillAfterLastUse(),
        transform.LowerRuntimeBuiltin(),
        transform.ComputePrimValue(),
        transform.VMShapeLower(),
        _without_weight_checks(len(stage.inputs)),
        transform.AttachGlobalSymbol(),
    ]
    executable = relax.build(
        _module(stage),
        tvm.target.Target(target.tvm_target()),
        relax_pipeline=tvm.transform.Sequential(passes),
    )
    with tempfile.TemporaryDirectory(prefix=".link-", dir=path.parent) as folder:
        executable.export_library(
            str(path),
            fcompile=_shared_by(list(linker), target.triple),
            addons=[str(item) for item in objects],
            workspace_dir=folder,
        )


def _shared_by(linker: list[str], triple: str) -> Callable[..., None]:
    def create_shared(output: str, objects: list[str], **_: object) -> None:
        command = [*linker, "-shared", "-fPIC", "-o", output, *objects, "-lm"]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise CompileError(
                "internal",
                f"failed to link {output}: the linker {linker[0]!r} was not found; install a C "
                "compiler (Debian: apt install gcc)",
            ) from error
        if result.returncode != 0:
            full = "No space left" in result.stderr
            raise CompileError(
                "disk" if full else "internal",
                f"failed to link {output} with {' '.join(linker)}: {result.stderr.strip()}; "
                + ("free disk space" if full else "check the linker"),
            )

    create_shared.get_target_triple = lambda: triple  # TVM embeds the bytecode for this triple.
    return create_shared


def _module(stage: Stage) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    variables: dict[tuple[str, str] | Slot, relax.Expr] = {}
    for place, value in enumerate(stage.inputs):
        variables[value.name, value.layout] = relax.Var(f"input{place}", _type(value))
    for place, slot in enumerate(stage.weights):
        variables[slot] = relax.Var(f"weight{place}", _type(slot))
    with builder.function(ENTRY, list(variables.values())):
        with builder.dataflow():
            for step in stage.steps:
                arguments = [
                    variables[item if isinstance(item, Slot) else (item.name, item.layout)]
                    for item in step.arguments
                ]
                types = [_type(value) for value in step.results]
                call = relax.call_dps_packed(
                    step.function,
                    relax.Tuple(arguments),
                    types if len(types) > 1 else types[0],
                )
                called = builder.emit(call)
                for place, value in enumerate(step.results):
                    result = builder.emit(called[place]) if len(types) > 1 else called
                    variables[value.name, value.layout] = result
            results = [variables[value.name, value.layout] for value in stage.outputs]
            given = builder.emit_output(results[0] if len(results) == 1 else relax.Tuple(results))
        builder.emit_func_output(given)
    return builder.get()


def _type(item: Value | Slot) -> relax.TensorType:
    return relax.TensorType(item.shape, item.dtype)


def _without_weight_checks(inputs: int) -> tvm.transform.Pass:
    """Removes the shape and type checks of weights, which the virtual machine would repeat in every frame.

    The stage's manifest describes the weights, and each kernel checks its own arguments.
    """

    def is_weight_check(function: relax.Function, binding: relax.Binding) -> bool:
        call = binding.value
        if not isinstance(call, relax.Call) or not isinstance(call.op, relax.ExternFunc):
            return False
        checks = ("vm.builtin.check_tensor_info", "vm.builtin.match_shape")
        weights = function.params[inputs:]
        return call.op.global_symbol in checks and any(
            call.args[0].same_as(weight) for weight in weights
        )

    @tvm.transform.module_pass(opt_level=0, name="WithoutWeightChecks")
    def rewrite(module: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
        function = module[ENTRY]
        blocks = [
            relax.BindingBlock(
                [item for item in block.bindings if not is_weight_check(function, item)]
            )
            for block in function.body.blocks
        ]
        lowered = relax.Function(
            function.params,
            relax.SeqExpr(blocks, function.body.body),
            function.ret_ty,
            function.is_pure,
            function.attrs,
        )
        module.update_func(module.get_global_var(ENTRY), lowered)
        return module

    return rewrite
