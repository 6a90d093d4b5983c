"""The command line of the suite.

Exit codes: 0 every case is right, refused by name, or out of scope; 1 a case failed; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cuda_driver

from . import cases, execute, judge, mutate, older, operators, report, variants
from .cases import Case
from .pool import Limits, Pool

GIB = 1 << 30
OPERATOR_LIMITS = Limits(20, 2 * GIB)
LARGEST_MUTATED = 1 << 14
NETWORK_LIMITS = Limits(300, 6 * GIB)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the suite and returns the exit code."""
    options = _parser().parse_args(arguments)
    isas = execute.isas()
    wanted = isas[:1] if options.isa is None else options.isa
    unknown = [isa for isa in wanted if isa not in isas and isa != "all"]
    if unknown:
        print(f"error: this machine does not support {unknown[0]!r}; use one of {', '.join(isas)}",
              file=sys.stderr)  # fmt: skip
        return 2
    wanted = isas if "all" in wanted else wanted
    if options.target == execute.CUDA:
        wanted = [execute.CUDA]
        if options.isa or options.write_operators or options.check_operators:
            print("error: --target cuda has no instruction sets and no table of operators; remove "
                  "--isa, --write-operators and --check-operators", file=sys.stderr)  # fmt: skip
            return 2
        library = os.environ.get(cuda_driver.LIBRARY, "")
        if not Path(library).is_file():
            print(f"error: {cuda_driver.LIBRARY} is {library!r}; set it to the path of a libcuda.so.1, "
                  "such as target/release/libcuda.so after `cargo build --release -p cuda-standin`",
                  file=sys.stderr)  # fmt: skip
            return 2
    if options.folder is not None and not options.folder.is_dir():
        print(
            f"error: {options.folder} is not a folder; specify one with ONNX files", file=sys.stderr
        )
        return 2
    found = cases.folder(options.folder) if options.folder else _shipped()
    for path in (options.json, options.write_operators, options.keep):
        if path is not None and not path.absolute().parent.is_dir():
            print(
                f"error: folder {path.absolute().parent} does not exist; create it first",
                file=sys.stderr,
            )
            return 2
    selecting = options.k or options.operator or options.variant or options.sample or options.kind
    if options.write_operators is not None and (selecting or options.folder):
        print(
            "error: --write-operators needs all cases; remove the options that select cases",
            file=sys.stderr,
        )
        return 2
    if options.check_operators is not None and not options.check_operators.is_file():
        print(f"error: failed to read {options.check_operators}; create it with --write-operators",
              file=sys.stderr)  # fmt: skip
        return 2
    selected = _select(found, options)
    if not selected:
        print("error: no case matches; remove -k, --operator, --kind or --variant", file=sys.stderr)
        return 2
    jobs = [(case, isa) for case in selected for isa in wanted]
    # Otherwise the slow networks would be last, in one process.
    random.Random(0).shuffle(jobs)
    if options.mutate is not None:
        return _mutate(selected, options)
    judged = _run(jobs, options)
    results = [result for _, result in judged]
    print(report.summary(results))
    print(report.failures(results), end="")
    failed = sum(result.outcome == judge.FAILED for result in results)
    print(f"{len(results)} variants, {failed} failed")
    outdated = []
    if options.write_operators is not None:
        operators.write(judged, wanted, options.write_operators)
    elif options.check_operators is not None:
        outdated = operators.differences(judged, options.check_operators)
        for line in outdated:
            print(f"{options.check_operators} is outdated: {line}")
    return 1 if failed or outdated else 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "cargo xtask onnx-suite",
        description="Compiles and runs the tests that the onnx package ships, and compares the results.",
    )
    parser.add_argument("-k", metavar="TEXT", help="only cases whose name contains TEXT")
    parser.add_argument("--operator", metavar="NAME", action="append",
                        help="only cases of this operator")  # fmt: skip
    parser.add_argument("--variant", metavar="NAME", action="append",
                        help="only this variant: as-is, parameters, but-first, embedded")  # fmt: skip
    parser.add_argument("--kind", metavar="NAME", action="append",
                        help="only this kind: node, older (operator sets), simple, real (networks), "
                        "pytorch-operator, pytorch-converted")  # fmt: skip
    parser.add_argument("--isa", metavar="NAME", action="append",
                        help="instruction set: avx512, avx2, generic, neon, or all; "
                        "default: the best of this machine")  # fmt: skip
    parser.add_argument("--target", choices=["cpu", execute.CUDA], default="cpu",
                        help="run on this machine, or on a GPU through the CUDA driver library that "
                        "EDGEPIPE_TEST_LIBCUDA names; default: cpu")  # fmt: skip
    parser.add_argument("--sample", metavar="N", type=_positive,
                        help="only N variants, spread over operators")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample; default: 0")
    parser.add_argument("--folder", metavar="DIR", type=Path,
                        help="run the ONNX files below DIR and compare with ONNX Runtime")  # fmt: skip
    parser.add_argument("--mutate", metavar="N", type=_positive,
                        help="damage the models in N ways; each must be accepted or refused")  # fmt: skip
    parser.add_argument("--keep", metavar="DIR", type=Path,
                        help="with --mutate: write one file of each kind of failure to DIR")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all results to FILE")
    parser.add_argument("--write-operators", metavar="FILE", type=Path,
                        help="write the table of operators, from all cases")  # fmt: skip
    parser.add_argument("--check-operators", metavar="FILE", type=Path,
                        help="fail if the table differs from the results")  # fmt: skip
    parser.add_argument("--jobs", metavar="N", type=_positive, default=2,
                        help="parallel processes; default: 2")  # fmt: skip
    return parser


def _shipped() -> list[Case]:
    shipped = list(cases.shipped())
    return [*shipped, *older.cases(shipped)]


def _select(found: Iterable[Case], options: argparse.Namespace) -> list[Case]:
    selected = [
        variant
        for case in found
        if (options.k is None or options.k in case.name)
        and (options.operator is None or case.operator in options.operator)
        and (options.kind is None or case.kind in options.kind)
        for variant in variants.of(case)
        if options.variant is None or variant.variant in options.variant
    ]
    return sample(selected, options.sample, options.seed) if options.sample else selected


def sample(found: Sequence[Case], count: int, seed: int) -> list[Case]:
    """A seeded sample of ``count`` cases, round robin over operators, without networks."""
    order = random.Random(seed)
    by_operator: dict[str, list[Case]] = {}
    for case in found:
        if not case.is_network:
            by_operator.setdefault(case.operator, []).append(case)
    for alike in by_operator.values():
        order.shuffle(alike)
    operators = list(by_operator)
    order.shuffle(operators)

    def turns() -> Iterator[Case]:
        while any(by_operator.values()):
            for operator in operators:
                if by_operator[operator]:
                    yield by_operator[operator].pop()

    return [case for case, _ in zip(turns(), range(count), strict=False)]


def _run(
    jobs: Sequence[tuple[Case, str]], options: argparse.Namespace
) -> list[tuple[Case, judge.Result]]:
    _warm_up()
    pool = Pool(
        lambda job, folder: execute.run(job[0], job[1], folder),
        lambda job: NETWORK_LIMITS if _is_large(job[0]) else OPERATOR_LIMITS,
        options.jobs,
    )
    judged: list[tuple[Case, judge.Result]] = []
    failed = 0
    for (case, isa), finding, seconds in pool.run(jobs):
        judged.append((case, judge.judge(case, isa, finding, seconds)))
        failed += judged[-1][1].outcome == judge.FAILED
        is_last = len(judged) == len(jobs)
        if options.json is not None and (is_last or len(judged) % 100 == 0):
            report.write_json([result for _, result in judged], options.json)
        if len(judged) % 100 == 0:
            print(f"{len(judged)} of {len(jobs)}, {failed} failed", file=sys.stderr, flush=True)
    return judged


def _mutate(selected: Sequence[Case], options: argparse.Namespace) -> int:
    """Imports damaged models and prints one failure of each kind."""
    _warm_up()
    models = [
        (case.title, case.model) for case in selected if case.model.ByteSize() < LARGEST_MUTATED
    ]
    pool = Pool(mutate.run, lambda mutant: mutant.limits, options.jobs, mutate.BATCH)
    failures: dict[str, list[tuple[mutate.Mutant, execute.Finding]]] = {}
    counts: Counter[str] = Counter()
    for mutant, finding, _ in pool.run(mutate.mutants(models, options.mutate, options.seed)):
        counts[finding.finding] += 1
        if mutate.is_failure(finding):
            failures.setdefault(mutate.signature(finding), []).append((mutant, finding))
    print(", ".join(f"{count} {name}" for name, count in counts.most_common()))
    for alike in sorted(failures.values(), key=len, reverse=True):
        mutant, finding = min(alike, key=lambda item: (len(item[0].steps), len(item[0].content)))
        message = " ".join(finding.message.split())
        print(
            f"\n{len(alike)} times {finding.finding} ({finding.step or 'process'}): {message[:400]}"
        )
        print(f"  {mutant.name}: {'; '.join(mutant.steps)}")
        if options.keep is not None:
            options.keep.mkdir(parents=True, exist_ok=True)
            name = re.sub(r"\W+", "_", mutant.name).strip("_")
            (options.keep / f"{name}.onnx").write_bytes(mutant.content)
    total = sum(map(len, failures.values()))
    print(
        f"{counts.total()} mutants of seed {options.seed}, {total} failed in {len(failures)} ways"
    )
    return 1 if failures else 0


def _is_large(case: Case) -> bool:
    return case.is_network or case.file is not None


def _warm_up() -> None:
    """Imports TVM once, before processes are forked."""
    import tvm  # noqa: F401

    from edgepipe_compiler import lowering  # noqa: F401
    from edgepipe_compiler.frontend import importer, units  # noqa: F401
    from edgepipe_compiler.linking import library, manifest  # noqa: F401


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, Pool.interrupt)
    try:
        sys.exit(main())
    except OSError as error:
        print(f"error: failed to access {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
