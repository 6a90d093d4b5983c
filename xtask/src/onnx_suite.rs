//! `cargo xtask onnx-suite`: the conformance tests of the `onnx` package, compiled, run and compared.

use crate::python;
use crate::workspace::Workspace;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::process::Command;
use toolchain::Toolchain;

/// Options of the sample that is part of `cargo xtask test`.
pub(crate) const SAMPLE: [&str; 4] = ["--sample", "400", "--check-operators", "docs/operators.md"];

/// Runs the suite; `rest` goes to it, and its paths are relative to the current folder.
pub(crate) fn run(workspace: &Workspace, rest: &[String]) -> Result<u8> {
    let toolchain = python::ensure_with_checks(workspace)?;
    let status = command(workspace, &toolchain)?.args(rest).status().context("failed to start the suite")?;
    match status.code() {
        Some(code @ 0..=2) => Ok(u8::try_from(code)?),
        _ => Ok(crate::failure::BUG),
    }
}

/// The suite without options.
pub(crate) fn command(workspace: &Workspace, toolchain: &Toolchain) -> Result<Command> {
    let compiler = workspace.root.join("compiler");
    let path = ["", "tests", "tools"].map(|folder| compiler.join(folder));
    let path: OsString = std::env::join_paths(path).context("failed to name the compiler's folders")?;
    let mut suite = environment::python(&toolchain.python);
    suite.args(["-m", "onnx_suite"]).env("PYTHONPATH", path);
    Ok(suite)
}
