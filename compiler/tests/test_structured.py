"""Decomposed operators: whole and cut, compared with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

import models_branches
import models_decomposed
import models_recurrent
import models_resized
from compiled import TARGETS, Compiled, boundaries
from operator_net import Model

MODELS: dict[str, Model] = {
    **models_branches.MODELS,
    **models_decomposed.MODELS,
    **models_recurrent.MODELS,
    **models_resized.MODELS,
}
# Models that ONNX Runtime does not support.
REFERENCE: dict[str, Model] = {**models_decomposed.REFERENCE, **models_resized.REFERENCE}
# Limit of tested cuts per network.
CUTS = 4


def expected(model: onnx.ModelProto, feeds: dict[str, np.ndarray], judge: str) -> list[np.ndarray]:
    """Outputs of ONNX Runtime without optimizations, or of ONNX's evaluator."""
    if judge == "reference":
        return ReferenceEvaluator(model).run(None, feeds)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def feeds_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    given = {item.name for item in model.graph.initializer}
    feeds = {}
    for item in model.graph.input:
        if item.name not in given:
            kind = onnx.helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type)
            shape = [dim.dim_value for dim in item.type.tensor_type.shape.dim]
            feeds[item.name] = random.standard_normal(shape).astype(kind)
    return feeds


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_structured(name: str, kind: str, tmp_path: Path) -> None:
    own = name.startswith(("resize", "upsample", "lstm", "gru", "rnn")) and kind == "cpu"
    check(MODELS[name](), tmp_path, falls_back=not own, kind=kind)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", REFERENCE)
def test_against_the_reference(name: str, kind: str, tmp_path: Path) -> None:
    check(REFERENCE[name](), tmp_path, "reference", kind=kind)


def check(
    model: onnx.ModelProto,
    folder: Path,
    judge: str = "onnxruntime",
    falls_back: bool = True,
    kind: str = "cpu",
) -> Compiled:
    feeds = feeds_of(model)
    names = [item.name for item in model.graph.output]
    wanted = dict(zip(names, expected(model, feeds, judge), strict=True))
    compiled = Compiled(model, folder, TARGETS[kind])
    assert "fallback" not in {unit.rule for unit in compiled.network.units} or falls_back
    cuts = range(1, len(compiled.units))
    tried = [(cut,) for cut in list(cuts)[:: max(1, len(cuts) // CUTS)]]
    cut = [(places, boundary) for places in tried for boundary in boundaries(TARGETS[kind])]
    for places, boundary in [((), "plain"), *cut]:
        given = compiled.run(places, boundary, feeds)
        for output, array in wanted.items():
            assert given[output].shape == array.shape, output
            assert given[output].dtype == array.dtype
            assert np.array_equal(np.isnan(given[output]), np.isnan(array))
            worst = np.nanmax(np.abs(given[output] - array), initial=0.0)
            bound = 1e-4 * np.nanmax(np.abs(array), initial=0.0) + 1e-6
            assert worst < bound, f"{output} differs by {worst}; cuts {places} {boundary}"
    return compiled


@pytest.mark.parametrize("name", models_recurrent.BATCH_FIRST)
def test_batch_first(name: str, tmp_path: Path) -> None:
    """Layout 1 gives the transposed outputs of layout 0."""
    given, same = models_recurrent.batch_first(*models_recurrent.BATCH_FIRST[name])
    feeds = feeds_of(given)
    (x,) = feeds
    for item in same.graph.initializer:
        if item.name in ("tensor0", "tensor1") and item.dims[1] == 2:
            item.CopyFrom(onnx.numpy_helper.from_array(initial_of(given, item.name), item.name))
    wanted = expected(same, {x: feeds[x].transpose(1, 0, 2)}, "onnxruntime")
    compiled = Compiled(given, tmp_path)
    made = compiled.run((), "plain", feeds)
    for array, expectation in zip(made.values(), wanted, strict=True):
        order = (2, 0, 1, 3) if expectation.ndim == 4 else (1, 0, 2)
        assert np.abs(array - expectation.transpose(order)).max() < 1e-4


def initial_of(model: onnx.ModelProto, name: str) -> np.ndarray:
    """An initial state of layout 1 in layout 0."""
    (item,) = [item for item in model.graph.initializer if item.name == name]
    return onnx.numpy_helper.to_array(item).transpose(1, 0, 2)
