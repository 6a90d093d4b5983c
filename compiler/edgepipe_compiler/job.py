"""A job: the network to compile, the target, the stages, and the output folder."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import onnx

from . import events, lowering, zoo
from .errors import CompileError
from .frontend import importer, onnx_file, reference, units
from .frontend.graph import Graph
from .frontend.units import Unit
from .kernels.layout import PLAIN
from .kernels.target import CUDA_LIMITS, LANES, PRECISIONS, CpuTarget, CudaTarget, Target
from .linking import stage
from .linking.artifacts import Artifacts, sha256, text_of, write_atomically
from .linking.stage import StageRange
from .lowering import LoweredNetwork
from .weights import WeightsFile

SCHEMA = 1
LIBRARY, LAUNCH_PLAN = "stage.so", "stage.cuda.json"


@dataclass(frozen=True)
class Job:
    """Content of a job file. Each of ``stages`` is (first unit, end unit or None for the last, boundary)."""

    name: str
    source: dict[str, Any]
    target: Target
    linker: list[str]
    stages: list[tuple[int, int | None, str]]
    out: Path
    model: bool = False  # Whether to write the network as an ONNX file as well.


def read(path: Path) -> Job:
    """Reads a job file. Raises ``CompileError`` of kind ``internal`` if it is invalid."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["schema"] != SCHEMA:
            raise ValueError(f"unsupported schema {raw['schema']}, expected {SCHEMA}")
        network, target = dict(raw["network"]), dict(raw["target"])
        linker = target.pop("linker", ["cc"])
        name = network.pop("name")
        if set(network) not in ({"zoo"}, {"onnx"}, {"onnx", "shapes"}):
            raise ValueError(f"invalid network {network}, expected name and either zoo or onnx")
        stages = [
            (entry["first_unit"], entry["end_unit"], entry["boundary"]) for entry in raw["stages"]
        ]
        boundaries = {boundary for _, _, boundary in stages}
        if target["kind"] == "cuda" and boundaries - {PLAIN}:
            raise ValueError(f"boundaries {sorted(boundaries)} on a GPU, expected {PLAIN}")
        out, model = Path(raw["out"]), bool(raw.get("model", False))
        return Job(name, network, _target(target), linker, stages, out, model)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CompileError(
            "internal",
            f"failed to read the job {path}: {type(error).__name__}: {error}; report this bug",
        ) from error


def _target(target: dict[str, Any]) -> Target:
    """The target of a job file. Raises ``ValueError`` if it is invalid."""
    kinds: dict[str, type[CpuTarget] | type[CudaTarget]] = {"cpu": CpuTarget, "cuda": CudaTarget}
    if target["kind"] not in kinds:
        raise ValueError(f"unknown processor kind {target['kind']!r}, expected cpu or cuda")
    kind = kinds[target["kind"]]
    wanted = {field.name for field in fields(kind)}
    if set(target) != wanted or target.get("isa", "generic") not in LANES:
        raise ValueError(f"invalid target {target}, expected {', '.join(sorted(wanted))}")
    if kind is CudaTarget and target["arch"] not in CUDA_LIMITS:
        raise ValueError(
            f"unknown GPU architecture {target['arch']!r}, expected {', '.join(CUDA_LIMITS)}"
        )
    if kind is CudaTarget and target["precision"] not in PRECISIONS:
        raise ValueError(
            f"unknown precision {target['precision']!r}, expected {', '.join(PRECISIONS)}"
        )
    if not isinstance(target["winograd"], bool):
        raise ValueError(f"invalid winograd {target['winograd']!r}, expected true or false")
    return kind(**target)


def run(job: Job) -> None:
    """Compiles what the job asks for and is not in the output folder yet."""
    artifacts = Artifacts(job.out)
    source = _source(job)
    known = artifacts.known_network(job.name, source, SCHEMA)
    if known is not None and not _missing(job, artifacts, source, len(known["units"])):
        if job.model and not artifacts.model.is_file():
            _import(job, artifacts)
        return
    artifacts.prepare()
    events.progress("import", 0, 1)
    graph, held_against = _import(job, artifacts)
    network_units = units.form(graph)
    events.progress("import", 1, 1)
    # Lowering drops constants, so the description is made first.
    from .linking import manifest

    described = manifest.network(graph, network_units, source, held_against)
    missing = _missing(job, artifacts, source, len(network_units))
    if missing:
        _compile(job, artifacts, graph, network_units, source, missing)
    artifacts.write_network(described)


def _source(job: Job) -> dict[str, Any]:
    """Identifies the network: a zoo name, or a file with the hash of its content."""
    if "zoo" in job.source:
        return job.source
    path = Path(job.source["onnx"])
    content = sha256(path) if path.is_file() else ""
    return {"onnx": str(path), "sha256": content, "shapes": job.source.get("shapes", {})}


def _missing(
    job: Job, artifacts: Artifacts, source: dict[str, Any], count: int
) -> list[StageRange]:
    """The stages of the job that are not in the output folder."""
    wanted = [stage.resolve(first, end, boundary, count) for first, end, boundary in job.stages]
    same = {"schema": SCHEMA, "network": job.name, "source": source, "target": asdict(job.target)}
    return [item for item in dict.fromkeys(wanted) if not artifacts.has_stage(item, same)]


def _import(job: Job, artifacts: Artifacts) -> tuple[Graph, dict[str, Any]]:
    """Imports the network and computes its reference.

    Writes the ONNX file with fixed shapes if the job asks for it. One that an earlier job asked
    for stays.
    """
    is_kept = job.model or artifacts.model.is_file()
    shapes = job.source.get("shapes")
    if "zoo" in job.source:
        model = zoo.build(job.source["zoo"])
    else:
        model = onnx_file.load(Path(job.source["onnx"]))
    # Both use the prepared model: old operator sets are converted, functions are inlined.
    model = onnx_file.prepare(model, job.name)
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    graph = importer.from_model(model, job.name, shapes)
    del model
    reference.fix_inputs(whole, graph)
    artifacts.write_model(onnx_file.content_of(whole, job.name))
    del whole
    held_against = reference.make(graph, artifacts.model, artifacts.reference)
    if not is_kept:
        artifacts.model.unlink()
    return graph, held_against


def _compile(
    job: Job,
    artifacts: Artifacts,
    graph: Graph,
    network_units: list[Unit],
    source: dict[str, Any],
    missing: list[StageRange],
) -> None:
    from .linking import manifest

    lower_progress = functools.partial(events.progress, "lower")
    with WeightsFile(artifacts.weights) as weights:
        network = lowering.lower(graph, network_units, job.target, weights, lower_progress)
    planned = [stage.plan(network, network_units, item) for item in missing]
    build = _builder(job, artifacts, network)
    for done, plan in enumerate(planned):
        with artifacts.new_stage(plan.range) as folder:
            path = build(plan, folder)
            described: dict[str, Any] = manifest.stage(
                plan, network, network_units, source, path.name, sha256(path)
            )
            write_atomically(folder / "stage.json", text_of(described))
        events.progress("link", done + 1, len(planned))


def _builder(
    job: Job, artifacts: Artifacts, network: LoweredNetwork
) -> Callable[[stage.Stage, Path], Path]:
    """A function that writes the program of a stage to a folder and returns its path."""
    progress = functools.partial(events.progress, "kernels")
    functions, target = network.functions.by_name, job.target
    if isinstance(target, CudaTarget):
        from .linking import launch_plan
        from .linking.ptx_files import PtxFiles

        files = PtxFiles(artifacts.objects, target)

        def plan_launches(plan: stage.Stage, folder: Path) -> Path:
            module = files.module([step.function for step in plan.steps], functions, progress)
            path = folder / LAUNCH_PLAN
            write_atomically(path, json.dumps(launch_plan.build(plan, module, target)) + "\n")
            return path

        return plan_launches
    from .linking import library
    from .linking.objects import Objects

    objects = Objects(artifacts.objects, target)

    def link(plan: stage.Stage, folder: Path) -> Path:
        files = objects.of([step.function for step in plan.steps], functions, progress)
        path = folder / LIBRARY
        library.build(plan, files, target, job.linker, path)
        return path

    return link
