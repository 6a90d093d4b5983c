//! Starting the harness.

use crate::workspace::Workspace;
use crate::{Bug, cargo, python};
use anyhow::{Context, Result};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Builds what is needed and becomes the harness: its exit code is ours, and Ctrl-C reaches it directly.
pub(crate) fn start(workspace: &Workspace, verb: &str, rest: &[String]) -> Result<u8> {
    let toolchain = python::ensure(workspace)?;
    let built = cargo::build(workspace, &toolchain)?;
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
