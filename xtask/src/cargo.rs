//! Building harness and runner.

use crate::failure::Bug;
use crate::python;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use toolchain::Toolchain;

/// What was built.
#[derive(Debug)]
pub(crate) struct Built {
    /// The host's side.
    pub(crate) harness: PathBuf,
    /// The board's side for this machine, with TVM's libraries in `lib/` beside it.
    pub(crate) runner: PathBuf,
}

/// PATH with the shim in front. Always the same, because the build scripts run again when it changes.
fn path_with_shim(workspace: &Workspace) -> Result<OsString> {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let parts = std::iter::once(python::shims(workspace)).chain(std::env::split_paths(&old));
    std::env::join_paths(parts).context("failed to put the toolchain on PATH: its path contains a colon")
}

/// Cargo, as it started this program, in the workspace and with the shim on PATH.
pub(crate) fn command(workspace: &Workspace) -> Result<Command> {
    started(workspace, &cargo())
}

/// A program of tests, as `cargo test` starts it: in the folder of its package, and with what tests read of the variables
/// that cargo sets.
pub(crate) fn test(workspace: &Workspace, program: &Program) -> Result<Command> {
    let mut test = started(workspace, program.path.as_os_str())?;
    test.current_dir(&program.folder).env("CARGO", cargo()).env("CARGO_MANIFEST_DIR", &program.folder);
    // Each package of the workspace has the name of its folder.
    test.env("CARGO_PKG_NAME", program.folder.file_name().unwrap_or_default());
    Ok(test)
}

fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn started(workspace: &Workspace, program: &OsStr) -> Result<Command> {
    let mut command = Command::new(program);
    command.current_dir(&workspace.root).env("PATH", path_with_shim(workspace)?);
    command.env("CARGO_TARGET_DIR", &workspace.target);
    // What cargo set for xtask itself must not reach the crates built here, or they are built again each time.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Arguments that let the harness' SSH library build OpenSSL itself where its headers are not installed.
pub(crate) fn openssl_features() -> &'static [&'static str] {
    let found = Command::new("pkg-config").args(["--exists", "openssl"]).status();
    if found.is_ok_and(|status| status.success()) || std::env::var_os("OPENSSL_DIR").is_some() {
        &[]
    } else {
        &["--features", "cli/vendored-openssl"]
    }
}

/// Builds harness and runner in release mode and lays TVM's libraries beside the runner.
pub(crate) fn build(workspace: &Workspace, toolchain: &Toolchain) -> Result<Built> {
    let built = build_programs(workspace)?;
    lay_libraries(toolchain, built.runner.parent().unwrap_or(&workspace.target))?;
    Ok(built)
}

/// Builds harness and runner alone. The shim may wait for the toolchain meanwhile.
pub(crate) fn build_programs(workspace: &Workspace) -> Result<Built> {
    let programs = build_packages(workspace, &["cli", "runner"])?;
    Ok(Built { harness: programs.path("edgepipe")?, runner: programs.path("runner")? })
}

/// Builds the harness alone, which takes no toolchain; the runner of this machine is not needed where others are measured.
pub(crate) fn build_harness(workspace: &Workspace) -> Result<Built> {
    let harness = build_packages(workspace, &["cli"])?.path("edgepipe")?;
    Ok(Built { runner: harness.with_file_name("runner"), harness })
}

fn build_packages(workspace: &Workspace, packages: &[&str]) -> Result<Programs> {
    // The first build takes minutes and shows them; later ones take a moment and are not worth a line.
    let are_there = packages.iter().all(|package| workspace.target.join("release").join(package).exists());
    let mut cargo = command(workspace)?;
    cargo
        .args(["build", "--release", "--locked"])
        .args(profile(workspace)?)
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .args(openssl_features())
        .args(if are_there { &["--quiet"] } else { &[][..] });
    Programs::build(cargo, &packages.join(" and "))
}

/// Programs that cargo built, and where it put them, as it says itself: that depends on `build.target`, `CARGO_BUILD_TARGET`
/// and other settings.
#[derive(Debug)]
pub(crate) struct Programs(Vec<Program>);

/// A program that cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    /// Name of the target: of a binary, a library or a file of tests.
    pub(crate) name: String,
    /// What kind of target: `bin`, `lib`, `test`, `cdylib`.
    pub(crate) kind: String,
    /// Whether it was built to run its tests.
    pub(crate) is_test: bool,
    /// Folder of its package.
    pub(crate) folder: PathBuf,
    /// Where it is.
    pub(crate) path: PathBuf,
}

impl Programs {
    /// Runs cargo with a command that builds. Its messages for people go to standard error as usual.
    pub(crate) fn build(mut cargo: Command, what: &str) -> Result<Self> {
        let output = cargo
            .arg("--message-format=json-render-diagnostics")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("failed to start {}", cargo.get_program().display()))?;
        if !output.status.success() {
            bail!("failed to build {what}: see the message above");
        }
        Ok(Self::read(&String::from_utf8_lossy(&output.stdout)))
    }

    fn read(messages: &str) -> Self {
        Self(messages.lines().filter_map(Program::read).collect())
    }

    /// The binary of this name.
    pub(crate) fn path(&self, name: &str) -> Result<PathBuf> {
        self.path_of("bin", name)
    }

    /// The shared library of this name.
    pub(crate) fn library(&self, name: &str) -> Result<PathBuf> {
        self.path_of("cdylib", name)
    }

    fn path_of(&self, kind: &str, name: &str) -> Result<PathBuf> {
        let is_it = |program: &&Program| program.name == name && program.kind == kind && !program.is_test;
        let found = self.0.iter().find(is_it);
        found.map(|program| program.path.clone()).context(Bug(format!("cargo built no {kind} {name}")))
    }

    /// Those that run tests.
    pub(crate) fn tests(&self) -> impl Iterator<Item = &Program> {
        self.0.iter().filter(|program| program.is_test)
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Program> {
        self.0.iter()
    }
}

impl Program {
    /// For people: the package, and its file of tests or its target.
    pub(crate) fn title(&self) -> String {
        let package = self.folder.file_name().unwrap_or_default().display();
        match self.kind.as_str() {
            "test" => format!("{package}, tests/{}", self.name),
            kind => format!("{package}, unit tests of the {kind} {}", self.name),
        }
    }

    fn read(message: &str) -> Option<Self> {
        let message: serde_json::Value = serde_json::from_str(message).ok()?;
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        if message["reason"] != "compiler-artifact" {
            return None;
        }
        let target = &message["target"];
        let kind = text(&target["kind"][0])?;
        // A shared library is not executable, but among the files.
        let files = message["filenames"].as_array().filter(|_| kind == "cdylib");
        let is_shared =
            |file: &String| Path::new(file).extension().is_some_and(|extension| extension == "so");
        let library = files.and_then(|files| files.iter().filter_map(text).find(is_shared));
        Some(Self {
            name: text(&target["name"])?,
            kind,
            is_test: message["profile"]["test"] == true,
            folder: Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf(),
            path: PathBuf::from(text(&message["executable"]).or(library)?),
        })
    }
}

/// The release profile as arguments of cargo, which override `CARGO_PROFILE_*` and cargo's configuration files, so that
/// measured code is built in the same way for all users. Read from Cargo.toml, with cargo's defaults for what is absent
/// there.
pub(crate) fn profile(workspace: &Workspace) -> Result<Vec<String>> {
    let path = workspace.root.join("Cargo.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(profile_of(&text).into_iter().flat_map(|setting| ["--config".to_owned(), setting]).collect())
}

fn profile_of(manifest: &str) -> Vec<String> {
    const DEFAULTS: [&str; 7] = [
        "opt-level=3",
        "debug-assertions=false",
        "overflow-checks=false",
        "panic=\"unwind\"",
        "lto=false",
        "package.runner.opt-level=3",
        "package.protocol.opt-level=3",
    ];
    let mut section = "";
    let mut settings: Vec<String> =
        DEFAULTS.iter().map(|setting| format!("profile.release.{setting}")).collect();
    for line in manifest.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = line.split_once('=')
            && !line.starts_with('#')
            && (section == "profile.release" || section.starts_with("profile.release."))
        {
            let key = format!("{section}.{}=", key.trim());
            settings.retain(|setting| !setting.starts_with(&key));
            settings.push(key + value.trim());
        }
    }
    settings
}

/// Copies TVM's libraries to `folder/lib`, where the runner's rpath points.
pub(crate) fn lay_libraries(toolchain: &Toolchain, folder: &Path) -> Result<()> {
    lay(&toolchain.libraries, folder)
}

/// The same with other libraries.
pub(crate) fn lay(libraries: &[PathBuf], folder: &Path) -> Result<()> {
    let destination = folder.join("lib");
    fs::create_dir_all(&destination)
        .with_context(|| format!("failed to create {}", destination.display()))?;
    for library in libraries {
        let Some(name) = library.file_name() else { continue };
        let copy = destination.join(name);
        let same = |a: &Path, b: &Path| -> Option<bool> {
            let (a, b) = (fs::metadata(a).ok()?, fs::metadata(b).ok()?);
            Some(a.len() == b.len() && a.modified().ok()? <= b.modified().ok()?)
        };
        if same(library, &copy) == Some(true) {
            continue;
        }
        let fresh = copy.with_extension("new");
        fs::copy(library, &fresh)
            .and_then(|_| fs::rename(&fresh, &copy))
            .with_context(|| format!("failed to copy {} to {}", library.display(), copy.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Program, Programs, profile_of};
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::process::Command;

    /// The first command of a clone builds the harness while the toolchain is installed, and the runner afterwards. A crate
    /// that has more features beside the runner than alone would be built twice, with all crates that use it.
    #[test]
    fn the_harness_is_the_same_alone_and_beside_the_runner() {
        let crates = |packages: &[&str]| -> BTreeSet<String> {
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap());
            cargo.args([
                "tree",
                "--locked",
                "--edges",
                "normal,build",
                "--prefix",
                "none",
                "--format",
                "{p} {f}",
            ]);
            let output =
                cargo.args(packages.iter().flat_map(|package| ["--package", package])).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
        };
        let (alone, beside) = (crates(&["cli"]), crates(&["cli", "runner"]));
        assert!(alone.len() > 50 && beside.len() > alone.len());
        let other: Vec<&String> = alone.difference(&beside).collect();
        assert!(
            other.is_empty(),
            "these have other features beside the runner; give the crate `cli` a dependency on them with the features of \
             the runner's, as it has on smallvec: {other:?}"
        );
    }

    #[test]
    fn programs_are_found_where_cargo_says() {
        let artifact = |name: &str, kind: &str, test: bool, executable: &str| {
            format!(
                "{{\"reason\":\"compiler-artifact\",\"manifest_path\":\"/w/{name}/Cargo.toml\",\"target\":{{\"kind\":[\"{kind}\"],\
                 \"name\":\"{name}\"}},\"profile\":{{\"test\":{test}}},\"executable\":{executable}}}\n"
            )
        };
        let messages = [
            artifact("runner", "lib", false, "null"),
            artifact("runner", "bin", true, "\"/t/debug/deps/runner-1\""),
            artifact("runner", "bin", false, "\"/t/x86_64-unknown-linux-gnu/a \\\"b\\\"/runner\""),
            artifact("ssh", "test", true, "\"/t/debug/deps/ssh-1\""),
            "{\"reason\":\"build-finished\",\"success\":true}\nnoise\n".to_owned(),
        ]
        .concat();
        let programs = Programs::read(&messages);
        assert_eq!(programs.path("runner").unwrap(), Path::new("/t/x86_64-unknown-linux-gnu/a \"b\"/runner"));
        assert!(programs.path("harness").is_err());
        let tests: Vec<&str> = programs.tests().map(|program| program.name.as_str()).collect();
        assert_eq!((tests, programs.all().count()), (vec!["runner", "ssh"], 3));
        let titles: Vec<String> = programs.tests().map(Program::title).collect();
        assert_eq!(titles, ["runner, unit tests of the bin runner", "ssh, tests/ssh"]);
    }

    #[test]
    fn the_profile_is_that_of_the_manifest_whatever_else_is_set() {
        let text = "[profile.release]\n# a\nstrip = \"symbols\"\nlto = true\n[profile.release.package.\"*\"]\nopt-level = 1\n\
                    [profile.dev]\nopt-level = 2\n";
        let settings = profile_of(text);
        for wanted in [
            "profile.release.opt-level=3",
            "profile.release.strip=\"symbols\"",
            "profile.release.lto=true",
            "profile.release.package.\"*\".opt-level=1",
            "profile.release.package.runner.opt-level=3",
        ] {
            assert!(settings.iter().any(|setting| setting == wanted), "{wanted}: {settings:?}");
        }
        let clash = |word: &str| settings.iter().any(|setting| setting.contains(word));
        assert!(!clash("lto=false") && !clash("opt-level=2"), "{settings:?}");
    }
}
