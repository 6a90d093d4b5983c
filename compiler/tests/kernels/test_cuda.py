"""The cases of the CPU's operators and rules on an emulated GPU, each value in memory of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from compiled import GPU, Compiled, graph_of
from kernels import lowered, test_operators, test_rules

# Their results are defined by the processor: x86 gives the lowest integer for every number out of range.
OUT_OF_RANGE = [f"Cast special {kind}" for kind in (TensorProto.INT32, TensorProto.UINT8)]


@pytest.mark.parametrize(
    "name", [name for name in test_operators.CASES if name not in OUT_OF_RANGE]
)
def test_operator(name: str, tmp_path: Path) -> None:
    tried = test_operators.CASES[name]
    compiled = Compiled(graph_of(tried.model()), tmp_path, GPU)
    made = compiled.run((), "plain", tried.inputs())
    test_operators.compare(list(made.values()), test_operators.expected(tried))


def test_floats_out_of_range_become_the_nearest_integer(tmp_path: Path) -> None:
    """As on ARM processors; NaN becomes 0."""
    to = helper.np_dtype_to_tensor_dtype(np.dtype("int32"))
    values = np.array([np.inf, -np.inf, np.nan, 3e9, -3e9, 2.9, -2.9], np.float32)
    tried = test_operators.case("Cast", values, to=to)
    compiled = Compiled(graph_of(tried.model()), tmp_path, GPU)
    (made,) = compiled.run((), "plain", tried.inputs()).values()
    low, high = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    assert made.tolist() == [high, low, 0, high, low, 2, -2]


@pytest.mark.parametrize("name", test_rules.CASES)
def test_rule(name: str, tmp_path: Path) -> None:
    model = test_rules.build(name)
    inputs = lowered.inputs_of(model)
    expected = ReferenceEvaluator(model).run(None, inputs)
    made = Compiled(graph_of(model), tmp_path, GPU).run((), "plain", inputs)
    lowered.compare(list(made.values()), expected)
