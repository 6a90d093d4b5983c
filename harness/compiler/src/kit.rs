//! What was built for a board's target, where `cargo xtask build --board NAME` puts it.

use config::Target;
use std::path::{Path, PathBuf};

/// A folder with the runner, its libraries and the linker for a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kit {
    folder: PathBuf,
    target: Target,
}

impl Kit {
    /// The kit for `target` below the folder of caches and journals. Whether it is there is not looked at.
    pub fn of(state: &Path, target: &Target) -> Self {
        let name = match &target.glibc {
            Some(glibc) => format!("{}.{glibc}", target.triple.text()),
            None => target.triple.text().to_owned(),
        };
        Self { folder: state.join("cross").join(name), target: target.clone() }
    }

    /// The target it was made for.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The board's side.
    pub fn runner(&self) -> PathBuf {
        self.folder.join("runner")
    }

    /// TVM's libraries, which belong into `lib/` beside the runner.
    pub fn libraries(&self) -> [PathBuf; 2] {
        ["libtvm_ffi.so", "libtvm_runtime.so"].map(|name| self.folder.join("lib").join(name))
    }

    /// Links for the target: a C compiler's command line.
    pub fn linker(&self) -> PathBuf {
        self.folder.join("cc")
    }
}
