//! The private Python environment: a venv with pinned, hash-checked packages, made on first use, and found damaged
//! later. `cargo xtask` and an installed `edgepipe` make it by the same code.

pub mod hint;
pub mod linker;
pub mod packages;

use anyhow::{Context, Result, bail};
use packages::{Change, Packages};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Environment variable naming the Python interpreter to build the private environment from.
pub const PYTHON_VARIABLE: &str = "EDGEPIPE_HOST_PYTHON";
const CANDIDATES: [&str; 6] =
    ["python3", "python3.13", "python3.12", "python3.11", "python3.10", "python3.14"];
const OLDEST: (u32, u32) = (3, 10);
/// Prints version and path of an interpreter, and fails if it cannot create environments. The path is printed as
/// bytes: it need not be in the locale's encoding.
const PROBE: &str = "\
import os, sys
print('%d.%d' % sys.version_info[:2], flush=True)
os.write(1, os.fsencode(sys.executable or '') + b'\\n')
import venv, ensurepip";

/// Where the environment is and what it is made from.
#[derive(Debug, Clone)]
pub struct Place {
    /// Folder for the environment (`python/`) and its lock.
    pub folder: PathBuf,
    /// Folder with `ci/requirements.txt`.
    pub root: PathBuf,
}

/// The environment, ready for use.
#[derive(Debug)]
pub struct Toolchain {
    /// Interpreter of the private environment.
    pub python: PathBuf,
    /// `libtvm_ffi.so` and `libtvm_runtime.so`.
    pub libraries: [PathBuf; 2],
}

impl Toolchain {
    /// zig, if its package is installed.
    pub fn zig(&self) -> Option<PathBuf> {
        let packages = self.libraries[0].ancestors().nth(3)?;
        Some(packages.join("ziglang/zig")).filter(|zig| zig.exists())
    }
}

const COMPILER: Packages = Packages {
    lock: "ci/requirements.txt",
    stamp: "compiler.stamp",
    modules: &["tvm", "tvm_ffi", "onnx", "numpy", "ml_dtypes", "onnxruntime"],
};
/// zig, which links for other machines, and for this one if it has no C compiler.
pub const CROSS: Packages =
    Packages { lock: "ci/requirements-cross.txt", stamp: "cross.stamp", modules: &["ziglang"] };
/// What the checks of a checkout need.
pub const CHECKS: Packages = Packages {
    lock: "ci/requirements-check.txt",
    stamp: "checks.stamp",
    modules: &["pytest", "xdist", "ruff", "check_jsonschema"],
};

/// labgrid's client, which reserves boards of a farm.
pub const FARM: Packages =
    Packages { lock: "ci/requirements-farm.txt", stamp: "farm.stamp", modules: &["labgrid", "grpc"] };

/// How closely an existing environment is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Files and their lengths.
    Files,
    /// Files, versions and imports.
    Imports,
}

impl Place {
    /// Whether an environment was completed here. It may be damaged or outdated.
    pub fn is_installed(&self) -> bool {
        self.folder.join("python").join(COMPILER.stamp).exists()
    }

    /// Creates the environment with the compiler's packages and `extra` ones. Cheap if it is there already; an
    /// interrupted installation starts again.
    pub fn ensure(&self, extra: &[&Packages], check: Check) -> Result<Toolchain> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("failed to create {}", self.folder.display()))?;
        let environment = self.folder.join("python");
        let lock = lock_folder(&self.folder)?;
        if !is_usable(&self.root, &environment, check)? {
            let host = find_interpreter()?;
            let begun = Instant::now();
            create_environment(&host, &environment)?;
            COMPILER.install(&self.root, &environment)?;
            eprintln!("toolchain installed in {:.0} s", begun.elapsed().as_secs_f64());
        }
        for packages in extra {
            if !packages.are_stamped(&self.root, &environment)? {
                packages.install(&self.root, &environment)?;
            }
        }
        let toolchain = describe(&environment)?;
        drop(lock);
        Ok(toolchain)
    }
}

/// Adds packages to the environment of `python`, unless they are there. `root` is the folder with their lock file.
///
/// # Errors
/// If `python` is not in a private environment, or the packages cannot be installed.
pub fn add(python: &Path, root: &Path, packages: &Packages) -> Result<()> {
    let environment =
        python.ancestors().nth(2).filter(|environment| environment.join(COMPILER.stamp).exists());
    let environment = environment.with_context(|| {
        format!(
            "failed to find the private Python environment of {}; create it with the command `setup`",
            python.display()
        )
    })?;
    if packages.are_stamped(root, environment)? {
        return Ok(());
    }
    let lock = lock_folder(environment.parent().unwrap_or(environment))?;
    // Another process may have installed them meanwhile.
    if !packages.are_stamped(root, environment)? {
        packages.install(root, environment)?;
    }
    drop(lock);
    Ok(())
}

/// Locks the folder, so that one process installs. Others wait and then find everything in place.
fn lock_folder(folder: &Path) -> Result<fs::File> {
    let path = folder.join("lock");
    let file = fs::File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("waiting for another edgepipe process that installs the toolchain ({})", path.display());
        file.lock().with_context(|| format!("failed to lock {}", path.display()))?;
    }
    Ok(file)
}

/// Whether the environment has the pinned packages of the compiler, undamaged. A stamp holds the lock file that was
/// installed, so each change of a pin installs again.
fn is_usable(root: &Path, environment: &Path, check: Check) -> Result<bool> {
    if !COMPILER.are_stamped(root, environment)? {
        return Ok(false);
    }
    let reason = match packages::change(environment) {
        Change::None if check == Check::Files => return Ok(true),
        Change::Damaged(file) => format!("{file} is missing or changed"),
        Change::None | Change::Unsure => {
            let mut faults = Vec::new();
            for packages in [&COMPILER, &CROSS, &CHECKS, &FARM] {
                if packages.are_stamped(root, environment)? {
                    faults.extend(packages.faults(root, environment)?);
                }
            }
            if faults.is_empty() {
                packages::accept(environment)?;
                return Ok(true);
            }
            faults.join("; ")
        }
    };
    eprintln!("note: the private Python environment is damaged, installing it again: {reason}");
    Ok(false)
}

/// Whether this machine has a C compiler, `cc`.
pub fn has_c_compiler() -> bool {
    Command::new("cc").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// An interpreter of at least [`OLDEST`] that can create environments. If PATH has a version manager's script, this is
/// the program that the script starts.
pub fn find_interpreter() -> Result<PathBuf> {
    let chosen = std::env::var_os(PYTHON_VARIABLE);
    let candidates: Vec<OsString> =
        chosen.clone().map_or_else(|| CANDIDATES.map(OsString::from).to_vec(), |one| vec![one]);
    let mut seen = Vec::new();
    for candidate in candidates {
        let name = candidate.display();
        let Ok(output) = environment::host_python(&candidate).args(["-I", "-c", PROBE]).output() else {
            if chosen.is_some() {
                seen.push(format!("{name}, named by {PYTHON_VARIABLE}, cannot be started"));
            }
            continue;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = text.lines();
        let version = lines.next().unwrap_or("").trim();
        let parsed = version.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        match (parsed, lines.next().filter(|program| Path::new(program).is_absolute())) {
            (Some(found), _) if found < OLDEST => seen.push(format!("{name} is Python {version}, too old")),
            (Some(_), Some(program)) if output.status.success() => return Ok(PathBuf::from(program)),
            (Some(_), _) => seen.push(format!(
                "{name} (Python {version}) lacks the venv module: install it with `sudo apt install python{version}-venv`"
            )),
            (None, _) => seen.push(format!("{name} did not print its version{}", last_line(&output.stderr))),
        }
    }
    let found = if seen.is_empty() { "none on PATH".to_owned() } else { seen.join("; ") };
    bail!(
        "failed to find Python {}.{} or newer with the venv module: {found}. Install one, for example with `sudo \
         apt install python3 python3-venv`, or name one in the environment variable {PYTHON_VARIABLE}",
        OLDEST.0,
        OLDEST.1
    )
}

/// The last line of a program's errors, in brackets. A variable that was not passed on may be the cause.
fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let Some(line) = text.lines().last() else { return String::new() };
    let dropped = ["LD_LIBRARY_PATH", "PYTHONHOME"].into_iter().find(|name| std::env::var_os(name).is_some());
    match dropped {
        Some(name) => format!(" ({line}; edgepipe does not pass {name} on to it)"),
        None => format!(" ({line})"),
    }
}

fn create_environment(host: &Path, environment: &Path) -> Result<()> {
    if environment.exists() {
        fs::remove_dir_all(environment)
            .with_context(|| format!("failed to remove the unfinished {}", environment.display()))?;
    }
    eprintln!("creating a private Python environment from {}", host.display());
    let output = environment::python(host)
        .args(["-I", "-m", "venv"])
        .arg(environment)
        .output()
        .with_context(|| format!("failed to start {}", host.display()))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let hint = hint::of_text(&said).map(|hint| format!("; {hint}")).unwrap_or_default();
        bail!("failed to create the Python environment {}: {}{hint}", environment.display(), said.trim());
    }
    Ok(())
}

fn describe(environment: &Path) -> Result<Toolchain> {
    let packages = fs::read_dir(environment.join("lib"))
        .with_context(|| format!("failed to read {}", environment.join("lib").display()))?
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("site-packages"))
        .find(|path| path.join("tvm_ffi/lib/libtvm_ffi.so").exists())
        .with_context(|| {
            format!(
                "failed to find TVM's libraries below {}: remove that folder and try again",
                environment.display()
            )
        })?;
    Ok(Toolchain {
        python: environment.join("bin/python"),
        libraries: [packages.join("tvm_ffi/lib/libtvm_ffi.so"), packages.join("tvm/lib/libtvm_runtime.so")],
    })
}
