"""The conformance suite finds the faults that it must find."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from edgepipe_compiler.errors import CompileError
from edgepipe_compiler.frontend import importer, simplify
from edgepipe_compiler.frontend.graph import Graph

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from onnx_suite import __main__ as suite
from onnx_suite import cases, execute, judge, lists, mutate, older, operators, variants
from onnx_suite.cases import Case
from onnx_suite.execute import Finding
from onnx_suite.pool import Limits, Pool

LIMITS = Limits(20, 2 << 30)
CORPUS = Path(__file__).parent / "onnx_corpus"


def relu_case(**changes: object) -> Case:
    """y = relu(x), with the right outputs."""
    values = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 3, 4)
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="relu")],
        "g",
        [info("x", TensorProto.FLOAT, values.shape)],
        [info("y", TensorProto.FLOAT, values.shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    case = Case(
        "relu", "Relu", "node", model, {"x": values}, {"y": np.maximum(values, 0)}, 1e-3, 1e-7
    )
    return replace(case, **changes)


def result(case: Case) -> judge.Result:
    """The judged result of a case on the best instruction set."""
    isa = execute.isas()[0]
    pool = Pool(lambda job, folder: execute.run(job, isa, folder), lambda job: LIMITS, 1)
    ((_, finding, seconds),) = pool.run([case])
    return judge.judge(case, isa, finding, seconds)


def test_right_case_passes() -> None:
    found = result(relu_case())
    assert (found.outcome, found.reason) == (judge.RIGHT, "")
    assert [operators for _, operators in found.finding.units] == [["Relu"]]


def test_an_emulated_gpu(tmp_path: Path) -> None:
    finding = execute.run(relu_case(), execute.CUDA, tmp_path)
    assert (finding.finding, finding.message) == (execute.RIGHT, "")
    wrong = relu_case(outputs={"y": np.zeros((2, 3, 4), np.float32)})
    assert execute.run(wrong, execute.CUDA, tmp_path).finding == execute.WRONG_VALUE


def test_a_gpu_needs_a_driver(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEPIPE_TEST_LIBCUDA", "no such file")
    assert suite.main(["--target", "cuda", "--sample", "1"]) == 2
    assert "EDGEPIPE_TEST_LIBCUDA is 'no such file'; set it to" in capsys.readouterr().err
    assert suite.main(["--target", "cuda", "--isa", "generic"]) == 2
    assert "remove --isa" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("expected", "reason"),
    [
        (np.zeros((2, 3, 4), np.float32), "wrong value"),
        (np.zeros((2, 12), np.float32), "wrong shape"),
        (np.zeros((2, 3, 4), np.int64), "wrong dtype"),
    ],
)
def test_other_outputs_fail(expected: np.ndarray, reason: str) -> None:
    found = result(relu_case(outputs={"y": expected}))
    assert found.outcome == judge.FAILED
    assert found.reason.startswith(reason)


def test_planted_wrong_lowering_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(graph: Graph) -> None:
        simplify.simplify(graph)
        for node in graph.nodes:
            node.op = "Abs" if node.op == "Relu" else node.op

    monkeypatch.setattr(importer, "simplify", planted)
    found = result(relu_case())
    assert found.outcome == judge.FAILED
    assert found.reason.startswith("wrong value: output 'y': 12 of 24 values differ")


def refuse(kind: str, message: str, node: str | None = "relu") -> Callable[[Graph], None]:
    """A compiler step that refuses everything."""

    def refusing(graph: Graph) -> None:
        raise CompileError(kind, message, node)

    return refusing


GOOD = "failed to import the operator Relu: it is planted; replace it"


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (("unsupported_operator", GOOD), "refused although not on the list"),
        (("invalid_onnx", GOOD), "refused although valid"),
        (("unsupported_operator", "failed; do something", None), "refused without a name"),
        (
            ("unsupported_operator", "failed to import the operator Relu"),
            "refused without saying what",
        ),
        (("internal", GOOD), "traceback"),
        (("out_of_memory", GOOD), "memory limit"),
    ],
)
def test_unlisted_refusal_fails(
    refusal: tuple[str, ...], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "simplify", refuse(*refusal))
    found = result(relu_case())
    assert found.outcome == judge.FAILED
    assert found.reason.startswith(reason)


def test_listed_refusal_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "simplify", refuse("unsupported_operator", GOOD))
    monkeypatch.setitem(lists.REFUSED, "Relu", (("planted", lists.always),))
    found = result(relu_case())
    assert (found.outcome, found.reason) == (judge.REFUSED, "planted")
    monkeypatch.setitem(lists.REFUSED, "Relu", (("planted", lists.computed(1)),))
    assert result(relu_case()).outcome == judge.FAILED, "the condition of the entry is not met"


def crash() -> None:
    """Crashes as native code does."""
    os.kill(os.getpid(), signal.SIGSEGV)


def spin() -> None:
    """Runs forever."""
    while True:
        pass


def allocate() -> None:
    """Exceeds the memory limit."""
    np.ones(1 << 30)


def fail() -> None:
    """Raises an unexpected exception."""
    raise KeyError("nobody")


def print_traceback() -> None:
    """Continues after an error that it printed."""
    print("Traceback (most recent call last):\n  ...\nValueError: told", file=sys.stderr)


def end() -> None:
    """Exits without a result."""
    os._exit(7)


@pytest.mark.parametrize(
    ("work", "finding", "message"),
    [
        (crash, execute.CRASH, "SIGSEGV"),
        (end, execute.CRASH, "exit code 7"),
        (spin, execute.TIME, "no result after"),
        (allocate, execute.MEMORY, ""),
        (fail, execute.TRACEBACK, "KeyError"),
        (print_traceback, execute.BROKEN_RULE, "ValueError: told"),
    ],
)
def test_pool_survives(work: Callable[[], None], finding: str, message: str) -> None:
    """A case that ends its process is a failure, and the following cases still run."""

    def run(job: Callable[[], None], folder: Path) -> Finding:
        job()
        return Finding(execute.RIGHT)

    pool = Pool(run, lambda job: Limits(1, 1 << 30), 2)
    found = {job: made for job, made, _ in pool.run([work, time.time, work, time.time])}
    assert found[time.time].finding == execute.RIGHT
    assert found[work].finding == finding
    assert message in found[work].message
    assert judge.judge(relu_case(), "any", found[work], 0).outcome == judge.FAILED


@pytest.mark.parametrize(
    ("wanted", "given", "finding"),
    [
        (np.float32([np.nan, np.inf, 1]), np.float32([np.nan, np.inf, 1]), None),
        (np.float32([np.inf]), np.float32([-np.inf]), execute.WRONG_VALUE),
        (np.float32([np.inf]), np.float32([3e38]), execute.WRONG_VALUE),
        (np.float32([1]), np.float32([np.nan]), execute.WRONG_VALUE),
        (np.float32([1, 1e-7]), np.float32([1, 0]), None),
        (np.float32([1]), np.float32([1.01]), execute.WRONG_VALUE),
        (np.float32([1000, 0]), np.float32([1000, 0.1]), execute.WRONG_VALUE),
        (np.int64([1 << 60]), np.int64([(1 << 60) + 1]), execute.WRONG_VALUE),
        (np.bool_([True]), np.bool_([False]), execute.WRONG_VALUE),
        (np.bool_([True]), np.uint8([1]), execute.WRONG_DTYPE),
        (np.zeros((), np.float32), np.zeros(1, np.float32), execute.WRONG_SHAPE),
        (np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), None),
    ],
)
def test_compare(wanted: np.ndarray, given: np.ndarray, finding: str | None) -> None:
    found = execute.compare(wanted, given, 1e-3, 1e-7)
    assert (found.finding if found else None) == finding


@pytest.fixture(scope="module")
def shipped() -> list[Case]:
    return list(cases.shipped())


def test_every_version_of_every_operator_has_cases(shipped: list[Case]) -> None:
    """In all operator sets that the compiler reads, including older ones."""
    tested: dict[str, set[int]] = {}
    for case in (*shipped, *older.cases(shipped)):
        opset = next((item.version for item in case.model.opset_import if not item.domain), 0)
        for node in lists.nodes_of(case.model.graph):
            if not node.domain and opset:
                schema = onnx.defs.get_schema(node.op_type, opset, "")
                tested.setdefault(node.op_type, set()).add(schema.since_version)
    exempt = lists.RANDOM | lists.SEQUENCES
    schemas = onnx.defs.get_all_schemas()
    names = {schema.name for schema in schemas if not schema.domain and not schema.deprecated}
    missing = {
        (name, version)
        for name in names - exempt
        for version in older.versions(name)
        if version not in tested.get(name, set())
    }
    newer = {("GlobalLpPool", 22), ("MaxRoiPool", 22)}  # No other implementation supports these.
    assert missing == {("Loop", 1), *newer}
    assert len({case.title for case in shipped}) == len(shipped)


EVALUATED = ("add_bcast", "reshape_one_dim", "slice_neg", "resize_upsample_sizes_nearest", "where_example",
             "clip_example", "reduce_sum_keepdims_random", "constant_pad", "loop11", "if")  # fmt: skip


@pytest.mark.parametrize("name", EVALUATED)
def test_variants_compute_the_same(name: str, shipped: list[Case]) -> None:
    (case,) = (case for case in shipped if case.name == name)
    made = list(variants.of(case))
    assert made[0] is case
    assert len({variant.title for variant in made}) == len(made)
    for variant in made:
        onnx.checker.check_model(variant.model)
        given = ReferenceEvaluator(variant.model).run(None, variant.inputs)
        for wanted, array in zip(variant.outputs.values(), given, strict=True):
            assert execute.compare(np.asarray(wanted), array, 1e-3, 1e-6) is None
        assert [item.name for item in variant.model.graph.output] == list(variant.outputs)


def test_sample_is_repeatable_and_spread(shipped: list[Case]) -> None:
    first, again, other = (
        [case.title for case in suite.sample(shipped, 250, seed)] for seed in (3, 3, 4)
    )
    assert first == again != other
    by_title = {case.title: case for case in shipped}
    assert len({by_title[title].operator for title in first}) > 190


def test_table_of_operators_follows_the_results(tmp_path: Path) -> None:
    case, path = relu_case(), tmp_path / "operators.md"
    right = judge.judge(case, "avx2", Finding(execute.RIGHT, units=[("elementwise", ["Relu"])]), 0)
    operators.write([(case, right)], ["avx2"], path)
    assert "| Relu | 14 | rule |  |" in path.read_text(encoding="utf-8")
    assert operators.differences([(case, right)], path) == []
    slow = judge.judge(case, "avx2", Finding(execute.RIGHT, units=[("fallback", ["Relu"])]), 0)
    assert operators.differences([(case, slow)], path) == ["Relu: computed by fallback is missing"]


def test_mutants_repeat() -> None:
    models = [("relu", relu_case().model)]
    first, again = (list(mutate.mutants(models, 200, 5)) for _ in range(2))
    assert first == again
    assert len({mutant.content for mutant in first}) > 100


@pytest.mark.parametrize("file", sorted(CORPUS.glob("*.onnx")), ids=lambda file: file.stem)
def test_damaged_file_is_accepted_or_refused(file: Path) -> None:
    """Files that once caused a traceback, a crash, or a message without a remedy."""
    mutant = mutate.Mutant(file.stem, file.read_bytes(), (), True)
    ((_, finding, _),) = Pool(mutate.run, lambda job: job.limits, 1).run([mutant])
    assert not mutate.is_failure(finding), finding


def test_mutants_are_accepted_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert suite.main(["--kind", "node", "--mutate", "150", "--seed", "11"]) == 0, (
        capsys.readouterr()
    )


def test_folder_is_compared_with_another_implementation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(relu_case().model, tmp_path / "relu.onnx")
    assert suite.main(["--folder", str(tmp_path)]) == 0
    monkeypatch.setattr(importer, "simplify", refuse("internal", GOOD))
    assert suite.main(["--folder", str(tmp_path)]) == 1
    assert "`relu` [as-is]" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["-k", "no such case"],
        ["--isa", "sse1"],
        ["--jobs", "0"],
        ["--json", "/nowhere/file"],
        ["--folder", "/nowhere"],
        ["--nonsense"],
    ],
)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = suite.main(arguments)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert "error: " in capsys.readouterr().err
