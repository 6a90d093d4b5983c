//! The private Python environment: found interpreter, pinned and hash-checked packages, and the
//! `tvm-ffi-config` shim that the `tvm-ffi` crate's build script asks for the place of its library.

pub(crate) mod packages;

use crate::hint;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use packages::{Change, Packages};
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Environment variable naming the Python interpreter to build the private environment from.
pub(crate) const PYTHON_VARIABLE: &str = "EDGEPIPE_HOST_PYTHON";
const CANDIDATES: [&str; 6] =
    ["python3", "python3.13", "python3.12", "python3.11", "python3.10", "python3.14"];
const OLDEST: (u32, u32) = (3, 10);
/// Prints version and path of an interpreter, and fails where it cannot make environments. The path is printed as bytes:
/// it need not be in the locale's encoding.
const PROBE: &str = "\
import os, sys
print('%d.%d' % sys.version_info[:2], flush=True)
os.write(1, os.fsencode(sys.executable or '') + b'\\n')
import venv, ensurepip";

/// What the other verbs need of the toolchain.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// Interpreter of the private environment.
    pub(crate) python: PathBuf,
    /// `libtvm_ffi.so` and `libtvm_runtime.so`.
    pub(crate) libraries: [PathBuf; 2],
}

/// Folder with the shim, to go first on PATH when the runner is built, whether it is there yet or not.
pub(crate) fn shims(workspace: &Workspace) -> PathBuf {
    workspace.toolchain().join("bin")
}

const COMPILER: Packages = Packages {
    lock: "ci/requirements.txt",
    stamp: "compiler.stamp",
    modules: &["tvm", "tvm_ffi", "onnx", "numpy", "ml_dtypes", "onnxruntime"],
};
const CROSS: Packages =
    Packages { lock: "ci/requirements-cross.txt", stamp: "cross.stamp", modules: &["ziglang"] };
const CHECKS: Packages = Packages {
    lock: "ci/requirements-check.txt",
    stamp: "checks.stamp",
    modules: &["pytest", "ruff", "check_jsonschema"],
};

/// Puts the toolchain in place. Cheap when it is already there; an interrupted installation is begun again.
pub(crate) fn ensure(workspace: &Workspace) -> Result<Toolchain> {
    install(workspace, &[], Check::Files)
}

/// The same for a user who suspects the environment: its packages are imported as well.
pub(crate) fn ensure_checked(workspace: &Workspace) -> Result<Toolchain> {
    install(workspace, &[], Check::Imports)
}

/// The same, with the packages of the checks (pytest, ruff) besides.
pub(crate) fn ensure_with_checks(workspace: &Workspace) -> Result<Toolchain> {
    install(workspace, &[CHECKS], Check::Files)
}

/// The same, with what building for other machines takes (zig).
pub(crate) fn ensure_with_cross(workspace: &Workspace) -> Result<Toolchain> {
    install(workspace, &[CROSS], Check::Files)
}

/// How closely an environment that is there is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// Files and their lengths.
    Files,
    /// Files, versions and imports.
    Imports,
}

fn install(workspace: &Workspace, besides: &[Packages], check: Check) -> Result<Toolchain> {
    let folder = workspace.toolchain();
    fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let environment = folder.join("python");
    let lock = lock_folder(&folder)?;
    if !is_usable(workspace, &environment, check)? {
        check_c_compiler()?;
        let host = find_interpreter()?;
        let begun = Instant::now();
        create_environment(&host, &environment)?;
        COMPILER.install(workspace, &environment)?;
        eprintln!("toolchain installed in {:.0} s", begun.elapsed().as_secs_f64());
    }
    for packages in besides {
        if !packages.are_stamped(workspace, &environment)? {
            packages.install(workspace, &environment)?;
        }
    }
    let toolchain = describe(&environment)?;
    write_shim(&shims(workspace), &toolchain, &workspace.cross())?;
    drop(lock);
    Ok(toolchain)
}

/// Keeps a second xtask from installing at the same time; it waits and then finds everything in place.
fn lock_folder(folder: &Path) -> Result<fs::File> {
    let path = folder.join("lock");
    let file = fs::File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("waiting for another cargo xtask that installs the toolchain ({})", path.display());
        file.lock().with_context(|| format!("failed to lock {}", path.display()))?;
    }
    Ok(file)
}

/// Whether the environment has the pinned packages of the compiler and nothing in it was damaged since. A stamp holds
/// the lock file it was made from, so that any change of the pins installs anew.
fn is_usable(workspace: &Workspace, environment: &Path, check: Check) -> Result<bool> {
    if !COMPILER.are_stamped(workspace, environment)? {
        return Ok(false);
    }
    let reason = match packages::change(environment) {
        Change::None if check == Check::Files => return Ok(true),
        Change::Damaged(file) => format!("{file} is missing or changed"),
        Change::None | Change::Unsure => {
            let mut faults = Vec::new();
            for packages in [&COMPILER, &CROSS, &CHECKS] {
                if packages.are_stamped(workspace, environment)? {
                    faults.extend(packages.faults(workspace, environment)?);
                }
            }
            if faults.is_empty() {
                packages::accept(environment)?;
                return Ok(true);
            }
            faults.join("; ")
        }
    };
    eprintln!("note: the private Python environment is damaged and is installed again: {reason}");
    Ok(false)
}

fn check_c_compiler() -> Result<()> {
    let answers = |name: &str| {
        Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    if answers("cc") {
        return Ok(());
    }
    bail!(
        "failed to find a C compiler: `cc` is not on PATH. It links the compiled networks. Install one, for \
         example by `sudo apt install gcc` (Debian, Ubuntu) or `sudo dnf install gcc` (Fedora)"
    )
}

/// An interpreter of at least [`OLDEST`] that can make environments: the program itself, where what is on PATH is a
/// version manager's script.
fn find_interpreter() -> Result<PathBuf> {
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
                "{name} (Python {version}) lacks the venv module: install it by `sudo apt install python{version}-venv`"
            )),
            (None, _) => seen.push(format!("{name} did not tell its version{}", last_line(&output.stderr))),
        }
    }
    let found = if seen.is_empty() { "none on PATH".to_owned() } else { seen.join("; ") };
    bail!(
        "failed to find Python {}.{} or newer with the venv module: {found}. Install one, for example by `sudo \
         apt install python3 python3-venv`, or name one by the environment variable {PYTHON_VARIABLE}",
        OLDEST.0,
        OLDEST.1
    )
}

/// The last thing a program said, in brackets; what was not passed on may be why it failed.
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

/// The crates `tvm-ffi` and `tvm-ffi-sys` ask `tvm-ffi-config --libdir` where to link. The wheel's own script
/// would do, but it answers for the host alone and starts a Python each time.
fn write_shim(bin: &Path, toolchain: &Toolchain, cross: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let shim = bin.join("tvm-ffi-config");
    let folder = toolchain.libraries[0].parent().context("failed to find the folder of libtvm_ffi.so")?;
    let quoted = |path: &Path| path.display().to_string().replace('\'', "'\\''");
    // Cargo tells build scripts their target; libraries for another one lie where xtask's cross build puts them.
    let text = format!(
        "#!/bin/sh\nfolder='{}'/\"${{TARGET:-none}}\"/tvm\n[ -d \"$folder\" ] || folder='{}'\nprintf '%s\\n' \"$folder\"\n",
        quoted(cross),
        quoted(folder)
    );
    if fs::read_to_string(&shim).is_ok_and(|current| current == text) {
        return Ok(());
    }
    fs::create_dir_all(bin)?;
    let fresh = bin.join("tvm-ffi-config.new");
    let mut file =
        fs::File::create(&fresh).with_context(|| format!("failed to create {}", fresh.display()))?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    drop(file);
    fs::rename(&fresh, &shim).with_context(|| format!("failed to write {}", shim.display()))
}
