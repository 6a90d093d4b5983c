//! `cargo xtask dist`: an archive that runs on machines without Rust and without a C compiler.
//!
//! It has the layout of a checkout where the program reads from it (`compiler/`, `configs/`, `ci/`), and is reproducible:
//! files are sorted, belong to root and carry the time of the commit.

use crate::cargo::Built;
use crate::cross::{self, Via};
use crate::workspace::Workspace;
use crate::{cargo, harness, python};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use toolchain::Toolchain;

/// Files and folders that the archive takes from the checkout as they are.
const COPIED: [&str; 10] = [
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "ci/requirements-cross.txt",
    "ci/requirements-farm.txt",
    "ci/requirements.txt",
    "ci/thresholds.yaml",
    "compiler/edgepipe_compiler",
    "configs",
    "docs",
];
/// Completion scripts, by the shell and where its distributions look for them.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/edgepipe"),
    ("fish", "share/fish/vendor_completions.d/edgepipe.fish"),
    ("zsh", "share/zsh/site-functions/_edgepipe"),
];

/// `dist [--board NAME]...`: builds the archive.
pub(crate) fn run(workspace: &Workspace, rest: &[String]) -> Result<u8> {
    let boards = cross::boards_of(rest);
    let words = rest.iter().filter(|word| word.starts_with('-'));
    if words.count() != boards.len() {
        bail!(
            "failed to read the command line: `cargo xtask dist` takes `--board NAME`, found \"{}\"",
            rest.join(" ")
        );
    }
    let toolchain = python::ensure(workspace)?;
    let built = cargo::build(workspace, &toolchain)?;
    let archive = make(workspace, &toolchain, &built, &boards)?;
    let length = fs::metadata(&archive).map_or(0, |data| data.len());
    eprintln!("packed {} ({:.1} MB)", archive.display(), length as f64 / 1e6);
    Ok(0)
}

/// Makes the archive from what was built, with the runners for `boards`.
pub(crate) fn make(
    workspace: &Workspace,
    toolchain: &Toolchain,
    built: &Built,
    boards: &[&str],
) -> Result<PathBuf> {
    let name = format!("edgepipe-{}-{}-linux", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let parent = workspace.target.join("dist");
    let folder = parent.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("failed to remove {}", folder.display()))?;
    }
    for path in COPIED {
        copy(&workspace.root.join(path), &folder.join(path))?;
    }
    copy(&built.harness, &folder.join("bin/edgepipe"))?;
    copy(&built.runner, &folder.join("runner/runner"))?;
    for library in &toolchain.libraries {
        let file = library.file_name().context("failed to read the name of a library")?;
        copy(library, &folder.join("runner/lib").join(file))?;
    }
    for board in boards {
        for kit in harness::build_for(workspace, toolchain, built, board, Via::Zig)? {
            let to = folder.join("cross").join(kit.folder.file_name().unwrap_or_default());
            copy(&kit.runner, &to.join("runner"))?;
            copy(&kit.folder.join("lib"), &to.join("lib"))?;
        }
    }
    write_generated(&built.harness, &folder)?;
    let commit = write_revision(workspace, &folder)?;
    pack(&parent, &name, &commit)
}

/// Copies a file or a folder, without what Python compiled.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("failed to copy {} to {}", from.display(), to.display());
    if from.is_dir() {
        fs::create_dir_all(to).with_context(failed)?;
        for entry in fs::read_dir(from).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            if entry.file_name() != "__pycache__" {
                copy(&entry.path(), &to.join(entry.file_name()))?;
            }
        }
        return Ok(());
    }
    fs::create_dir_all(to.parent().unwrap_or(to)).with_context(failed)?;
    fs::copy(from, to).map(drop).with_context(failed)
}

/// Man pages and completion scripts, which the program writes itself.
fn write_generated(program: &Path, folder: &Path) -> Result<()> {
    let ask = |arguments: &[&str]| -> Result<Vec<u8>> {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("failed to start {}", program.display()))?;
        if !output.status.success() {
            bail!("failed to run `edgepipe {}`: {}", arguments.join(" "), output.status);
        }
        Ok(output.stdout)
    };
    ask(&["manual", "share/man/man1"])?;
    for (shell, path) in COMPLETIONS {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(folder))
            .and_then(|()| fs::write(&path, ask(&["completions", shell]).map_err(std::io::Error::other)?))
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}

/// A commit of the checkout.
struct Commit {
    unix_s: String,
}

/// Records the commit, so that runs name it. Outside a git checkout nothing is recorded, and times are 0.
fn write_revision(workspace: &Workspace, folder: &Path) -> Result<Commit> {
    let git = |arguments: &[&str]| -> Option<String> {
        let output = environment::git().arg("-C").arg(&workspace.root).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(log) = git(&["log", "-1", "--format=%H %ct"]) else {
        return Ok(Commit { unix_s: "0".to_owned() });
    };
    let (hash, unix_s) = log.split_once(' ').unwrap_or((&log, "0"));
    let changes = git(&["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"]);
    let state = if changes.is_some_and(|changes| changes.is_empty()) { "" } else { " modified" };
    let path = folder.join("REVISION");
    fs::write(&path, format!("{hash}{state}\n"))
        .with_context(|| format!("failed to write {}", path.display()))?;
    Ok(Commit { unix_s: unix_s.to_owned() })
}

fn pack(parent: &Path, name: &str, commit: &Commit) -> Result<PathBuf> {
    let archive = parent.join(format!("{name}.tar.gz"));
    let status = Command::new("tar")
        .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"])
        .args(["--mode=u+rw,go+r-w,a+X", "--use-compress-program=gzip -n"])
        .arg(format!("--mtime=@{}", commit.unix_s))
        .arg("--directory")
        .arg(parent)
        .arg("--create")
        .arg("--file")
        .arg(&archive)
        .arg(name)
        .status()
        .context("failed to start tar")?;
    if !status.success() {
        bail!("failed to pack {}: tar ended with {status}", archive.display());
    }
    Ok(archive)
}
