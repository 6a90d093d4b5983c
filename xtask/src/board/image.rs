//! What the virtual board boots: Debian's kernel, and a root file system as an archive that the kernel unpacks.

use super::cpio::{Entry, Tree};
use super::emulator::Emulator;
use super::modules::{KERNEL_PACKAGES, Kernel};
use crate::cross::debian::{self, Wanted};
use crate::cross::{self, Target};
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::BufWriter;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Name of the host key's owner in files of known hosts, whatever port the board has.
pub(super) const HOST_KEY_ALIAS: &str = "edgepipe-virtual-board";
/// What the board's programs are built for, as in `configs/boards/virtual-tx2.yaml`.
const TARGET: &str = "aarch64-unknown-linux-gnu 2.27";
/// The stand-in CUDA driver, which gives the board its GPU.
const DRIVER_PLACE: &str = "usr/lib/aarch64-linux-gnu/libcuda.so.1";
/// Folder of the sources of the virtual board.
const SOURCES: &str = "xtask/virtual-board";
/// The board's system.
const PACKAGES: [&str; 44] = [
    "base-files:arm64",
    "bash:arm64",
    "busybox-static:arm64",
    "coreutils:arm64",
    "grep:arm64",
    "libacl1:arm64",
    "libattr1:arm64",
    "libaudit1:arm64",
    "libc6:arm64",
    "libcap-ng0:arm64",
    "libcap2:arm64",
    "libcom-err2:arm64",
    "libcrypt1:arm64",
    "libgcc-s1:arm64",
    "libgcrypt20:arm64",
    "libgmp10:arm64",
    "libgpg-error0:arm64",
    "libgssapi-krb5-2:arm64",
    "libk5crypto3:arm64",
    "libkeyutils1:arm64",
    "libkrb5-3:arm64",
    "libkrb5support0:arm64",
    "liblz4-1:arm64",
    "liblzma5:arm64",
    "libncursesw6:arm64",
    "libnsl2:arm64",
    "libpam-modules:arm64",
    "libpam0g:arm64",
    "libpcre2-8-0:arm64",
    "libproc2-0:arm64",
    "libselinux1:arm64",
    "libssl3:arm64",
    "libstdc++6:arm64",
    "libsystemd0:arm64",
    "libtinfo6:arm64",
    "libtirpc3:arm64",
    "libwrap0:arm64",
    "libzstd1:arm64",
    "openssh-server:arm64",
    "openssh-sftp-server:arm64",
    "procps:arm64",
    "sed:arm64",
    "sudo:arm64",
    "zlib1g:arm64",
];
const MEMBERS: [&str; 8] = [
    "./bin/*",
    "./sbin/*",
    "./lib/*",
    "./usr/bin/*",
    "./usr/sbin/*",
    "./usr/lib/*",
    "./usr/libexec/*",
    "./etc/*",
];
/// The kernel's modules in the order in which they are loaded; those without a folder are built here.
const MODULES: [&str; 14] = [
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/virtio/virtio_mmio",
    "drivers/net/virtio_net",
    "drivers/cpufreq/cpufreq_conservative",
    "drivers/cpufreq/cpufreq_ondemand",
    "drivers/cpufreq/cpufreq_powersave",
    "drivers/cpufreq/cpufreq_userspace",
    "drivers/devfreq/governor_simpleondemand",
    "drivers/devfreq/governor_userspace",
    "tx2_cpufreq",
    "tx2_thermal",
    "tx2_clocks",
    "tx2_power",
];
/// Drivers of the power sensors, of which the board loads one.
const DRIVERS: [&str; 2] = ["ina3221", "ina3221x"];
/// Files whose mode is not the usual one.
const MODES: [(&str, u32); 4] = [
    ("etc/shadow", 0o640),
    ("etc/ssh/ssh_host_ed25519_key", 0o600),
    ("etc/sudoers", 0o440),
    ("usr/bin/sudo", 0o4755),
];

/// The files of an image.
#[derive(Debug)]
pub(super) struct Image {
    /// The kernel.
    pub(super) kernel: PathBuf,
    /// The root file system.
    pub(super) root: PathBuf,
}

/// The image; built if it does not exist or its sources have changed.
pub(super) fn ensure(workspace: &Workspace, emulator: &Emulator) -> Result<Image> {
    let home = workspace.virtual_boards();
    let folder = home.join("image");
    let target = Target::parse(TARGET).context("the target of the virtual board is malformed")?;
    let driver = cross::build_standin(workspace, &target)?;
    let recipe = recipe(&workspace.root.join(SOURCES), &driver)?;
    let image = Image { kernel: folder.join("kernel"), root: folder.join("root.cpio") };
    let is_there = || fs::read_to_string(folder.join("recipe")).is_ok_and(|made| made == recipe);
    if is_there() {
        return Ok(image);
    }
    let lock = home.join("image.lock");
    let lock = fs::File::create(&lock).with_context(|| format!("failed to create {}", lock.display()))?;
    lock.lock().context("failed to wait for another cargo xtask that builds the image")?;
    if is_there() {
        return Ok(image);
    }
    let begun = Instant::now();
    eprintln!("building the image of the virtual board");
    let kernel = Kernel::unpack(workspace)?;
    let system = debian::unpack(
        workspace,
        &Wanted {
            name: "virtual-board-arm64",
            purpose: "the virtual board's system",
            packages: &PACKAGES,
            members: &MEMBERS,
        },
    )?;
    // What a build that was cut off left is of no use.
    let fresh = home.join("image.new");
    remove(&fresh)?;
    let modules = fresh.join("modules");
    kernel.build(workspace, &workspace.root.join(SOURCES).join("kernel"), &modules)?;
    let mut tree = tree(workspace, &system, &kernel, &modules, &keys(&home, emulator)?)?;
    add(&mut tree, DRIVER_PLACE, &driver)?;
    let write = || -> std::io::Result<()> {
        let mut out = BufWriter::new(fs::File::create(fresh.join("root.cpio"))?);
        tree.write(&mut out)?;
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        fs::copy(kernel.image(), fresh.join("kernel"))?;
        fs::remove_dir_all(&modules)?;
        fs::write(fresh.join("recipe"), &recipe)
    };
    write().with_context(|| format!("failed to write the image to {}", fresh.display()))?;
    remove(&folder)?;
    fs::rename(&fresh, &folder).with_context(|| format!("failed to put {} in place", folder.display()))?;
    eprintln!("built it in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(image)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Everything that the image depends on, as text.
fn recipe(sources: &Path, driver: &Path) -> Result<String> {
    let mut recipe =
        format!("{KERNEL_PACKAGES:?}\n{PACKAGES:?}\n{MEMBERS:?}\n{MODULES:?}\n{DRIVERS:?}\n{MODES:?}\n");
    let content = fs::read(driver).with_context(|| format!("failed to read {}", driver.display()))?;
    let mut hash = DefaultHasher::new();
    hash.write(&content);
    // Writing to a String cannot fail.
    let _ = writeln!(recipe, "{DRIVER_PLACE} {:x}", hash.finish());
    for path in files_below(sources)? {
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let mode = fs::metadata(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let mode = mode.permissions().mode() & 0o100;
        let name = path.strip_prefix(sources).unwrap_or(&path).display();
        let _ = writeln!(recipe, "== {name} {mode:o}\n{text}");
    }
    Ok(recipe)
}

/// Files and links below a folder, sorted.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let fail = || format!("failed to read {}", folder.display());
        for entry in fs::read_dir(&folder).with_context(fail)? {
            let entry = entry.with_context(fail)?;
            if entry.file_type().with_context(fail)?.is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The key pair that logs in to the board and the board's own one; made once, so that a new image has them too.
fn keys(home: &Path, emulator: &Emulator) -> Result<PathBuf> {
    let folder = home.join("keys");
    if folder.is_dir() {
        return Ok(folder);
    }
    let fresh = home.join("keys.new");
    remove(&fresh)?;
    fs::create_dir_all(&fresh).with_context(|| format!("failed to create {}", fresh.display()))?;
    for name in ["id_ed25519", "host_ed25519"] {
        let output = emulator
            .command("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "edgepipe virtual board", "-f"])
            .arg(fresh.join(name))
            .output()
            .context("failed to start ssh-keygen")?;
        if !output.status.success() {
            bail!("failed to make a key: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    let host = fs::read_to_string(fresh.join("host_ed25519.pub")).context("failed to read the host key")?;
    fs::write(fresh.join("known_hosts"), format!("{HOST_KEY_ALIAS} {host}"))
        .and_then(|()| fs::rename(&fresh, &folder))
        .with_context(|| format!("failed to put {} in place", folder.display()))?;
    Ok(folder)
}

fn tree(workspace: &Workspace, system: &Path, kernel: &Kernel, modules: &Path, keys: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    for folder in ["dev", "home", "proc", "root", "run", "sys", "tmp", "var/lib/nvpmodel", "var/log"] {
        tree.put(folder, Entry::Folder);
    }
    tree.put("dev/console", Entry::Device(5, 1));
    for root in [system.to_path_buf(), workspace.root.join(SOURCES).join("root")] {
        for path in files_below(&root)? {
            let name = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().into_owned();
            // What unpacking keeps for itself, and tables of character sets that nothing here asks for.
            if name.starts_with('.') || name.contains("/gconv/") {
                continue;
            }
            add(&mut tree, &name, &path)?;
        }
    }
    for (name, to) in [("bin/sh", "busybox"), ("sbin/init", "../bin/busybox")] {
        tree.put(name, Entry::Link(to.to_owned()));
    }
    let mut order = String::new();
    for module in MODULES.into_iter().chain(DRIVERS) {
        let name = module.rsplit('/').next().unwrap_or(module);
        let path = if name == module { modules.join(format!("{name}.ko")) } else { kernel.module(module) };
        add(&mut tree, &format!("lib/modules/{name}.ko"), &path)?;
        if !DRIVERS.contains(&module) {
            order.push_str(name);
            order.push_str(".ko\n");
        }
    }
    tree.file("lib/modules/order", 0o644, order);
    add(&mut tree, "etc/ssh/ssh_host_ed25519_key", &keys.join("host_ed25519"))?;
    for user in ["nvidia", "root"] {
        add(&mut tree, &format!("etc/ssh/authorized_keys.{user}"), &keys.join("id_ed25519.pub"))?;
    }
    Ok(tree)
}

/// Adds a file of this machine. Modes are the usual ones, whatever the umask was when it was unpacked.
fn add(tree: &mut Tree, name: &str, path: &Path) -> Result<()> {
    let fail = || format!("failed to read {}", path.display());
    let data = fs::symlink_metadata(path).with_context(fail)?;
    if data.is_symlink() {
        let to = fs::read_link(path).with_context(fail)?;
        tree.put(name, Entry::Link(to.to_string_lossy().into_owned()));
        return Ok(());
    }
    let usual = if data.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
    let mode = MODES.iter().find(|(special, _)| *special == name).map_or(usual, |(_, mode)| *mode);
    tree.file(name, mode, fs::read(path).with_context(fail)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{SOURCES, recipe};
    use std::path::Path;

    #[test]
    fn the_recipe_holds_every_source() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let recipe = recipe(&root.join(SOURCES), &root.join("Cargo.toml")).unwrap();
        for part in
            ["kernel/tx2_power.c", "root/etc/rc", "root/usr/sbin/nvpmodel", "openssh-server", "libcuda.so.1"]
        {
            assert!(recipe.contains(part), "{part}");
        }
    }
}
