//! An emulated Cortex-A57: QEMU's user mode and the libraries of an arm64 system, to run what was built for a board.

use super::debian::{self, Wanted};
use super::write_script;
use crate::workspace::Workspace;
use anyhow::Result;
use std::path::PathBuf;

/// A program that runs another one, for aarch64, as on a Cortex-A57.
pub(crate) fn emulator(workspace: &Workspace) -> Result<PathBuf> {
    let qemu = debian::unpack(
        workspace,
        &Wanted {
            name: "qemu",
            purpose: "the emulator of another processor",
            packages: &["qemu-user-static"],
            members: &["./usr/bin/qemu-aarch64-static"],
        },
    )?;
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
            super::quoted(&qemu.join("usr/bin/qemu-aarch64-static")),
            super::quoted(&system)
        ),
    )?;
    Ok(path)
}
