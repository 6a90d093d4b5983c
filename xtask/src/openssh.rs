//! OpenSSH's server, two unusual shells and a wrong clock, which the tests of boards over SSH need. Unpacked below target/ from
//! Debian's packages if they are not installed: only the owner of a machine should install a server.

use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Packages with what they bring, and the libraries these need.
const PACKAGES: [&str; 10] = [
    "openssh-server",
    "openssh-sftp-server",
    "libwrap0",
    "libnsl2",
    "libtirpc3",
    "fish",
    "fish-common",
    "tcsh",
    "libpcre2-32-0",
    "libfaketime",
];

/// A file that says that all of them are there: an earlier version unpacked fewer.
const MARK: &str = "unpacked-2";

/// Whether the tests are to be left out.
fn is_skipped() -> bool {
    std::env::var("EDGEPIPE_SKIP").is_ok_and(|list| list.split(',').any(|word| word == "ssh"))
}

/// Unpacks them. If that fails, the tests that need them name what is missing, so this only prints the cause.
pub(crate) fn ensure(workspace: &Workspace) {
    let is_file = |path: &str| Path::new(path).is_file();
    let faketime = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
    let installed = ["/usr/sbin/sshd", "/usr/bin/fish", &faketime].iter().all(|path| is_file(path))
        && ["/bin/tcsh", "/usr/bin/tcsh"].iter().any(|path| is_file(path));
    let root = workspace.state().join("openssh");
    if is_skipped() || installed || root.join(MARK).is_file() {
        return;
    }
    if let Err(error) = unpack(&workspace.state().join("openssh.new"), &root) {
        eprintln!(
            "note: {error:#}; install openssh-server, fish, tcsh and libfaketime, or leave their tests out \
             with EDGEPIPE_SKIP=ssh"
        );
    }
}

fn unpack(fresh: &Path, root: &Path) -> Result<()> {
    // What an earlier try left is of no use.
    let _ = fs::remove_dir_all(fresh);
    fs::create_dir_all(fresh).with_context(|| format!("failed to create {}", fresh.display()))?;
    let output = Command::new("apt-get")
        .arg("download")
        .args(PACKAGES)
        .current_dir(fresh)
        .output()
        .context("failed to start apt-get")?;
    if !output.status.success() {
        bail!(
            "failed to download {}: {}",
            PACKAGES.join(", "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let packages: Vec<_> = fs::read_dir(fresh)?.flatten().map(|entry| entry.path()).collect();
    for package in packages {
        let status = Command::new("dpkg-deb").arg("-x").arg(&package).arg(fresh).status();
        if !status.context("failed to start dpkg-deb")?.success() {
            bail!("failed to unpack {}", package.display());
        }
        fs::remove_file(&package)?;
    }
    fs::write(fresh.join(MARK), "")?;
    // An earlier version's folder is of no use.
    let _ = fs::remove_dir_all(root);
    fs::rename(fresh, root).with_context(|| format!("failed to move {} into place", fresh.display()))
}
