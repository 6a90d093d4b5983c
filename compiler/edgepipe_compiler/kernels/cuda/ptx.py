"""Compiles kernels to PTX with TVM's LLVM, without a CUDA toolkit.

TVM's ``nvptx`` target writes LLVM IR that marks kernels by metadata its own LLVM no longer reads, so the PTX
would have functions and no entries. ``build`` therefore takes two steps: TIR to LLVM IR, which it corrects,
and that IR to PTX. The first step neither optimizes nor writes machine code: it is TVM's ``llvm`` target,
which uses the code generator of ``nvptx`` once that is known by LLVM's name of the architecture. The second
step uses the file of device functions, which TVM links into every module.
"""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import tvm
import tvm_ffi
from tvm import tirx

from ...errors import Unsupported
from . import device_math

DEVICE_FUNCTION = 2  # TVM's CallingConv::kDeviceKernelLaunch
AXES = ("x", "y", "z")
# Device functions with an LLVM intrinsic that needs no library: `__nv_floorf` is `llvm.floor.f32`.
INTRINSICS = ("fma", "floor", "ceil", "trunc", "rint", "fabs", "sqrt", "round", "fmin", "fmax")
LLVM_NAMES = {"fmin": "minnum", "fmax": "maxnum"}
UNUSED = "edgepipe_unused"
# An attribute of functions that access single elements. If LLVM knows that three of them are aligned, it
# loads a fourth, which may be beyond the buffer or belong to another thread.
SCALAR = "edgepipe.scalar"


@dataclass(frozen=True)
class Launch:
    """How to start a kernel.

    ``grid`` and ``block`` are (x, y, z). ``order`` holds, for each parameter of the PTX entry, the position
    of its buffer among the parameters of the function; a buffer that the kernel does not use is absent.
    """

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    order: tuple[int, ...]


@dataclass(frozen=True)
class Module:
    """PTX text with its version, such as "5.0", and the launch of each kernel by name."""

    ptx: str
    ptx_version: str
    launches: dict[str, Launch]


class _DeviceLibrary(threading.local):
    """The file that TVM links into a module for ``nvptx``, for each thread: TVM asks for it on the thread
    that builds the module.
    """

    path = ""


_LIBRARY = _DeviceLibrary()
tvm_ffi.register_global_func("tvm_callback_libdevice_path", lambda _: _LIBRARY.path, override=True)
TRIPLE = "nvptx64-nvidia-cuda"
tvm_ffi.register_global_func(
    "tvm.codegen.llvm.target_nvptx64",
    tvm.get_global_func("tvm.codegen.llvm.target_nvptx"),
    override=True,
)


def build(functions: Mapping[str, tirx.PrimFunc], arch: str) -> Module:
    """Compiles ``functions``, each one kernel, for ``arch`` such as "sm_62".

    The entry of a kernel has the name of its function. Raises ``Unsupported`` if a function is not exactly
    one kernel or calls a function that ``device_math`` does not have.
    """
    target = tvm.target.Target(
        {"kind": "nvptx", "mcpu": arch, "max_num_threads": 1024}, host="llvm"
    )
    named = {name: f.with_attr("global_symbol", name) for name, f in functions.items()}
    host, device = _split(tvm.IRModule(named), target)
    launches = {name: _launch(name, host[name]) for name in functions}
    scalar = {name for name, function in functions.items() if function.attrs.get(SCALAR)}
    ir = _entries(_ir(device, arch), launches, scalar)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.ll"
        path.write_text(ir, encoding="utf-8")
        _LIBRARY.path = str(path)
        try:
            compile_ = tvm.get_global_func("target.build.nvptx")
            ptx = compile_(_empty(target), target).inspect_source("ptx")
        finally:
            _LIBRARY.path = ""
    ptx = _without_helpers(ptx)
    version = re.search(r"^\.version (\S+)", ptx, re.MULTILINE)
    if version is None or any(f".entry {name}(" not in ptx for name in functions):
        raise RuntimeError("LLVM wrote PTX without an entry for each kernel")
    return Module(ptx, version[1], launches)


def _split(module: tvm.IRModule, target: tvm.target.Target) -> tuple[tvm.IRModule, tvm.IRModule]:
    """The host functions, which launch kernels, and the device functions, ready for LLVM.

    TVM's default pipeline would insert barriers that LLVM's verifier refuses.
    """
    passes = tirx.transform
    module = tvm.ir.transform.Sequential(
        [
            passes.BindTarget(target),
            passes.FlattenBuffer(),
            passes.NarrowDataType(32),
            passes.VectorizeLoop(True),
            passes.UnrollLoop(),
            passes.StmtSimplify(),
            passes.AnnotateEntryFunc(),
            passes.SplitHostDevice(),
        ]
    )(module)

    def on_device(function: tirx.PrimFunc) -> bool:
        return int(function.attrs.get("calling_conv", 0)) == DEVICE_FUNCTION

    device = passes.Filter(on_device)(module)
    lowering = [passes.LowerWarpMemory(), passes.StmtSimplify(), passes.LowerIntrin()]
    device = tvm.ir.transform.Sequential(lowering)(device)
    return passes.Filter(lambda function: not on_device(function))(module), device


def _ir(device: tvm.IRModule, arch: str) -> str:
    """LLVM IR of device functions as the code generator writes it, not optimized."""
    target = tvm.target.Target({"kind": "llvm", "mtriple": TRIPLE, "mcpu": arch, "opt-level": 0})
    return tvm.get_global_func("target.build.llvm")(device, target).inspect_source("ll")


def _statements(statement: tirx.Stmt) -> Iterator[tirx.Stmt]:
    if isinstance(statement, tirx.SeqStmt):
        for each in statement.seq:
            yield from _statements(each)
        return
    yield statement
    if hasattr(statement, "body"):
        yield from _statements(statement.body)


def _launch(name: str, host: tirx.PrimFunc) -> Launch:
    """Reads grid, block and the order of arguments from the only launch in a host function."""
    buffers = {parameter: place for place, parameter in enumerate(host.params)}
    calls: list[tvm.ir.Call] = []
    for statement in _statements(host.body):
        if isinstance(statement, tirx.DeclBuffer):
            buffers[statement.buffer] = buffers[statement.data.args[0]]
        elif isinstance(statement, tirx.Evaluate) and isinstance(statement.value, tvm.ir.Call):
            calls.append(statement.value)
    if len(calls) != 1 or not hasattr(calls[0].attrs, "launch_params"):
        raise Unsupported(f"function {name} has {len(calls)} launches; a CUDA kernel has one")
    axes = [str(axis) for axis in calls[0].attrs.launch_params]
    arguments, extents = calls[0].args[1 : -len(axes)], calls[0].args[-len(axes) :]
    sizes = {axis: int(extent) for axis, extent in zip(axes, extents, strict=True)}
    x, y, z = (sizes.get(f"blockIdx.{axis}", 1) for axis in AXES)
    u, v, w = (sizes.get(f"threadIdx.{axis}", 1) for axis in AXES)
    order = tuple(buffers[argument.args[0]] for argument in arguments)
    return Launch((x, y, z), (u, v, w), order)


def _entries(ir: str, launches: Mapping[str, Launch], scalar: Collection[str]) -> str:
    """LLVM IR in which TVM's device functions are kernels of the given names.

    Each gets its block size, which ptxas needs to limit registers; a minimum of one block on a
    multiprocessor, without which ptxas may spill registers so that more blocks fit; and aligned parameters,
    without which LLVM would split vector accesses, except ``scalar`` kernels. Calls of the device library
    become intrinsics.
    """
    # Conversions of half precision that TVM adds to each module.
    ir = re.sub(
        r"(; Function Attrs:[^\n]*\n)?define weak dso_local [^\n]*\n.*?\n}\n", "", ir, flags=re.S
    )
    ir = re.sub(
        r"= (?:local_unnamed_addr )?addrspace\(3\) global",
        "= internal unnamed_addr addrspace(3) global",
        ir,
    )
    attributes: list[str] = []

    def entry(match: re.Match[str]) -> str:
        name = match[1].removesuffix("_kernel")
        number = 1000 + len(attributes)
        block = ",".join(str(extent) for extent in launches[name].block)
        attributes.append(
            f'attributes #{number} = {{ norecurse nounwind "nvvm.maxntid"="{block}" "nvvm.minctasm"="1" }}'
        )
        parameters = match[2]
        if name not in scalar:
            parameters = parameters.replace("ptr noalias", "ptr noalias align 16")
        return f"define ptx_kernel void @{name}({parameters}) local_unnamed_addr #{number} {{"

    ir = re.sub(
        r"define dllexport void @(\w+)\((.*?)\)(?: local_unnamed_addr)?(?: #\d+)? \{", entry, ir
    )
    # Their other mention is the metadata that LLVM no longer reads.
    ir = re.sub(r"@(\w+)_kernel\b", r"@\1", ir)
    for name in INTRINSICS:
        llvm = LLVM_NAMES.get(name, name)
        ir = ir.replace(f"@__nv_{name}f(", f"@llvm.{llvm}.f32(")
        ir = ir.replace(f"@__nv_{name}(", f"@llvm.{llvm}.f64(")
    ir = device_math.define(_declared_once(ir))
    missing = sorted(set(re.findall(r"^declare \w+ @(?!llvm\.)(\w+)\(", ir, re.MULTILINE)))
    if missing:
        raise Unsupported(f"kernels that call {', '.join(missing)}")
    return ir + "\n" + "\n".join(attributes) + "\n"


def _declared_once(ir: str) -> str:
    """``ir`` without the second declaration of a function, which a replaced name may become."""
    seen: set[str] = set()
    lines: list[str] = []
    for line in ir.splitlines():
        declared = re.match(r"declare [^@]*@([\w.]+)\(", line)
        if declared is None or declared[1] not in seen:
            lines.append(line)
        if declared is not None:
            seen.add(declared[1])
    return "\n".join(lines)


def _empty(target: tvm.target.Target) -> tvm.IRModule:
    """A module to which TVM links the kernels."""
    nothing = tirx.PrimFunc([], tirx.Evaluate(tirx.const(0, "int32")))
    nothing = nothing.with_attr("calling_conv", DEVICE_FUNCTION).with_attr("target", target)
    return tvm.IRModule({UNUSED: nothing.with_attr("global_symbol", UNUSED)})


def _without_helpers(ptx: str) -> str:
    """PTX without the functions that TVM adds to each module and no kernel calls."""
    helpers = f"__truncsfhf2|__extendhfsf2|{UNUSED}"
    ptx = re.sub(rf"\t// \.(weak|globl)\t({helpers})\n", "", ptx)
    ptx = re.sub(r"// \w+ has been demoted\n", "", ptx)
    function = rf"\.(weak|visible) \.func\s+(\([^)]*\) )?({helpers})\(.*?\n}}\n"
    return re.sub(function, "", ptx, flags=re.DOTALL)
