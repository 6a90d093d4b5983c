//! Building for boards of another architecture or an older C library: an aarch64 runner on an x86 machine.
//!
//! Everything lies below `target/edgepipe/cross/`, in a folder a target: `runner`, `lib/` with TVM's libraries, and
//! `cc`, which links for the target. The harness finds it there by the board's file.

pub(crate) mod debian;
pub(crate) mod emulation;
mod expected;
mod flags;
mod libraries;
mod rpath;
mod rust_std;
mod target;

use crate::workspace::Workspace;
use crate::{cargo, python};
use anyhow::{Context, Result, bail};
pub(crate) use expected::expected;
use rust_std::RustStd;
pub(crate) use rust_std::{VARIABLE as STD_VARIABLE, is_private as has_std_or_choice};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
pub(crate) use target::Target;
use toolchain::Toolchain;
use toolchain::linker;
use toolchain::linker::quoted;

/// What links and provides the standard library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// zig as linker, on this machine.
    Zig,
    /// The `cross` tool, in a container.
    Cross,
}

/// What cargo builds for a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Product {
    /// The board's side.
    Runner,
    /// The CUDA driver that interprets kernels on CPUs.
    StandIn,
}

impl Product {
    fn package(self) -> &'static str {
        match self {
            Self::Runner => "runner",
            Self::StandIn => "cuda-standin",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Runner => "runner",
            Self::StandIn => "libcuda.so",
        }
    }

    /// Completes "building".
    fn description(self) -> &'static str {
        match self {
            Self::Runner => "the runner",
            Self::StandIn => "the emulated GPU",
        }
    }
}

/// What was built for a target.
#[derive(Debug)]
pub(crate) struct Kit {
    /// The folder, which the harness knows too.
    pub(crate) folder: PathBuf,
    /// The board's side, with TVM's libraries in `lib/` beside it.
    pub(crate) runner: PathBuf,
    /// These libraries.
    pub(crate) libraries: Vec<PathBuf>,
}

/// What cargo shows of a first build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Each crate, and a progress bar.
    All,
    /// Faults only: another cargo is at work at the same time.
    Faults,
}

/// Installs what a build for `target` needs in addition to the toolchain: Rust's standard library for it.
pub(crate) fn prepare(workspace: &Workspace, target: &Target) -> Result<()> {
    RustStd::provide(workspace, &target.triple).map(drop)
}

/// Builds the runner for `target` and lays beside it what it needs. Quick where nothing changed.
pub(crate) fn build(
    workspace: &Workspace,
    toolchain: &Toolchain,
    target: &Target,
    via: Via,
    shown: Shown,
) -> Result<Kit> {
    if via == Via::Cross {
        check_cross(workspace, target)?;
    }
    let folder = workspace.cross().join(target.name());
    fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let tvm = libraries::ensure(workspace, toolchain, target)?;
    let zig = python::ensure_with_cross(workspace)?;
    let linker = folder.join("cc");
    let cache = workspace.cross().join("zig-cache");
    linker::write(&linker, &zig, &target.zig_name(), &cache)?;
    let built = match via {
        Via::Zig => build_with_zig(workspace, target, &linker, Product::Runner, shown)?,
        Via::Cross => build_with_cross(workspace, target, shown)?,
    };
    let runner = folder.join("runner");
    replace(&built, &runner)?;
    cargo::lay(&tvm, &folder)?;
    let libraries =
        tvm.iter().filter_map(|library| Some(folder.join("lib").join(library.file_name()?))).collect();
    Ok(Kit { folder, runner, libraries })
}

/// Builds the stand-in CUDA driver for `target`, and returns its path. Quick if nothing changed.
pub(crate) fn build_standin(workspace: &Workspace, target: &Target) -> Result<PathBuf> {
    let folder = workspace.cross().join(target.name());
    fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let zig = python::ensure_with_cross(workspace)?;
    let linker = folder.join("cc");
    linker::write(&linker, &zig, &target.zig_name(), &workspace.cross().join("zig-cache"))?;
    build_with_zig(workspace, target, &linker, Product::StandIn, Shown::All)
}

fn build_with_zig(
    workspace: &Workspace,
    target: &Target,
    linker: &Path,
    product: Product,
    shown: Shown,
) -> Result<PathBuf> {
    let std = RustStd::provide(workspace, &target.triple)?;
    // A folder of its own for each compiler: cargo would build everything again at every change between them.
    let build = workspace.cross().join(format!("build-{}", std.name()));
    let mut cargo = cargo::command(workspace)?;
    own_settings(&mut cargo, workspace, target);
    if let Some(compiler) = std.compiler() {
        cargo.env("RUSTC", compiler);
    }
    let variable = format!("CARGO_TARGET_{}_LINKER", target.triple.to_uppercase().replace('-', "_"));
    cargo.env(variable, linker).env("CARGO_TARGET_DIR", &build);
    run_cargo(cargo, workspace, target, &build, product, shown)
}

/// Keeps the user's own settings out of the build, and names them.
fn own_settings(cargo: &mut Command, workspace: &Workspace, target: &Target) {
    let found = flags::take_out(cargo, workspace, &target.triple);
    if !found.is_empty() {
        eprintln!(
            "note: edgepipe builds the runner of {} with its own settings and ignores these: {}",
            target.name(),
            found.join(", ")
        );
    }
}

/// Refuses where cross cannot work, with the command that would have been run.
fn check_cross(workspace: &Workspace, target: &Target) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let engine = std::env::var_os("CROSS_CONTAINER_ENGINE");
    let Some(missing) = missing_for_cross(std::env::split_paths(&path), engine) else { return Ok(()) };
    bail!(
        "failed to build by cross: {missing}; or omit `--via cross` to link with zig on this machine. The command \
         would have been:\n  CARGO_TARGET_DIR={} EDGEPIPE_TVM_LIBRARIES={} cross {}",
        quoted(&cross_folder(workspace)),
        quoted(&cross_libraries(workspace, target)),
        arguments(target, Product::Runner).join(" ")
    )
}

fn cross_folder(workspace: &Workspace) -> PathBuf {
    workspace.cross().join("build-cross")
}

/// Cross.toml hands these to the container, whose tvm-ffi-config answers by them.
fn cross_libraries(workspace: &Workspace, target: &Target) -> PathBuf {
    workspace.cross().join(&target.triple).join("tvm")
}

fn build_with_cross(workspace: &Workspace, target: &Target, shown: Shown) -> Result<PathBuf> {
    let build = cross_folder(workspace);
    let mut cross = cargo::command(workspace)?;
    own_settings(&mut cross, workspace, target);
    // The container has a compiler of its own.
    cross.env_remove("RUSTC");
    let environment: Vec<_> =
        cross.get_envs().map(|(name, value)| (name.to_owned(), value.map(OsStr::to_owned))).collect();
    cross = Command::new("cross");
    cross.current_dir(&workspace.root);
    for (name, value) in environment {
        match value {
            Some(value) => cross.env(name, value),
            None => cross.env_remove(name),
        };
    }
    cross.env("CARGO_TARGET_DIR", &build).env("EDGEPIPE_TVM_LIBRARIES", cross_libraries(workspace, target));
    run_cargo(cross, workspace, target, &build, Product::Runner, shown)
}

/// What cross lacks on this machine, and what to do about it. cross itself would say less, and only after it changed
/// Rust's toolchains.
fn missing_for_cross(
    folders: impl Iterator<Item = PathBuf>,
    engine: Option<std::ffi::OsString>,
) -> Option<&'static str> {
    let folders: Vec<PathBuf> = folders.collect();
    let has = |program: &Path| folders.iter().any(|folder| folder.join(program).is_file());
    if !has(Path::new("cross")) {
        return Some(
            "the program cross is not on PATH; `cargo install cross --version 0.2.5 --locked` installs it",
        );
    }
    let has_engine = match engine.filter(|engine| !engine.is_empty()) {
        Some(engine) => has(Path::new(&engine)),
        None => ["docker", "podman"].iter().any(|engine| has(Path::new(engine))),
    };
    (!has_engine).then_some(
        "it needs a container engine, and none is on PATH; install docker or podman, or name one in \
         CROSS_CONTAINER_ENGINE",
    )
}

/// Arguments of cargo, or of cross.
fn arguments(target: &Target, product: Product) -> [&str; 7] {
    ["build", "--release", "--locked", "--package", product.package(), "--target", &target.triple]
}

/// Runs cargo, or what takes its arguments, and returns the file it made.
fn run_cargo(
    mut cargo: Command,
    workspace: &Workspace,
    target: &Target,
    build: &Path,
    product: Product,
    shown: Shown,
) -> Result<PathBuf> {
    let made = build.join(&target.triple).join("release").join(product.file());
    let first = !made.exists();
    if first {
        eprintln!("building {} for {}", product.description(), target.name());
    }
    let status = cargo
        .args(arguments(target, product))
        .args(cargo::profile(workspace)?)
        .args(if first && shown == Shown::All { &[][..] } else { &["--quiet"] })
        .status()
        .with_context(|| format!("failed to start {}", cargo.get_program().display()))?;
    if !status.success() {
        let (product, target) = (product.description(), target.name());
        bail!("failed to build {product} for {target}: see the message above");
    }
    Ok(made)
}

/// Replaces `to` by a copy of the runner `from`, atomically, if they differ. The copy finds its libraries by
/// `DT_RPATH`.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let newer =
        |path: &Path| fs::metadata(path).ok().and_then(|data| Some((data.len(), data.modified().ok()?)));
    if let (Some((length, made)), Some((kept, laid))) = (newer(from), newer(to))
        && length == kept
        && made <= laid
    {
        return Ok(());
    }
    let fresh = to.with_extension("new");
    let failed = || format!("failed to copy {} to {}", from.display(), to.display());
    let mut content = fs::read(from).with_context(failed)?;
    rpath::prefer_own(&mut content).with_context(failed)?;
    // A copy first, for the mode.
    fs::copy(from, &fresh)
        .and_then(|_| fs::write(&fresh, content))
        .and_then(|()| fs::rename(&fresh, to))
        .with_context(failed)
}

/// The boards that arguments of the harness name, by `--board NAME` or `--board=NAME`, and `--farm` and `--canary`
/// likewise.
pub(crate) fn boards_of(arguments: &[String]) -> Vec<&str> {
    let mut boards = Vec::new();
    let mut rest = arguments.iter().map(String::as_str);
    while let Some(argument) = rest.next() {
        for option in ["--board", "--farm", "--canary"] {
            match argument.strip_prefix(option) {
                Some("") => boards.extend(rest.next()),
                Some(value) => boards.extend(value.strip_prefix('=')),
                None => {}
            }
        }
    }
    boards
}

#[cfg(test)]
mod tests {
    use super::{Product, Target, arguments, boards_of, missing_for_cross};
    use std::fs;

    #[test]
    fn boards_are_found_in_both_spellings() {
        let words = [
            "--trials",
            "3",
            "--board",
            "a",
            "--board=b c",
            "--boards",
            "--farm",
            "d",
            "--farm=e",
            "--canary",
            "f",
            "--board",
        ];
        assert_eq!(boards_of(&words.map(str::to_owned)), ["a", "b c", "d", "e", "f"]);
    }

    #[test]
    fn cross_is_started_only_where_it_can_work() {
        let folder = std::env::temp_dir().join(format!("edgepipe-cross-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let missing = |engine: Option<&str>| {
            missing_for_cross(std::iter::once(folder.clone()), engine.map(Into::into)).unwrap_or("nothing")
        };
        assert!(missing(None).contains("cargo install cross --version 0.2.5"));
        fs::write(folder.join("cross"), "").unwrap();
        assert!(missing(None).contains("needs a container engine"));
        fs::write(folder.join("podman"), "").unwrap();
        assert_eq!(missing(None), "nothing");
        assert!(missing(Some("nerdctl")).contains("CROSS_CONTAINER_ENGINE"));
        assert_eq!(missing(Some("")), "nothing");
        fs::remove_dir_all(&folder).unwrap();
        let target = Target::parse("aarch64-unknown-linux-gnu 2.27").unwrap();
        let expected = "build --release --locked --package runner --target aarch64-unknown-linux-gnu";
        assert_eq!(arguments(&target, Product::Runner).join(" "), expected);
    }
}
