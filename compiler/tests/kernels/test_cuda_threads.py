"""Loops become threads only if no two iterations access the same element of what is written."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from tvm import te, tirx

import cuda_driver
from edgepipe_compiler.kernels.cuda import device_math, ptx, threads
from edgepipe_compiler.kernels.writer import Writer

Body = Callable[[Writer, tirx.Buffer, tirx.Buffer], None]


def nest(w: Writer, source: tirx.Buffer, out: tirx.Buffer) -> None:
    with w.loop("i", 6) as i, w.loop("j", 4) as j:
        w.store(out, source[i * 4 + j], [j * 6 + i])


def sum_of_rows(w: Writer, source: tirx.Buffer, out: tirx.Buffer) -> None:
    with w.loop("i", 6) as i:
        w.store(out, tirx.const(0.0, "float32"), [i])
        with w.loop("j", 4) as j:
            w.store(out, out[i] + source[i * 4 + j], [i])


def running_sum(w: Writer, source: tirx.Buffer, out: tirx.Buffer) -> None:
    w.store(out, source[0], [0])
    with w.loop("i", 23, 1) as i:
        w.store(out, out[i - 1] + source[i], [i])


def overlapping(w: Writer, source: tirx.Buffer, out: tirx.Buffer) -> None:
    with w.loop("i", 6) as i, w.loop("j", 4) as j:
        w.store(out, source[i * 4 + j], [i + j])


def pairs(w: Writer, source: tirx.Buffer, out: tirx.Buffer) -> None:
    with w.loop("i", 12) as i:
        w.store(out, source[i * 2 + 1], [i * 2])
        w.store(out, source[i * 2], [i * 2 + 1])


def neighbours(w: Writer, source: tirx.Buffer, out: tirx.Buffer) -> None:
    with w.loop("i", 12) as i:
        w.store(out, source[i], [i])
        w.store(out, source[i + 12], [i + 1])


def indexed(w: Writer, source: tirx.Buffer, out: tirx.Buffer) -> None:
    with w.loop("i", 24) as i:
        w.store(out, source[i], [source[i].astype("int32")])


def variable_outside(w: Writer, source: tirx.Buffer, out: tirx.Buffer) -> None:
    with w.loop("i", 6) as i:
        held = w.local("held", 1)
        w.store(held, tirx.const(0.0, "float32"), [0])
        with w.loop("j", 4) as j:
            w.store(held, held[0] + source[i * 4 + j], [0])
            w.store(out, held[0], [i * 4 + j])


def guarded(w: Writer, source: tirx.Buffer, out: tirx.Buffer) -> None:
    with w.loop("i", 6) as i, w.when(i > 1), w.loop("j", 4) as j:
        w.store(out, source[i * 4 + j], [i * 4 + j])


def marked(w: Writer, source: tirx.Buffer, out: tirx.Buffer) -> None:
    """The compiler's rules know that their tasks are independent."""
    with w.loop("i", 24, parallel=True) as i:
        w.store(out, source[i], [i // 4 * 4 + i % 4])


def exchanged_rows(w: Writer, source: tirx.Buffer, out: tirx.Buffer) -> None:
    with w.loop("i", 6, parallel=True) as i, w.loop("j", 4) as j:
        w.store(out, source[i * 4 + j], [(i // 2 * 2 + 1 - i % 2) * 4 + j])


def exchanged_elements(w: Writer, source: tirx.Buffer, out: tirx.Buffer) -> None:
    with w.loop("i", 6, parallel=True) as i, w.loop("j", 4) as j:
        w.store(out, source[i * 4 + j], [i * 4 + j // 2 * 2 + 1 - j % 2])


CASES: dict[str, tuple[Body, int]] = {
    "exchanged rows": (exchanged_rows, 24),
    "exchanged elements": (exchanged_elements, 6),
    "nest": (nest, 24),
    "sum of rows": (sum_of_rows, 6),
    "running sum": (running_sum, 1),
    "overlapping": (overlapping, 1),
    "pairs": (pairs, 12),
    "neighbours": (neighbours, 1),
    "indexed": (indexed, 1),
    "variable outside": (variable_outside, 6),
    "guarded": (guarded, 24),
    "marked": (marked, 24),
}


def kernels_of(body: Body) -> list[threads.Part]:
    source, out = (tirx.decl_buffer((24,), "float32", name) for name in ("source", "out"))
    w = Writer()
    body(w, source, out)
    return threads.split(w.function([source, out])).kernels


@pytest.mark.parametrize("name", CASES)
def test_iterations_that_become_threads(name: str) -> None:
    body, count = CASES[name]
    kernel = kernels_of(body)[-1]
    launch = ptx.build({"kernel": kernel.function}, "sm_62").launches["kernel"]
    wanted = 32 if count > 1 else 1
    assert (launch.grid, launch.block) == ((1, 1, 1), (wanted, 1, 1))
    assert f"< {count}" in kernel.function.script() or count == 1
    assert [buffer.name for buffer in kernel.read] == ["source"]
    assert [buffer.name for buffer in kernel.written] == ["out"]


def test_operators_of_one_function_become_kernels_with_a_value_between() -> None:
    source = te.placeholder((8, 300), "float32", name="source")
    axis = te.reduce_axis((0, 300))
    total = te.compute((8,), lambda i: te.sum(source[i, axis], axis=axis), name="total")
    out = te.compute((8, 300), lambda i, j: source[i, j] / total[i], name="out")
    parts = threads.split(te.create_prim_func([source, out]))
    assert [buffer.name for buffer in parts.intermediate] == ["total"]
    assert [[buffer.name for buffer in kernel.written] for kernel in parts.kernels] == [
        ["total"],
        ["out"],
    ]
    assert [kernel.has_loops for kernel in parts.kernels] == [True, False]


# Functions with their domain, and what is expected of them. Sine and its like are judged absolutely.
FUNCTIONS: dict[str, tuple[float, float, Callable[[float], float]]] = {
    "exp": (-700, 700, math.exp), "exp2": (-1000, 1000, math.exp2),
    "exp10": (-300, 300, lambda x: 10.0**x), "expm1": (-3, 3, math.expm1),
    "log": (1e-300, 1e3, math.log), "log2": (1e-300, 1e3, math.log2),
    "log10": (1e-300, 1e3, math.log10), "log1p": (-0.9, 9, math.log1p), "sin": (-1e3, 1e3, math.sin),
    "cos": (-1e3, 1e3, math.cos), "tan": (-1.5, 1.5, math.tan), "asin": (-1, 1, math.asin),
    "acos": (-1, 1, math.acos), "atan": (-30, 30, math.atan), "sinh": (-600, 600, math.sinh),
    "cosh": (-600, 600, math.cosh), "tanh": (-9, 9, math.tanh), "asinh": (-99, 99, math.asinh),
    "acosh": (1, 99, math.acosh), "atanh": (-0.99, 0.99, math.atanh), "erf": (-7, 7, math.erf),
    "rsqrt": (1e-9, 1e9, lambda x: 1 / math.sqrt(x)), "nearbyint": (-99, 99, round),
}  # fmt: skip
PAIRS: dict[str, Callable[[float, float], float]] = {
    "pow": lambda x, y: math.pow(abs(x), y), "atan2": math.atan2, "fmod": math.fmod,
    "hypot": math.hypot, "copysign": math.copysign,
}  # fmt: skip


def computed(name: str, operands: list[np.ndarray]) -> np.ndarray:
    """A function of the device, for each element."""
    kind, count = operands[0].dtype.name, operands[0].size
    full = name if kind == "float64" else f"{name}f"
    sources = [te.placeholder((count,), kind, name=f"x{place}") for place in range(len(operands))]
    result = te.compute(
        (count,), lambda i: tirx.call_pure_extern(kind, full, *(source[i] for source in sources))
    )
    (part,) = threads.split(te.create_prim_func([*sources, result])).kernels
    module = ptx.build({"kernel": part.function}, "sm_62")
    launch = module.launches["kernel"]
    values = [{"name": str(at), "bytes": operands[0].nbytes} for at in range(len(operands) + 1)]
    plan = {
        "ptx": module.ptx, "values": values, "weights": [],
        "inputs": list(range(len(operands))), "outputs": [len(operands)],
        "launches": [{"kernel": "kernel", "grid": launch.grid, "block": launch.block,
                      "arguments": [{"value": place} for place in launch.order]}],
    }  # fmt: skip
    made = np.empty(count, kind)
    program = cuda_driver.Program(
        cuda_driver.standin(True), plan, np.empty(0, np.uint8), apart=True
    )
    program.run(operands, [made])
    return made


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("name", [*FUNCTIONS, *PAIRS])
def test_functions_of_the_device(name: str, kind: str) -> None:
    random = np.random.default_rng(1)
    if name in FUNCTIONS:
        low, high, function = FUNCTIONS[name]
        bound = 80 if kind == "float32" and name.startswith(("exp", "sinh", "cosh")) else math.inf
        low, high = max(low, -bound if name != "exp10" else -30), min(high, bound)
        high = min(high, 30) if name == "exp10" and kind == "float32" else high
        low = max(low, 1e-30) if kind == "float32" and name.startswith("log") and low > 0 else low
        operands = [random.uniform(low, high, 999).astype(kind)]
    else:
        function = PAIRS[name]
        operands = [random.uniform(-9, 9, 999).astype(kind) for _ in range(2)]
        operands[0] = np.abs(operands[0]) if name == "pow" else operands[0]
    made = computed(name, operands).astype(np.float64)
    wanted = np.array([function(*map(float, row)) for row in zip(*operands, strict=True)])
    bound = 2e-7 if kind == "float32" else 1e-12
    assert (np.abs(made - wanted) <= bound * np.maximum(np.abs(wanted), 1e-30)).all() or (
        name in ("sin", "cos", "fmod") and np.abs(made - wanted).max() <= 2 * bound
    )


def test_every_function_of_the_device_is_tested() -> None:
    assert set(FUNCTIONS) | set(PAIRS) == set(device_math.FUNCTIONS)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("exp", {math.inf: math.inf, -math.inf: 0.0, 800.0: math.inf, -800.0: 0.0}),
        ("log", {0.0: -math.inf, -1.0: math.nan, math.inf: math.inf, 5e-324: math.log(5e-324)}),
        ("tanh", {math.inf: 1.0, -math.inf: -1.0}),
        ("erf", {math.inf: 1.0, -math.inf: -1.0}),
        ("sin", {math.inf: math.nan}),
        ("asin", {2.0: math.nan}),
        ("acosh", {0.5: math.nan, -3.0: math.nan}),
        ("atanh", {1.0: math.inf, 2.0: math.nan}),
    ],
)
def test_ends_of_a_domain(name: str, values: dict[float, float]) -> None:
    given = np.array([*values, math.nan], np.float64)
    wanted = np.array([*values.values(), math.nan])
    made = computed(name, [given])
    np.testing.assert_allclose(made, wanted, rtol=1e-13, equal_nan=True)


def test_powers() -> None:
    """Integer powers are exact; the special cases are those of C."""
    rows = [
        (2.0, 10.0, 1024.0), (-3.0, 3.0, -27.0), (3.0, -1.0, 1 / 3), (0.0, 0.0, 1.0), (-2.0, 0.5, math.nan),
        (0.0, -1.0, math.inf), (math.nan, 0.0, 1.0), (1.0, math.nan, 1.0), (-1.0, math.inf, 1.0),
        (-math.inf, 3.0, -math.inf), (0.5, math.inf, 0.0), (2.0, math.inf, math.inf),
    ]  # fmt: skip
    base, exponent, wanted = (np.array(column) for column in zip(*rows, strict=True))
    np.testing.assert_array_equal(computed("pow", [base, exponent]), wanted)
