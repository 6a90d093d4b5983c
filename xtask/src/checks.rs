//! `cargo xtask test`: every check there is, each as its own step; the first failure does not hide the others.

use crate::python::Toolchain;
use crate::workspace::Workspace;
use crate::{board, browser, cargo, emulated, onnx_suite, openssh, python};
use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

/// Names of the tests that need the virtual board begin so.
const VIRTUAL_BOARD_TESTS: &str = "virtual_board_";
/// Code for aarch64 on emulated processors, or why it could not be run.
const EMULATED_BOARDS: &str = "code for aarch64 on emulated boards";
/// The step of the virtual board's tests.
const VIRTUAL_BOARD: &str = "a whole bench on the virtual board, and its energy";

/// Runs all checks, prints a line a step and a summary, and returns the exit code.
pub(crate) fn run(workspace: &Workspace) -> Result<u8> {
    let toolchain = python::ensure_with_checks(workspace)?;
    let mut steps = Steps { failed: Vec::new(), passed: 0 };
    openssh::ensure(workspace);
    let rust = |arguments: &[&str]| -> Result<Command> {
        let mut command = cargo::command(workspace)?;
        let (verb, rest) = arguments.split_at(1.min(arguments.len()));
        let builds = verb.first().is_some_and(|verb| *verb != "fmt");
        command.args(verb).args(if builds { cargo::openssl_features() } else { &[] }).args(rest);
        command.env("EDGEPIPE_PYTHON", &toolchain.python);
        Ok(command)
    };
    steps.run("rustfmt", rust(&["fmt", "--all", "--check"])?)?;
    steps.run(
        "clippy",
        rust(&["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"])?,
    )?;
    steps.run("ruff check", python(workspace, &toolchain, &["-m", "ruff", "check", "compiler", "ci"]))?;
    steps.run(
        "ruff format",
        python(workspace, &toolchain, &["-m", "ruff", "format", "--check", "compiler", "ci"]),
    )?;
    let built = cargo::build(workspace, &toolchain)?;
    cargo::lay_libraries(&toolchain, &workspace.target.join("debug"))?;
    // The virtual board's tests are a step of their own, so that it is up for no longer than they take.
    let mut tests = rust(&[
        "test",
        "--locked",
        "--workspace",
        "--no-fail-fast",
        "--",
        "--include-ignored",
        "--skip",
        VIRTUAL_BOARD_TESTS,
    ])?;
    tests.env("EDGEPIPE_HARNESS", &built.harness).env("EDGEPIPE_RUNNER", &built.runner);
    if browser::is_skipped() {
        eprintln!("== the HTML report in a browser: SKIPPED by EDGEPIPE_SKIP");
    } else {
        // Where it cannot be put in place, the test itself fails and says so; the other checks go on.
        match browser::ensure(workspace) {
            Ok(folder) => drop(tests.env("EDGEPIPE_BROWSER", folder)),
            Err(error) => eprintln!("error: {error:#}"),
        }
    }
    let emulated = if skipped("aarch64") {
        eprintln!("== {EMULATED_BOARDS}: SKIPPED by EDGEPIPE_SKIP");
        None
    } else {
        match emulated::board(workspace, &toolchain) {
            Ok(board) => Some(board),
            Err(error) => {
                steps.fail(EMULATED_BOARDS, &format!("{error:#}; EDGEPIPE_SKIP=aarch64 leaves it out"));
                None
            }
        }
    };
    if let Some(board) = &emulated {
        board.name_to(&mut tests);
    }
    steps.run("cargo test, the whole bench included", tests)?;
    let mut pytest = python(workspace, &toolchain, &["-m", "pytest", "compiler", "ci", "--quiet"]);
    pytest.env("PYTHONPATH", workspace.root.join("compiler"));
    if let Some(board) = &emulated {
        board.name_to(&mut pytest);
    }
    pytest.env("EDGEPIPE_HARNESS", &built.harness).env("EDGEPIPE_RUNNER", &built.runner);
    steps.run("pytest", pytest)?;
    let mut suite = onnx_suite::command(workspace, &toolchain)?;
    suite.args(onnx_suite::SAMPLE).current_dir(&workspace.root);
    steps.run("ONNX's conformance tests, a sample", suite)?;
    if skipped("virtual-board") {
        eprintln!("== {VIRTUAL_BOARD}: SKIPPED by EDGEPIPE_SKIP");
    } else {
        let tests = rust(&["test", "--locked", "--package", "harness", "--test", "virtual_board", "--"])?;
        on_virtual_board(workspace, tests, &mut steps)?;
    }
    Ok(steps.summary())
}

/// Boots the virtual board, runs its tests, and halts it, unless it was up before. Ctrl-C ends the tests, which are in
/// the same process group, and this goes on to halt the board: its QEMU is in no group of ours.
fn on_virtual_board(workspace: &Workspace, mut tests: Command, steps: &mut Steps) -> Result<()> {
    let name = board::BOARD;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .context("failed to listen for signals")?;
    }
    let was_up = board::is_there(workspace, name);
    if let Err(error) = board::up(workspace, name) {
        steps.fail(VIRTUAL_BOARD, &format!("{error:#}; EDGEPIPE_SKIP=virtual-board leaves it out"));
        return Ok(());
    }
    let program = std::env::current_exe().context("failed to find the path of xtask itself")?;
    tests.args(["--include-ignored", "--nocapture", "--test-threads=1"]);
    tests.env("EDGEPIPE_VIRTUAL_BOARD", name).env("EDGEPIPE_XTASK", program);
    let ran = if interrupted.load(Relaxed) { Ok(()) } else { steps.run(VIRTUAL_BOARD, tests) };
    if !was_up {
        board::down(workspace, name)?;
    }
    if interrupted.load(Relaxed) {
        bail!("failed to end the checks: they were interrupted");
    }
    ran
}

/// Whether `EDGEPIPE_SKIP` names a part of the checks.
fn skipped(part: &str) -> bool {
    std::env::var("EDGEPIPE_SKIP").is_ok_and(|list| list.split(',').any(|word| word.trim() == part))
}

fn python(workspace: &Workspace, toolchain: &Toolchain, arguments: &[&str]) -> Command {
    let mut command = Command::new(&toolchain.python);
    command.args(arguments).current_dir(&workspace.root).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// What passed and what failed so far.
struct Steps {
    failed: Vec<&'static str>,
    passed: usize,
}

impl Steps {
    fn run(&mut self, name: &'static str, mut command: Command) -> Result<()> {
        eprintln!("== {name}");
        let begun = Instant::now();
        let status = command.status().with_context(|| format!("failed to start the check \"{name}\""))?;
        let seconds = begun.elapsed().as_secs_f64();
        if status.success() {
            self.passed += 1;
            eprintln!("== {name}: passed in {seconds:.0} s");
        } else {
            self.failed.push(name);
            eprintln!("== {name}: FAILED in {seconds:.0} s ({status})");
        }
        Ok(())
    }

    /// Counts what could not even be started.
    fn fail(&mut self, name: &'static str, why: &str) {
        self.failed.push(name);
        eprintln!("== {name}: FAILED: {why}");
    }

    fn summary(&self) -> u8 {
        for name in &self.failed {
            eprintln!("failed check: {name}");
        }
        eprintln!("checks: {} passed, {} failed", self.passed, self.failed.len());
        u8::from(!self.failed.is_empty())
    }
}
