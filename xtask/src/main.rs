//! `cargo xtask COMMAND`: entry point of a checkout.
//!
//! Installs the private toolchain, builds what the command needs and starts the `edgepipe` program. It has few
//! dependencies, so that the first command of a fresh clone starts working within seconds.

mod board;
mod browser;
mod cargo;
mod checks;
mod cross;
mod dist;
mod emulated;
mod failure;
mod harness;
mod kernels;
mod lanes;
mod onnx_suite;
mod openssh;
mod python;
mod selection;
mod workspace;

use anyhow::{Context as _, Result};
use failure::{AWAY, Away, BUG, Bug, Refused, USAGE};
use std::ffi::OsString;
use std::process::ExitCode;
use toolchain::hint;
use workspace::Workspace;

const HELP: &str = "\
Benchmark pipelined CNN inference on heterogeneous edge boards

Usage: cargo xtask COMMAND [OPTIONS]

Measure (`cargo xtask COMMAND --help` lists the options):
  bench       Measure pipelines against single processors and print the table
  optimize    Find the schedules that are best in throughput and energy, and the best one for a requirement
  plan        Profile the networks and show where the planner cuts them; no trials
  layers      Show the layers that are furthest from a processor's peak; no trials
  report      Print the table of an earlier run again, in any format
  history     Show a metric of a network over runs and revisions, and mark steps
  results     List the runs in the database, or import runs from other hosts
  baseline    Save the figures of runs as a baseline for later checks
  check       Compare a run with a baseline; fails if anything became worse
  verify-claims  Test whether the paper's claims hold on a board; fails if one does not
  selftest    Measure how often the regression gate is wrong on this machine
  boards      Show the configured boards: whether they are free, and their processors
  farm        Show the places of labgrid coordinators: who holds them, their last runs and their health
  board       Boot, stop and inspect a virtual Jetson TX2 (`board --help`); bench boots it automatically

Develop (`cargo xtask COMMAND --help` shows the usage):
  setup       Install the private toolchain below target/, or check and repair it (all commands install it if needed)
  build       Build edgepipe and the runner; with --board NAME also the board's runner (--via zig|cross: its linker)
  dist        Pack an archive for machines without Rust (--board NAME: with the board's runner)
  test        Run all checks, or those whose names contain NAME: format, lints, all tests, a whole bench
  tidy        Check the rules of ARCHITECTURE.md
  emulate     Test all operators and networks on an emulated Cortex-A57 (slow; options go to pytest, such as -k NAME)
  onnx-suite  Run ONNX's conformance tests (`onnx-suite --help`)
  kernels     Estimate the speed of kernels without the hardware: inner loops for a CPU (--mcpu NAME), or all kernels for a GPU (--cuda sm_62)

Exit codes:
  0   Success
  1   Regression; a check or a claim failed; a board differs in farm --canary; no schedule meets the requirement of optimize
  2   Usage or configuration
  3   Board unreachable, busy or in the wrong state
  4   A trial failed, a schedule has no valid trial, or interrupted
  70  Bug in edgepipe
";

/// Options of the commands for developers that this program reads itself.
const DEVELOPER_OPTIONS: [(&str, &str); 7] = [
    ("setup", ""),
    ("build", " [--board NAME]... [--via zig|cross]"),
    ("dist", " [--board NAME]..."),
    ("test", " [NAME]"),
    ("tidy", ""),
    ("emulate", " [PYTEST OPTION]..."),
    (
        "kernels",
        " [--mcpu NAME] [--network NAME] [--show UNIT] [--output FILE]\n   or: cargo xtask kernels --cuda ARCH \
         [--network NAME] [--precision fp16] [--disassembler CUOBJDUMP] [--output FILE]",
    ),
];

/// The usage of a command for developers and its line in [`HELP`]; `None` for commands that have a help of their own.
fn usage(command: &str) -> Option<String> {
    let (_, options) = DEVELOPER_OPTIONS.iter().find(|(name, _)| *name == command)?;
    let line = HELP.lines().find_map(|line| line.trim_start().strip_prefix(command)?.strip_prefix(' '))?;
    Some(format!("{}\n\nUsage: cargo xtask {command}{options}", line.trim_start()))
}

fn main() -> ExitCode {
    match arguments().and_then(|arguments| run(&arguments)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if let Some(Refused(code)) = error.downcast_ref() {
                return ExitCode::from(*code);
            }
            eprintln!("error: {error:#}");
            if let Some(hint) = hint::of_error(&error) {
                eprintln!("  {hint}");
            }
            let code = if error.is::<Bug>() {
                BUG
            } else if error.is::<Away>() {
                AWAY
            } else {
                USAGE
            };
            ExitCode::from(code)
        }
    }
}

/// The command line. Names of boards, networks and tests are UTF-8, and paths that are not would not reach JSON files.
fn arguments() -> Result<Vec<String>> {
    let text = |(number, word): (usize, OsString)| {
        word.into_string().map_err(|word| {
            anyhow::anyhow!(
                "failed to read the command line: argument {number}, \"{}\", is not UTF-8; rename the file or folder, \
                 or use a link with a UTF-8 name",
                word.display()
            )
        })
    };
    (1..).zip(std::env::args_os().skip(1)).map(text).collect()
}

fn run(arguments: &[String]) -> Result<u8> {
    let Some((command, rest)) = arguments.split_first() else {
        eprint!("{HELP}");
        return Ok(USAGE);
    };
    if rest.iter().any(|word| word == "--help" || word == "-h")
        && let Some(usage) = usage(command)
    {
        eprintln!("{usage}");
        return Ok(0);
    }
    let workspace = Workspace::find()?;
    match command.as_str() {
        "help" | "--help" | "-h" => {
            eprint!("{HELP}");
            Ok(0)
        }
        "setup" => no_options(command, rest).and_then(|()| {
            let toolchain = python::ensure_checked(&workspace)?;
            eprintln!("toolchain ready: {}", toolchain.python.display());
            Ok(0)
        }),
        "build" => build(&workspace, rest),
        "dist" => dist::run(&workspace, rest),
        "board" => board::run(&workspace, rest),
        "emulate" => emulated::run(&workspace, rest),
        "kernels" => kernels::run(&workspace, rest),
        "onnx-suite" => onnx_suite::run(&workspace, rest),
        "test" => match rest {
            [] => checks::run(&workspace, None),
            [name] if !name.starts_with('-') && !name.is_empty() => checks::run(&workspace, Some(name)),
            _ => anyhow::bail!(
                "failed to read the command line: `cargo xtask test` takes at most one NAME, part of the name of the checks or \
                 tests to run; found \"{}\"",
                rest.join(" ")
            ),
        },
        "tidy" => no_options(command, rest).and_then(|()| tidy(&workspace)),
        "bench" | "optimize" | "plan" | "layers" | "baseline" | "check" | "verify-claims" | "selftest"
        | "report" | "history" | "results" | "boards" | "farm" => harness::start(&workspace, command, rest),
        other => {
            eprintln!("error: unknown command \"{other}\"; `cargo xtask --help` lists the commands");
            Ok(USAGE)
        }
    }
}

/// Builds and runs the crate `tidy`, whose exit code is ours.
fn tidy(workspace: &Workspace) -> Result<u8> {
    let mut cargo = cargo::command(workspace)?;
    cargo.args(["run", "--quiet", "--locked", "--package", "tidy", "--"]).arg(&workspace.root);
    let status = cargo.status().context("failed to start cargo")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(BUG))
}

/// `build [--board NAME]... [--via zig|cross]`.
fn build(workspace: &Workspace, rest: &[String]) -> Result<u8> {
    let mut boards = Vec::new();
    let mut via = cross::Via::Zig;
    let mut words = rest.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let value = value.or_else(|| words.next());
        match (name, value) {
            ("--board", Some(board)) => boards.push(board),
            ("--via", Some("zig")) => via = cross::Via::Zig,
            ("--via", Some("cross")) => via = cross::Via::Cross,
            _ => anyhow::bail!(
                "failed to read the command line: `cargo xtask build` takes `--board NAME` and `--via zig|cross`, \
                 found \"{word}\""
            ),
        }
    }
    let toolchain = python::ensure(workspace)?;
    let built = cargo::build(workspace, &toolchain)?;
    eprintln!("built {} and {}", built.harness.display(), built.runner.display());
    for board in boards {
        let kits = harness::build_for(workspace, &toolchain, &built, board, via)?;
        let runners =
            if kits.is_empty() { vec![&built.runner] } else { kits.iter().map(|kit| &kit.runner).collect() };
        for runner in runners {
            eprintln!("built {} for the board {board}", runner.display());
        }
    }
    Ok(0)
}

fn no_options(command: &str, rest: &[String]) -> Result<()> {
    if let Some(extra) = rest.first() {
        anyhow::bail!(
            "failed to read the command line: `cargo xtask {command}` takes no options, found \"{extra}\""
        );
    }
    Ok(())
}
