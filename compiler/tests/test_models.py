"""The test models are valid themselves."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import models_combined
import models_operators
from operator_net import Model

ALL = {**models_operators.MODELS, **models_combined.MODELS}


def check(name: str, build: Model) -> None:
    """Valid, static, reproducible, with finite and varied outputs."""
    model = build()
    onnx.checker.check_model(model, full_check=True)
    assert model.SerializeToString(deterministic=True) == build().SerializeToString(
        deterministic=True
    )
    for output in model.graph.output:
        dims = output.type.tensor_type.shape.dim
        assert dims and all(dim.dim_value > 0 for dim in dims), output
    if name in models_operators.REFERENCE_DEPARTS:
        return
    random = np.random.default_rng(7)
    frames = {
        item.name: random.standard_normal([d.dim_value for d in item.type.tensor_type.shape.dim])
        for item in model.graph.input
    }
    frames = {name: frame.astype(np.float32) for name, frame in frames.items()}
    results = ReferenceEvaluator(model).run(None, frames)
    for output, values in zip(model.graph.output, results, strict=True):
        dims = [dim.dim_value for dim in output.type.tensor_type.shape.dim]
        assert list(values.shape) == dims, output.name
        assert np.isfinite(values).all()
        assert values.std() > 1e-4


@pytest.mark.parametrize("name", ALL)
def test_model(name: str) -> None:
    check(name, ALL[name])


def test_names_do_not_clash() -> None:
    assert not set(models_operators.MODELS) & set(models_combined.MODELS)
    assert set(ALL) >= models_operators.REFERENCE_DEPARTS
