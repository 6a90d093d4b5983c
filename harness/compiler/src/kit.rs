//! The programs and libraries that `cargo xtask build --board NAME` built for a board's target.

use config::Target;
use std::path::{Path, PathBuf};

/// The directory with the runner, its libraries and the linker for a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kit {
    folder: PathBuf,
    target: Target,
}

impl Kit {
    /// The kit for `target` below the directory of caches and journals. It may not exist.
    pub fn of(state: &Path, target: &Target) -> Self {
        let name = match &target.glibc {
            Some(glibc) => format!("{}.{glibc}", target.triple.text()),
            None => target.triple.text().to_owned(),
        };
        Self { folder: state.join("cross").join(name), target: target.clone() }
    }

    /// Its target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The runner.
    pub fn runner(&self) -> PathBuf {
        self.folder.join("runner")
    }

    /// TVM's libraries, which belong in `lib/` next to the runner.
    pub fn libraries(&self) -> [PathBuf; 2] {
        ["libtvm_ffi.so", "libtvm_runtime.so"].map(|name| self.folder.join("lib").join(name))
    }

    /// The linker for the target, with the command line of a C compiler.
    pub fn linker(&self) -> PathBuf {
        self.folder.join("cc")
    }
}
