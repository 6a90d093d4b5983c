//! Where things lie.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Paths of the workspace and its build folder.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Folder of the root Cargo.toml.
    pub(crate) root: PathBuf,
    /// Cargo's target folder, where this very program lies.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Finds the workspace this program was built from.
    pub(crate) fn find() -> Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest
            .parent()
            .map(Path::to_path_buf)
            .context("failed to find the workspace: start xtask by `cargo xtask`")?;
        // target/debug/xtask: cargo's own answer to CARGO_TARGET_DIR and build.target-dir, without asking it again.
        let program = std::env::current_exe().context("failed to find the path of xtask itself")?;
        let target = program
            .parent()
            .and_then(Path::parent)
            .map(Path::to_path_buf)
            .context("failed to find the target folder: start xtask by `cargo xtask`")?;
        Ok(Self { root, target })
    }

    /// Everything edgepipe keeps by itself: toolchain, compile cache, journals.
    pub(crate) fn state(&self) -> PathBuf {
        self.target.join("edgepipe")
    }

    /// The private toolchain.
    pub(crate) fn toolchain(&self) -> PathBuf {
        self.state().join("toolchain")
    }

    /// What is built for other machines.
    pub(crate) fn cross(&self) -> PathBuf {
        self.state().join("cross")
    }
}
