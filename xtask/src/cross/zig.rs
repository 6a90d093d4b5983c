//! zig as C compiler and linker: it carries the symbols of every glibc, so what it links starts on an old one.

use super::{Target, quoted, with_cross_packages, write_script};
use crate::python::Toolchain;
use crate::workspace::Workspace;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Writes `cc` to `folder`, which compiles and links for `target`, and installs zig where it is not there yet.
pub(crate) fn linker(
    workspace: &Workspace,
    toolchain: &Toolchain,
    target: &Target,
    folder: &Path,
) -> Result<PathBuf> {
    with_cross_packages(workspace)?;
    let zig = toolchain
        .libraries
        .iter()
        .find_map(|library| library.ancestors().nth(3).map(|packages| packages.join("ziglang/zig")))
        .filter(|zig| zig.exists())
        .context("failed to find zig in the private Python environment: remove target/edgepipe/toolchain and try again")?;
    // Without optimization zig checks for undefined behaviour, and builds a library for that, which takes 15 s, at its
    // first link of each kind.
    let path = folder.join("cc");
    let cache = quoted(&workspace.cross().join("zig-cache"));
    write_script(
        &path,
        &format!(
            "#!/bin/sh\nexport ZIG_GLOBAL_CACHE_DIR={cache} ZIG_LOCAL_CACHE_DIR={cache}\nexec {} cc -target {} \
             -fno-sanitize=undefined \"$@\"\n",
            quoted(&zig),
            name(target)
        ),
    )?;
    Ok(path)
}

/// The target in zig's words: `aarch64-linux-gnu.2.27`.
fn name(target: &Target) -> String {
    let version = target.glibc.as_ref().map(|version| format!(".{version}")).unwrap_or_default();
    format!("{}-linux-gnu{version}", target.architecture())
}

#[cfg(test)]
mod tests {
    use super::{Target, name};

    #[test]
    fn zig_is_told_the_version_of_the_c_library() {
        let target = |glibc: Option<&str>| Target {
            triple: "aarch64-unknown-linux-gnu".to_owned(),
            glibc: glibc.map(str::to_owned),
        };
        assert_eq!(name(&target(Some("2.27"))), "aarch64-linux-gnu.2.27");
        assert_eq!(name(&target(None)), "aarch64-linux-gnu");
    }
}
