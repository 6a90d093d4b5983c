//! A board of another processor, light enough for many of them: the same sshd, in a user namespace of its own in which
//! the kernel hands programs for aarch64 to an emulator, and shut into a system of such programs. Its kernel and its
//! /proc are those of this machine.

use super::Farm;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What it consists of.
#[derive(Debug, Clone)]
pub(crate) struct System {
    /// Emulator of the processor, a static program.
    emulator: PathBuf,
    /// Programs and libraries of the board.
    root: PathBuf,
    /// The runner for it, with what belongs to it.
    kit: PathBuf,
}

/// First bytes of a program for aarch64, and which bits of them count.
const MAGIC: &str = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
const MASK: &str = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";

/// The name of what the runner is built for, as the harness calls its folder.
const TARGET: &str = "aarch64-unknown-linux-gnu.2.27";

impl System {
    /// What `cargo xtask test` put in place; `None` where it said why it did not.
    pub(crate) fn find() -> Option<Self> {
        let place = PathBuf::from(std::env::var_os("EDGEPIPE_EMULATED_BOARD")?);
        let kit = PathBuf::from(std::env::var_os("EDGEPIPE_KIT")?);
        Some(Self { emulator: place.join("qemu-aarch64-static"), root: place.join("root"), kit })
    }
}

/// The board's file.
pub(super) fn file(name: &str, connect: &str, port: u16) -> String {
    format!(
        "board: {name}\nconnect: {{ ssh: {{ {connect}, port: {port} }} }}\n\
         target: {{ triple: aarch64-unknown-linux-gnu, glibc: \"2.27\" }}\n\
         processors:\n  one: {{ cpus: [0], mcpu: cortex-a57 }}\n  two: {{ cpus: [1], mcpu: cortex-a57 }}\n"
    )
}

/// Starts its sshd.
pub(super) fn start(farm: &Farm, system: &System, config: &str) -> Child {
    let root = farm.folder.path().display();
    let passwd = fs::read_to_string(farm.path("passwd")).unwrap();
    let user = &farm.users[0];
    let ours = format!("{}:x:0:0::{}:{}", user.name, user.home.display(), user.shell.display());
    let passwd = passwd.replace(&ours, &format!("{}:x:0:0::/home:/bin/sh", user.name));
    fs::write(farm.path("passwd"), passwd).unwrap();
    let config = config
        .replace(&format!("{root}/board/tmp"), "/tmp")
        .replace("TMPDIR=/tmp", "TMPDIR=/tmp QEMU_CPU=cortex-a57 PATH=/bin");
    fs::write(farm.path("sshd_config"), config + "ChrootDirectory /run/board\n").unwrap();
    // sshd wants folders above the board's root that nobody else may write to.
    let script = format!(
        "set -e; read go
         mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
         printf '%s' ':aarch64:M::{MAGIC}:{MASK}:{emulator}:PF' > /proc/sys/fs/binfmt_misc/register
         mount --bind {root}/passwd /etc/passwd
         mount -t tmpfs -o mode=755 tmpfs /run; mkdir /run/sshd /run/board
         mount -t tmpfs -o mode=755 tmpfs /run/board; cd /run/board
         mkdir bin lib usr home tmp proc sys dev
         for part in bin lib usr; do mount --rbind {system}/$part $part; done
         for part in proc sys dev; do mount --rbind /$part $part; done
         mount --bind {root}/boot_id proc/sys/kernel/random/boot_id
         mount --bind {root}/board/home home; mount --bind {root}/board/tmp tmp
         cd /; exec {sshd} -D -e -f {root}/sshd_config < /dev/null",
        emulator = system.emulator.display(),
        system = system.root.display(),
        sshd = farm.tools.sshd.display(),
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--mount", "--propagation", "private", "/bin/sh", "-c", &script]);
    let mut child = farm.spawn(command.stdin(Stdio::piped()));
    // Its users are those of this machine; only from outside may all of them be given to it.
    for map in ["uid_map", "gid_map"] {
        let map = format!("/proc/{}/{map}", child.id());
        wait_for_namespace(&map);
        fs::write(map, "0 0 65536\n").unwrap();
    }
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    place_kit(system);
    child
}

/// Until the program is in its own namespace, whose map is empty.
fn wait_for_namespace(map: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(300);
    while fs::read_to_string(map).map_or(true, |text| !text.trim().is_empty()) {
        assert!(std::time::Instant::now() < deadline, "unshare makes no user namespace: {map}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Lays the runner where the harness of the tests looks for it.
fn place_kit(system: &System) {
    let kits = Path::new(env!("CARGO_TARGET_TMPDIR")).join("edgepipe/cross");
    fs::create_dir_all(&kits).unwrap();
    let link = kits.join(TARGET);
    if fs::read_link(&link).ok().as_ref() != Some(&system.kit) {
        // Not there the first time.
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(&system.kit, &link).unwrap();
    }
}
