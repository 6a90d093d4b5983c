"""Cases that are out of scope, and operators that the compiler refuses.

Listed cases are compiled as well: they must be refused with a remedy, or pass. A crash, a traceback, or a
refusal that is not listed is a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto

from .cases import Case

# Error kinds of refusals.
REFUSAL_KINDS = {"unsupported_operator", "dynamic_shape"}

NARROW = {"BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ",
          "FLOAT8E8M0", "FLOAT4E2M1", "INT4", "UINT4", "INT2", "UINT2"}  # fmt: skip
COMPLEX = {"COMPLEX64", "COMPLEX128"}
RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
          "RandomUniformLike"}  # fmt: skip
SEQUENCES = {"SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert",
             "SequenceLength", "SequenceMap", "SplitToSequence", "ConcatFromSequence", "Optional",
             "OptionalGetElement", "OptionalHasElement"}  # fmt: skip
DATA_DEPENDENT = {"NonZero", "Unique", "Compress", "NonMaxSuppression"}


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, including those of subgraphs."""
    for node in graph.node:
        yield node
        for item in node.attribute:
            if item.type == AttributeProto.GRAPH:
                yield from nodes_of(item.g)


def types_of(case: Case) -> set[str]:
    """Element types in a model, and kinds such as ``sequence_type``."""
    model = case.model
    found = set()
    for item in (*model.graph.input, *model.graph.output):
        kind = item.type.WhichOneof("value")
        found.add(TensorProto.DataType.Name(item.type.tensor_type.elem_type)
                  if kind == "tensor_type" else kind)  # fmt: skip
    found.update(TensorProto.DataType.Name(item.data_type) for item in model.graph.initializer)
    for node in nodes_of(model.graph):
        for item in node.attribute:
            if item.type == AttributeProto.TENSOR:
                found.add(TensorProto.DataType.Name(item.t.data_type))
            elif item.name in ("to", "dtype", "output_dtype") and item.type == AttributeProto.INT:
                found.add(TensorProto.DataType.Name(item.i))
            elif item.type in (AttributeProto.STRING, AttributeProto.STRINGS) and (
                node.op_type == "Constant"
            ):
                found.add("STRING")
    return found


def out_of_scope(case: Case) -> str | None:
    """Why a case is out of scope; None if it is in scope."""
    types = types_of(case)
    operators = {node.op_type for node in nodes_of(case.model.graph)}
    domains = {node.domain for node in nodes_of(case.model.graph)} - {"", "ai.onnx"}
    for found, reason in (
        (types & {"sequence_type", "optional_type", "map_type"} or operators & SEQUENCES,
         "sequences, optional values and maps"),
        (types & {"STRING"}, "strings"),
        (types & NARROW, "element types without numpy support"),
        (types & COMPLEX, "complex numbers"),
        (operators & RANDOM, "random results"),
        (domains & {"ai.onnx.preview.training"}, "training"),
        (_trains(case), "random result of dropout in training mode"),
        ("ImageDecoder" in operators, "compressed images"),
        ({d for d in domains if d.startswith("ai.onnx.")}, "operator sets other than ai.onnx"),
        (any(getattr(x, "size", 1) == 0 for x in (*case.inputs.values(), *case.outputs.values())),
         "tensors without elements"),
        (_is_data_dependent(case), "output shape depends on the data"),
    ):  # fmt: skip
        if found:
            return reason
    return None


def _trains(case: Case) -> bool:
    constants = {item.name: item for item in case.model.graph.initializer}
    for node in case.model.graph.node:
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
            given = case.inputs.get(node.input[2])
            if given is None and node.input[2] in constants:
                given = onnx.numpy_helper.to_array(constants[node.input[2]])
            if given is not None and bool(given):
                return True
    return False


def _is_data_dependent(case: Case) -> bool:
    computed = Computed(case.model)
    # Its body computes the shape of the grid from this input.
    if case.operator == "AffineGrid" and computed.at_run_time("size"):
        return True
    return any(
        node.op_type in DATA_DEPENDENT and any(map(computed.at_run_time, node.input))
        for node in case.model.graph.node
    )


class Computed:
    """Which values of a model depend on its inputs."""

    def __init__(self, model: onnx.ModelProto) -> None:
        constants = {item.name for item in model.graph.initializer}
        self._values = {item.name for item in model.graph.input} - constants
        self._follow(model.graph)

    def _follow(self, graph: onnx.GraphProto) -> bool:
        """Adds the computed values of ``graph``. Returns whether there are any."""
        found = False
        for node in graph.node:
            bodies = [item.g for item in node.attribute if item.type == AttributeProto.GRAPH]
            for body in bodies:
                self._values.update(item.name for item in body.input)
            inside = [self._follow(body) for body in bodies]
            # The shape of a computed tensor is static.
            if any(inside) or (
                node.op_type not in ("Shape", "Size") and self._values & set(node.input)
            ):
                self._values.update(node.output)
                found = True
        return found

    def at_run_time(self, value: str) -> bool:
        """Whether ``value`` is computed from inputs."""
        return value in self._values


Condition = Callable[[Case, onnx.NodeProto], bool]


def always(case: Case, node: onnx.NodeProto) -> bool:
    """Always refused."""
    return True


def computed(*places: int) -> Condition:
    """Refused if one of the inputs ``places`` is computed at run time."""
    return lambda case, node: any(
        Computed(case.model).at_run_time(node.input[place])
        for place in places
        if place < len(node.input)
    )


def in_each_frame(case: Case, node: onnx.NodeProto) -> bool:
    """Refused if any input is computed at run time; constants are evaluated by the compiler."""
    return any(map(Computed(case.model).at_run_time, node.input))


def is_before(opset: int) -> Condition:
    """Refused if the model's operator set is older than ``opset``."""
    return lambda case, node: all(
        item.version < opset for item in case.model.opset_import if item.domain == node.domain
    )


def has_many_axes(case: Case, node: onnx.NodeProto) -> bool:
    """Refused if a Col2Im has more than two image axes."""
    return bool(
        np.size(case.inputs.get(node.input[1], ())) > 2
        or any(
            item.name == node.input[1] and item.dims[0] > 2 for item in case.model.graph.initializer
        )
    )


SHAPE = "output shape computed at run time"
BRANCH = "control flow decided at run time"

QUANTIZED = "quantized networks"
SPECTRAL = "spectral transform"
LOSS = "training only"
NOT_IMPLEMENTED = "not implemented"
AXIS = "axis computed at run time"
WEIGHTS = "weights or lengths computed at run time"
# Unsupported element types, for all operators.
REFUSED_TYPES = {"FLOAT16": "half precision"}

# The reason for refusing each operator, and its condition.
REFUSED: dict[str, tuple[tuple[str, Condition], ...]] = {
    **dict.fromkeys(
        ("Reshape", "Expand", "Tile", "Pad", "Squeeze", "Unsqueeze", "TopK", "OneHot", "Split",
         "CenterCropPad", "AffineGrid", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
         "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Upsample"),
        ((SHAPE, computed(1)),),
    ),
    **dict.fromkeys(
        ("ConstantOfShape", "BlackmanWindow", "HammingWindow", "HannWindow"), ((SHAPE, computed(0)),)
    ),
    **dict.fromkeys(
        ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QuantizeLinear",
         "DequantizeLinear", "DynamicQuantizeLinear"),
        ((QUANTIZED, in_each_frame),),
    ),
    **dict.fromkeys(("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"), ((LOSS, in_each_frame),)),
    **dict.fromkeys(("DFT", "STFT", "MelWeightMatrix"), ((SPECTRAL, in_each_frame),)),
    **dict.fromkeys(
        ("BitCast", "CumProd", "DeformConv", "Det", "LinearAttention", "TensorScatter"),
        ((NOT_IMPLEMENTED, in_each_frame),)
    ),
    **dict.fromkeys(("RNN", "GRU", "LSTM"), ((WEIGHTS, computed(1, 2, 3, 4, 7)),)),
    "Scan": (("form of operator set 8", is_before(9)),),
    "CumSum": ((AXIS, computed(1)),),
    "LayerNormalization": (("statistics outputs with a scale computed at run time", computed(1)),),
    "ReverseSequence": (("lengths computed at run time", computed(1)),),
    "TfIdfVectorizer": (("text processing", in_each_frame),),
    "Range": ((SHAPE, computed(0, 1, 2)),),
    "Slice": ((SHAPE, computed(1, 2, 3, 4)),),
    "Resize": ((SHAPE, computed(1, 2, 3)),),
    "Col2Im": ((SHAPE, computed(1, 2)), ("more than two image axes", has_many_axes)),
    "MaxUnpool": (("explicit output shape", lambda case, node: len(node.input) > 2),),
    "If": ((BRANCH, computed(0)),),
    "Loop": ((BRANCH, computed(0, 1)),),
}  # fmt: skip
