"""The pipelines of ci/: valid files, clean scripts, and the bench job, which is run."""

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / "ci/github/bench.yml"
GITLAB = ROOT / "ci/gitlab/bench.yml"
OWN = ROOT / ".github/workflows/ci.yml"


def read(path):
    return YAML(typ="safe", pure=True).load(path)


def github_steps():
    for name, job in read(GITHUB)["jobs"].items():
        for step in job["steps"]:
            yield name, step


def scripts():
    """All shell scripts in the pipelines, with their location."""
    for job, step in github_steps():
        if "run" in step:
            yield pytest.param(step["run"], id=f"github {job}: {step.get('name', step['run'])}")
    for name, job in read(GITLAB).items():
        if isinstance(job, dict):
            for key in ("before_script", "script"):
                if key in job:
                    yield pytest.param("\n".join(job[key]), id=f"gitlab {name}: {key}")


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.github-workflows", GITHUB),
        ("vendor.github-workflows", OWN),
        ("vendor.gitlab-ci", GITLAB),
    ],
)
def test_pipelines_are_what_their_makers_describe(schema, file, tmp_path):
    def check(path):
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, path]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    checked = check(file)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    # A wrong key is found, too.
    spoiled = tmp_path / "spoiled.yml"
    key = "timeout" if file == GITLAB else "timeout-minutes"
    spoiled.write_text(file.read_text().replace(f"{key}:", f"{key}-of-mine:"))
    assert check(spoiled).returncode == 1


def shellcheck(*arguments):
    command = [Path(sys.executable).with_name("shellcheck"), "--shell=bash", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", list(scripts()))
def test_scripts_within_the_pipelines_are_clean(script, tmp_path):
    # GitHub would paste the value of an expression into the script, and the shell would execute it.
    assert "${{" not in script
    file = tmp_path / "script.sh"
    file.write_text(script)
    checked = shellcheck(file)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("file", ["ci/bench.sh", "ci/gpu.sh", "ci/shorten.sh", ".ci/run"])
def test_scripts_are_clean(file):
    checked = shellcheck(ROOT / file)
    assert checked.returncode == 0, checked.stdout
    assert os.access(ROOT / file, os.X_OK)


def test_github_jobs_are_bounded_and_may_do_little():
    pipeline = read(GITHUB)
    assert pipeline["permissions"] == {"contents": "read"}
    assert pipeline["jobs"]["bench"]["permissions"] == {
        "contents": "read",
        "pull-requests": "write",
    }
    for name, job in pipeline["jobs"].items():
        assert job["timeout-minutes"] <= 120, name
    for name, step in github_steps():
        assert re.fullmatch(r"actions/[a-z/-]+@v\d+", step.get("uses", "actions/x@v1")), name
    bench = pipeline["jobs"]["bench"]
    group = bench["concurrency"]["group"]
    assert "matrix.board" in group and "matrix.farm && " in group
    # Jobs for boards of a farm wait in the coordinator's queue.
    farm = read(GITLAB)["bench-farm"]
    assert "resource_group" not in farm and "resource_group" not in read(GITLAB)[".bench"]
    assert read(GITLAB)["bench"]["resource_group"] == "edgepipe-board-$BOARD"
    assert "head.repo.full_name == github.repository" in bench["if"]


def bench_commands():
    """The commands of the bench job, which are the same in both pipelines."""
    steps = {step.get("name"): step for job, step in github_steps() if job == "bench"}
    commands = steps["Measure and compare"]["run"]
    assert read(GITLAB)[".bench"]["script"] == [commands]
    assert {read(GITLAB)[job]["extends"] for job in ("bench", "bench-farm")} == {".bench"}
    return commands, steps["Summary"]["run"]


def shortened(text, limit, folder):
    file = folder / "summary.md"
    file.write_text(text, newline="")
    command = [ROOT / "ci/shorten.sh", file, str(limit), "the artifact `bench` (`summary.md`)"]
    ran = subprocess.run(command, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    # This fails if the text was cut within a character.
    return ran.stdout.decode()


def summary(rows):
    table = "| schedule | frames/s |\n|---|--:|\n"
    table += "".join(f"| `cpu{row}` › größer | {row}.5 ± 0.1 |\n" for row in range(rows))
    return (
        f"### zoo on local\n\n✅ passed\n\n<details><summary>All figures</summary>\n\n{table}\n"
        f"<details open>\n\n```\nlog of ä line\n```\n\n</details>\n\n{table}\n</details>\n"
    )


def test_a_summary_with_room_is_left_as_it_is(tmp_path):
    text = summary(20)
    size = len(text.encode())
    assert shortened(text, size, tmp_path) == text
    assert shortened(text, size - 1, tmp_path) != text
    assert shortened("", 100, tmp_path) == ""


@pytest.mark.parametrize("limit", [*range(250, 1200, 7), 64_000, 1_000_000])
def test_a_shortened_summary_is_whole_markdown_and_says_what_is_missing(limit, tmp_path):
    text = summary(40) if limit < 64_000 else summary(30_000)
    short = shortened(text, limit, tmp_path)
    assert len(short.encode()) <= limit
    assert short.count("<details") == short.count("</details>")
    assert short.count("```") % 2 == 0
    kept, _, note = short.rpartition("**Shortened:** ")
    assert "the whole report is in the artifact `bench` (`summary.md`)." in note
    lines, rows = (int(word) for word in re.findall(r"(\d+) (?:line|row)", note))
    # Whole lines from the start, then only closing tags and fences.
    originals = text.splitlines()
    own = kept.splitlines()[: len(originals) - lines]
    assert own == originals[: len(own)]
    assert set(kept.splitlines()[len(own) :]) <= {"", "</details>", "```"}
    assert rows == sum(line.startswith("|") for line in originals[len(own) :])
    # As many lines as fit.
    longest = max(len(line.encode()) for line in originals)
    assert len(short.encode()) > limit - longest - 60


def test_a_line_without_end_is_left_out_as_a_whole(tmp_path):
    text = "### title\n" + "ä" * 5000 + "\n| row |\n"
    short = shortened(text, 400, tmp_path)
    assert short.startswith("### title\n\n**Shortened:** 2 lines left out here, 1 row of tables")


class Host:
    """A checkout on a harness host, with the real harness and runner."""

    def __init__(self, folder):
        self.checkout = folder / "checkout"
        for name in ("ci", "compiler", "configs"):
            shutil.copytree(
                ROOT / name, self.checkout / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        (self.checkout / "results").mkdir()
        (folder / "stat").write_text(Path("/proc/stat").read_text())
        # Long enough for a frame even on a busy machine.
        experiment = self.checkout / "configs/experiments/tiny.yaml"
        text = re.sub(r"max_seconds: [\d.]+", "max_seconds: 20", experiment.read_text())
        experiment.write_text(text)
        edgepipe = folder / "edgepipe"
        harness, runner = os.environ["EDGEPIPE_HARNESS"], os.environ["EDGEPIPE_RUNNER"]
        edgepipe.write_text(
            f"#!/bin/sh\nexec '{harness}' --root '{self.checkout}' --state '{folder}/state' "
            f"--python '{sys.executable}' --runner '{runner}' \"$@\"\n"
        )
        edgepipe.chmod(0o755)
        self.environment = {
            **os.environ,
            "EDGEPIPE": str(edgepipe),
            "BOARD": "local",
            "EDGEPIPE_LOCK": str(folder / "board.lock"),
            # Times of CPUs that nobody else uses, so that other load voids no trial.
            "EDGEPIPE_PROC_STAT": str(folder / "stat"),
            "EXPERIMENT": "tiny",
            "BASELINE_RUNS": "1",
            "REPORT": "the artifacts of this job",
            "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        }

    def run(self, commands, **environment):
        return subprocess.run(
            ["bash", "-e", "-c", commands],
            cwd=self.checkout,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def bench(self, commands, wanted=(0, 4), **environment):
        """Runs the job, which ends with 4 if other load made trials void."""
        ran = self.run(commands, **environment)
        summary = (self.checkout / "target/bench/summary.md").read_text()
        described = f"exit code {ran.returncode}\n{ran.stdout}{ran.stderr}\n{summary}"
        assert ran.returncode in wanted, described
        return ran.returncode


def test_the_bench_job_makes_a_baseline_and_holds_a_run_against_it(tmp_path):
    measure, summary = bench_commands()
    host = Host(tmp_path)
    written = host.checkout / "target/bench"

    # A missing baseline is not a failure.
    host.bench(measure, SAVE_BASELINE="no")
    assert "no usable baseline `main-local-tiny`" in (written / "summary.md").read_text()
    assert not (written / "junit.xml").exists()
    assert len(list(xml.etree.ElementTree.parse(written / "run.xml").iter("testcase"))) > 0

    # Baselines need undisturbed runs. On a busy machine, the valid trials of one run are enough here.
    baseline = host.checkout / "results/baselines/main-local-tiny.json"
    for _ in range(12):
        if host.bench(measure, SAVE_BASELINE="yes") == 4:
            assert not baseline.exists()
            host.run('"$EDGEPIPE" baseline save main-local-tiny')
        if baseline.exists():
            break
    assert baseline.exists(), (written / "summary.md").read_text()

    # The verdict on two such short runs is not tested, only that all outputs agree on it.
    code = host.bench(measure, wanted=(0, 1, 4), SAVE_BASELINE="no")
    suites = xml.etree.ElementTree.parse(written / "junit.xml")
    assert len(list(suites.iter("testcase"))) > 0
    # An element without children is false by itself, so they are counted.
    assert (code == 1) == (len(list(suites.iter("failure"))) > 0)
    text = (written / "summary.md").read_text()
    assert (written / "comment.md").read_text() == text
    assert "### tiny on local" in text
    assert "| schedule |" in text

    assert host.run(summary).returncode == 0
    assert (tmp_path / "summary").read_text() == text


def test_the_exit_code_of_a_bench_that_cannot_begin_is_kept(tmp_path):
    measure, _ = bench_commands()
    host = Host(tmp_path)
    for changed in ({"EXPERIMENT": "none"}, {"BOARD": "none"}):
        ran = host.run(measure, SAVE_BASELINE="no", **changed)
        assert ran.returncode == 2, ran.stderr
        for name in ("summary.md", "comment.md"):
            text = (host.checkout / "target/bench" / name).read_text()
            assert "ended with exit code 2" in text and "\nerror: " in text
