//! The packages of the private Python environment: installed by pip, checked, and found damaged later.

use crate::hint;
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Name of the file in the environment that lists what was installed.
const MANIFEST: &str = "installed.txt";
const PIP: &str = include_str!("pip.py");
const VERIFY: &str = include_str!("verify.py");
/// Lines of pip's own messages that are kept to find the cause of a failure.
const LAST_LINES: usize = 40;

/// A set of packages that is installed as a whole.
#[derive(Debug)]
pub struct Packages {
    /// Path of the lock file below the root.
    pub(crate) lock: &'static str,
    /// Name of the stamp file in the environment; it holds the lock that was installed.
    pub(crate) stamp: &'static str,
    /// Modules that must be importable.
    pub(crate) modules: &'static [&'static str],
}

impl Packages {
    /// Whether the present lock is the one that was installed.
    pub(crate) fn are_stamped(&self, root: &Path, environment: &Path) -> Result<bool> {
        let wanted = self.read_lock(root)?;
        Ok(fs::read_to_string(environment.join(self.stamp)).is_ok_and(|stamp| stamp == wanted))
    }

    fn read_lock(&self, root: &Path) -> Result<String> {
        let path = root.join(self.lock);
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
    }

    /// Installs the packages, checks that they are in the environment, and only then writes stamp and manifest.
    pub(crate) fn install(&self, root: &Path, environment: &Path) -> Result<()> {
        let lock = self.read_lock(root)?;
        let pins = pins_of(&lock);
        eprintln!("installing {} (pinned and hash-checked in {})", pins.join(", "), self.lock);
        let mut pip = pip(&environment.join("bin/python"), "install");
        pip.args(["--progress-bar", "off", "--requirement"]).arg(root.join(self.lock));
        run_pip(
            pip,
            &format!("install the Python packages of {}", self.lock),
            &format!(
                "Needed: {}. Without a network, put their wheels into a folder (`pip download --require-hashes -r {} \
                 -d FOLDER` on a machine that has one) and set PIP_FIND_LINKS=FOLDER PIP_NO_INDEX=1",
                pins.join(", "),
                self.lock
            ),
        )?;
        let faults = self.faults(root, environment)?;
        if !faults.is_empty() {
            let faults = faults.join("; ");
            let remove = format!("remove {} and try again", environment.display());
            bail!(
                "failed to install the Python packages of {}: pip reported success, but {faults}; {}",
                self.lock,
                hint::of_text(&faults).unwrap_or(&remove)
            );
        }
        write_manifest(environment)?;
        let stamp = environment.join(self.stamp);
        fs::write(&stamp, lock).with_context(|| format!("failed to write {}", stamp.display()))
    }

    /// Lists what is wrong with the installed packages.
    pub(crate) fn faults(&self, root: &Path, environment: &Path) -> Result<Vec<String>> {
        let python = environment.join("bin/python");
        let output = environment::python(&python)
            .args(["-I", "-X", "utf8", "-c", VERIFY])
            .arg(root.join(self.lock))
            .args(self.modules)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("failed to start {}", python.display()))?;
        let mut faults: Vec<String> =
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        if faults.is_empty() && !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            faults.push(format!(
                "its interpreter ended with {} ({})",
                output.status,
                stderr.lines().last().unwrap_or("no reason given")
            ));
        }
        Ok(faults)
    }
}

/// Runs pip's `command` in an interpreter, with the user's settings for package sources and no others.
pub fn pip(python: &Path, command: &str) -> Command {
    let mut pip = environment::pip(python);
    pip.args(["-I", "-X", "utf8", "-c", PIP]).arg(environment::PIP_SOURCES.join(",")).arg(command).args([
        "--disable-pip-version-check",
        "--require-hashes",
        "--only-binary=:all:",
        "--no-input",
        "--quiet",
    ]);
    pip
}

/// Runs pip and shows its output.
///
/// # Errors
/// If pip fails: `what` completes "failed to …", and `remedy` follows unless the cause is known.
pub fn run_pip(mut pip: Command, what: &str, remedy: &str) -> Result<()> {
    let mut child = pip
        .stdin(Stdio::null())
        .stdout(Stdio::from(std::io::stderr()))
        .stderr(Stdio::piped())
        .spawn()
        .context("failed to start pip")?;
    let mut last = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n').map_while(std::result::Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            eprintln!("{line}");
            if last.len() == LAST_LINES {
                last.remove(0);
            }
            last.push(line);
        }
    }
    let status = child.wait().context("failed to wait for pip")?;
    if status.success() {
        return Ok(());
    }
    match hint::of_text(&last.join("\n")) {
        Some(hint) => bail!("failed to {what}: see pip's message above; {hint}"),
        None => bail!("failed to {what}: see pip's message above. {remedy}"),
    }
}

/// Lists every file of the environment with its length, after the interpreter it was made for.
fn write_manifest(environment: &Path) -> Result<()> {
    let path = environment.join(MANIFEST);
    let mut text = format!("{}\n", interpreter(environment)?);
    let failed = || format!("failed to list {}", environment.display());
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(environment.join(&folder)).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            let data = entry.metadata().with_context(failed)?;
            let relative = folder.join(entry.file_name());
            if data.is_dir() && entry.file_name() != "__pycache__" {
                folders.push(relative);
            } else if data.is_file()
                && relative.extension() != Some("stamp".as_ref())
                && let Some(relative) = relative.to_str().filter(|name| *name != MANIFEST)
            {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{} {relative}", data.len());
            }
        }
    }
    fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
}

/// The interpreter behind the environment's link, which an update of the system may replace by another version.
fn interpreter(environment: &Path) -> Result<String> {
    let link = environment.join("bin/python");
    let program = fs::canonicalize(&link).with_context(|| format!("failed to find {}", link.display()))?;
    let data = fs::metadata(&program).with_context(|| format!("failed to read {}", program.display()))?;
    Ok(format!("{} {}", data.len(), program.display()))
}

/// What has changed in the environment since it was installed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// Something that only a check of the packages can judge: another interpreter, or no manifest.
    Unsure,
    /// A file is missing or has another length.
    Damaged(String),
}

/// Compares the environment with its manifest: some thousand calls of the file system, which take a few hundredths of
/// a second.
pub(crate) fn change(environment: &Path) -> Change {
    let Ok(now) = interpreter(environment) else {
        return Change::Damaged("bin/python".to_owned());
    };
    let Ok(manifest) = fs::read_to_string(environment.join(MANIFEST)) else { return Change::Unsure };
    let mut lines = manifest.lines();
    let same_interpreter = lines.next() == Some(now.as_str());
    for line in lines {
        let Some((length, name)) = line.split_once(' ') else { return Change::Unsure };
        let found = fs::symlink_metadata(environment.join(name)).map(|data| data.len().to_string());
        if !found.is_ok_and(|found| found == length) {
            return Change::Damaged(name.to_owned());
        }
    }
    if same_interpreter { Change::None } else { Change::Unsure }
}

/// Accepts the environment as it is now.
pub(crate) fn accept(environment: &Path) -> Result<()> {
    write_manifest(environment)
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

#[cfg(test)]
mod tests {
    use super::{Change, MANIFEST, change, pin_of, pins_of, pip, write_manifest};
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::{Path, PathBuf};

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

    /// All of them are installed into one environment, where the verification of one would find the version of another.
    #[test]
    fn lock_files_pin_the_same_versions() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci");
        let mut pinned: BTreeMap<String, (PathBuf, BTreeSet<String>)> = BTreeMap::new();
        let mut files: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
        assert!(files.len() > 1, "no lock files: {files:?}");
        for file in files {
            let mut here: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for line in
                fs::read_to_string(&file).unwrap().lines().filter(|line| !line.starts_with([' ', '#']))
            {
                let Some((name, version)) = pin_of(line).split_once("==") else { continue };
                here.entry(name.to_owned()).or_default().insert(version.to_owned());
            }
            for (name, versions) in here {
                let (first, known) =
                    pinned.entry(name.clone()).or_insert_with(|| (file.clone(), versions.clone()));
                assert_eq!(*known, versions, "{name} in {} and {}", first.display(), file.display());
            }
        }
    }

    /// A folder that looks like an environment.
    fn environment(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("edgepipe-packages-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        for part in ["bin", "lib/numpy/__pycache__"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        fs::write(folder.join("interpreter"), "3.11").unwrap();
        std::os::unix::fs::symlink("../interpreter", folder.join("bin/python")).unwrap();
        for file in ["pyvenv.cfg", "lib/numpy/a b.py", "lib/numpy/__pycache__/a.pyc"] {
            fs::write(folder.join(file), file).unwrap();
        }
        write_manifest(&folder).unwrap();
        assert_eq!(change(&folder), Change::None);
        folder
    }

    #[test]
    fn every_change_of_an_environment_is_noticed() {
        type Harm = fn(&Path) -> std::io::Result<()>;
        let damaged = |name: &str| Change::Damaged(name.to_owned());
        let table: [(&str, Harm, Change); 8] = [
            ("gone", |at| fs::remove_dir_all(at.join("lib/numpy")), damaged("lib/numpy/a b.py")),
            ("cut", |at| fs::write(at.join("lib/numpy/a b.py"), ""), damaged("lib/numpy/a b.py")),
            ("settings", |at| fs::write(at.join("pyvenv.cfg"), "system"), damaged("pyvenv.cfg")),
            ("dangling", |at| fs::remove_file(at.join("interpreter")), damaged("bin/python")),
            ("no-link", |at| fs::remove_file(at.join("bin/python")), damaged("bin/python")),
            ("no-list", |at| fs::remove_file(at.join(MANIFEST)), Change::Unsure),
            ("caches", |at| fs::remove_dir_all(at.join("lib/numpy/__pycache__")), Change::None),
            ("stamps", |at| fs::write(at.join("a.stamp"), "x"), Change::None),
        ];
        for (name, harm, expected) in table {
            let folder = environment(name);
            harm(&folder).unwrap();
            assert_eq!(change(&folder), expected, "{name}");
            fs::remove_dir_all(&folder).unwrap();
        }
        // Another interpreter behind the link, such as after an update of the system.
        let folder = environment("update");
        fs::remove_file(folder.join("bin/python")).unwrap();
        std::os::unix::fs::symlink("/bin/sh", folder.join("bin/python")).unwrap();
        assert_eq!(change(&folder), Change::Unsure);
        fs::remove_dir_all(&folder).unwrap();
    }

    /// A fake pip: prints its settings, and then its arguments and environment.
    const PROBE: &str = r#"
import os, sys
if sys.argv[1:] == ["config", "list"]:
    print("global.index-url='https://mirror/simple'")
    print("global.prefix='/elsewhere'")
    print("global.find-links='\\n/wheels\\n/more wheels'")
    print("install.retries='7'")
    print("global.retries='3'")
    print("download.timeout='9'")
    print(":env:.cert='/c'")
else:
    print(sys.argv[1:])
    for name in sorted(os.environ):
        if name.startswith(("PIP_", "PYTHON")):
            print(name, repr(os.environ[name]))
"#;

    #[test]
    fn pip_gets_the_settings_of_sources_and_no_others() {
        // `-I` keeps PYTHONPATH out, so the probe takes pip's place by a small environment around the interpreter.
        let folder = std::env::temp_dir().join(format!("edgepipe-pip-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let made = std::process::Command::new("python3")
            .args(["-m", "venv", "--without-pip"])
            .arg(&folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let packages =
            fs::read_dir(folder.join("lib")).unwrap().next().unwrap().unwrap().path().join("site-packages");
        fs::create_dir_all(packages.join("pip")).unwrap();
        fs::write(packages.join("pip/__init__.py"), "").unwrap();
        fs::write(packages.join("pip/__main__.py"), PROBE).unwrap();
        let mut pip = pip(&folder.join("bin/python"), "install");
        pip.env_clear().env("PIP_CERT", "/mine");
        let output = pip.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        for expected in [
            "['install', '--disable-pip-version-check', '--require-hashes'",
            "PIP_INDEX_URL 'https://mirror/simple'",
            "PIP_FIND_LINKS '\\n/wheels\\n/more wheels'",
            "PIP_RETRIES '7'",
            "PIP_CERT '/mine'",
            "PIP_CONFIG_FILE '/dev/null'",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        for foreign in ["PREFIX", "TIMEOUT '9'"] {
            assert!(!text.contains(foreign), "{foreign}: {text}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
