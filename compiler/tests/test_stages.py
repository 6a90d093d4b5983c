"""Whole and cut networks, compared with ONNX's reference evaluator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

import models
from compiled import Compiled
from edgepipe_compiler.linking import stage
from edgepipe_compiler.linking.stage import StageRange


@pytest.fixture(scope="module", params=models.ALL)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Compiled, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A compiled network, its inputs, and its expected outputs."""
    model = models.ALL[request.param]()
    feeds = models.feeds(model)
    names = [item.name for item in model.graph.output]
    expected = dict(zip(names, ReferenceEvaluator(model).run(None, feeds), strict=True))
    return Compiled(model, tmp_path_factory.mktemp(request.param)), feeds, expected


def check(
    case: tuple[Compiled, dict[str, np.ndarray], dict[str, np.ndarray]],
    cuts: tuple[int, ...],
    boundary: str | tuple[str, ...],
) -> None:
    """Runs the network cut at ``cuts`` and compares every output, relative to its largest element."""
    compiled, feeds, expected = case
    given = compiled.run(cuts, boundary, feeds)
    assert list(given) == list(expected)
    for name, array in expected.items():
        assert given[name].shape == array.shape
        worst = np.abs(given[name] - array).max() / np.abs(array).max()
        assert worst < 1e-4, f"{name} with cuts {cuts} {boundary}"


def test_whole(case: tuple) -> None:
    check(case, (), "plain")


@pytest.mark.parametrize("boundary", stage.BOUNDARIES)
def test_every_cut(case: tuple, boundary: str) -> None:
    for cut in range(1, len(case[0].units)):
        check(case, (cut,), boundary)


@pytest.mark.parametrize("boundary", stage.BOUNDARIES)
def test_three_stages(case: tuple, boundary: str) -> None:
    count = len(case[0].units)
    check(case, (count // 3, 2 * count // 3), boundary)


# In `many_ends` and `long_skip` one value crosses every cut, so it would need one layout at both.
@pytest.mark.parametrize(
    "case", sorted(models.ALL.keys() - {"many_ends", "long_skip"}), indirect=True
)
def test_a_packed_cut_beside_a_plain_one(case: tuple) -> None:
    compiled = case[0]
    alive = stage.alive(compiled.graph, compiled.units)
    cuts = range(1, len(compiled.units))
    pairs = [(a, b) for a in cuts for b in cuts if a < b and not set(alive[a]) & set(alive[b])]
    assert pairs
    for pair in pairs[:: max(1, len(pairs) // 3)]:
        check(case, pair, ("plain-packed", "packed-plain", "plain"))
        check(case, pair, ("plain", "plain-packed", "packed-plain"))


def test_calls_are_what_the_machine_makes(case: tuple) -> None:
    """The instrument hook of the virtual machine sees the planned calls, in order."""
    compiled, feeds, _ = case
    planned, machine = compiled.stage(StageRange(0, len(compiled.units), "plain"))
    seen: list[str] = []

    def instrument(function: object, name: str, before: bool, result: object, *_: object) -> None:
        if before and not name.startswith("vm.builtin."):
            seen.append(name)

    machine.set_instrument(instrument)
    machine["main"](*compiled.arguments(planned, feeds_as_tensors(feeds)))
    machine.set_instrument(lambda *_: None)
    assert seen == [step.function for step in planned.steps]
    assert [step.unit for step in planned.steps] == sorted(step.unit for step in planned.steps)


def test_outputs_are_allocated_anew(case: tuple) -> None:
    """A caller may keep an output while the stage runs again."""
    compiled, feeds, _ = case
    planned, machine = compiled.stage(StageRange(0, len(compiled.units), "plain"))
    arguments = compiled.arguments(planned, feeds_as_tensors(feeds))
    other = {name: array + 1 for name, array in feeds.items()}
    first = machine["main"](*arguments)
    kept = first if len(planned.outputs) == 1 else first[0]
    before = kept.numpy().copy()
    machine["main"](*compiled.arguments(planned, feeds_as_tensors(other)))
    assert np.array_equal(kept.numpy(), before)


def test_kernels_are_the_same_in_partial_stages(case: tuple) -> None:
    """The profile of the whole network predicts its stages: the same functions, except conversions."""
    compiled, _, _ = case
    count = len(compiled.units)
    whole, _ = compiled.stage(StageRange(0, count, "plain"))
    for boundary in stage.BOUNDARIES:
        for first in range(count):
            part = stage.plan(compiled.network, compiled.units, StageRange(first, count, boundary))
            kernels = [
                step for step in part.steps if not step.function.startswith(("pack_", "unpack_"))
            ]
            same = [
                step
                for step in whole.steps
                if step.unit >= first and not step.function.startswith(("pack_", "unpack_"))
            ]
            assert kernels == same


def feeds_as_tensors(feeds: dict[str, np.ndarray]) -> dict[str, object]:
    import tvm

    return {name: tvm.runtime.tensor(array) for name, array in feeds.items()}


def test_storage_is_shared_inside_a_stage(tmp_path: Path) -> None:
    """Four convolutions in a row need two intermediate tensors at a time, not four."""
    compiled = Compiled(models.long_skip(), tmp_path)
    planned, machine = compiled.stage(StageRange(1, 4, "packed"))
    allocated: list[str] = []

    def instrument(function: object, name: str, before: bool, result: object, *_: object) -> None:
        if before:
            allocated.append(name)

    machine.set_instrument(instrument)
    tensors = {
        value.name: feeds_as_tensors({"x": np.zeros(value.shape, np.float32)})["x"]
        for value in planned.inputs
    }
    machine["main"](*compiled.arguments(planned, tensors))
    # Two intermediate results at a time, and the output.
    assert allocated.count("vm.builtin.alloc_storage") <= 3
    checks = [name for name in allocated if name == "vm.builtin.check_tensor_info"]
    assert len(checks) == len(planned.inputs), "weights are not checked anew for every frame"
