"""Test cases: models with inputs and expected outputs, from the ``onnx`` package or from a folder.

The package has tests of every operator (``node``) and a few networks that are small or computed from
weightless files. Random inputs of its node tests are seeded here, so that every process uses the same
numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.reference import ReferenceEvaluator

SEED = 2026
# Operators are tested in all versions in force since this operator set; older files are rare.
OLDEST_OPSET = 7


@dataclass(frozen=True)
class Case:
    """A model with inputs and the outputs that another implementation computed."""

    name: str
    operator: str
    kind: str
    model: onnx.ModelProto
    inputs: dict[str, object]
    outputs: dict[str, object]
    rtol: float
    atol: float
    variant: str = "as-is"
    # The model file, which is read when the case runs.
    file: Path | None = None
    # Whether another implementation computes ``outputs`` when the case runs.
    is_computed: bool = False

    @property
    def title(self) -> str:
        """Name and variant."""
        return f"{self.name}[{self.variant}]"

    @property
    def is_network(self) -> bool:
        """Whether it is a whole network, which has higher limits of time and memory."""
        return self.kind == "real"


# With aligned corners, ONNX Runtime divides by the rounded size, the standard by the exact one. Networks
# are verified with ONNX Runtime, so these cases use its outputs.
BY_RUNTIME = {
    "resize_downsample_scales_linear_align_corners",
    "resize_downsample_scales_cubic_align_corners",
}


def shipped() -> Iterator[Case]:
    """All cases of the ``onnx`` package."""
    for case in _node_cases():
        yield replace(case, is_computed=True) if case.name in BY_RUNTIME else case
    yield from _untested_operators()
    for kind in ("simple", "pytorch-operator", "pytorch-converted", "real"):
        yield from _stored_cases(kind)


def folder(path: Path) -> Iterator[Case]:
    """The ONNX files below ``path``, with seeded inputs and outputs of ONNX Runtime."""
    for file in sorted(path.rglob("*.onnx")):
        name = str(file.relative_to(path).with_suffix(""))
        yield Case(
            name, name, "file", onnx.ModelProto(), {}, {}, 1e-3, 1e-5, file=file, is_computed=True
        )


def with_outputs(case: Case) -> Case:
    """The case with computed outputs: of ONNX Runtime, else of ONNX's reference evaluator, else those it
    has.

    Inputs of a file are seeded. Raises whatever the implementations raise for an invalid model.
    """
    model, inputs = case.model, case.inputs
    if case.file is not None:
        model = _load(case.file)
        random = np.random.default_rng(SEED)
        constants = {item.name for item in model.graph.initializer}
        inputs = {
            item.name: _seeded(item, random)
            for item in model.graph.input
            if item.name not in constants
        }
    try:
        outputs = _run_by_runtime(model, case.file, inputs)
    except Exception:
        try:
            outputs = ReferenceEvaluator(model).run(None, inputs)
        except Exception:
            if case.outputs:
                return case
            raise
    names = [item.name for item in model.graph.output]
    return replace(case, model=model, inputs=inputs, outputs=dict(zip(names, outputs, strict=True)))


def _load(file: Path) -> onnx.ModelProto:
    try:
        return onnx.load(file)
    except onnx.checker.ValidationError:
        # It refuses data files that are symbolic links, which model hubs use.
        from edgepipe_compiler.frontend import onnx_file

        return onnx_file.load(file)


def _run_by_runtime(
    model: onnx.ModelProto, file: Path | None, inputs: dict[str, np.ndarray]
) -> list[np.ndarray]:
    import onnxruntime

    # A file of more than 2 GiB cannot be serialized.
    is_small = file is None or model.ByteSize() < 1 << 30
    source = model.SerializeToString() if is_small else str(file)

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def _seeded(item: onnx.ValueInfoProto, random: np.random.Generator) -> np.ndarray:
    kind = item.type.tensor_type
    shape = [max(1, dim.dim_value) for dim in kind.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    if dtype.kind in "iub":
        return random.integers(0, 2, shape).astype(dtype)
    return random.standard_normal(shape).astype(dtype)


def _node_cases() -> Iterator[Case]:
    from onnx.backend.test.case.node import collect_testcases

    np.random.seed(SEED)  # The tests use numpy's global generator.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    for test in found:
        inputs, outputs = test.data_sets[0]
        yield _case(test, test.model, list(inputs), list(outputs))


def _untested_operators() -> Iterator[Case]:
    """Operators without a test in the package."""
    random = np.random.default_rng(SEED)
    image = random.standard_normal((2, 3, 8, 6)).astype(np.float32)
    rois = np.array([[0, 0, 0, 3, 4], [1, 1, 2, 5, 7]], np.float32)
    for operator, inputs, shape, attributes in (
        ("GlobalLpPool", {"x": image}, (2, 3, 1, 1), {"p": 2}),
        ("GlobalLpPool", {"x": image}, (2, 3, 1, 1), {"p": 1}),
        ("MaxRoiPool", {"x": image, "rois": rois}, (2, 3, 2, 2), {"pooled_shape": (2, 2)}),
    ):
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            [helper.make_node(operator, list(inputs), ["y"], **attributes)],
            "test",
            [info(name, onnx.TensorProto.FLOAT, array.shape) for name, array in inputs.items()],
            [info("y", onnx.TensorProto.FLOAT, shape)],
        )
        opset = helper.make_opsetid("", 17)  # ONNX Runtime does not support newer versions of them.
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
        name = f"{operator.lower()}_{attributes.get('p', '2x2')}"
        yield Case(name, operator, "node", model, inputs, {}, 1e-3, 1e-7, is_computed=True)


def _stored_cases(kind: str) -> Iterator[Case]:
    from onnx.backend.test.loader import load_model_tests

    for test in sorted(load_model_tests(kind=kind), key=lambda test: test.name):
        if test.model_dir is None:
            yield _light_case(test)
            continue
        model = onnx.load(f"{test.model_dir}/model.onnx")
        data = Path(test.model_dir) / "test_data_set_0"
        inputs = [_read(data / f"input_{place}.pb", item)
                  for place, item in enumerate(model.graph.input)
                  if (data / f"input_{place}.pb").exists()]  # fmt: skip
        outputs = [_read(data / f"output_{place}.pb", item)
                   for place, item in enumerate(model.graph.output)]  # fmt: skip
        yield _case(test, model, inputs, outputs)


def _light_case(test: TestCase) -> Case:
    """A published network with weights computed by operators."""
    from onnx.backend.test.runner import Runner

    path = Path(onnx.__file__).parent.parent / test.url
    model = onnx.load(path)
    constants = {item.name for item in model.graph.initializer}
    inputs = [
        Runner.generate_dummy_data(item, seed=0, name=test.model_name, random=False)
        for item in model.graph.input
        if item.name not in constants
    ]
    outputs = [
        _read(path.with_name(f"{path.stem}_output_{place}.pb"), item)
        for place, item in enumerate(model.graph.output)
    ]
    return _case(test, model, inputs, outputs)


def _read(path: Path, item: onnx.ValueInfoProto) -> object:
    kind = item.type.WhichOneof("value")
    if kind != "tensor_type":
        return kind
    return numpy_helper.to_array(onnx.load_tensor(str(path)))


def _case(test: TestCase, model: onnx.ModelProto, inputs: list, outputs: list) -> Case:
    constants = {item.name for item in model.graph.initializer}
    names = [item.name for item in model.graph.input if item.name not in constants]
    if len(names) > len(inputs):
        names = names[: len(inputs)]
    return Case(
        name=test.name.removeprefix("test_"),
        operator=_operator(test.name, test.kind, model),
        kind=test.kind,
        model=model,
        inputs=dict(zip(names, map(_array, inputs), strict=False)),
        outputs=dict(
            zip((item.name for item in model.graph.output), map(_array, outputs), strict=False)
        ),
        rtol=test.rtol,
        atol=test.atol,
    )


def _array(value: object) -> object:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _operator(name: str, kind: str, model: onnx.ModelProto) -> str:
    """The operator that a node test covers; for networks the most frequent one."""
    operators = [node.op_type for node in model.graph.node]
    if kind == "node" and "_expanded" in name:
        # The expanded body of an operator; its value names start with the operator's name.
        outputs = [output for node in model.graph.node for output in node.output]
        functions = [output.split("_test_")[0] for output in outputs if "_test_" in output]
        operators = functions[:1] or operators
    return max(dict.fromkeys(operators), key=operators.count, default="")
