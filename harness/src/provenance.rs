//! Everything needed to repeat a run, besides its configuration.

use crate::compiler::CompilerVersions;
use crate::store::{Revision, Versions};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::Command;

/// Versions, revision, machine and command line of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of the harness.
    pub harness: String,
    /// Version of the runner.
    pub runner: String,
    /// Version of the protocol between them.
    pub protocol: u32,
    /// Pinned packages of the compiler, `name==version`.
    pub packages: Vec<String>,
    /// Revision of the workspace; absent outside a git checkout.
    pub git_revision: Option<String>,
    /// Whether tracked files differ from that revision; absent likewise.
    pub git_dirty: Option<bool>,
    /// Name of the host that ran the harness.
    pub host: String,
    /// Kernel of the host.
    pub host_kernel: String,
    /// The harness' arguments.
    pub command: Vec<String>,
}

/// The arguments of this process. Bytes that are not UTF-8, as a path may have, are replaced.
pub fn command_line() -> Vec<String> {
    std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect()
}

impl Provenance {
    /// Collects what this process can know.
    pub fn collect(root: &Path, runner: &str) -> Self {
        let uname = rustix::system::uname();
        let status = git(root, &["status", "--porcelain", "--untracked-files=no"]);
        Self {
            harness: env!("CARGO_PKG_VERSION").to_owned(),
            runner: runner.to_owned(),
            protocol: protocol::VERSION,
            packages: packages(root),
            git_revision: git(root, &["rev-parse", "HEAD"]),
            git_dirty: status.map(|lines| !lines.is_empty()),
            host: uname.nodename().to_string_lossy().into_owned(),
            host_kernel: uname.release().to_string_lossy().into_owned(),
            command: command_line(),
        }
    }

    /// The versions in the store's words.
    pub fn versions(&self, compiler: Option<CompilerVersions>) -> Versions {
        let (tvm, llvm, python) = match compiler {
            Some(found) => (Some(found.tvm), Some(found.llvm), Some(found.python)),
            None => (None, None, None),
        };
        Versions {
            harness: self.harness.clone(),
            runner: Some(self.runner.clone()),
            protocol: self.protocol,
            tvm,
            llvm,
            python,
        }
    }

    /// The revision in the store's words.
    pub fn revision(&self) -> Option<Revision> {
        Some(Revision { commit: self.git_revision.clone()?, dirty: self.git_dirty? })
    }
}

fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn packages(root: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(root.join("ci/requirements.txt")).unwrap_or_default();
    let pins = text.lines().filter(|line| !line.starts_with([' ', '#']) && line.contains("=="));
    pins.filter_map(|line| line.split([' ', ';', '\\']).next()).map(str::to_owned).collect()
}
