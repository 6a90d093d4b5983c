//! Starting the harness.

use crate::cargo::Built;
use crate::cross::{self, Target, Via};
use crate::python::Toolchain;
use crate::workspace::Workspace;
use crate::{BUG, Bug, Refused, board, cargo, python};
use anyhow::{Context, Result};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Names a file to the harness that it reads before the user's own OpenSSH configuration.
pub(crate) const SSH_CONFIG: &str = "EDGEPIPE_SSH_CONFIG";

/// Builds what is needed and becomes the harness: its exit code is ours, and Ctrl-C reaches it directly.
pub(crate) fn start(workspace: &Workspace, verb: &str, rest: &[String]) -> Result<u8> {
    let toolchain = python::ensure(workspace)?;
    let built = cargo::build(workspace, &toolchain)?;
    // `boards NAME` looks at one, which takes a runner there as well.
    let looked_at = rest.first().filter(|name| verb == "boards" && !name.starts_with('-'));
    if matches!(verb, "bench" | "plan" | "boards") {
        for board in cross::boards_of(rest).into_iter().chain(looked_at.map(String::as_str)) {
            build_for(workspace, &toolchain, &built, board, Via::Zig)?;
        }
    }
    for name in cross::boards_of(rest).into_iter().chain(looked_at.map(String::as_str)) {
        board::note_if_down(workspace, name);
    }
    let error = command(workspace, &toolchain, &built).arg(verb).args(rest).exec();
    Err(error).context(Bug(format!("failed to start {}", built.harness.display())))
}

/// The harness, told where everything lies.
fn command(workspace: &Workspace, toolchain: &Toolchain, built: &Built) -> Command {
    let mut command = Command::new(&built.harness);
    command
        .arg("--root")
        .arg(&workspace.root)
        .arg("--state")
        .arg(workspace.state())
        .arg("--python")
        .arg(&toolchain.python)
        .arg("--runner")
        .arg(&built.runner);
    if let Some(config) = board::ssh_config(workspace) {
        command.env(SSH_CONFIG, config);
    }
    command
}

/// Builds the runner that `board`, or each board of a group, needs where it is not this machine's, has the harness check
/// that it and its libraries start there, and returns the last one.
pub(crate) fn build_for(
    workspace: &Workspace,
    toolchain: &Toolchain,
    built: &Built,
    board: &str,
    via: Via,
) -> Result<PathBuf> {
    let mut ask = command(workspace, toolchain, built);
    let told = ended(ask.args(["target", "--board", board]).stderr(Stdio::inherit()).output())?;
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    let mut runner = built.runner.clone();
    // A group may have boards of several kinds.
    for (line, target) in text.lines().filter_map(|line| Some((line, Target::parse(line)?))) {
        let kit = cross::build(workspace, toolchain, &target, via)?;
        let mut inspect = command(workspace, toolchain, built);
        inspect.args(["inspect", "--board", board, "--only", line]);
        inspect.arg(&kit.runner).args(&kit.libraries);
        ended(inspect.stdout(Stdio::inherit()).stderr(Stdio::inherit()).output())?;
        runner = kit.runner;
    }
    Ok(runner)
}

/// What the harness printed. Where it failed it has said why, and its exit code becomes ours.
fn ended(output: std::io::Result<Output>) -> Result<Output> {
    let output = output.context(Bug("failed to start the harness".to_owned()))?;
    if output.status.success() {
        return Ok(output);
    }
    let code = output.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(BUG);
    Err(Refused(code).into())
}
