//! `cargo xtask kernels`: estimates compiled kernels without the processor that they are for. For a CPU by LLVM's model of
//! it, for a
//! GPU by its machine code and a model of its time.

use crate::cross::debian::{self, Wanted};
use crate::python;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use toolchain::linker::{quoted, write_script};

/// What judges the kernels.
enum Judge {
    /// LLVM's model of a CPU.
    Cpu,
    /// The machine code of a GPU, and a model of its time.
    Gpu,
}

/// Judges, prints the table or writes it to a file.
pub(crate) fn run(workspace: &Workspace, rest: &[String]) -> Result<u8> {
    let (judge, handed, output) = read(rest)?;
    let (toolchain, script) = match judge {
        Judge::Cpu => (python::ensure(workspace)?, "compiler/tools/judge_kernels.py"),
        // `ptxas` is a package of the checks.
        Judge::Gpu => (python::ensure_with_checks(workspace)?, "compiler/tools/judge_cuda.py"),
    };
    let mut command = environment::python(&toolchain.python);
    command.arg(script);
    // Python does not search the folder of the script: the private environment is started in safe mode.
    let folders = ["compiler", "compiler/tools"].map(|folder| workspace.root.join(folder));
    let folders = std::env::join_paths(folders).context("failed to set PYTHONPATH to the compiler")?;
    if matches!(judge, Judge::Cpu) {
        command.arg("--mca").arg(mca(workspace)?);
    }
    command.args(handed).current_dir(&workspace.root).env("PYTHONPATH", folders).stderr(Stdio::inherit());
    let result = command.output().context("failed to start the private Python")?;
    if !result.status.success() {
        // Python's argument parser, and the judges, end with 2 on wrong arguments.
        return Ok(if result.status.code() == Some(2) { crate::failure::USAGE } else { crate::failure::BUG });
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

/// The judge, its arguments, and the file for the table.
fn read(rest: &[String]) -> Result<(Judge, Vec<&str>, Option<PathBuf>)> {
    let is_gpu = rest.iter().any(|word| word == "--cuda");
    let own: &[&str] = if is_gpu {
        &["--network", "--precision", "--disassembler"]
    } else {
        &["--mcpu", "--network", "--show"]
    };
    let (mut handed, mut output) = (Vec::new(), None);
    let mut words = rest.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match (word, words.next()) {
            ("--output", Some(file)) => output = Some(PathBuf::from(file)),
            ("--cuda", Some(arch)) => handed.extend(["--arch", arch]),
            (known, Some(value)) if own.contains(&known) => handed.extend([known, value]),
            _ => bail!(
                "failed to read the command line: `cargo xtask kernels` takes `--mcpu NAME`, `--network NAME`, `--show \
                 UNIT` and `--output FILE`; for a GPU `--cuda ARCH`, `--network NAME`, `--precision fp16`, `--disassembler \
                 CUOBJDUMP` and `--output FILE`; found \"{word}\""
            ),
        }
    }
    Ok((if is_gpu { Judge::Gpu } else { Judge::Cpu }, handed, output))
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
