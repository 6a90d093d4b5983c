//! An emulated Cortex-A57: QEMU's user mode and the libraries of an arm64 system, to run what was built for a board.

use super::debian::{self, Wanted};
use crate::workspace::Workspace;
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use toolchain::linker::{quoted, write_script};

/// A program that runs another one, for aarch64, as on a Cortex-A57.
pub(crate) fn emulator(workspace: &Workspace) -> Result<PathBuf> {
    let qemu = qemu(workspace)?;
    let system = debian::unpack(
        workspace,
        &Wanted {
            name: "system-arm64",
            purpose: "the libraries of an arm64 system",
            packages: &["libc6:arm64", "libstdc++6:arm64", "libgcc-s1:arm64"],
            members: &["./lib*", "./usr/lib*"],
        },
    )?;
    let path = workspace.cross().join("emulated-a57");
    std::fs::create_dir_all(workspace.cross())?;
    write_script(
        &path,
        &format!(
            "#!/bin/sh\nexec {} -cpu cortex-a57 -L {} \"$@\"\n",
            quoted(&qemu.join("usr/bin/qemu-aarch64-static")),
            quoted(&system)
        ),
    )?;
    Ok(path)
}

/// The oldest kernel in which a user namespace has its own binary formats (`binfmt_misc`).
const KERNEL: (u32, u32) = (6, 7);

/// Why this machine cannot have emulated boards, which are namespaces of it; `None`: it can.
pub(crate) fn no_board() -> Option<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split('.').map_while(|part| part.parse::<u32>().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < KERNEL {
        let (major, minor) = KERNEL;
        return Some(format!("this kernel is {}; {major}.{minor} or newer is needed", release.trim()));
    }
    let formats = Path::new("/proc/sys/fs/binfmt_misc");
    (!formats.is_dir()).then(|| format!("{} is missing (kernel module binfmt_misc)", formats.display()))
}

/// What an emulated board consists of, in a folder: `qemu-aarch64-static`, and `root` with the programs of a small
/// arm64 system.
pub(crate) fn board(workspace: &Workspace) -> Result<PathBuf> {
    let qemu = qemu(workspace)?.join("usr/bin/qemu-aarch64-static");
    let system = debian::unpack(
        workspace,
        &Wanted {
            name: "emulated-board",
            purpose: "the programs of an emulated board",
            packages: &["busybox-static:arm64", "libc6:arm64", "libstdc++6:arm64", "libgcc-s1:arm64"],
            members: &["./bin*", "./lib*", "./usr/lib*"],
        },
    )?;
    let folder = workspace.cross().join("emulated-board");
    let programs = folder.join("root/bin");
    let busybox = system.join("bin/busybox");
    let lay = || -> std::io::Result<()> {
        std::fs::create_dir_all(&programs)?;
        link(&qemu, &folder.join("qemu-aarch64-static"))?;
        for part in ["lib", "usr"] {
            link(&system.join(part), &folder.join("root").join(part))?;
        }
        std::fs::copy(&busybox, programs.join("busybox"))?;
        let listed = Command::new(&qemu).arg(&busybox).arg("--list").stdin(Stdio::null()).output()?;
        for name in String::from_utf8_lossy(&listed.stdout).lines().filter(|name| *name != "busybox") {
            link(Path::new("busybox"), &programs.join(name))?;
        }
        Ok(())
    };
    lay().with_context(|| format!("failed to lay out an emulated board in {}", folder.display()))?;
    Ok(folder)
}

/// A link that leads there, whatever was in its place.
fn link(target: &Path, link: &Path) -> std::io::Result<()> {
    if std::fs::read_link(link).is_ok_and(|known| known == target) {
        return Ok(());
    }
    match std::fs::remove_file(link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, link)
}

fn qemu(workspace: &Workspace) -> Result<PathBuf> {
    debian::unpack(
        workspace,
        &Wanted {
            name: "qemu",
            purpose: "the emulator of another processor",
            packages: &["qemu-user-static"],
            members: &["./usr/bin/qemu-aarch64-static"],
        },
    )
}
