//! The private toolchain of this checkout: the Python environment, and the `tvm-ffi-config` shim that the `tvm-ffi`
//! crate's build script asks for its library.

use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use toolchain::linker::write_script;
use toolchain::packages::Packages;
use toolchain::{CHECKS, CROSS, Check, FARM, Place, Toolchain, find_interpreter, has_c_compiler};

/// Folder of the shim, to go first on PATH when the runner is built. It need not exist yet.
pub(crate) fn shims(workspace: &Workspace) -> PathBuf {
    workspace.toolchain().join("bin")
}

/// Whether the toolchain was completed, perhaps damaged or outdated since. If not, fails if this machine lacks a C compiler
/// or Python.
pub(crate) fn is_installed(workspace: &Workspace) -> Result<bool> {
    if place(workspace).is_installed() {
        return Ok(true);
    }
    if !has_c_compiler() {
        bail!(
            "failed to find a C compiler: `cc` is not on PATH. It links the compiled networks. Install one, for \
             example by `sudo apt install gcc` (Debian, Ubuntu) or `sudo dnf install gcc` (Fedora)"
        );
    }
    find_interpreter()?;
    Ok(false)
}

fn place(workspace: &Workspace) -> Place {
    Place { folder: workspace.toolchain(), root: workspace.root.clone() }
}

/// Puts the toolchain in place. Cheap if it is there already.
pub(crate) fn ensure(workspace: &Workspace) -> Result<Toolchain> {
    install(workspace, &[], Check::Files)
}

/// [`ensure`] for a user who suspects the environment: also imports its packages.
pub(crate) fn ensure_checked(workspace: &Workspace) -> Result<Toolchain> {
    install(workspace, &[], Check::Imports)
}

/// [`ensure`] with the packages of the checks (pytest, ruff), and labgrid, whose coordinator and exporter tests run.
pub(crate) fn ensure_with_checks(workspace: &Workspace) -> Result<Toolchain> {
    install(workspace, &[&CHECKS, &FARM], Check::Files)
}

/// [`ensure`] with zig, which builds for other machines.
pub(crate) fn ensure_with_cross(workspace: &Workspace) -> Result<Toolchain> {
    install(workspace, &[&CROSS], Check::Files)
}

fn install(workspace: &Workspace, extra: &[&Packages], check: Check) -> Result<Toolchain> {
    is_installed(workspace)?;
    let place = place(workspace);
    let toolchain = place.ensure(extra, check)?;
    write_shim(&shims(workspace), &toolchain, &workspace.cross())?;
    Ok(toolchain)
}

/// The crates `tvm-ffi` and `tvm-ffi-sys` ask `tvm-ffi-config --libdir` where to link. The wheel's own script answers
/// for the host only, and starts a Python each time.
fn write_shim(bin: &Path, toolchain: &Toolchain, cross: &Path) -> Result<()> {
    let shim = bin.join("tvm-ffi-config");
    let folder = toolchain.libraries[0].parent().context("failed to find the folder of libtvm_ffi.so")?;
    let quoted = |path: &Path| path.display().to_string().replace('\'', "'\\''");
    // Cargo passes the target to build scripts; xtask's cross build puts the libraries of another target there.
    let text = format!(
        "#!/bin/sh\nfolder='{}'/\"${{TARGET:-none}}\"/tvm\n[ -d \"$folder\" ] || folder='{}'\nprintf '%s\\n' \"$folder\"\n",
        quoted(cross),
        quoted(folder)
    );
    std::fs::create_dir_all(bin).with_context(|| format!("failed to create {}", bin.display()))?;
    write_script(&shim, &text)
}
