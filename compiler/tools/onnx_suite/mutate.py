"""Mutation fuzzing: test models with a changed attribute, shape, type, name or byte.

The compiler must accept or refuse every file with a message: no traceback, crash, or run without end. A
seed and an index reproduce a mutant.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import AttributeProto, TensorProto, helper

from . import execute
from .execute import Finding
from .pool import Limits

INTEGERS = (
    -(1 << 63),
    -(1 << 31),
    -7,
    -1,
    0,
    1,
    2,
    3,
    7,
    1 << 16,
    (1 << 31) - 1,
    1 << 40,
    (1 << 63) - 1,
)
FLOATS = (float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 0.5, 1e-38, 1e38)
TEXTS = (b"", b"x", b"NOTSET", b"SAME_UPPER", b"VALID", b"bilinear", b"\xff\xfe", b"a" * 5000)
NAMES = ("", "x", "0", "a/b", "a b", "..", "ünï", "a\nb", "n" * 3000, "%s{}$(id)")
TYPES = tuple(range(24)) + (999, -1)
OPSETS = (-1, 0, 1, 6, 7, 8, 9, 10, 11, 12, 13, 17, 18, 21, 26, 99, 1 << 40)

# One mutant in this many is lowered as well, which takes longer.
LOWERED = 4
# Mutants in one process: a fork takes three times as long as importing a mutant.
BATCH = 200
IMPORT_LIMITS = Limits(2, 1 << 30)
LOWER_LIMITS = Limits(20, 2 << 30)

Step = Callable[[random.Random, onnx.ModelProto], str | None]


@dataclass(frozen=True)
class Mutant:
    """A damaged file, its origin, and the applied changes."""

    name: str
    content: bytes
    steps: tuple[str, ...]
    is_lowered: bool

    @property
    def limits(self) -> Limits:
        """Limits of the import, or of import and lowering."""
        return LOWER_LIMITS if self.is_lowered else IMPORT_LIMITS


def mutants(
    models: Sequence[tuple[str, onnx.ModelProto]], count: int, seed: int
) -> Iterator[Mutant]:
    """``count`` mutants of ``models``."""
    for index in range(count):
        draw = random.Random(f"{seed}/{index}")
        name, model = draw.choice(models)
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        steps = []
        for _ in range(draw.choice((1, 1, 2))):
            done = draw.choice(STEPS)(draw, changed)
            if done:
                steps.append(done)
        content = changed.SerializeToString()
        if not steps:
            content, done = _damage(draw, content)
            steps.append(done)
        yield Mutant(f"{name} #{index}", content, tuple(steps), index % LOWERED == 0)


def run(mutant: Mutant, folder: Path) -> Finding:
    """Imports the file and forms its units; lowers some. ``right`` means accepted."""
    from edgepipe_compiler import lowering
    from edgepipe_compiler.frontend import importer, units
    from edgepipe_compiler.linking import manifest
    from edgepipe_compiler.weights import WeightsFile

    path = folder / "model.onnx"
    path.write_bytes(mutant.content)
    step = "import"
    try:
        graph = importer.from_file(path, "net")
        formed = units.form(graph)
        manifest.network(graph, formed, {"onnx": "model.onnx"}, {})
        if mutant.is_lowered:
            step = "lower"
            target = execute.target(execute.isas()[0])
            with WeightsFile(folder / "weights.bin") as weights:
                lowering.lower(graph, formed, target, weights, lambda done, total: None)
        return Finding(execute.RIGHT)
    except Exception as error:
        return execute.failed(error, step)


def is_failure(finding: Finding) -> bool:
    """Whether the compiler neither accepted the file nor refused it with a remedy."""
    if finding.finding == execute.REFUSED:
        return not execute.has_remedy(finding.message)
    return finding.finding != execute.RIGHT


def signature(finding: Finding) -> str:
    """The kind of a failure: its message without numbers and quoted names."""
    if finding.finding == execute.REFUSED:
        return "no remedy: " + re.sub(r"'[^']*'|/\S+", "…", finding.message.split(":")[0])
    lines = [line for line in finding.message.splitlines() if line.strip()] or [""]
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "…", " ".join(lines[:2]))
    text = re.sub(r"node name: \S+\)", "node name: …)", text)
    text = re.sub(r"0x[0-9a-f]+|-?\d[\d.e+]*", "N", text)
    return f"{finding.finding} at {finding.step or 'the end'}: {text[:160]}"


def _damage(draw: random.Random, content: bytes) -> tuple[bytes, str]:
    changed = bytearray(content)
    if draw.random() < 0.3:
        end = draw.randrange(len(changed))
        return bytes(changed[:end]), f"cut off at byte {end}"
    for _ in range(draw.choice((1, 1, 2, 8))):
        place = draw.randrange(len(changed))
        changed[place] = draw.randrange(256)
    return bytes(changed), "bytes changed"


def _node(draw: random.Random, model: onnx.ModelProto) -> onnx.NodeProto | None:
    return draw.choice(model.graph.node) if model.graph.node else None


def _value(draw: random.Random, model: onnx.ModelProto) -> str:
    graph = model.graph
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    return draw.choice([*names, *NAMES])


def _attribute(draw: random.Random, model: onnx.ModelProto) -> str | None:
    node = _node(draw, model)
    if node is None or not node.attribute:
        return None
    item = draw.choice(node.attribute)
    said = f"attribute {item.name} of {node.op_type}"
    if item.type == AttributeProto.INT:
        item.i = draw.choice(INTEGERS)
        return f"{said} = {item.i}"
    if item.type == AttributeProto.INTS and item.ints:
        place = draw.randrange(len(item.ints))
        how = draw.choice(("set", "set", "drop", "append", "empty"))
        if how == "set":
            item.ints[place] = draw.choice(INTEGERS)
        elif how == "drop":
            del item.ints[place]
        elif how == "append":
            item.ints.append(draw.choice(INTEGERS))
        else:
            del item.ints[:]
        return f"{said} = {list(item.ints)}"
    if item.type == AttributeProto.FLOAT:
        item.f = draw.choice(FLOATS)
        return f"{said} = {item.f}"
    if item.type == AttributeProto.STRING:
        item.s = draw.choice(TEXTS)
        return f"{said} = {item.s[:20]!r}"
    return None


def _attribute_kind(draw: random.Random, model: onnx.ModelProto) -> str | None:
    node = _node(draw, model)
    if node is None:
        return None
    how = draw.choice(("drop", "again", "add", "type"))
    if how == "add" or not node.attribute:
        names = (
            "axis",
            "axes",
            "perm",
            "kernel_shape",
            "pads",
            "strides",
            "group",
            "to",
            "mode",
            "junk",
        )
        name = draw.choice(names)
        value = draw.choice((draw.choice(INTEGERS), [draw.choice(INTEGERS)] * 2, 0.5, "x"))
        node.attribute.append(helper.make_attribute(name, value))
        return f"attribute {name} = {value} added to {node.op_type}"
    place = draw.randrange(len(node.attribute))
    name = node.attribute[place].name
    if how == "drop":
        del node.attribute[place]
    elif how == "again":
        node.attribute.append(node.attribute[place])
    else:
        node.attribute[place].CopyFrom(
            helper.make_attribute(name, draw.choice((3, 0.5, "x", [1, 2])))
        )
    return f"attribute {name} of {node.op_type}: {how}"


def _shape(draw: random.Random, model: onnx.ModelProto) -> str | None:
    items = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    if not items:
        return None
    item = draw.choice(items)
    kind = item.type.tensor_type
    how = draw.choice(("extent", "extent", "drop", "append", "symbol", "none", "scalar"))
    if how == "append" or (how in ("extent", "drop", "symbol") and not kind.shape.dim):
        kind.shape.dim.add().dim_value = draw.choice(INTEGERS)
    elif how == "extent":
        draw.choice(kind.shape.dim).dim_value = draw.choice(INTEGERS)
    elif how == "drop":
        del kind.shape.dim[draw.randrange(len(kind.shape.dim))]
    elif how == "symbol":
        draw.choice(kind.shape.dim).dim_param = "N"
    elif how == "none":
        kind.ClearField("shape")
    else:
        kind.shape.Clear()
    dims = [dim.dim_param or dim.dim_value for dim in kind.shape.dim]
    return f"shape of {item.name}: {how}, now {dims}"


def _type(draw: random.Random, model: onnx.ModelProto) -> str | None:
    items = [*model.graph.input, *model.graph.output]
    if not items:
        return None
    item = draw.choice(items)
    if draw.random() < 0.1:
        item.type.Clear()
        return f"type of {item.name} removed"
    item.type.tensor_type.elem_type = draw.choice(TYPES)
    return f"element type of {item.name} = {item.type.tensor_type.elem_type}"


def _initializer(draw: random.Random, model: onnx.ModelProto) -> str | None:
    tensors = [*model.graph.initializer]
    tensors += [item.t for node in model.graph.node for item in node.attribute
                if item.type == AttributeProto.TENSOR]  # fmt: skip
    if not tensors:
        return None
    item = draw.choice(tensors)
    how = draw.choice(("dims", "type", "cut", "bytes", "values", "external", "name", "rank"))
    if how == "dims" and item.dims:
        item.dims[draw.randrange(len(item.dims))] = draw.choice(INTEGERS)
    elif how == "rank":
        item.dims.append(draw.choice((0, 1, 1, 2)))
    elif how == "type":
        item.data_type = draw.choice(TYPES)
    elif how == "cut":
        item.raw_data = item.raw_data[: len(item.raw_data) // 2]
    elif how == "bytes" and item.raw_data:
        item.raw_data = bytes(draw.randrange(256) for _ in item.raw_data[:64]) + item.raw_data[64:]
    elif how == "values" and item.data_type == TensorProto.INT64 and item.raw_data:
        count = len(item.raw_data) // 8
        values = [draw.choice(INTEGERS) for _ in range(count)]
        item.raw_data = b"".join(value.to_bytes(8, "little", signed=True) for value in values)
        return f"values of {item.name} = {values}"
    elif how == "external":
        item.ClearField("raw_data")
        item.data_location = TensorProto.EXTERNAL
        for key, value in (("location", draw.choice(("data", "../data", "/etc/hostname", ""))),
                           ("offset", draw.choice(("0", "-1", "x", "99999999999")))):  # fmt: skip
            entry = item.external_data.add()
            entry.key, entry.value = key, value
    elif how == "name":
        item.name = draw.choice(NAMES)
    else:
        return None
    return f"constant {item.name[:20]}: {how}, now {list(item.dims)} of type {item.data_type}"


def _nodes(draw: random.Random, model: onnx.ModelProto) -> str | None:
    nodes = model.graph.node
    if not nodes:
        return None
    place = draw.randrange(len(nodes))
    operator = nodes[place].op_type
    how = draw.choice(("drop", "again", "reverse", "swap operator", "domain", "repeat"))
    if how == "drop":
        del nodes[place]
    elif how == "again":
        nodes.append(nodes[place])
    elif how == "reverse":
        kept = list(nodes)[::-1]
        del nodes[:]
        nodes.extend(kept)
    elif how == "swap operator":
        nodes[place].op_type = draw.choice(
            ("Conv", "Add", "Concat", "Reshape", "Gather", "Resize", "MaxPool", "Pad", "Slice", "Transpose",
             "Identity", "Split", "MatMul", "Gemm", "LSTM", "If", "Loop", "Nonsense", "")
        )  # fmt: skip
        return f"{operator} became {nodes[place].op_type or 'nothing'}"
    elif how == "domain":
        nodes[place].domain = draw.choice(("ai.onnx", "com.microsoft", "x.y", "ai.onnx.ml"))
    else:
        copy = onnx.NodeProto()
        copy.CopyFrom(nodes[place])
        copy.output[:] = [f"{name}_copy" for name in copy.output]
        nodes.insert(place, copy)
    return f"{operator}: {how}"


def _edges(draw: random.Random, model: onnx.ModelProto) -> str | None:
    node = _node(draw, model)
    if node is None:
        return None
    values = node.input if draw.random() < 0.75 else node.output
    which = "inputs" if values is node.input else "outputs"
    how = draw.choice(("swap", "set", "drop", "append", "absent"))
    if how == "append" or not values:
        values.append(_value(draw, model))
    elif how == "swap":
        kept = list(values)
        draw.shuffle(kept)
        values[:] = kept
    elif how == "set":
        values[draw.randrange(len(values))] = _value(draw, model)
    elif how == "drop":
        del values[draw.randrange(len(values))]
    else:
        values[draw.randrange(len(values))] = ""
    return f"{which} of {node.op_type}: {how}, now {[name[:20] for name in values]}"


def _names(draw: random.Random, model: onnx.ModelProto) -> str | None:
    node = _node(draw, model)
    if node is None:
        return None
    if draw.random() < 0.5:
        node.name = draw.choice(NAMES)
        return f"name of {node.op_type} = {node.name[:20]!r}"
    old = draw.choice([name for other in model.graph.node for name in other.output] or [""])
    new = draw.choice(NAMES)
    for other in model.graph.node:
        other.input[:] = [new if name == old else name for name in other.input]
        other.output[:] = [new if name == old else name for name in other.output]
    for item in model.graph.output:
        item.name = new if item.name == old else item.name
    return f"value {old[:20]!r} renamed to {new[:20]!r}"


def _ends(draw: random.Random, model: onnx.ModelProto) -> str | None:
    graph = model.graph
    how = draw.choice(("drop output", "output again", "output of another", "drop input", "input again",
                       "no graph"))  # fmt: skip
    if how == "no graph":
        model.ClearField("graph")
    elif how == "drop output" and graph.output:
        del graph.output[0]
    elif how == "output again" and graph.output:
        graph.output.append(graph.output[0])
    elif how == "output of another" and graph.output:
        graph.output[0].name = _value(draw, model)
    elif how == "drop input" and graph.input:
        del graph.input[0]
    elif how == "input again" and graph.input:
        graph.input.append(graph.input[0])
    else:
        return None
    return how


def _opset(draw: random.Random, model: onnx.ModelProto) -> str | None:
    if draw.random() < 0.2:
        model.ir_version = draw.choice(INTEGERS)
        return f"IR version {model.ir_version}"
    if draw.random() < 0.2 or not model.opset_import:
        model.opset_import.append(helper.make_opsetid("", draw.choice(OPSETS)))
        return "a second operator set"
    model.opset_import[0].version = draw.choice(OPSETS)
    return f"operator set {model.opset_import[0].version}"


def _bytes(draw: random.Random, model: onnx.ModelProto) -> None:
    """Changes nothing, so that bytes of the file are changed instead."""


STEPS: tuple[Step, ...] = (
    _attribute, _attribute, _attribute_kind, _shape, _type, _initializer, _initializer, _nodes, _edges,
    _edges, _names, _ends, _opset, _bytes,
)  # fmt: skip
