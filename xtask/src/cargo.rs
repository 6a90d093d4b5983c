//! Building harness and runner.

use crate::python::{self, Toolchain};
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What was built.
#[derive(Debug)]
pub(crate) struct Built {
    /// The host's side.
    pub(crate) harness: PathBuf,
    /// The board's side for this machine, with TVM's libraries in `lib/` beside it.
    pub(crate) runner: PathBuf,
}

impl Built {
    /// Where cargo puts it, whether it is there or not.
    fn at(folder: &Path) -> Self {
        Self { harness: folder.join("harness"), runner: folder.join("runner") }
    }
}

/// PATH with the shim in front. Always the same, because the build scripts run again when it changes.
fn path_with_shim(workspace: &Workspace) -> Result<OsString> {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let parts = std::iter::once(python::shims(workspace)).chain(std::env::split_paths(&old));
    std::env::join_paths(parts).context("failed to put the toolchain on PATH: its path holds a colon")
}

/// Cargo, as it started this program, in the workspace and with the shim on PATH.
pub(crate) fn command(workspace: &Workspace) -> Result<Command> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&workspace.root).env("PATH", path_with_shim(workspace)?);
    cargo.env("CARGO_TARGET_DIR", &workspace.target);
    // What cargo set for xtask itself must not reach the crates built here, or they are built again each time.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            cargo.env_remove(name);
        }
    }
    Ok(cargo)
}

/// Arguments that let the harness' SSH library build OpenSSL itself where its headers are not installed.
pub(crate) fn openssl_features() -> &'static [&'static str] {
    let found = Command::new("pkg-config").args(["--exists", "openssl"]).status();
    if found.is_ok_and(|status| status.success()) || std::env::var_os("OPENSSL_DIR").is_some() {
        &[]
    } else {
        &["--features", "harness/vendored-openssl"]
    }
}

/// Builds harness and runner in release mode and lays TVM's libraries beside the runner.
pub(crate) fn build(workspace: &Workspace, toolchain: &Toolchain) -> Result<Built> {
    let folder = workspace.target.join("release");
    let built = Built::at(&folder);
    build_packages(workspace, &["harness", "runner"], built.harness.exists() && built.runner.exists())?;
    lay_libraries(toolchain, &folder)?;
    Ok(built)
}

/// Builds the harness alone, which takes no toolchain; the runner of this machine is not needed where others are measured.
pub(crate) fn build_harness(workspace: &Workspace) -> Result<Built> {
    let built = Built::at(&workspace.target.join("release"));
    build_packages(workspace, &["harness"], built.harness.exists())?;
    Ok(built)
}

fn build_packages(workspace: &Workspace, packages: &[&str], are_there: bool) -> Result<()> {
    // The first build takes minutes and shows them; later ones take a moment and are not worth a line.
    let status = command(workspace)?
        .args(["build", "--release", "--locked"])
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .args(openssl_features())
        .args(if are_there { &["--quiet"] } else { &[][..] })
        .status()
        .context("failed to start cargo")?;
    if !status.success() {
        bail!("failed to build {}: cargo's reason stands above", packages.join(" and "));
    }
    Ok(())
}

/// Copies TVM's libraries to `folder/lib`, where the runner's rpath points.
pub(crate) fn lay_libraries(toolchain: &Toolchain, folder: &Path) -> Result<()> {
    lay(&toolchain.libraries, folder)
}

/// The same with other libraries.
pub(crate) fn lay(libraries: &[PathBuf], folder: &Path) -> Result<()> {
    let destination = folder.join("lib");
    fs::create_dir_all(&destination)
        .with_context(|| format!("failed to create {}", destination.display()))?;
    for library in libraries {
        let Some(name) = library.file_name() else { continue };
        let copy = destination.join(name);
        let same = |a: &Path, b: &Path| -> Option<bool> {
            let (a, b) = (fs::metadata(a).ok()?, fs::metadata(b).ok()?);
            Some(a.len() == b.len() && a.modified().ok()? <= b.modified().ok()?)
        };
        if same(library, &copy) == Some(true) {
            continue;
        }
        let fresh = copy.with_extension("new");
        fs::copy(library, &fresh)
            .and_then(|_| fs::rename(&fresh, &copy))
            .with_context(|| format!("failed to copy {} to {}", library.display(), copy.display()))?;
    }
    Ok(())
}
