//! The kernel's modules that Debian does not have: built against its headers by its cross compiler, both unpacked.

use crate::cross::debian::{self, Wanted};
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Debian's kernel for the board: its image, its own modules, and what other modules are built against.
pub(super) const KERNEL_PACKAGES: [&str; 6] = [
    "linux-image-arm64:arm64",
    "linux-image-6*",
    "linux-headers-arm64:arm64",
    "linux-headers-6*",
    "linux-headers-6*",
    "linux-kbuild-6.1",
];
const KERNEL_MEMBERS: [&str; 10] = [
    "./boot/vmlinuz-*",
    "./lib/modules/*/kernel/drivers/cpufreq/*",
    "./lib/modules/*/kernel/drivers/devfreq/*",
    "./lib/modules/*/kernel/drivers/net/net_failover.ko",
    "./lib/modules/*/kernel/drivers/net/virtio_net.ko",
    "./lib/modules/*/kernel/drivers/virtio/*",
    "./lib/modules/*/kernel/net/core/*",
    "./usr/include/*",
    "./usr/lib/linux-kbuild-6.1/*",
    "./usr/src/*",
];
/// The compiler with the libraries it loads, without the C library of this machine.
const COMPILER_PACKAGES: [&str; 12] = [
    "gcc-12-aarch64-linux-gnu",
    "cpp-12-aarch64-linux-gnu",
    "binutils-aarch64-linux-gnu",
    "libbinutils",
    "libelf1",
    "libgmp10",
    "libisl23",
    "libjansson4",
    "libmpc3",
    "libmpfr6",
    "libzstd1",
    "zlib1g",
];
/// Path of the power sensors' driver in the kernel's sources.
const DRIVER: &str = "linux-source-6.1/drivers/hwmon/ina3221.c";

/// The unpacked kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    root: PathBuf,
    /// Its version, such as `6.1.0-56-arm64`.
    release: String,
}

impl Kernel {
    /// Unpacks it.
    pub(super) fn unpack(workspace: &Workspace) -> Result<Self> {
        let root = debian::unpack(
            workspace,
            &Wanted {
                name: "kernel-arm64",
                purpose: "the virtual board's kernel",
                packages: &KERNEL_PACKAGES,
                members: &KERNEL_MEMBERS,
            },
        )?;
        let modules = root.join("lib/modules");
        let release = fs::read_dir(&modules)
            .with_context(|| format!("failed to read {}", modules.display()))?
            .find_map(|entry| entry.ok()?.file_name().into_string().ok())
            .with_context(|| format!("failed to find a kernel in {}", modules.display()))?;
        Ok(Self { root, release })
    }

    /// The kernel itself.
    pub(super) fn image(&self) -> PathBuf {
        self.root.join(format!("boot/vmlinuz-{}", self.release))
    }

    /// One of its own modules, such as `net/core/failover`.
    pub(super) fn module(&self, name: &str) -> PathBuf {
        self.root.join(format!("lib/modules/{}/kernel/{name}.ko", self.release))
    }

    /// Builds the modules of `sources` in `folder`, which is there afterwards with the `.ko` files in it.
    pub(super) fn build(&self, workspace: &Workspace, sources: &Path, folder: &Path) -> Result<()> {
        let compiler = debian::unpack(
            workspace,
            &Wanted {
                name: "gcc-arm64",
                purpose: "the compiler of kernel modules",
                packages: &COMPILER_PACKAGES,
                members: &["./usr/*", "./lib/*"],
            },
        )?;
        let driver = driver(workspace)?;
        let prepare = || -> std::io::Result<()> {
            fs::create_dir_all(folder)?;
            fs::copy(&driver, folder.join("ina3221.c"))?;
            for entry in fs::read_dir(sources)? {
                let entry = entry?;
                fs::copy(entry.path(), folder.join(entry.file_name()))?;
            }
            Ok(())
        };
        prepare().with_context(|| format!("failed to lay the modules' sources in {}", folder.display()))?;
        let headers = self.root.join("usr/src").join(format!("linux-headers-{}", self.release));
        // What is packaged names the place of an installed one.
        let makefile = headers.join("Makefile");
        let shared = headers.with_file_name(format!(
            "linux-headers-{}-common",
            self.release.strip_suffix("-arm64").unwrap_or(&self.release)
        ));
        fs::write(&makefile, format!("include {}/Makefile\n", shared.display()))
            .with_context(|| format!("failed to write {}", makefile.display()))?;
        let mut make = environment::command("make");
        make.arg("-C")
            .arg(&headers)
            .arg(format!("M={}", folder.display()))
            .args(["ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-", "CC=aarch64-linux-gnu-gcc-12"])
            .args(["KCFLAGS=-g0 -Werror", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"])
            .env("PATH", before_path(&compiler.join("usr/bin"))?)
            .env("LD_LIBRARY_PATH", libraries(&compiler))
            .env("LC_ALL", "C");
        let output = make
            .output()
            .context("failed to start make, which builds kernel modules: install the package make")?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let blank = headers.display().to_string().contains([' ', ':']);
        bail!(
            "failed to build the virtual board's kernel modules: {}{}",
            said.lines().filter(|line| !line.trim().is_empty()).take(5).collect::<Vec<_>>().join("; "),
            if blank {
                "; the kernel's makefiles do not support spaces or colons in paths: move the checkout, or set \
                 CARGO_TARGET_DIR"
            } else {
                ""
            }
        )
    }
}

/// The kernel's own driver of INA3221s, out of Debian's package of its sources, of which nothing else is kept.
fn driver(workspace: &Workspace) -> Result<PathBuf> {
    let kept = workspace.state().join("virtual-board/ina3221.c");
    if kept.is_file() {
        return Ok(kept);
    }
    let root = debian::unpack(
        workspace,
        &Wanted {
            name: "linux-source",
            purpose: "the kernel's driver of power sensors",
            packages: &["linux-source-6.1"],
            members: &["./usr/src/*"],
        },
    )?;
    let archive = root.join("usr/src/linux-source-6.1.tar.xz");
    let output = environment::command("tar")
        .args(["--extract", "--xz", "--to-stdout", "--occurrence=1", "--file"])
        .arg(&archive)
        .arg(DRIVER)
        .output()
        .context("failed to start tar")?;
    if !output.status.success() || output.stdout.is_empty() {
        bail!(
            "failed to extract {DRIVER} from {}: {}",
            archive.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let fresh = kept.with_extension("new");
    fs::write(&fresh, &output.stdout)
        .and_then(|()| fs::rename(&fresh, &kept))
        .and_then(|()| fs::remove_dir_all(&root))
        .with_context(|| format!("failed to put {} in place", kept.display()))?;
    Ok(kept)
}

fn before_path(folder: &Path) -> Result<OsString> {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let parts = std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(&old));
    std::env::join_paths(parts).context("failed to put the compiler on PATH: its path contains a colon")
}

fn libraries(root: &Path) -> OsString {
    let folders = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|folder| root.join(folder));
    std::env::join_paths(folders).unwrap_or_default()
}
