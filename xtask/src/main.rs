//! `cargo xtask VERB`: the one door to edgepipe.
//!
//! Finds the workspace, puts the private toolchain in place, builds what a verb needs and starts the harness.
//! Few dependencies, so that the first command of a fresh clone begins to work within seconds.

mod board;
mod browser;
mod cargo;
mod checks;
mod cross;
mod emulated;
mod failure;
mod harness;
mod kernels;
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
edgepipe: pipelined CNN inference, measured on real boards

Usage: cargo xtask VERB [OPTIONS]

Measure
  bench     measure pipelines against single processors and print the table
            (--experiment NAME, --board NAME, --resume [RUN]; default: quick on this machine; several
            boards or a group work at the same time, --mode repeat|spread)
  plan      profile and schedule only, no trials
  report    print the table of an earlier run again (--format terminal|markdown|csv|json|html|
            paper|latex|latex-table; --trace: a timeline for Perfetto)
  history   a figure of a network over runs and revisions, with marked steps
            (--network NAME, --board NAME, --schedule S, --measure throughput|latency|energy)
  layers    which layers of each network are furthest from what the processor can do
  results   the runs in the database; runs of other hosts brought into it (list, import OTHER.db)
  baseline  keep the figures of runs to hold later ones against (baseline save NAME [--run RUN]...)
  check     hold a run against a baseline; fails where something became worse
            (--against NAME [--run RUN | --experiment NAME] [--format terminal|markdown|junit|json])
  selftest  how often the gate is wrong on this machine (aa --comparisons 200, ab --slow-down 5 --comparisons 100)
  boards    the configured boards: reachable, free, and the processors on them ([NAME], --break-lock NAME)
  board     a virtual Jetson TX2, which bench boots where needed (up virtual-tx2, down, status, power; `board --help`)

Work on edgepipe
  setup     put the private toolchain under target/ in place, and check it (every verb puts it in place by itself)
  build     build harness and runner; with --board NAME the runner for that board too
            (--via zig|cross: how it is linked; default: zig)
  emulate   run every operator test and every network of the zoo on an emulated Cortex-A57 and compare with ONNX
            Runtime (takes long; options are handed to pytest, for example `-k resnet18`)
  onnx-suite
            compile and run the tests of every operator that the onnx package ships, and compare with its expected
            outputs (-k TEXT, --operator NAME, --sample N, --isa NAME|all, --folder DIR, --mutate N;
            `onnx-suite --help`)
  kernels   judge inner loops by LLVM's model of a processor (--mcpu cortex-a57, --network NAME, --output FILE)
  test      all checks: format, lints, unit, property, snapshot and Python tests, one whole bench; with a NAME those
            checks and tests whose names contain it
  tidy      the rules of ARCHITECTURE.md alone

`cargo xtask VERB --help` tells the options of the measuring verbs.
Exit codes: 0 fine, 1 regression or claim not met, 2 usage or configuration, 3 board unreachable, busy or in the
wrong state, 4 a trial failed, a schedule has no trial left that counts, or interrupted, 70 a bug.
";

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
                "failed to read the command line: argument {number}, \"{}\", is not UTF-8; name files and folders in \
                 UTF-8, or use a link with such a name",
                word.display()
            )
        })
    };
    (1..).zip(std::env::args_os().skip(1)).map(text).collect()
}

fn run(arguments: &[String]) -> Result<u8> {
    let Some((verb, rest)) = arguments.split_first() else {
        eprint!("{HELP}");
        return Ok(USAGE);
    };
    let workspace = Workspace::find()?;
    match verb.as_str() {
        "help" | "--help" | "-h" => {
            eprint!("{HELP}");
            Ok(0)
        }
        "setup" => no_options(verb, rest).and_then(|()| {
            let toolchain = python::ensure_checked(&workspace)?;
            eprintln!("toolchain ready: {}", toolchain.python.display());
            Ok(0)
        }),
        "build" => build(&workspace, rest),
        "board" => board::run(&workspace, rest),
        "emulate" => emulated::run(&workspace, rest),
        "kernels" => kernels::run(&workspace, rest),
        "onnx-suite" => onnx_suite::run(&workspace, rest),
        "test" => match rest {
            [] => checks::run(&workspace, None),
            [name] if !name.starts_with('-') && !name.is_empty() => checks::run(&workspace, Some(name)),
            _ => anyhow::bail!(
                "failed to read the command line: `cargo xtask test` takes one NAME, a part of the name of checks or tests \
                 to run, or nothing; found \"{}\"",
                rest.join(" ")
            ),
        },
        "tidy" => no_options(verb, rest).and_then(|()| tidy(&workspace)),
        "bench" | "plan" | "layers" | "baseline" | "check" | "selftest" | "report" | "history"
        | "results" | "boards" => harness::start(&workspace, verb, rest),
        other => {
            eprintln!("error: there is no verb \"{other}\"\n\n{HELP}");
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
        let runner = harness::build_for(workspace, &toolchain, &built, board, via)?;
        eprintln!("built {} for the board {board}", runner.display());
    }
    Ok(0)
}

fn no_options(verb: &str, rest: &[String]) -> Result<()> {
    if let Some(extra) = rest.first() {
        anyhow::bail!(
            "failed to read the command line: `cargo xtask {verb}` takes no options, found \"{extra}\""
        );
    }
    Ok(())
}
