"""Commands in the documentation: examples are run, all others must be accepted by the program."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.parent.name for path in ROOT.glob("examples/*/README.md"))
PAGES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/**/*.md", "ci/*.md", "configs/*/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
)
# Options of these are read by xtask itself.
XTASK_VERBS = {
    *("board", "build", "dist", "emulate", "kernels", "onnx-suite", "setup", "test", "tidy"),
}
# How `bench` and `check` say that other load left windows too few frames; they then end with exit
# code 4.
DISTURBED = re.compile(r"\bvoid\b[^:]*: (for example, )?the window has")
# Other load can also make the gate inconclusive. The example is then run again. An example that
# never works fails.
ATTEMPTS = 12
# From this attempt on, programs have a real-time priority, if the user may give it to them: they run
# before all others. Not from the first one on, because that stops the others for up to a second.
UNDISTURBED_FROM = 6
REAL_TIME = ("chrt", "--rr", "1")


def commands(page):
    """Commands in the `console` blocks of a page, each with the output lines shown below it."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:].partition("  #")[0].rstrip(), []))
            elif line.strip() and found:
                found[-1][1].append(line)
    return found


class Checkout:
    """A copy of the repository in which `cargo xtask VERB` starts the program under test."""

    def __init__(self, folder, cache, prefix=()):
        self.folder = folder
        for name in ("ci", "compiler", "configs", "examples"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        (folder / "results").mkdir()
        state = folder / "target/edgepipe"
        state.mkdir(parents=True)
        (state / "stat").write_text(Path("/proc/stat").read_text())
        (state / "cache").symlink_to(cache)
        python = folder / "target/edgepipe/toolchain/python/bin/python"
        write_program(python, f'exec {shlex.quote(sys.executable)} "$@"')
        program = [
            *prefix,
            *(os.environ["EDGEPIPE_HARNESS"], "--root", str(folder), "--state", str(state)),
            *("--python", sys.executable, "--runner", os.environ["EDGEPIPE_RUNNER"]),
        ]
        # The toolchain is in place before the tests start.
        write_program(
            folder / "bin/cargo",
            f'shift\n[ "$1" = setup ] && exit 0\nexec {shlex.join(program)} "$@"',
        )
        self.environment = {
            **os.environ,
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "EDGEPIPE_LOCK": str(state / "board.lock"),
            # Times of CPUs that nobody else uses, so that other load voids no trial.
            "EDGEPIPE_PROC_STAT": str(state / "stat"),
        }

    def run(self, command):
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )


def can_run_in_real_time():
    try:
        return (
            subprocess.run([*REAL_TIME, "true"], capture_output=True, check=False).returncode == 0
        )
    except FileNotFoundError:
        return False


def write_program(path, script):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Compiled networks, shared between examples."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_as_its_page_shows(name, tmp_path, cache):
    page = commands((ROOT / "examples" / name / "README.md").read_text())
    assert any(command.startswith("cargo xtask") for command, _ in page)
    for attempt in range(ATTEMPTS):
        in_real_time = attempt >= UNDISTURBED_FROM and can_run_in_real_time()
        prefix = REAL_TIME if in_real_time else ()
        mismatch = run_page(page, Checkout(tmp_path / str(attempt), cache, prefix))
        if mismatch is None:
            return
    pytest.fail(f"{ATTEMPTS} attempts failed; the last one:\n{mismatch}")


def run_page(page, checkout):
    """Runs the commands of a page. Returns what differs from the page because of other load."""
    disturbed = False
    for command, shown in page:
        ran = checkout.run(command)
        described = f"$ {command}\n{ran.stdout}{ran.stderr}exit code {ran.returncode}"
        # The report may wrap a line within a reason.
        words = " ".join((ran.stdout + ran.stderr).split())
        disturbed = disturbed or DISTURBED.search(words) is not None
        if ran.returncode == 4 and command.startswith("cargo xtask bench"):
            assert disturbed, described
        elif ran.returncode != 0:
            # Without valid trials there is no baseline, which is a usage error.
            assert ran.returncode in (1, 4) or disturbed, described
            return described
        for line in shown:
            if line not in ran.stdout:
                return f"{described}\nnot printed: {line}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_program_accepts_the_commands_of_a_page(page):
    program = [os.environ["EDGEPIPE_HARNESS"]]
    for command, _ in commands((ROOT / page).read_text()):
        words = shlex.split(command)
        if words[:2] != ["cargo", "xtask"] or words[2] in XTASK_VERBS:
            continue
        arguments = words[2 : words.index("||")] if "||" in words else words[2:]
        # Options before `--help` are checked, and nothing is run.
        ran = subprocess.run(
            [*program, *arguments, "--help"], capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, f"{command}\n{ran.stderr}"
