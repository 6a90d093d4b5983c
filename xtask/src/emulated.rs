//! Code for a board's processor on an emulated one: the runner, and what the compiler makes for it.

use crate::cross::{self, Shown, Target, Via, debian, emulation};
use crate::python;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;
use toolchain::Toolchain;

/// What the emulated board needs: that of a Jetson TX2 with `JetPack` 4.6.
const TRIPLE: &str = "aarch64-unknown-linux-gnu";
const GLIBC: &str = "2.27";

/// An emulated Cortex-A57 with the runner built for it.
pub(crate) struct Board {
    kit: PathBuf,
    emulator: PathBuf,
    /// What boards that are reached over SSH consist of; `None`: this machine cannot have them.
    system: Option<PathBuf>,
}

impl Board {
    /// Names the board to the tests, by the variables that compiler/tests/emulated.py and harness/tests/farm read.
    pub(crate) fn name_to(&self, tests: &mut Command) {
        tests.env("EDGEPIPE_KIT", &self.kit).env("EDGEPIPE_EMULATOR", &self.emulator);
        if let Some(system) = &self.system {
            tests.env("EDGEPIPE_EMULATED_BOARD", system);
        }
    }
}

/// Builds the board without changes to this machine: Debian's packages are unpacked, and
/// Rust's standard library for aarch64 is not added to an installation.
pub(crate) fn board(workspace: &Workspace, toolchain: &Toolchain) -> Result<Board> {
    if let Some(missing) = debian::missing() {
        bail!("failed to get an emulator: {missing}");
    }
    if !cross::has_std_or_choice(TRIPLE) {
        bail!(
            "failed to find Rust's standard library for {TRIPLE}: `rustup target add {TRIPLE}` installs it, {}=debian \
             unpacks Debian's instead and installs nothing",
            cross::STD_VARIABLE
        );
    }
    make(workspace, toolchain)
}

fn make(workspace: &Workspace, toolchain: &Toolchain) -> Result<Board> {
    let target = Target { triple: TRIPLE.to_owned(), glibc: Some(GLIBC.to_owned()) };
    let kit = cross::build(workspace, toolchain, &target, Via::Zig, Shown::All)?.folder;
    let system = match emulation::no_board() {
        None => Some(emulation::board(workspace)?),
        Some(why) => {
            eprintln!("note: emulated boards over SSH are not available: {why}");
            None
        }
    };
    Ok(Board { kit, emulator: emulation::emulator(workspace)?, system })
}

/// Runs everything on the emulated board. `rest` goes to pytest.
pub(crate) fn run(workspace: &Workspace, rest: &[String]) -> Result<u8> {
    let toolchain = python::ensure_with_checks(workspace)?;
    let board = make(workspace, &toolchain)?;
    let mut pytest = environment::python(&toolchain.python);
    pytest
        .args(["-m", "pytest", "compiler/tests/test_emulated.py", "-v", "--durations=20"])
        .args(rest)
        .current_dir(&workspace.root)
        .env("PYTHONPATH", workspace.root.join("compiler"))
        .env("EDGEPIPE_EMULATED_ALL", "1");
    board.name_to(&mut pytest);
    let status = pytest.status().context("failed to start pytest")?;
    match status.code() {
        Some(0) => Ok(0),
        Some(4 | 5) => bail!("failed to find the requested tests: see pytest's message above"),
        _ => Ok(1),
    }
}
