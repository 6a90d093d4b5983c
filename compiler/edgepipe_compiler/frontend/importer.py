"""Imports a network of the zoo or an ONNX file as a simplified graph."""

from __future__ import annotations

from pathlib import Path

import onnx

from .. import zoo
from ..errors import CompileError
from . import graph as graphs
from . import onnx_file, refusals
from .graph import Graph, Shapes
from .simplify import simplify
from .units import ELEMENTWISE, PRODUCTS, RECURRENT, SHAPE_ONLY

# Operators known to be supported. For others TVM's importer is loaded, which takes a second.
COMMON = {
    *ELEMENTWISE, *PRODUCTS, *RECURRENT, *SHAPE_ONLY, "Conv", "BatchNormalization", "MaxPool", "AveragePool",
    "GlobalAveragePool", "Concat", "Softmax", "Identity", "Dropout", "Constant", "Pad", "Transpose",
}  # fmt: skip


def from_zoo(name: str, title: str) -> Graph:
    """The simplified graph of the zoo's network ``name``, called ``title``."""
    return from_model(zoo.build(name), title)


def from_file(path: Path, name: str, shapes: Shapes | None = None) -> Graph:
    """The simplified graph of an ONNX file. ``shapes`` sets input shapes by name."""
    return from_model(onnx_file.load(path), name, shapes)


def from_model(model: onnx.ModelProto, name: str, shapes: Shapes | None = None) -> Graph:
    """The simplified graph of a model, whose weights are moved out of it. Raises ``CompileError``."""
    try:
        model = onnx_file.prepare(model, name)
        refusals.check_inputs(model, name)
        graph = graphs.from_model(model, name, shapes)
        refusals.check(graph)
        simplify(graph)
        refusals.check(graph)
    except (CompileError, MemoryError):
        raise
    except Exception as error:  # ONNX's checker accepts many invalid attributes.
        text = " ".join(str(error).split())[:200]
        raise CompileError(
            "invalid_onnx",
            f"failed to read the network {name}: {type(error).__name__}: {text}; export it again, or "
            "report a bug with the file if ONNX Runtime accepts it",
        ) from error
    _check_operators(graph)
    return graph


def _check_operators(graph: Graph) -> None:
    rare = [node for node in graph.nodes if node.op not in COMMON]
    if not rare:
        return
    # Imported lazily: loading TVM takes a second.
    from tvm.relax.frontend.onnx import onnx_frontend

    importable = onnx_frontend._get_convert_map()  # There is no public API for it.
    for node in rare:
        if node.op not in importable:
            raise CompileError(
                "unsupported_operator",
                f"failed to import the operator {node.op}: TVM does not support it; replace it in the "
                "network with operators of the ONNX standard",
                node.name,
            )
