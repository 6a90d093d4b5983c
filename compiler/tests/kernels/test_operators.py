"""Operators of every type, rank and attribute have a schedule rule and match ONNX Runtime."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from edgepipe_compiler.errors import CompileError
from kernels.lowered import Lowered, runnable, x86

INFINITY, NAN = np.inf, np.nan
SPECIAL = np.array(
    [NAN, INFINITY, -INFINITY, -0.0, 0.0, 2.5, 3.5, -2.5, 0.5, -0.5, 70, 1e-30, -1e-4, 88.5, -88.5,
     100, -100, 3e-39],
    np.float32,
)  # fmt: skip


@dataclass
class Case:
    """An operator on ``arrays``; those at the indices ``constants`` are constants.

    None is an absent operand.
    """

    op: str
    arrays: list[np.ndarray | None]
    constants: tuple[int, ...] = ()
    opset: int = 21
    outputs: int = 1
    attributes: dict[str, object] = field(default_factory=dict)

    def model(self) -> onnx.ModelProto:
        """The network of this operator."""
        given = {f"x{place}": array for place, array in enumerate(self.arrays) if array is not None}
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in given.items()
            if int(name[1:]) not in self.constants
        ]
        outputs = [helper.make_empty_tensor_value_info(f"y{n}") for n in range(self.outputs)]
        names = [f"x{n}" if array is not None else "" for n, array in enumerate(self.arrays)]
        node = helper.make_node(
            self.op, names, [item.name for item in outputs], name="node", **self.attributes
        )
        weights = [numpy_helper.from_array(given[f"x{n}"], f"x{n}") for n in self.constants]
        graph = helper.make_graph([node], "one", inputs, outputs, weights)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        return shape_inference.infer_shapes(model)

    def inputs(self) -> dict[str, np.ndarray]:
        """The inputs of the network."""
        return {
            f"x{place}": array
            for place, array in enumerate(self.arrays)
            if array is not None and place not in self.constants
        }


def case(op: str, *arrays: np.ndarray | None, **options: object) -> Case:
    own = {name: options.pop(name) for name in ("constants", "opset", "outputs") if name in options}
    return Case(op, list(arrays), attributes=options, **own)


def numbers(kind: str, *shape: int, seed: int = 0) -> np.ndarray:
    """Seeded numbers of a type."""
    random, dtype = np.random.default_rng(seed), np.dtype(kind)
    if dtype.kind == "f":
        return np.asarray(random.standard_normal(shape) * 2).astype(dtype)
    if dtype.kind == "b":
        return np.asarray(random.integers(0, 2, shape)).astype(bool)
    return np.asarray(random.integers(0 if dtype.kind == "u" else -20, 20, shape)).astype(dtype)


def whole(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def nonzero(array: np.ndarray) -> np.ndarray:
    return np.where(array == 0, 3, array).astype(array.dtype)


def element_wise() -> Iterator[tuple[str, Case]]:
    for op in ("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh",
               "Atanh", "Round", "Sign", "Erf", "Floor", "Ceil", "Sqrt", "Exp", "Log", "Neg",
               "Abs", "Reciprocal", "Relu", "IsNaN", "IsInf"):  # fmt: skip
        yield f"{op} special", case(op, SPECIAL)
        yield f"{op} scalar", case(op, np.array(0.25, np.float32))
    for op in ("Neg", "Abs", "Sign", "BitwiseNot"):
        for kind in ("int8", "int32", "int64"):
            yield f"{op} {kind}", case(op, numbers(kind, 2, 5, 7))
    for op in ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"):
        for kind in ("float32", "int32", "int64", "float64"):
            operands = numbers(kind, 2, 5, 7), numbers(kind, 5, 1, seed=1)
            yield f"{op} {kind}", case(op, *operands)
        yield f"{op} special", case(op, SPECIAL, np.roll(SPECIAL, 3))
        scalars = np.array(3), np.array(4)
        yield f"{op} scalars", case(op, *scalars)
    yield "Equal bool", case("Equal", numbers("bool", 4, 5), numbers("bool", 5, seed=1))
    for op in ("And", "Or", "Xor"):
        yield op, case(op, numbers("bool", 2, 5, 7), numbers("bool", 2, 1, 7, seed=1))
    yield "Not", case("Not", numbers("bool", 9))
    for kind in ("float32", "int64", "float64", "uint8"):
        operands = numbers("bool", 5, 1), numbers(kind, 2, 5, 7), numbers(kind, 2, 1, 1, seed=1)
        yield f"Where {kind}", case("Where", *operands)
    kinds = ("float32", "float64", "float16", "int32", "int64", "uint8", "int8", "bool")
    for before, after in itertools.product(kinds, kinds):
        to = helper.np_dtype_to_tensor_dtype(np.dtype(after))
        yield f"Cast {before} {after}", case("Cast", numbers(before, 3, 7), to=to)
    for to in (TensorProto.BOOL, TensorProto.INT32, TensorProto.UINT8):
        yield f"Cast special {to}", case("Cast", SPECIAL, to=to)
    for kind in ("int32", "int64", "float64", "float32", "uint8"):
        for op in ("Add", "Sub", "Mul", "Div", "Min", "Max"):
            if kind == "uint8" and op in ("Min", "Max"):
                continue
            operands = numbers(kind, 2, 5, 7), nonzero(numbers(kind, 1, 5, 1, seed=1))
            yield f"{op} {kind}", case(op, *operands)
        low, high = (np.array(value).astype(kind) for value in (3, 9))
        yield f"Clip {kind}", case("Clip", numbers(kind, 3, 7), low, high)
        yield f"Clip above {kind}", case("Clip", numbers(kind, 3, 7), None, high)
    low, high = (np.array(value, np.float32) for value in (2, 1))
    yield "Clip special", case("Clip", SPECIAL, high, low)
    yield "Clip of nothing", case("Clip", SPECIAL, low, high)
    for op in ("Max", "Min"):
        yield f"{op} special", case(op, SPECIAL, np.roll(SPECIAL, 5))
    for op in ("Max", "Min", "Sum", "Mean"):
        operands = numbers("float32", 2, 5, 7), numbers("float32", 5, 1), numbers("float32", 1)
        yield f"{op} of three", case(op, *operands)
    for kind, fmod in itertools.product(("int32", "int64", "uint8", "int8"), (0, 1)):
        operands = numbers(kind, 4, 9), nonzero(numbers(kind, 4, 9, seed=1))
        yield f"Mod {kind} {fmod}", case("Mod", *operands, fmod=fmod)
    operands = numbers("float32", 4, 9), numbers("float32", 4, 9, seed=1)
    yield "Mod float32", case("Mod", *operands, fmod=1)
    for kind, direction in itertools.product(("uint8", "uint32", "uint64"), ("LEFT", "RIGHT")):
        operands = numbers(kind, 4, 9), numbers(kind, 4, 9, seed=1) % np.array(8, kind)
        yield f"BitShift {kind} {direction}", case("BitShift", *operands, direction=direction)
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        yield op, case(op, numbers("int32", 4, 9), numbers("int32", 9, seed=1))
    yield "IsInf above", case("IsInf", SPECIAL, detect_negative=0)
    yield "IsInf below", case("IsInf", SPECIAL, detect_positive=0)
    for power in (-1, 0, 1, 2, 3, 5):
        operands = numbers("float32", 5, 7), np.array(power)
        yield f"Pow {power}", case("Pow", *operands, constants=(1,))
        scalar = np.array(1.5, np.float32), np.array(power, np.int32)
        yield f"Pow of a scalar {power}", case("Pow", *scalar, constants=(1,))
    yield "Pow special", case("Pow", SPECIAL, np.roll(SPECIAL, 7))
    yield "Pow of integers", case("Pow", numbers("int64", 9), np.abs(numbers("int64", 9)) % 5)
    yield "Pow of an integer", case("Pow", numbers("int32", 9), np.array([2.0], np.float32))
    yield "PRelu of a scalar", case("PRelu", *(np.array(x, np.float32) for x in (-2, 0.5)))
    for op in ("Sigmoid", "Tanh", "Softplus", "Elu", "HardSigmoid", "Gelu", "HardSwish"):
        yield f"{op} scalar", case(op, np.array(0.3, np.float32))


def moves() -> Iterator[tuple[str, Case]]:
    for kind in ("float32", "int64", "bool", "uint8"):
        x = numbers(kind, 2, 5, 7)
        for constants in ((), (0,), (1,)):
            other = numbers(kind, 2, 3, 7, seed=1)
            name = f"Concat {kind} {constants}"
            yield name, case("Concat", x, other, constants=constants, axis=1)
        yield f"Transpose {kind}", case("Transpose", x, perm=[2, 0, 1])
        yield f"Split {kind}", case("Split", x, whole(2, 3), constants=(1,), outputs=2, axis=1)
        ends = whole(1), whole(-1), whole(2), whole(2)
        yield f"Slice {kind}", case("Slice", x, *ends, constants=(1, 2, 3, 4))
        yield f"Expand {kind}", case("Expand", numbers(kind, 5, 1), whole(2, 5, 7), constants=(1,))
        scalar = numbers(kind)
        yield f"Expand of a scalar {kind}", case("Expand", scalar, whole(2, 3), constants=(1,))
        yield f"Unsqueeze {kind}", case("Unsqueeze", scalar, whole(0), constants=(1,))
        yield f"Squeeze {kind}", case("Squeeze", numbers(kind, 1))
        pads = whole(0, 1, 2, 0, 0, 1)
        yield f"Pad {kind}", case("Pad", x, pads, constants=(1,), mode="edge")
    yield "Transpose of a scalar", case("Transpose", numbers("float32"))
    empty = numbers("float32", 2, 0, 3), numbers("float32", 2, 4, 3)
    yield "Concat with nothing", case("Concat", *empty, constants=(0,), axis=1)


def reductions() -> Iterator[tuple[str, Case]]:
    for op in ("Max", "Min", "Sum", "Mean", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare"):
        x = numbers("float32", 2, 5, 7, 3)
        x = np.abs(x) + np.float32(0.5) if op == "LogSum" else x
        name = f"Reduce{op}"
        for axes in ((1,), (0, 2), (-1,), (1, 3)):
            constant = {"constants": (1,), "opset": 18, "keepdims": len(axes) % 2}
            yield f"{name} {axes}", case(name, x, whole(*axes), **constant)
        yield f"{name} of all", case(name, x, opset=18, keepdims=0)
        yield f"{name} of a scalar", case(name, np.array(1.5, np.float32), opset=18)
        for noop in (0, 1):
            options = {"constants": (1,), "opset": 18, "noop_with_empty_axes": noop}
            yield f"{name} of no axes {noop}", case(name, x, whole(), **options)
        if op != "Sum":
            yield f"{name} opset 11", case(name, x, opset=11, axes=[0, 2])
        if op not in ("LogSum", "LogSumExp", "L2"):
            y = numbers("int64", 2, 3, 4)
            yield f"{name} int64", case(name, y, whole(0, 2), constants=(1,), opset=18)
    special = numbers("float32", 2, 5, 7, 3)
    special[0, 0, 0, 0], special[1, 2, 3], special[1, 3] = NAN, INFINITY, -INFINITY
    for op, axes in itertools.product(("ReduceMax", "ReduceMin"), ((2, 3), (0, 2))):
        options = {"constants": (1,), "opset": 20}
        yield f"{op} special {axes}", case(op, special, whole(*axes), **options)
        x = numbers("bool", 2, 3, 4)
        yield f"{op} bool {axes}", case(op, x, whole(axes[0]), **options)


def poolings() -> Iterator[tuple[str, Case]]:
    for shape in ((2, 3, 11), (2, 3, 9, 11), (1, 2, 7, 6, 8)):
        rank = len(shape) - 2
        x = numbers("float32", *shape)
        window = {"kernel_shape": [3] * rank, "strides": [2] * rank, "pads": [1] * 2 * rank}
        for up in (0, 1):
            for order in (0, 1):
                options = {"ceil_mode": up, "storage_order": order, "opset": 12}
                name = f"MaxPool indices {rank} {up} {order}"
                yield name, case("MaxPool", x, outputs=2, **window, **options)
            for counted in (0, 1):
                options = {"ceil_mode": up, "count_include_pad": counted, "opset": 19}
                yield (
                    f"AveragePool {rank} {up} {counted}",
                    case("AveragePool", x, **window, **options),
                )
                wide = {**window, "kernel_shape": [4] * rank, "strides": [3] * rank}
                yield (
                    f"AveragePool uneven {rank} {up} {counted}",
                    case("AveragePool", x, **wide, **options),
                )
            wide = {**window, "strides": [3] * rank, "ceil_mode": up, "opset": 12}
            yield f"MaxPool {rank} {up}", case("MaxPool", x, **wide)
            options = {"ceil_mode": up, "opset": 18, "p": 3}
            yield f"LpPool {rank} {up}", case("LpPool", x, **window, **options)
        for automatic in ("SAME_UPPER", "SAME_LOWER", "VALID"):
            same = {**window, "auto_pad": automatic, "opset": 11}
            del same["pads"]
            yield f"MaxPool {automatic} {rank}", case("MaxPool", x, outputs=2, **same)
            yield f"LpPool {automatic} {rank}", case("LpPool", x, **same)
        yield f"GlobalLpPool {rank}", case("GlobalLpPool", x, p=3)
        yield f"GlobalMaxPool {rank}", case("GlobalMaxPool", x)
    for op in ("MaxPool", "AveragePool"):
        window = {"kernel_shape": [3, 3], "strides": [3, 3], "pads": [1] * 4, "ceil_mode": 1}
        x = numbers("float32", 1, 8, 2, 2)
        yield f"{op} with a window in the padding", case(op, x, opset=12, **window)
    for kind in ("int8", "uint8", "float64"):
        x = numbers(kind, 2, 3, 9, 11)
        yield f"MaxPool {kind}", case("MaxPool", x, kernel_shape=[3, 3], opset=12)


def indexed() -> Iterator[tuple[str, Case]]:
    random = np.random.default_rng(3)
    once = np.stack([random.permutation(5)[:2] - 2 for _ in range(14)]).T.reshape(2, 2, 7)
    for kind, constants in itertools.product(("float32", "int64", "bool"), ((), (1,))):
        x, options = numbers(kind, 3, 5, 7), {"constants": constants}
        title = f"{kind} {constants}"
        yield (
            f"Gather {title}",
            case("Gather", x, random.integers(-5, 5, (2, 3)), axis=1, **options),
        )
        places = random.integers(-5, 5, (2, 6, 7))
        yield f"GatherElements {title}", case("GatherElements", x, places, axis=1, **options)
        places = random.integers(-3, 3, (4, 2))
        yield f"GatherND {title}", case("GatherND", x, places, **options)
        places = random.integers(-5, 5, (3, 2, 1))
        yield f"GatherND in batches {title}", case("GatherND", x, places, batch_dims=1, **options)
        updates = numbers(kind, 2, 2, 7, seed=1)
        yield (
            f"ScatterElements {title}",
            case("ScatterElements", x, once, updates, axis=1, **options),
        )
        places, updates = np.array([[0, 1], [2, -1]]), numbers(kind, 2, 7, seed=1)
        yield f"ScatterND {title}", case("ScatterND", x, places, updates, **options)
        if kind == "bool":
            continue
        for reduction in ("add", "mul", "min", "max"):
            options |= {"reduction": reduction, "opset": 18}
            x, updates = numbers(kind, 3, 5), numbers(kind, 3, 4, seed=1)
            places = random.integers(-5, 5, (3, 4))
            yield (
                f"ScatterElements {reduction} {title}",
                case("ScatterElements", x, places, updates, axis=1, **options),
            )
            x, updates = numbers(kind, 5, 7), numbers(kind, 4, 7, seed=1)
            places = random.integers(-5, 5, (4, 1))
            yield f"ScatterND {reduction} {title}", case("ScatterND", x, places, updates, **options)
    words = random.integers(0, 30, (2, 6))
    yield "Gather from a table", case("Gather", numbers("float32", 30, 20), words, constants=(0,))
    x = numbers("float32", 3, 5, 7)
    for axis, exclusive, reverse in itertools.product((0, 1, -1), (0, 1), (0, 1)):
        options = {"exclusive": exclusive, "reverse": reverse, "constants": (1,)}
        yield f"CumSum {axis} {exclusive} {reverse}", case("CumSum", x, np.array(axis), **options)
    for op, axis, last in itertools.product(("ArgMax", "ArgMin"), (0, 1, -1), (0, 1)):
        options = {"axis": axis, "select_last_index": last, "keepdims": axis % 2}
        yield f"{op} {axis} {last}", case(op, np.round(x), **options)
    for axis, largest in itertools.product((0, 1, -1), (0, 1)):
        options = {"axis": axis, "largest": largest, "outputs": 2, "constants": (1,)}
        yield f"TopK {axis} {largest}", case("TopK", x, whole(3), **options)
        equal = np.round(numbers("float32", 50, 40, 4))
        yield f"TopK of equal ones {axis} {largest}", case("TopK", equal, whole(4), **options)
    options = {"outputs": 2, "constants": (1,)}
    yield "TopK special", case("TopK", SPECIAL, whole(6), **options)
    yield "TopK of one", case("TopK", numbers("float32", 4, 1), whole(1), **options)
    pair = np.array([0, 1], np.float32)
    for axis in (0, 1, -1):
        places = random.integers(-6, 6, (2, 3))
        yield f"OneHot {axis}", case("OneHot", places, whole(5), pair, constants=(1, 2), axis=axis)
    for upper, diagonal in itertools.product((0, 1), (-2, 0, 1, 9)):
        options = {"upper": upper, "constants": (1,)}
        yield f"Trilu {upper} {diagonal}", case("Trilu", x, np.array(diagonal), **options)
    scale, shift = numbers("float32", 7), numbers("float32", 7, seed=1)
    options = {"outputs": 3, "constants": (1, 2)}
    yield "LayerNormalization", case("LayerNormalization", x, scale, shift, **options)


def unmoved_windows() -> Iterator[tuple[str, Case]]:
    """Windows that are larger than the padded input, and strides that move no window."""
    image, volume = numbers("float32", 1, 2, 5, 2), numbers("float32", 1, 2, 4, 2, 4)
    far = 1 << 40
    for op in ("MaxPool", "AveragePool", "LpPool"):
        yield f"{op} empty row", case(op, numbers("float32", 1, 2, 2), kernel_shape=[3])
        yield f"{op} empty image", case(op, image, kernel_shape=[3, 3])
        yield f"{op} empty volume", case(op, volume, kernel_shape=[2, 3, 2])
        for pads in ([0] * 4, [1] * 4):
            options = {"kernel_shape": [2, 2], "strides": [2, far], "pads": pads}
            yield f"{op} far {pads}", case(op, image, **options)
        yield f"{op} far same", case(op, image, kernel_shape=[3, 3], strides=[1, far],
                                     auto_pad="SAME_UPPER")  # fmt: skip
    yield "MaxPool far up", case("MaxPool", image, kernel_shape=[3, 3], strides=[9, far],
                                 pads=[1] * 4, ceil_mode=1, opset=12)  # fmt: skip
    weight = numbers("float32", 2, 2, 2, 1, seed=1)
    options = {"strides": [2, far], "dilations": [1, far], "constants": (1,)}
    yield "Conv far", case("Conv", image[..., :1], weight, **options)
    yield "ConvTranspose far", case("ConvTranspose", image[..., :1], weight, **options)
    for k in (far, -far):
        yield f"EyeLike far {k}", case("EyeLike", numbers("float32", 3, 4), k=k)
    # At most one element along an axis reaches the result: the first, a middle or the last one, or none.
    weight = numbers("float32", 2, 3, 2, 3, seed=1)
    for begin in (0, 1, 2 * far + 1, 3 * far + 20, 4 * far - 4):
        options = {
            "strides": [far, 1],
            "pads": [begin, 0, 4 * far - 4 - begin, 0],
            "constants": (1,),
        }
        yield f"ConvTranspose far {begin}", case("ConvTranspose", image, weight, **options)
    for shape in ([6, 4], [3, 4], [2, 1]):
        options = {"strides": [far, 3], "output_shape": shape, "constants": (1,)}
        yield f"ConvTranspose far to {shape}", case("ConvTranspose", image, weight, **options)


CASES = dict(
    itertools.chain(element_wise(), moves(), reductions(), poolings(), indexed(), unmoved_windows())
)


def expected(tried: Case) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(
        tried.model().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, tried.inputs())


def check(tried: Case, isa: str) -> None:
    lowered = Lowered(tried.model(), x86(isa))
    assert "fallback" not in lowered.rules
    compare(lowered.run(tried.inputs()), expected(tried))


def compare(given: list[np.ndarray], results: list[np.ndarray]) -> None:
    """Every result is as expected, special numbers exactly."""
    for made, wanted in zip(given, results, strict=True):
        assert made.shape == wanted.shape and made.dtype == wanted.dtype
        if wanted.dtype.kind != "f":
            assert np.array_equal(made, wanted)
            continue
        finite = np.isfinite(wanted)
        assert np.array_equal(made[~finite], wanted[~finite], equal_nan=True)
        scale = np.abs(wanted[finite]).max(initial=1e-6)
        assert np.abs(made[finite] - wanted[finite]).max(initial=0) <= 1e-5 * scale


@pytest.mark.parametrize("name", CASES)
def test_operator(name: str) -> None:
    check(CASES[name], runnable()[0])


@pytest.mark.parametrize("name", sorted(CASES)[::7])
def test_operator_with_vectors_of_four(name: str) -> None:
    check(CASES[name], "generic")


@pytest.mark.parametrize("op", ["Gather", "GatherElements", "GatherND"])
def test_indices_beyond_a_tensor_read_its_ends(op: str) -> None:
    """No other memory is read."""
    x, places = numbers("float32", 5), whole(99, -99, 2)
    places = places[:, None] if op == "GatherND" else places
    tried = case(op, x, places)
    (made,) = Lowered(tried.model(), x86(runnable()[0])).run(tried.inputs())
    assert made.tolist() == [x[4], x[0], x[2]]


@pytest.mark.parametrize("op", ["ScatterElements", "ScatterND"])
def test_indices_beyond_a_tensor_write_nothing(op: str) -> None:
    x, places = numbers("float32", 5), whole(99, -99, 2)
    updates = numbers("float32", 3, seed=1)
    tried = case(op, x, places[:, None] if op == "ScatterND" else places, updates)
    (made,) = Lowered(tried.model(), x86(runnable()[0])).run(tried.inputs())
    assert made.tolist() == [x[0], x[1], updates[2], x[3], x[4]]


def test_division_by_zero_does_not_end_the_program() -> None:
    lowest = np.iinfo(np.int64).min
    for op, wanted in (("Div", [0, lowest, 3]), ("Mod", [0, 0, 1])):
        tried = case(op, whole(7, lowest, 7), whole(0, -1, 2))
        (made,) = Lowered(tried.model(), x86(runnable()[0])).run(tried.inputs())
        assert made.tolist() == wanted


REFUSED = {
    "slope of channels": (
        case("PRelu", numbers("float32", 1, 16, 4, 4), numbers("float32", 16), constants=(1,)),
        "correct the shape to [16, 1, 1]",
    ),
    "bias too short": (
        case("Conv", *(numbers("float32", *s) for s in ((1, 3, 8, 8), (4, 3, 3, 3), (3,))),
             constants=(1, 2)),
        "expected [4], one element per output channel",
    ),
    "scale too short": (
        case("InstanceNormalization", *(numbers("float32", *s) for s in ((1, 4, 5, 5), (3,), (4,))),
             constants=(1, 2)),
        "expected [4], one element per channel",
    ),
    "statistics too long": (
        case("BatchNormalization", numbers("float32", 1, 4, 5, 5),
             *(numbers("float32", n) for n in (4, 4, 4, 5)), constants=(1, 2, 3, 4), opset=13),
        "has shape [5], expected [4] for data of shape [1, 4, 5, 5]",
    ),
    "kernel_shape of other weights": (
        case("Conv", numbers("float32", 1, 3, 8, 8), numbers("float32", 4, 3, 3, 3), constants=(1,),
             kernel_shape=[5, 5]),
        "kernel_shape [5, 5]",
    ),
    "scale of a layer": (
        case("LayerNormalization", numbers("float32", 2, 8), numbers("float32", 7), constants=(1,)),
        "[7] does not broadcast to [8]",
    ),
    "weights of other rows": (
        case("Gemm", *(numbers("float32", *s) for s in ((2, 8), (7, 4), (4,))), constants=(1, 2),
             opset=9),
        "operands of shapes [2, 8] and [7, 4] do not match",
    ),
    "weights of other columns": (
        case("Gemm", *(numbers("float32", *s) for s in ((2, 8), (4, 7), (4,))), constants=(1, 2),
             opset=9, transB=1),
        "operands of shapes [2, 8] and [4, 7] do not match",
    ),
    "bias of a product": (
        case("Gemm", *(numbers("float32", *s) for s in ((2, 8), (8, 4), (5,))), constants=(1, 2)),
        "[5] does not broadcast to [2, 4]",
    ),
    "reshape to more elements": (
        case("Reshape", numbers("float32", 2, 3, 4), whole(1, 25), constants=(1,)),
        "[2, 3, 4] has 24 elements, the result of shape [1, 25] has 25",
    ),
    "empty convolution": (
        case("Conv", numbers("float32", 1, 3, 2, 2), numbers("float32", 4, 3, 3, 3), constants=(1,)),
        "its result of shape [1, 4, 0, 0] for the input of shape [1, 3, 2, 2] is empty",
    ),
    "input of other recurrent weights": (
        case("GRU", *(numbers("float32", *s) for s in ((5, 1, 3), (1, 12, 2), (1, 12, 4))),
             constants=(1, 2), hidden_size=4),
        "expected [1, 12, 3], one row per gate of each hidden element, one column per input element",
    ),
    "recurrent bias": (
        case("LSTM", *(numbers("float32", *s) for s in ((5, 1, 3), (1, 8, 3), (1, 8, 2), (1, 8))),
             constants=(1, 2, 3), hidden_size=2),
        "expected [1, 16], two biases per gate",
    ),
    "channels of blocks": (
        case("DepthToSpace", numbers("float32", 1, 6, 2, 2), blocksize=2),
        "blocksize 2 does not fit the input of shape [1, 6, 2, 2]",
    ),
    "more indices than elements": (
        case("GatherElements", numbers("float32", 2, 3), numbers("int64", 3, 3), axis=1),
        "indices of shape [3, 3] do not fit data of shape [2, 3]",
    ),
    "indices of other batches": (
        case("GatherND", numbers("float32", 2, 3, 4), numbers("int64", 3, 1), batch_dims=1),
        "the first 1 dimensions of the data's shape [2, 3, 4] and the indices' shape [3, 1] differ",
    ),
    "fewer updates than indices": (
        case("ScatterND", numbers("float32", 4, 5), numbers("int64", 3, 1), numbers("float32", 2, 5)),
        "expected [3, 5], one element or slice per index",
    ),
    "constant index": (
        case("GatherElements", numbers("float32", 5), whole(5), constants=(1,)),
        "its index 5 is out of bounds",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_operands_of_a_wrong_shape_are_refused(name: str) -> None:
    tried, message = REFUSED[name]
    with pytest.raises(CompileError) as refusal:
        Lowered(tried.model(), x86(runnable()[0]))
    assert refusal.value.kind == "invalid_onnx" and refusal.value.node == "node"
    assert message in str(refusal.value)


def test_unpooling_puts_elements_back() -> None:
    """As in SegNet."""
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p", "i"], "pool", **window),
        helper.make_node("MaxUnpool", ["p", "i"], ["y"], "unpool", **window),
    ]
    x = numbers("float32", 2, 3, 6, 8)
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)
    output = helper.make_empty_tensor_value_info("y")
    graph = helper.make_graph(nodes, "unpooling", [info], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    lowered = Lowered(shape_inference.infer_shapes(model), x86(runnable()[0]))
    (made,) = lowered.run({"x": x})
    blocks = x.reshape(2, 3, 3, 2, 4, 2)
    wanted = np.where(blocks == blocks.max((3, 5), keepdims=True), blocks, 0).reshape(x.shape)
    assert np.array_equal(made, wanted)
