"""Refuses unsupported networks by name before any work is done.

Operators with constant inputs are evaluated at compile time and always supported. The table lists only what
kernels cannot compute in each frame.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto

from ..errors import CompileError
from .graph import Graph, Node, dtype_name, has_body

# Unsupported element types by numpy name, with the remedy.
TYPES = {
    "float16": "export the network in float32, for example with `half=False`",
    "bfloat16": "export the network in float32",
    "complex64": "export the network in float32",
    "complex128": "export the network in float32",
    "object": "strings are not supported; remove the text processing from the network",
    "str": "strings are not supported; remove the text processing from the network",
}
QUANTIZED = "quantized networks are not supported; export the original float32 network"
RANDOM = "its output is random; export the network for inference"
SEQUENCE = "sequences of tensors are not supported; export the network with plain tensors"
OPTIONAL = "optional values are not supported; export the network with plain tensors"
COUNTED = (
    "the size of its output depends on the data of each frame; end the network before it and run this "
    "step separately"
)
TEXT = "strings are not supported; remove the text processing from the network"
SPECTRUM = "spectral transforms are not supported; compute the spectrum before the network"
LOSS = "it is a training operator; export the network for inference"
MISSING = "it is not supported; replace it with other operators of the ONNX standard"

OPERATORS: dict[str, str] = {
    **dict.fromkeys(
        (
            "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QuantizeLinear",
            "DequantizeLinear", "DynamicQuantizeLinear",
        ),
        QUANTIZED,
    ),
    **dict.fromkeys(
        (
            "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli",
            "Multinomial",
        ),
        RANDOM,
    ),
    **dict.fromkeys(
        (
            "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert",
            "SequenceLength", "SequenceMap", "SplitToSequence", "ConcatFromSequence",
        ),
        SEQUENCE,
    ),
    **dict.fromkeys(("Optional", "OptionalGetElement", "OptionalHasElement"), OPTIONAL),
    **dict.fromkeys(("NonMaxSuppression", "NonZero", "Unique", "Compress"), COUNTED),
    **dict.fromkeys(
        (
            "StringNormalizer", "StringConcat", "StringSplit", "RegexFullMatch", "TfIdfVectorizer",
            "LabelEncoder",
        ),
        TEXT,
    ),
    **dict.fromkeys(("DFT", "STFT", "MelWeightMatrix"), SPECTRUM),
    **dict.fromkeys(("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"), LOSS),
    "ImageDecoder": "it is not supported; decode the image before the network",
    **dict.fromkeys(
        ("DeformConv", "Det", "TensorScatter", "LinearAttention", "CumProd", "BitCast"), MISSING
    ),
}  # fmt: skip
# Remedies for operators outside the ONNX standard, by domain.
DOMAINS = {
    "com.microsoft": "save the model without ONNX Runtime's graph optimizations",
    "com.microsoft.nchwc": "save the model without ONNX Runtime's graph optimizations",
    "ai.onnx.ml": "classical machine learning is not supported; end the network before it",
    "ai.onnx.preview.training": "export the network for inference",
    "ai.onnx.training": "export the network for inference",
}


def check_inputs(model: onnx.ModelProto, name: str) -> None:
    """Refuses network inputs that are not numeric tensors."""
    given = {item.name for item in model.graph.initializer}
    for item in model.graph.input:
        if item.name in given:
            continue
        kind = item.type.WhichOneof("value")
        if kind not in ("tensor_type", None):
            what = kind.removesuffix("_type").replace("_", " ")
            remedy = OPTIONAL if what == "optional" else SEQUENCE
            raise _type(name, f"input {item.name!r} has type {what}", remedy, item.name)
        element = item.type.tensor_type.elem_type
        if element and element not in (TensorProto.FLOAT, TensorProto.DOUBLE):
            known = element in TensorProto.DataType.values()
            dtype = TensorProto.DataType.Name(element).lower() if known else dtype_name(element)
            dtype = {"string": "str"}.get(dtype, dtype)
            remedy = _remedy(dtype)
            if remedy:
                what = f"input {item.name!r} has element type {dtype}"
                raise _type(name, what, remedy, item.name)


def check(graph: Graph) -> None:
    """Refuses unsupported operators and element types.

    Operators in bodies are checked once the bodies are inlined.
    """
    constant = set(graph.constants)
    for node in graph.nodes:
        inputs = [value for value in node.inputs if value]
        sized = node.op in ("Shape", "Size", "Constant")
        random = OPERATORS.get(node.op) is RANDOM
        known = all(value in constant for value in inputs) and not random
        if (known or sized) and not has_body(node):
            constant.update(node.outputs)
            continue
        _check_node(graph, node, constant)


def _check_node(graph: Graph, node: Node, constant: set[str]) -> None:
    domain, _, op = node.op.rpartition(".")
    if domain:
        remedy = DOMAINS.get(domain, "export the network with operators of the ONNX standard")
        if op.startswith(("QLinear", "QGemm", "DynamicQuantize", "MatMulInteger")):
            remedy = QUANTIZED
        raise _operator(
            node, f"it belongs to the domain {domain}, not to the ONNX standard; {remedy}"
        )
    if node.op in OPERATORS:
        raise _operator(node, OPERATORS[node.op])
    if node.op == "Dropout" and len(node.inputs) > 2 and node.inputs[2]:
        training = node.inputs[2]
        ratio = graph.constants.get(node.inputs[1]) if node.inputs[1] else 0.5
        drops = ratio is None or float(ratio) > 0
        if training not in constant:
            raise _operator(
                node,
                "its training_mode is a network input; export the network for "
                "inference, with training_mode false",
            )
        on = graph.constants.get(training)
        if on is not None and bool(on) and drops:
            raise _operator(node, f"its training_mode is true; {RANDOM}, with training_mode false")
    values = [value for value in (*node.inputs, *node.outputs) if value]
    for value in values:
        tensor = graph.tensors.get(value)
        array = graph.constants.get(value)
        dtype = array.dtype.name if array is not None else tensor.dtype if tensor else ""
        remedy = _remedy(dtype)
        read = node.op not in ("Cast", "CastLike") or value not in node.outputs
        if remedy and read:
            raise _type(graph.name, f"{node.op} has element type {dtype}", remedy, node.name)
    if node.op == "Cast":
        target = TensorProto.DataType.Name(node.attributes["to"]).lower()
        remedy = _remedy({"string": "str"}.get(target, target))
        if remedy:
            raise _type(graph.name, f"Cast converts to {target}", remedy, node.name)


def _remedy(dtype: str) -> str | None:
    """The remedy for an unsupported element type; None if it is supported."""
    if dtype.startswith(("float8", "float4", "int4", "uint4", "int2", "uint2")):
        return QUANTIZED
    if dtype.startswith("str"):
        return TYPES["str"]
    return TYPES.get(dtype)


def _operator(node: Node, reason: str) -> CompileError:
    op = node.op.rpartition(".")[2]
    kind = "dynamic_shape" if reason is COUNTED else "unsupported_operator"
    return CompileError(kind, f"failed to import the operator {op}: {reason}", node.name)


def _type(name: str, what: str, remedy: str, node: str) -> CompileError:
    return CompileError(
        "unsupported_operator", f"failed to import the network {name}: {what}; {remedy}", node
    )
