//! `cargo xtask kernels`: inner loops of compiled kernels, judged by the model that LLVM has of a processor.

use crate::cross::debian::{self, Wanted};
use crate::python;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use toolchain::linker::{quoted, write_script};

/// Judges, prints the table or writes it to a file.
pub(crate) fn run(workspace: &Workspace, rest: &[String]) -> Result<u8> {
    let (mut handed, mut output) = (Vec::new(), None);
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        match (word.as_str(), words.next()) {
            ("--output", Some(file)) => output = Some(PathBuf::from(file)),
            ("--mcpu" | "--network" | "--show", Some(value)) => handed.extend([word, value]),
            _ => bail!(
                "failed to read the command line: `cargo xtask kernels` takes `--mcpu NAME`, `--network NAME`, \
                 `--show UNIT` and `--output FILE`, found \"{word}\""
            ),
        }
    }
    let toolchain = python::ensure(workspace)?;
    let mca = mca(workspace)?;
    let mut judge = environment::python(&toolchain.python);
    judge
        .arg("compiler/tools/judge_kernels.py")
        .arg("--mca")
        .arg(mca)
        .args(handed)
        .current_dir(&workspace.root)
        .env("PYTHONPATH", workspace.root.join("compiler"))
        .stderr(Stdio::inherit());
    let result = judge.output().context("failed to start the private Python")?;
    if !result.status.success() {
        return Ok(crate::failure::BUG);
    }
    match output {
        Some(file) => {
            let file = workspace.root.join(file);
            fs::write(&file, &result.stdout)
                .with_context(|| format!("failed to write {}", file.display()))?;
            eprintln!("wrote {}", file.display());
        }
        // A closed pipe (`… | head`) is the reader's right.
        None => drop(std::io::stdout().write_all(&result.stdout)),
    }
    Ok(0)
}

/// Debian's `llvm-mca`, always the same version, so that tables can be compared.
fn mca(workspace: &Workspace) -> Result<PathBuf> {
    let root = debian::unpack(
        workspace,
        &Wanted {
            name: "llvm-mca",
            purpose: "LLVM's machine code analyzer",
            packages: &[
                "llvm-19",
                "libllvm19",
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
            members: &["*/bin/llvm-mca", "*.so*"],
        },
    )?;
    let multiarch = format!("{}-linux-gnu", std::env::consts::ARCH);
    let libraries = [root.join("usr/lib").join(&multiarch), root.join("lib").join(&multiarch)];
    let wrapper = root.join("llvm-mca");
    write_script(
        &wrapper,
        &format!(
            "#!/bin/sh\nLD_LIBRARY_PATH={}:{} exec {} \"$@\"\n",
            quoted(&libraries[0]),
            quoted(&libraries[1]),
            quoted(&root.join("usr/lib/llvm-19/bin/llvm-mca"))
        ),
    )?;
    Ok(wrapper)
}
