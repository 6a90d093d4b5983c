//! Settings of the user's own builds, kept out of builds for boards: `target-cpu=native` for this machine would die on a
//! board with SIGILL, and no check before that can see it.

use crate::workspace::Workspace;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Variables of cargo that decide what a compiler makes; others that begin with `CARGO_BUILD_` do not (`_JOBS`).
const OF_CARGO: [&str; 12] = [
    "CARGO_BUILD_BUILD_DIR",
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "CARGO_TARGET_APPLIES_TO_HOST",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];
const PREFIXES_OF_CARGO: [&str; 3] = ["CARGO_HOST_", "CARGO_PROFILE_", "CARGO_UNSTABLE_"];
/// Variables of C compilers, which build scripts read. There are four forms of each: `CC`, `TARGET_CC`,
/// `CC_aarch64-unknown-linux-gnu` and `CC_aarch64_unknown_linux_gnu`.
const OF_C: [&str; 12] = [
    "AR",
    "ARFLAGS",
    "CC",
    "CFLAGS",
    "CPPFLAGS",
    "CXX",
    "CXXFLAGS",
    "LD",
    "LDFLAGS",
    "RANLIB",
    "RANLIBFLAGS",
    "STRIP",
];
/// Keys of cargo's configuration files that decide the same.
const KEYS: [&str; 6] =
    ["rustflags", "rustc-wrapper", "rustc-workspace-wrapper", "rustc", "linker", "[profile."];

/// Takes the user's settings out of a build for `triple` and puts empty ones in their place, which override those of cargo's
/// configuration files. Returns a description of what was set.
pub(super) fn take_out(cargo: &mut Command, workspace: &Workspace, triple: &str) -> Vec<String> {
    let set: Vec<OsString> = std::env::vars_os()
        .filter(|(name, _)| name.to_str().is_some_and(|name| decides(name, triple)))
        .filter_map(|(name, value)| {
            cargo.env_remove(&name);
            (!value.is_empty()).then_some(name)
        })
        .collect();
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    cargo.env("RUSTC", compiler);
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        cargo.env(name, "");
    }
    let mut found: Vec<String> = set.iter().map(|name| name.display().to_string()).collect();
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    for file in files(&workspace.root, home.as_deref()) {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        found.extend(
            keys(&text)
                .into_iter()
                .map(|key| format!("{} in {}", key.trim_matches(['[', '.']), file.display())),
        );
    }
    found.sort();
    found
}

/// Whether a variable decides what a build for `triple` makes.
fn decides(name: &str, triple: &str) -> bool {
    let underscored = triple.replace('-', "_");
    if OF_CARGO.contains(&name)
        || PREFIXES_OF_CARGO.iter().any(|prefix| name.starts_with(prefix))
        || name.starts_with(&format!("CARGO_TARGET_{}_", underscored.to_uppercase()))
    {
        return true;
    }
    let bare = name.strip_prefix("TARGET_").or_else(|| name.strip_prefix("HOST_")).unwrap_or(name);
    let bare = [triple, &underscored]
        .iter()
        .find_map(|suffix| bare.strip_suffix(*suffix)?.strip_suffix('_'))
        .unwrap_or(bare);
    OF_C.contains(&bare)
}

/// Cargo's configuration files: of the workspace, of the folders above it, and the user's.
fn files(root: &Path, home: Option<&Path>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = root.ancestors().map(|folder| folder.join(".cargo")).collect();
    folders.extend(home.map(Path::to_path_buf));
    folders.sort();
    folders.dedup();
    folders
        .iter()
        .flat_map(|folder| ["config.toml", "config"].map(|name| folder.join(name)))
        .filter(|file| file.is_file())
        .collect()
}

/// The deciding keys of a configuration file. Only for a message: cargo itself does not obey them.
fn keys(text: &str) -> Vec<&'static str> {
    let lines = || text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let has = |key: &str| {
        lines().any(|line| {
            if key.starts_with('[') {
                return line.starts_with(key);
            }
            let name = line.split('=').next().unwrap_or("").trim();
            line.contains('=') && name.rsplit('.').next() == Some(key)
        })
    };
    KEYS.into_iter().filter(|key| has(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::{decides, files, keys};
    use std::fs;

    const TRIPLE: &str = "aarch64-unknown-linux-gnu";

    #[test]
    fn every_variable_that_decides_is_known_in_every_spelling() {
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER",
            "CARGO_PROFILE_RELEASE_OPT_LEVEL",
            "CARGO_BUILD_TARGET",
            "RUSTC_WRAPPER",
            "CFLAGS",
            "TARGET_CFLAGS",
            "HOST_CC",
            "CC_aarch64_unknown_linux_gnu",
            "CXXFLAGS_aarch64-unknown-linux-gnu",
        ] {
            assert!(decides(name, TRIPLE), "{name}");
        }
        for name in [
            "PATH",
            "CARGO_HOME",
            "CARGO_BUILD_JOBS",
            "CARGO_HTTP_PROXY",
            "CARGO_NET_OFFLINE",
            "CARGO_TARGET_DIR",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER",
            "CC_x86_64_unknown_linux_gnu",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(!decides(name, TRIPLE), "{name}");
        }
    }

    #[test]
    fn configuration_files_are_found_with_their_keys() {
        let text = "[build]\nrustflags = [\"-Ctarget-cpu=native\"]\n# linker = \"x\"\n[profile.release]\nlto = true\n";
        assert_eq!(keys(text), ["rustflags", "[profile."]);
        assert_eq!(keys("target.aarch64-unknown-linux-gnu.linker = 'x'\n"), ["linker"]);
        assert_eq!(keys("[source.crates-io]\nreplace-with = 'vendored'\n[net]\noffline = true\n"), [""; 0]);

        let folder = std::env::temp_dir().join(format!("edgepipe-flags-{}", std::process::id()));
        let root = folder.join("a/b");
        for (place, name) in [("a/b", "config.toml"), ("", "config"), ("a/b/c", "config.toml")] {
            fs::create_dir_all(folder.join(place).join(".cargo")).unwrap();
            fs::write(folder.join(place).join(".cargo").join(name), "").unwrap();
        }
        fs::create_dir_all(folder.join("home")).unwrap();
        fs::write(folder.join("home/config.toml"), "").unwrap();
        let mut found = files(&root, Some(&folder.join("home")));
        found.retain(|file| file.starts_with(&folder));
        let wanted = [".cargo/config", "a/b/.cargo/config.toml", "home/config.toml"];
        assert_eq!(found, wanted.map(|file| folder.join(file)));
        fs::remove_dir_all(&folder).unwrap();
    }
}
