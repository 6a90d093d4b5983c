//! `cargo xtask test`: every check there is, each as its own step; the first failure does not hide the others.

use crate::python::Toolchain;
use crate::workspace::Workspace;
use crate::{browser, cargo, emulated, openssh, python};
use anyhow::{Context, Result};
use std::process::Command;
use std::time::Instant;

/// Runs all checks, prints a line a step and a summary, and returns the exit code.
pub(crate) fn run(workspace: &Workspace) -> Result<u8> {
    let toolchain = python::ensure_with_checks(workspace)?;
    let mut steps = Steps { failed: Vec::new(), passed: 0 };
    openssh::ensure(workspace);
    let rust = |arguments: &[&str]| -> Result<Command> {
        let mut command = cargo::command(workspace, &toolchain)?;
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
    let mut tests = rust(&["test", "--locked", "--workspace", "--no-fail-fast", "--", "--include-ignored"])?;
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
    let emulated = emulated::board(workspace, &toolchain)?;
    match &emulated {
        Ok(board) => board.name_to(&mut tests),
        Err(why) => eprintln!("not checked: code for aarch64 on emulated boards: {why}"),
    }
    steps.run("cargo test, the whole bench included", tests)?;
    let mut pytest = python(workspace, &toolchain, &["-m", "pytest", "compiler", "ci", "--quiet"]);
    pytest.env("PYTHONPATH", workspace.root.join("compiler"));
    if let Ok(board) = &emulated {
        board.name_to(&mut pytest);
    }
    pytest.env("EDGEPIPE_HARNESS", &built.harness).env("EDGEPIPE_RUNNER", &built.runner);
    steps.run("pytest", pytest)?;
    Ok(steps.summary())
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

    fn summary(&self) -> u8 {
        for name in &self.failed {
            eprintln!("failed check: {name}");
        }
        eprintln!("checks: {} passed, {} failed", self.passed, self.failed.len());
        u8::from(!self.failed.is_empty())
    }
}
