//! The private Python environment: found interpreter, pinned and hash-checked packages, and the
//! `tvm-ffi-config` shim that the `tvm-ffi` crate's build script asks for the place of its library.

use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
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

/// A set of packages that is installed as a whole.
struct Packages {
    /// Path of the lock below the workspace.
    lock: &'static str,
    /// Name of the stamp that says it is installed.
    stamp: &'static str,
}

const COMPILER: Packages = Packages { lock: "ci/requirements.txt", stamp: "compiler.stamp" };
const CROSS: Packages = Packages { lock: "ci/requirements-cross.txt", stamp: "cross.stamp" };
const CHECKS: Packages = Packages { lock: "ci/requirements-check.txt", stamp: "checks.stamp" };

/// Puts the toolchain in place. Cheap when it is already there; an interrupted installation is begun again.
pub(crate) fn ensure(workspace: &Workspace) -> Result<Toolchain> {
    install(workspace, &[])
}

/// The same, with the packages of the checks (pytest, ruff) besides.
pub(crate) fn ensure_with_checks(workspace: &Workspace) -> Result<Toolchain> {
    install(workspace, &[CHECKS])
}

/// The same, with what building for other machines takes (zig).
pub(crate) fn ensure_with_cross(workspace: &Workspace) -> Result<Toolchain> {
    install(workspace, &[CROSS])
}

fn install(workspace: &Workspace, besides: &[Packages]) -> Result<Toolchain> {
    let folder = workspace.toolchain();
    fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let environment = folder.join("python");
    let lock = lock_folder(&folder)?;
    if !is_current(workspace, &environment, &COMPILER)? {
        check_c_compiler()?;
        let host = find_interpreter()?;
        let begun = Instant::now();
        create_environment(&host, &environment)?;
        install_packages(workspace, &environment, &COMPILER)?;
        eprintln!("toolchain installed in {:.0} s", begun.elapsed().as_secs_f64());
    }
    for packages in besides {
        if !is_current(workspace, &environment, packages)? {
            install_packages(workspace, &environment, packages)?;
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

/// A stamp holds the lock file it was made from, so that any change of the pins installs anew.
fn is_current(workspace: &Workspace, environment: &Path, packages: &Packages) -> Result<bool> {
    let wanted = read_lock(workspace, packages)?;
    Ok(environment.join("bin/python").exists()
        && fs::read_to_string(environment.join(packages.stamp)).is_ok_and(|stamp| stamp == wanted))
}

fn read_lock(workspace: &Workspace, packages: &Packages) -> Result<String> {
    let path = workspace.root.join(packages.lock);
    fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
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

/// An interpreter of at least [`OLDEST`] that can make environments.
fn find_interpreter() -> Result<PathBuf> {
    let chosen = std::env::var(PYTHON_VARIABLE).ok();
    let candidates: Vec<&str> = chosen.as_deref().map_or_else(|| CANDIDATES.to_vec(), |one| vec![one]);
    let mut seen = Vec::new();
    for candidate in candidates {
        let probe = "import sys; print('%d.%d' % sys.version_info[:2]); import venv, ensurepip";
        let Ok(output) = Command::new(candidate).args(["-c", probe]).output() else {
            if chosen.is_some() {
                seen.push(format!("{candidate}, named by {PYTHON_VARIABLE}, cannot be started"));
            }
            continue;
        };
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let parsed = version.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        match parsed {
            Some(found) if found < OLDEST => {
                seen.push(format!("{candidate} is Python {version}, too old"));
            }
            Some(_) if output.status.success() => return Ok(PathBuf::from(candidate)),
            Some(_) => seen.push(format!(
                "{candidate} (Python {version}) lacks the venv module: install it by `sudo apt install \
                 python{version}-venv`"
            )),
            None => seen.push(format!("{candidate} did not tell its version")),
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

fn create_environment(host: &Path, environment: &Path) -> Result<()> {
    if environment.exists() {
        fs::remove_dir_all(environment)
            .with_context(|| format!("failed to remove the unfinished {}", environment.display()))?;
    }
    eprintln!("creating a private Python environment from {}", host.display());
    let output = Command::new(host)
        .args(["-m", "venv"])
        .arg(environment)
        .output()
        .with_context(|| format!("failed to start {}", host.display()))?;
    if !output.status.success() {
        bail!(
            "failed to create the Python environment {}: {}{}",
            environment.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

fn install_packages(workspace: &Workspace, environment: &Path, packages: &Packages) -> Result<()> {
    let lock = read_lock(workspace, packages)?;
    let pins = pins_of(&lock);
    eprintln!("installing {} (pinned and hash-checked in {})", pins.join(", "), packages.lock);
    let status = Command::new(environment.join("bin/python"))
        .args([
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--require-hashes",
            "--only-binary=:all:",
        ])
        .args(["--no-input", "--progress-bar", "on", "--quiet", "--requirement"])
        .arg(workspace.root.join(packages.lock))
        .current_dir(&workspace.root)
        .stdout(Stdio::from(std::io::stderr()))
        .status()
        .context("failed to start pip")?;
    if !status.success() {
        bail!(
            "failed to install the Python packages of {} (pip's reason stands above). Needed: {}. Without a \
             network, put their wheels into a folder (`pip download --require-hashes -r {} -d FOLDER` on a \
             machine that has one) and set PIP_FIND_LINKS=FOLDER PIP_NO_INDEX=1",
            packages.lock,
            pins.join(", "),
            packages.lock
        );
    }
    let stamp = environment.join(packages.stamp);
    fs::write(&stamp, lock).with_context(|| format!("failed to write {}", stamp.display()))
}

/// The pinned packages; one that has a pin for each range of Python versions, by its name alone.
fn pins_of(lock: &str) -> Vec<&str> {
    let name = |pin: &str| pin.split('=').next().map(str::len);
    let mut pins: Vec<&str> = Vec::new();
    for pin in lock.lines().filter(|line| line.contains("==")).map(pin_of) {
        match pins.last_mut() {
            Some(last) if last.get(..name(last).unwrap_or(0)) == pin.get(..name(pin).unwrap_or(0)) => {
                *last = &last[..name(last).unwrap_or(last.len())];
            }
            _ => pins.push(pin),
        }
    }
    pins
}

fn pin_of(line: &str) -> &str {
    line.split([' ', ';', '\\']).next().unwrap_or(line)
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

#[cfg(test)]
mod tests {
    use super::{pin_of, pins_of};

    #[test]
    fn a_package_pinned_by_python_version_is_named_once() {
        let lock = "a==1 \\\n  --hash=x\nnumpy==2.2.6 ; python_full_version < '3.11' \\\nnumpy==2.4.6 ; python_full_version >= '3.11' \\\nb==2\n";
        assert_eq!(pins_of(lock), ["a==1", "numpy", "b==2"]);
    }

    #[test]
    fn pins_are_read_without_markers_and_continuations() {
        let table = [
            ("onnx==1.23.2 \\", "onnx==1.23.2"),
            ("numpy==2.2.6 ; python_full_version < '3.11' \\", "numpy==2.2.6"),
            ("six==1.0", "six==1.0"),
        ];
        for (line, pin) in table {
            assert_eq!(pin_of(line), pin);
        }
    }
}
