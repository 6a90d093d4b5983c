//! Paths of the workspace and the build folder.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Paths of the workspace and its build folder.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Folder of the root Cargo.toml.
    pub(crate) root: PathBuf,
    /// Cargo's target folder, which contains this program.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Finds the workspace this program was built from.
    pub(crate) fn find() -> Result<Self> {
        let program = std::env::current_exe().context("failed to find the path of xtask itself")?;
        // Cargo names the package that it runs; started by itself, the program lies below the workspace.
        let named = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let root = named
            .iter()
            .filter_map(|manifest| manifest.parent())
            .chain(program.ancestors())
            .find(|folder| folder.join("xtask/Cargo.toml").is_file() && folder.join("Cargo.toml").is_file())
            .map(Path::to_path_buf)
            .context("failed to find the workspace: start xtask with `cargo xtask`")?;
        let target = target_of(&program, &root)
            .context("failed to find the target folder: start xtask with `cargo xtask`")?;
        for folder in [&root, &target] {
            if let Some(reason) = unusable(folder) {
                bail!(
                    "failed to work in {}: {reason}; move the checkout, or the build folder (CARGO_TARGET_DIR), to \
                     another folder",
                    folder.display()
                );
            }
        }
        Ok(Self { root, target })
    }

    /// Toolchain, compile cache, journals, logs.
    pub(crate) fn state(&self) -> PathBuf {
        self.target.join("edgepipe")
    }

    /// The private toolchain.
    pub(crate) fn toolchain(&self) -> PathBuf {
        self.state().join("toolchain")
    }

    /// Images and states of virtual boards.
    pub(crate) fn virtual_boards(&self) -> PathBuf {
        self.state().join("virtual-board")
    }

    /// What is built for other machines.
    pub(crate) fn cross(&self) -> PathBuf {
        self.state().join("cross")
    }
}

/// Cargo's target folder, which has `debug/xtask`; or `TRIPLE/debug/xtask`, if cargo builds for a named target.
/// Cargo is asked only if the name of the folder may be that of a target.
fn target_of(program: &Path, root: &Path) -> Option<PathBuf> {
    let folder = program.parent()?.parent()?;
    if !folder.file_name()?.as_encoded_bytes().contains(&b'-') {
        return Some(folder.to_path_buf());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let asked = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version=1"])
        .current_dir(root)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let answer: serde_json::Value = serde_json::from_slice(&asked.ok()?.stdout).unwrap_or_default();
    let parent = folder.parent()?;
    let is_above = answer["target_directory"].as_str().is_some_and(|answer| Path::new(answer) == parent);
    Some(if is_above { parent } else { folder }.to_path_buf())
}

/// Why programs that edgepipe starts could not work in a folder.
fn unusable(folder: &Path) -> Option<&'static str> {
    let Some(name) = folder.to_str() else {
        return Some("its name is not UTF-8, which cargo's and edgepipe's JSON files need");
    };
    if name.contains(':') {
        return Some("its name has a colon, which separates the folders of PATH");
    }
    name.contains(char::is_control).then_some("its name has a control character")
}

#[cfg(test)]
mod tests {
    use super::{target_of, unusable};
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;

    #[test]
    fn folders_in_which_programs_fail_are_refused() {
        for name in ["/home/anna/edgepipe", "/a b/it's", "/\u{e9}/\"x\"/$y"] {
            assert_eq!(unusable(Path::new(name)), None, "{name}");
        }
        let odd = |bytes| unusable(Path::new(OsStr::from_bytes(bytes))).unwrap_or("none");
        assert!(odd(b"/a\xff").contains("UTF-8") && odd(b"/a:b").contains("colon"));
        assert!(odd(b"/a\nb").contains("control character"));
    }

    #[test]
    fn the_target_folder_is_above_that_of_a_triple() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let of = |program: &str| target_of(Path::new(program), root).unwrap();
        assert_eq!(of("/x/target/debug/xtask"), Path::new("/x/target"));
        // A folder that only looks like a target's.
        assert_eq!(of("/x/my-builds/debug/xtask"), Path::new("/x/my-builds"));
        let program = std::env::current_exe().unwrap();
        let target = target_of(&program.parent().unwrap().with_file_name("xtask"), root).unwrap();
        assert!(target.join("debug").is_dir(), "{}", target.display());
        assert_eq!(of(&format!("{}/x86_64-unknown-linux-gnu/debug/xtask", target.display())), target);
    }
}
