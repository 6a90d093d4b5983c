//! TVM's libraries for another architecture, out of the wheels that ci/requirements.txt pins by hash.

use super::target::Target;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::PathBuf;
use toolchain::{Toolchain, packages};

/// The packages that carry them.
const PACKAGES: [&str; 2] = ["apache-tvm==", "apache-tvm-ffi=="];
/// Laid beside the runner.
const RUNTIME: [&str; 2] = ["libtvm_ffi.so", "libtvm_runtime.so"];
/// Named by the `tvm-ffi` crate when it links, and not needed by anything that is linked.
const LINK_ONLY: &str = "libtvm_ffi_testing.so";
/// Oldest first: pip takes a wheel for any of them.
const MANYLINUX: [&str; 6] = [
    "manylinux2014",
    "manylinux_2_17",
    "manylinux_2_24",
    "manylinux_2_27",
    "manylinux_2_28",
    "manylinux_2_34",
];

/// The runtime libraries for `target`, downloaded once for each set of pins.
pub(crate) fn ensure(workspace: &Workspace, toolchain: &Toolchain, target: &Target) -> Result<Vec<PathBuf>> {
    let lock = workspace.root.join("ci/requirements.txt");
    let lock = fs::read_to_string(&lock).with_context(|| format!("failed to read {}", lock.display()))?;
    let pins = pins(&lock);
    let parent = workspace.cross().join(&target.triple);
    let folder = parent.join("tvm");
    let libraries = || RUNTIME.iter().map(|name| folder.join(name)).collect();
    if fs::read_to_string(folder.join("pins")).is_ok_and(|made| made == pins) {
        return Ok(libraries());
    }
    let fresh = parent.join("tvm.new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).with_context(|| format!("failed to remove {}", fresh.display()))?;
    }
    fs::create_dir_all(&fresh).with_context(|| format!("failed to create {}", fresh.display()))?;
    let requirements = fresh.join("pins");
    fs::write(&requirements, &pins).with_context(|| format!("failed to write {}", requirements.display()))?;
    eprintln!("fetching TVM's libraries for {} (hash-checked)", target.architecture());
    let wheels = fresh.join("wheels");
    let mut pip = packages::pip(&toolchain.python, "download");
    pip.args(["--no-deps", "--requirement"]).arg(&requirements).arg("--dest").arg(&wheels);
    for platform in MANYLINUX {
        pip.arg("--platform").arg(format!("{platform}_{}", target.architecture()));
    }
    packages::run_pip(
        pip,
        &format!("download TVM's libraries for {}", target.triple),
        "Without a network, put the wheels into a folder and set PIP_FIND_LINKS=FOLDER PIP_NO_INDEX=1",
    )?;
    let names = [RUNTIME[0], RUNTIME[1], LINK_ONLY];
    let output = environment::python(&toolchain.python)
        .args(["-I", "-c", UNPACK])
        .arg(&wheels)
        .arg(&fresh)
        .args(names)
        .output()
        .context("failed to start the private Python")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "failed to unpack TVM's libraries to {}: {}",
            fresh.display(),
            said.lines().last().unwrap_or("no reason was given")
        );
    }
    fs::remove_dir_all(&wheels)
        .and_then(|()| if folder.exists() { fs::remove_dir_all(&folder) } else { Ok(()) })
        .and_then(|()| fs::rename(&fresh, &folder))
        .with_context(|| format!("failed to put {} in place", folder.display()))?;
    Ok(libraries())
}

/// Takes the files named by the arguments out of all wheels of a folder.
const UNPACK: &str = r"
import pathlib, sys, zipfile
wheels, folder, *names = sys.argv[1:]
left = set(names)
for wheel in pathlib.Path(wheels).glob('*.whl'):
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            name = pathlib.PurePosixPath(member).name
            if name in left:
                (pathlib.Path(folder) / name).write_bytes(archive.read(member))
                left.remove(name)
if left:
    sys.exit('the wheels do not contain ' + ', '.join(sorted(left)))
";

/// The pins of TVM's packages alone, with their hashes, out of the whole lock.
fn pins(lock: &str) -> String {
    let mut kept = String::new();
    let mut inside = false;
    for line in lock.lines() {
        if !line.starts_with([' ', '#']) {
            inside = PACKAGES.iter().any(|package| line.starts_with(package));
        }
        if inside && !line.starts_with('#') {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::pins;

    #[test]
    fn pins_of_tvm_are_cut_out_with_their_hashes() {
        let lock = "# made by uv\napache-tvm==1 \\\n    --hash=a \\\n    --hash=b\napache-tvm-ffi==2 \\\n    --hash=c\n\
                    numpy==3 \\\n    --hash=d\n";
        assert_eq!(
            pins(lock),
            "apache-tvm==1 \\\n    --hash=a \\\n    --hash=b\napache-tvm-ffi==2 \\\n    --hash=c\n"
        );
    }
}
