//! `cargo xtask test`: every check there is, each as its own step; the first failure does not hide the others.

use crate::cargo::{Built, Programs};
use crate::lanes::{self, Step};
use crate::selection::{RustTests, Selection, collected, nearest};
use crate::workspace::Workspace;
use crate::{board, browser, cargo, dist, emulated, onnx_suite, openssh, python};
use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;
use toolchain::Toolchain;

/// Prefix of the names of tests that need the virtual board.
const VIRTUAL_BOARD_TESTS: &str = "virtual_board_";
/// The board that one of them boots and halts by itself. If it is interrupted, it cannot halt it.
const BOARD_OF_A_TEST: &str = "virtual-tx2-clocks";
/// The program that has these tests and no others.
const VIRTUAL_BOARD_PROGRAM: &str = "virtual_board";
/// Folder of the command line.
const CLI: &str = "harness/cli";
/// The steps that run tests.
const RUST_TESTS: &str = "cargo test, the whole bench included";
const PYTEST: &str = "pytest";
const DOC_TESTS: &str = "doc tests";
/// These bench, so they are a step apart from the tests of the compiler.
const PYTEST_OF_CI: &str = "pytest: examples and pipelines";
/// Code for aarch64 on emulated processors, or why it could not be run.
const EMULATED_BOARDS: &str = "code for aarch64 on emulated boards";
/// A process a CPU. Each takes a stretch of the list of tests, so that what a module's tests share is made once.
const ON_ALL_CPUS: [&str; 3] = ["--numprocesses=auto", "--maxprocesses=8", "--dist=worksteal"];
/// The step of the virtual board's tests.
const VIRTUAL_BOARD: &str = "a whole bench on the virtual board, and its energy";

/// The library that stands in for the CUDA driver, by the name of its target.
const LIBCUDA: &str = "cuda";
/// Checks that are one command.
const RUSTFMT: &str = "rustfmt";
const CLIPPY: &str = "clippy";
const RUFF: &str = "ruff check";
const RUFF_FORMAT: &str = "ruff format";
const SUITE: &str = "ONNX's conformance tests, a sample";
/// Folders with Python.
const PYTHON: [&str; 6] = ["compiler", "ci", "examples", "harness/boards", "harness/pictures", "toolchain"];
/// Checks that are one command each.
const COMMANDS: [&str; 5] = [RUSTFMT, CLIPPY, RUFF, RUFF_FORMAT, SUITE];
/// Parts of the names of tests that need code for aarch64 on an emulated board.
const NEED_EMULATED: [&str; 2] = ["emulated", "of_another_processor"];
/// Parts of the names of tests that need the archive of `cargo xtask dist`.
const NEED_ARCHIVE: [&str; 2] = ["installed", "the_archive"];
/// Parts of the names of tests that need a browser.
const NEED_BROWSER: [&str; 1] = ["browser"];

/// Runs all checks, or those whose names contain `wanted`; prints a line a step and a summary, and returns the exit code.
pub(crate) fn run(workspace: &Workspace, wanted: Option<&str>) -> Result<u8> {
    let toolchain = python::ensure_with_checks(workspace)?;
    let program = std::env::current_exe().context("failed to find the path of xtask itself")?;
    let mut checks = Checks { workspace, toolchain, program, steps: Steps { failed: Vec::new(), passed: 0 } };
    match wanted {
        None => checks.all()?,
        Some(wanted) => checks.some(wanted)?,
    }
    Ok(checks.steps.summary())
}

/// The checks, with what they need.
struct Checks<'a> {
    workspace: &'a Workspace,
    toolchain: Toolchain,
    /// This program. Building the tests may replace it, and the kernel then calls its path deleted.
    program: PathBuf,
    steps: Steps,
}

impl Checks<'_> {
    fn rust(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = cargo::command(self.workspace)?;
        let (command_name, rest) = arguments.split_at(1.min(arguments.len()));
        let builds = command_name.first().is_some_and(|name| *name != "fmt");
        command.args(command_name).args(if builds { cargo::openssl_features() } else { &[] }).args(rest);
        self.name_toolchain(&mut command);
        Ok(command)
    }

    fn name_toolchain(&self, command: &mut Command) {
        command.env("EDGEPIPE_PYTHON", &self.toolchain.python).env("EDGEPIPE_LOCK", self.board_lock());
    }

    fn python(&self, arguments: &[&str]) -> Command {
        let mut command = environment::python(&self.toolchain.python);
        command.args(arguments).current_dir(&self.workspace.root).env("EDGEPIPE_LOCK", self.board_lock());
        command
    }

    /// The lock that tests take instead of the machine's, so that the tests of two checkouts do not wait for each other.
    fn board_lock(&self) -> PathBuf {
        self.workspace.target.join("edgepipe/test-board.lock")
    }

    fn pytest(&self, arguments: &[&str]) -> Command {
        // `--rootdir` makes the names of all tests relative to the workspace, so that they can be passed back to pytest.
        let mut command =
            self.python(&["-m", "pytest", "--config-file", "compiler/pyproject.toml", "--rootdir", "."]);
        command.args(arguments).env("PYTHONPATH", self.workspace.root.join("compiler"));
        command
    }

    /// A check that is one command, by its name.
    fn command(&self, name: &str) -> Result<Command> {
        match name {
            RUSTFMT => self.rust(&["fmt", "--all", "--check"]),
            CLIPPY => {
                self.rust(&["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"])
            }
            RUFF => Ok(self.python(&[&["-m", "ruff", "check"], &PYTHON[..]].concat())),
            SUITE => {
                let mut suite = onnx_suite::command(self.workspace, &self.toolchain)?;
                suite.args(onnx_suite::SAMPLE).current_dir(&self.workspace.root);
                Ok(suite)
            }
            _ => Ok(self.python(&[&["-m", "ruff", "format", "--check"], &PYTHON[..]].concat())),
        }
    }

    /// Builds all Rust tests, and copies TVM's libraries to where they look for them.
    fn build_tests(&self) -> Result<Programs> {
        let cargo = self.rust(&["test", "--locked", "--workspace", "--no-run", "--quiet"])?;
        let programs = Programs::build(cargo, "the tests")?;
        for program in programs.all() {
            // A program of tests lies one folder below the binaries.
            let folder = program.path.ancestors().nth(if program.is_test { 2 } else { 1 });
            cargo::lay_libraries(&self.toolchain, folder.unwrap_or(&self.workspace.target))?;
        }
        Ok(programs)
    }

    fn all(&mut self) -> Result<()> {
        openssh::ensure(self.workspace);
        for name in [RUSTFMT, CLIPPY, RUFF, RUFF_FORMAT] {
            self.steps.run(name, self.command(name)?)?;
        }
        let built = cargo::build(self.workspace, &self.toolchain)?;
        match self.build_tests() {
            Err(error) => {
                self.steps.fail(RUST_TESTS, &format!("{error:#}"));
                self.steps.run(SUITE, self.command(SUITE)?)?;
            }
            Ok(programs) => self.side_by_side(&built, &programs)?,
        }
        if skipped("virtual-board") {
            eprintln!("== {VIRTUAL_BOARD}: SKIPPED by EDGEPIPE_SKIP");
            return Ok(());
        }
        on_virtual_board(self.workspace, &self.program, self.virtual_board_tests()?, &mut self.steps)
    }

    /// Built as a part of the workspace: for its package alone, other features of its dependencies would be chosen.
    fn virtual_board_tests(&self) -> Result<Command> {
        self.rust(&["test", "--locked", "--workspace", "--test", VIRTUAL_BOARD_PROGRAM, "--"])
    }

    /// All tests but those of the virtual board, which is up for no longer than its own take: two steps at a time, and at the end
    /// the examples, whose gate decides sooner with less other load.
    fn side_by_side(&mut self, built: &Built, programs: &Programs) -> Result<()> {
        let mut pytest = self.pytest(&["compiler", "--quiet"]);
        pytest.args(ON_ALL_CPUS);
        let mut steps = vec![
            Step { name: PYTEST_OF_CI.to_owned(), command: self.pytest(&["ci", "--quiet"]) },
            Step { name: PYTEST.to_owned(), command: pytest },
        ];
        let mut of_rust: Vec<_> =
            programs.tests().filter(|program| program.name != VIRTUAL_BOARD_PROGRAM).collect();
        // Cargo lists them in the order in which they were built. Those of the command line take longest.
        let cli = self.workspace.root.join(CLI);
        of_rust.sort_by_key(|program| (program.folder != cli, program.title()));
        for program in of_rust {
            let mut command = cargo::test(self.workspace, program)?;
            self.name_toolchain(&mut command);
            command.arg("--include-ignored");
            steps.push(Step { name: program.title(), command });
        }
        let mut commands: Vec<&mut Command> = steps.iter_mut().map(|step| &mut step.command).collect();
        name_programs(built, &mut commands);
        name_libcuda(&programs.library(LIBCUDA)?, &mut commands);
        self.name_browser(&mut commands);
        self.name_archive(built, &mut commands);
        self.name_emulated(&mut commands);
        let documentation = self.rust(&["test", "--locked", "--workspace", "--doc"])?;
        steps.push(Step { name: DOC_TESTS.to_owned(), command: documentation });
        steps.push(Step { name: SUITE.to_owned(), command: self.command(SUITE)? });
        let (others, examples) = (steps.split_off(1), steps);
        let logs = self.workspace.state().join("logs");
        for (name, passed) in lanes::run(others, 2, &logs)?.into_iter().chain(lanes::run(examples, 1, &logs)?)
        {
            self.steps.count(&name, passed);
        }
        Ok(())
    }

    /// Runs what `wanted` is part of the name of. Builds all Rust tests to find them, and nothing else that they do not need.
    fn some(&mut self, wanted: &str) -> Result<()> {
        let commands = COMMANDS.into_iter().filter(|name| name.contains(wanted));
        let commands: Vec<&'static str> = commands.collect();
        for name in &commands {
            self.steps.run(name, self.command(name)?)?;
        }
        // The whole name of a check is that check, and takes no build of tests.
        if commands.contains(&wanted) {
            return Ok(());
        }
        let programs = self.build_tests()?;
        let rust = RustTests::list(&programs)?;
        let collect = ["compiler", "ci", "--collect-only", "--quiet"];
        let output = self.pytest(&collect).stdin(Stdio::null()).output().context("failed to start pytest")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("failed to list the tests of Python: {}", text.trim());
        }
        let python = collected(&text);
        let mut chosen = Selection::of(wanted, &rust, &python);
        let (of_rust, of_python) = (chosen.rust_count(), chosen.python.len());
        if commands.is_empty() && of_rust + of_python == 0 {
            let names = rust.iter().flat_map(|tests| &tests.names).chain(&python).map(String::as_str);
            let near = nearest(wanted, names.chain(COMMANDS));
            let near = if near.is_empty() {
                String::new()
            } else {
                format!("; did you mean one of these?\n  {}", near.join("\n  "))
            };
            bail!(
                "failed to find a check or a test whose name contains \"{wanted}\": `cargo test --workspace -- --list` \
                 lists the {} Rust tests, `pytest --collect-only` the {} Python tests{near}",
                rust.iter().map(|tests| tests.names.len()).sum::<usize>(),
                python.len()
            );
        }
        eprintln!("tests whose names contain \"{wanted}\": {of_rust} in Rust, {of_python} in Python");
        let mut on_board = chosen.take(VIRTUAL_BOARD_TESTS);
        if skipped("virtual-board") && !on_board.is_empty() {
            eprintln!("== {VIRTUAL_BOARD}: SKIPPED by EDGEPIPE_SKIP");
            on_board.clear();
        }
        let mut tests = self.rust(&["test", "--locked", "--workspace", "--no-fail-fast"])?;
        tests.args(chosen.arguments());
        let mut pytest = self.pytest(&["--quiet"]);
        pytest.args(&chosen.python);
        name_libcuda(&programs.library(LIBCUDA)?, &mut [&mut tests, &mut pytest]);
        // These start both programs; the tests of the runner start the one that was built for them.
        let starts = |tests: &RustTests| {
            tests.program.kind == "test" && tests.program.folder == self.workspace.root.join(CLI)
        };
        if chosen.rust.iter().any(starts) || chosen.has(&["ci/tests"]) {
            openssh::ensure(self.workspace);
            let built = cargo::build(self.workspace, &self.toolchain)?;
            name_programs(&built, &mut [&mut tests, &mut pytest]);
            if chosen.has(&NEED_ARCHIVE) {
                self.name_archive(&built, &mut [&mut tests]);
            }
        }
        if chosen.has(&NEED_BROWSER) {
            self.name_browser(&mut [&mut tests]);
        }
        if chosen.has(&NEED_EMULATED) {
            self.name_emulated(&mut [&mut tests, &mut pytest]);
        }
        if chosen.rust_count() > 0 {
            self.steps.run(RUST_TESTS, tests)?;
        }
        if !chosen.python.is_empty() {
            self.steps.run(PYTEST, pytest)?;
        }
        if !on_board.is_empty() {
            let mut tests = self.virtual_board_tests()?;
            tests.arg("--exact").args(&on_board);
            on_virtual_board(self.workspace, &self.program, tests, &mut self.steps)?;
        }
        if self.steps.failed.is_empty() {
            eprintln!("tests that ran: {}, other checks: {}", of_rust + of_python, commands.len());
        }
        Ok(())
    }

    /// If the browser's packages cannot be installed, its test fails with a message; the other checks continue.
    fn name_browser(&self, tests: &mut [&mut Command]) {
        if browser::is_skipped() {
            eprintln!("== the HTML report in a browser: SKIPPED by EDGEPIPE_SKIP");
            return;
        }
        match browser::ensure(self.workspace) {
            Ok(folder) => name("EDGEPIPE_BROWSER", &folder, tests),
            Err(error) => eprintln!("error: {error:#}"),
        }
    }

    /// Packs the archive, whose tests link with zig. If it cannot be made, its tests fail.
    fn name_archive(&self, built: &Built, tests: &mut [&mut Command]) {
        let packed = python::ensure_with_cross(self.workspace)
            .and_then(|toolchain| dist::make(self.workspace, &toolchain, built, &[]));
        match packed {
            Ok(archive) => name("EDGEPIPE_ARCHIVE", &archive, tests),
            Err(error) => eprintln!("error: {error:#}"),
        }
    }

    fn name_emulated(&mut self, commands: &mut [&mut Command]) {
        if skipped("aarch64") {
            eprintln!("== {EMULATED_BOARDS}: SKIPPED by EDGEPIPE_SKIP");
            return;
        }
        match emulated::board(self.workspace, &self.toolchain) {
            Ok(board) => commands.iter_mut().for_each(|command| board.name_to(command)),
            Err(error) => {
                let why = format!("{error:#}; EDGEPIPE_SKIP=aarch64 skips it");
                self.steps.fail(EMULATED_BOARDS, &why);
            }
        }
    }
}

fn name_programs(built: &Built, commands: &mut [&mut Command]) {
    name("EDGEPIPE_HARNESS", &built.harness, commands);
    name("EDGEPIPE_RUNNER", &built.runner, commands);
}

/// Names the stand-in for the CUDA driver to tests.
fn name_libcuda(libcuda: &Path, commands: &mut [&mut Command]) {
    name("EDGEPIPE_TEST_LIBCUDA", libcuda, commands);
}

fn name(variable: &str, path: &Path, commands: &mut [&mut Command]) {
    for command in commands {
        command.env(variable, path);
    }
}

/// Boots the virtual board, runs its tests, and halts it, unless it was up before. Ctrl-C ends the tests, which are in
/// the same process group, and this goes on to halt the boards: their QEMUs are in no group of ours.
fn on_virtual_board(
    workspace: &Workspace,
    program: &Path,
    mut tests: Command,
    steps: &mut Steps,
) -> Result<()> {
    let name = board::BOARD;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .context("failed to listen for signals")?;
    }
    let to_halt: Vec<&str> =
        [name, BOARD_OF_A_TEST].into_iter().filter(|name| !board::is_there(workspace, name)).collect();
    if let Err(error) = board::up(workspace, name) {
        steps.fail(VIRTUAL_BOARD, &format!("{error:#}; EDGEPIPE_SKIP=virtual-board skips it"));
        return Ok(());
    }
    tests.args(["--include-ignored", "--nocapture", "--test-threads=1"]);
    tests.env("EDGEPIPE_VIRTUAL_BOARD", name).env("EDGEPIPE_XTASK", program);
    let ran = if interrupted.load(Relaxed) { Ok(()) } else { steps.run(VIRTUAL_BOARD, tests) };
    for name in to_halt.into_iter().filter(|name| board::is_there(workspace, name)) {
        board::down(workspace, name)?;
    }
    if interrupted.load(Relaxed) {
        bail!("failed to finish the checks: they were interrupted");
    }
    ran
}

/// Whether `EDGEPIPE_SKIP` names a part of the checks.
fn skipped(part: &str) -> bool {
    std::env::var("EDGEPIPE_SKIP").is_ok_and(|list| list.split(',').any(|word| word.trim() == part))
}

/// What passed and what failed so far.
struct Steps {
    failed: Vec<String>,
    passed: usize,
}

impl Steps {
    fn run(&mut self, name: &'static str, mut command: Command) -> Result<()> {
        eprintln!("== {name}");
        let begun = Instant::now();
        let status = command.status().with_context(|| format!("failed to start the check \"{name}\""))?;
        let seconds = begun.elapsed().as_secs_f64();
        self.count(name, status.success());
        if status.success() {
            eprintln!("== {name}: passed in {seconds:.0} s");
        } else {
            eprintln!("== {name}: FAILED in {seconds:.0} s ({status})");
        }
        Ok(())
    }

    fn count(&mut self, name: &str, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed.push(name.to_owned());
        }
    }

    /// Counts what could not even be started.
    fn fail(&mut self, name: &'static str, why: &str) {
        self.failed.push(name.to_owned());
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
