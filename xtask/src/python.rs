//! The private toolchain of this checkout: the Python environment, and the `tvm-ffi-config` shim that the `tvm-ffi`
//! crate's build script asks for its library.

use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use toolchain::linker::write_script;
use toolchain::packages::Packages;
use toolchain::{CHECKS, CROSS, Check, FARM, Place, Toolchain, find_interpreter, has_c_compiler};

/// What the build scripts of `tvm-ffi` start.
const SHIM: &str = "tvm-ffi-config";

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
             example with `sudo apt install gcc` (Debian, Ubuntu) or `sudo dnf install gcc` (Fedora)"
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

/// A shim that waits until the toolchain is installed, so that cargo builds everything in one call meanwhile. Where the
/// installation fails, this is dropped, and the shim and cargo's build script fail too.
#[derive(Debug)]
pub(crate) struct WaitingShim {
    path: PathBuf,
    text: String,
}

impl WaitingShim {
    pub(crate) fn write(workspace: &Workspace) -> Result<Self> {
        Self::write_to(&shims(workspace), std::process::id())
    }

    /// In the folder `bin`, waiting for the process `installer`.
    fn write_to(bin: &Path, installer: u32) -> Result<Self> {
        let path = bin.join(SHIM);
        let text = format!(
            "#!/bin/sh\n\
             # The toolchain is being installed, which replaces this file.\n\
             while [ -e \"$0\" ] && kill -0 {installer} 2>/dev/null; do\n    \
                 grep -qs 'being installed' \"$0\" || exec \"$0\" \"$@\"\n    \
                 sleep 0.1\n\
             done\n\
             echo 'the toolchain was not installed' >&2\n\
             exit 1\n"
        );
        std::fs::create_dir_all(bin).with_context(|| format!("failed to create {}", bin.display()))?;
        write_script(&path, &text)?;
        Ok(Self { path, text })
    }
}

impl Drop for WaitingShim {
    fn drop(&mut self) {
        // The installed toolchain, or another process that installs, has replaced it otherwise.
        if std::fs::read_to_string(&self.path).is_ok_and(|current| current == self.text) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The crates `tvm-ffi` and `tvm-ffi-sys` ask `tvm-ffi-config --libdir` where to link. The wheel's own script answers
/// for the host only, and starts a Python each time.
fn write_shim(bin: &Path, toolchain: &Toolchain, cross: &Path) -> Result<()> {
    let shim = bin.join(SHIM);
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

#[cfg(test)]
mod tests {
    use super::{SHIM, WaitingShim, write_shim};
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Output, Stdio};
    use toolchain::Toolchain;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("edgepipe-shim-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        folder
    }

    fn ask(bin: &Path) -> Child {
        let mut shim = Command::new(bin.join(SHIM));
        shim.arg("--libdir").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn answer(child: Child) -> Output {
        child.wait_with_output().unwrap()
    }

    #[test]
    fn a_shim_answers_once_the_toolchain_is_installed() {
        let bin = folder("waits");
        let waiting = WaitingShim::write_to(&bin, std::process::id()).unwrap();
        let asked = ask(&bin);
        let libraries = ["/packages/tvm_ffi/lib/libtvm_ffi.so", "/packages/tvm/lib/libtvm_runtime.so"];
        let toolchain =
            Toolchain { python: PathBuf::from("/python"), libraries: libraries.map(PathBuf::from) };
        write_shim(&bin, &toolchain, Path::new("/nowhere")).unwrap();
        drop(waiting);
        for output in [answer(asked), answer(ask(&bin))] {
            assert_eq!(String::from_utf8_lossy(&output.stdout), "/packages/tvm_ffi/lib\n");
            assert!(output.status.success());
        }
        std::fs::remove_dir_all(&bin).unwrap();
    }

    #[test]
    fn a_shim_fails_if_the_installation_fails_or_its_process_is_killed() {
        let bin = folder("fails");
        let mut killed = Command::new("true").spawn().unwrap();
        killed.wait().unwrap();
        let waiting = WaitingShim::write_to(&bin, killed.id()).unwrap();
        let of_killed = answer(ask(&bin));
        drop(waiting);
        assert!(!bin.join(SHIM).exists());
        let waiting = WaitingShim::write_to(&bin, std::process::id()).unwrap();
        let asked = ask(&bin);
        let mut asked = [asked, ask(&bin)];
        assert!(asked.iter_mut().all(|child| child.try_wait().unwrap().is_none()));
        drop(waiting);
        for output in asked.map(answer).into_iter().chain([of_killed]) {
            assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        std::fs::remove_dir_all(&bin).unwrap();
    }
}
