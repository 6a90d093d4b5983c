//! Starting the harness.

use crate::python::Toolchain;
use crate::workspace::Workspace;
use crate::cross::{self, Target, Via};
use crate::{Bug, cargo, python};
use anyhow::{Context, Result};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

/// Builds what is needed and becomes the harness: its exit code is ours, and Ctrl-C reaches it directly.
pub(crate) fn start(workspace: &Workspace, verb: &str, rest: &[String]) -> Result<u8> {
    let toolchain = python::ensure(workspace)?;
    let built = cargo::build(workspace, &toolchain)?;
    if matches!(verb, "bench" | "plan") {
        for board in cross::boards_of(rest) {
            if let Err(code) = build_for(workspace, &toolchain, &built, board, Via::Zig)? {
                return Ok(code);
            }
        }
    }
    let error = Command::new(&built.harness)
        .arg("--root")
        .arg(&workspace.root)
        .arg("--state")
        .arg(workspace.state())
        .arg("--python")
        .arg(&toolchain.python)
        .arg("--runner")
        .arg(&built.runner)
        .arg(verb)
        .args(rest)
        .exec();
    Err(error).context(Bug(format!("failed to start {}", built.harness.display())))
}

/// Builds the runner that `board` needs where it is not this machine's, and checks it; the exit code where the
/// board's file is wrong or what was built would not run there.
pub(crate) fn build_for(
    workspace: &Workspace,
    toolchain: &Toolchain,
    built: &cargo::Built,
    board: &str,
    via: Via,
) -> Result<Result<PathBuf, u8>> {
    let target = match Target::of_board(workspace, &built.harness, board) {
        Ok(Some(target)) => target,
        Ok(None) => return Ok(Ok(built.runner.clone())),
        Err(code) => return Ok(Err(code)),
    };
    let kit = cross::build(workspace, toolchain, &target, via)?;
    match cross::check(workspace, &built.harness, board, &kit)? {
        0 => Ok(Ok(kit.runner)),
        code => Ok(Err(code)),
    }
}
