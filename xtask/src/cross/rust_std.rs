//! Rust's standard library for another target: what is installed already, else what rustup downloads, or Debian's.

use super::debian;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use toolchain::linker::{quoted, write_script};

/// Environment variable that chooses: `installed`, `rustup` or `debian`.
pub(crate) const VARIABLE: &str = "EDGEPIPE_RUST_STD";

/// Where a standard library comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// It is installed for the active toolchain.
    Installed,
    /// `rustup target add` brings it.
    Rustup,
    /// Debian's compiler with its own standard library, unpacked privately.
    Debian,
}

/// A standard library, with the compiler that goes with it.
#[derive(Debug)]
pub(crate) struct RustStd {
    source: Source,
    compiler: Option<PathBuf>,
}

impl RustStd {
    /// Makes sure that there is one for `triple`.
    pub(crate) fn provide(workspace: &Workspace, triple: &str) -> Result<Self> {
        let asked = std::env::var(VARIABLE).ok();
        let source = choose(asked.as_deref(), is_installed(triple)?)?;
        let compiler = match source {
            Source::Installed => None,
            Source::Rustup => {
                eprintln!("adding Rust's standard library for {triple}: rustup target add {triple}");
                add_by_rustup("rustup".as_ref(), triple)?;
                None
            }
            Source::Debian => Some(from_debian(workspace, triple)?),
        };
        Ok(Self { source, compiler })
    }

    /// For the folder of what is built with it.
    pub(crate) fn name(&self) -> &'static str {
        match self.source {
            Source::Installed | Source::Rustup => "rust",
            Source::Debian => "debian",
        }
    }

    /// The compiler, if it is not the active toolchain's.
    pub(crate) fn compiler(&self) -> Option<&Path> {
        self.compiler.as_deref()
    }
}

/// Whether a cross build would change nothing of the user's Rust installation.
pub(crate) fn is_private(triple: &str) -> bool {
    std::env::var(VARIABLE).is_ok() || is_installed(triple).unwrap_or(false)
}

/// The requested one, else an installed one, else rustup's.
fn choose(asked: Option<&str>, installed: bool) -> Result<Source> {
    match asked {
        None | Some("" | "rustup") => Ok(if installed { Source::Installed } else { Source::Rustup }),
        Some("installed") => Ok(Source::Installed),
        Some("debian") => Ok(Source::Debian),
        Some(other) => bail!(
            "failed to choose Rust's standard library: {VARIABLE} is {other:?}; expected installed, rustup or debian"
        ),
    }
}

fn is_installed(triple: &str) -> Result<bool> {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(&compiler)
        .args(["--print", "sysroot"])
        .output()
        .with_context(|| format!("failed to start {}", compiler.display()))?;
    let root = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    Ok(has_std(&root.join("lib/rustlib").join(triple).join("lib")))
}

fn has_std(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                name.starts_with("libstd-") && Path::new(&name).extension() == Some("rlib".as_ref())
            })
        })
    })
}

/// `rustup target add`, for the toolchain that cargo runs in.
fn add_by_rustup(program: &OsStr, triple: &str) -> Result<()> {
    let advice = format!(
        "or use Debian's compiler with {VARIABLE}=debian (on Debian and its derivatives), or install the \
         standard library for {triple} with the package manager of your distribution"
    );
    let status = match Command::new(program).args(["target", "add", triple]).status() {
        Ok(status) => status,
        Err(error) => bail!(
            "failed to start {}: {error}; install rustup (https://rustup.rs), {advice}",
            program.display()
        ),
    };
    if !status.success() {
        bail!("failed to add the target {triple}: see rustup's message above; fix the problem, {advice}");
    }
    Ok(())
}

/// Debian's compiler and its standard libraries for this machine and for `triple`; a wrapper that starts it.
fn from_debian(workspace: &Workspace, triple: &str) -> Result<PathBuf> {
    let architecture = debian::architecture(triple.split('-').next().unwrap_or(triple));
    let host = debian::architecture(std::env::consts::ARCH);
    let for_host = format!("libstd-rust-web-dev:{host}");
    let for_target = format!("libstd-rust-web-dev:{architecture}");
    let root = debian::unpack(
        workspace,
        &debian::Wanted {
            name: &format!("rust-{architecture}"),
            purpose: "Rust's compiler and standard libraries",
            packages: &[
                "rustc-web",
                &for_target,
                &for_host,
                "libstd-rust-web-*",
                "libllvm*",
                // What Debian's LLVM loads besides; small systems lack it.
                "libedit2",
                "libbsd0",
                "libmd0",
                "libtinfo6",
                "libffi8",
                "libxml2",
                "libicu72",
                "liblzma5",
                "libz3-4",
                "libzstd1",
                "zlib1g",
            ],
            members: &[],
        },
    )?;
    let multiarch = format!("{}-linux-gnu", std::env::consts::ARCH);
    let libraries = [root.join("usr/lib").join(&multiarch), root.join("lib").join(&multiarch)];
    let wrapper = root.join("rustc");
    write_script(
        &wrapper,
        &format!(
            "#!/bin/sh\nLD_LIBRARY_PATH={}:{} exec {} \"$@\"\n",
            quoted(&libraries[0]),
            quoted(&libraries[1]),
            quoted(&root.join("usr/bin/rustc"))
        ),
    )?;
    Ok(wrapper)
}

#[cfg(test)]
mod tests {
    use super::{Source, add_by_rustup, choose, has_std};
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    #[test]
    fn the_order_is_what_is_asked_then_what_is_there_then_rustup() {
        let table = [
            (None, true, Source::Installed),
            (None, false, Source::Rustup),
            (Some(""), false, Source::Rustup),
            (Some("installed"), false, Source::Installed),
            (Some("rustup"), false, Source::Rustup),
            (Some("rustup"), true, Source::Installed),
            (Some("debian"), true, Source::Debian),
            (Some("debian"), false, Source::Debian),
        ];
        for (asked, installed, source) in table {
            assert_eq!(choose(asked, installed).unwrap(), source, "{asked:?} {installed}");
        }
        let message = choose(Some("nix"), true).unwrap_err().to_string();
        assert!(message.contains("expected installed, rustup or debian"), "{message}");
    }

    #[test]
    fn rustup_is_asked_for_the_target_alone() {
        // A program that writes down its arguments stands for rustup, which would change the machine.
        let folder = scratch("rustup");
        let program = folder.join("rustup");
        let said = folder.join("said");
        fs::write(&program, format!("#!/bin/sh\necho \"$@\" > '{}'\n", said.display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        add_by_rustup(program.as_os_str(), "aarch64-unknown-linux-gnu").unwrap();
        assert_eq!(fs::read_to_string(said).unwrap(), "target add aarch64-unknown-linux-gnu\n");

        let missing = folder.join("no-rustup");
        let message = add_by_rustup(missing.as_os_str(), "t").unwrap_err().to_string();
        assert!(message.contains("EDGEPIPE_RUST_STD=debian"), "{message}");
        let message = add_by_rustup("false".as_ref(), "t").unwrap_err().to_string();
        assert!(message.contains("failed to add the target t"), "{message}");
    }

    #[test]
    fn a_standard_library_is_known_by_its_archive() {
        let folder = scratch("std");
        assert!(!has_std(&folder.join("none")));
        assert!(!has_std(&folder));
        fs::write(folder.join("libstd-0123.rlib"), "").unwrap();
        assert!(has_std(&folder));
    }

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("edgepipe-xtask-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }
}
