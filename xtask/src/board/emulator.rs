//! QEMU and OpenSSH's programs, as Debian builds them, with all libraries of theirs: nothing of this machine's is used.

use crate::cross::debian::{self, Wanted};
use crate::workspace::Workspace;
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::process::Command;

const LIBRARIES: [&str; 3] =
    ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/pulseaudio"];

/// The folder they are unpacked to.
#[derive(Debug)]
pub(super) struct Emulator {
    root: PathBuf,
}

impl Emulator {
    /// Unpacks them.
    pub(super) fn unpack(workspace: &Workspace) -> Result<Self> {
        if std::env::consts::ARCH != "x86_64" {
            bail!(
                "failed to find an emulator for the virtual board: it is taken from Debian's packages for x86_64, and \
                 this machine is {}",
                std::env::consts::ARCH
            );
        }
        let root = debian::unpack(
            workspace,
            &Wanted {
                name: "virtual-board-host",
                purpose: "the emulator of a board",
                packages: &["qemu-system-arm+", "openssh-client+"],
                members: &[
                    "./lib/x86_64-linux-gnu/*",
                    "./usr/bin/qemu-system-aarch64",
                    "./usr/bin/ssh",
                    "./usr/bin/ssh-keygen",
                    "./usr/lib/x86_64-linux-gnu/*",
                    "./usr/share/qemu/*",
                ],
            },
        )?;
        Ok(Self { root })
    }

    /// Folder of QEMU's data.
    pub(super) fn data(&self) -> PathBuf {
        self.root.join("usr/share/qemu")
    }

    /// One of the programs, started by the dynamic linker beside it.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.root.join("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"));
        let libraries = LIBRARIES.map(|folder| self.root.join(folder).display().to_string()).join(":");
        command.arg("--library-path").arg(libraries).arg(self.root.join("usr/bin").join(program));
        command.env_remove("LD_LIBRARY_PATH").env_remove("LD_PRELOAD");
        command
    }
}
