//! A content-addressed cache on the board: `~/.cache/edgepipe/<kind>/<sha256>`. Only missing files are sent.
//!
//! A file is written under a temporary name, hashed on the board, and renamed. Cached files are hashed again after each
//! boot, because a power cut may have damaged them.
//!
//! The board's clock is not used: without a battery it starts in 1970, and the newest file would seem to be the oldest.
//! Files get the harness' time when they are used; an upload is stale if its process has ended.

use crate::ending::Ending;
use crate::ssh::{Connection, Job, SshError, quoted};
use host::date::{Date, unix_ns};
use host::files::hash_file;
use host::interrupt::Interrupt;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest time without progress of a check or an upload. Hashing a large file on a slow board takes a while.
const SILENCE: Duration = Duration::from_secs(60);
/// Largest size of the cache on a board, in KiB.
const LIMIT_KIB: u64 = 4 << 20;

/// Concurrent uploads. Each is an SSH session, and sshd allows ten.
const MAX_UPLOADS: usize = 4;

/// A file with its place in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// Its path on this machine.
    pub(super) local: PathBuf,
    /// Its place below the cache, such as `library/<sha256>`. Letters, digits, `_`, `.`, `-` and `/` only.
    pub(super) place: String,
    /// Its content.
    pub(super) sha256: String,
    /// Its size in bytes.
    pub(super) bytes: u64,
}

impl Item {
    /// A file whose place is determined by its content.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn of(kind: &str, local: &Path) -> anyhow::Result<Self> {
        let sha256 = hash_file(local)?;
        let bytes = std::fs::metadata(local)?.len();
        // TVM chooses the loader of a library by its file extension.
        let ending = if kind == "library" { ".so" } else { "" };
        Ok(Self { local: local.to_path_buf(), place: format!("{kind}/{sha256}{ending}"), sha256, bytes })
    }
}

/// The cache on a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BoardCache {
    /// Its folder.
    pub(super) folder: String,
    /// Architecture as `uname -m` names it.
    pub(super) architecture: String,
    /// Model, serial number and CPUs, as far as the board reports them. The same after each boot.
    pub(super) identity: String,
}

/// Prints what identifies a board: model and serial number of a device tree, product of a PC, and CPUs.
const IDENTITY: &str = "for f in /proc/device-tree/model /proc/device-tree/serial-number \
                        /sys/class/dmi/id/product_name /sys/devices/system/cpu/possible; do \
                        v=; { read -r v <\"$f\"; } 2>/dev/null || :; printf '%s ' \"$v\"; done; echo; ";

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) files: u32,
    pub(super) bytes: u64,
}

// A program started on a board takes from 1 ms (here) to 50 ms (an emulated one), so the scripts start few.

/// Enters the cache directory, creates it if needed, and finds the list of files checked since boot.
const ENTER: &str = "umask 077; c=${XDG_CACHE_HOME:-$HOME/.cache}/edgepipe; \
                     [ -d \"$c\" ] || mkdir -p \"$c\"; cd \"$c\" || exit 9; \
                     read -r b </proc/sys/kernel/random/boot_id || b=unknown; b=checked-$b; \
                     [ -f \"$b\" ] || { rm -f checked-*; : >\"$b\" || exit 9; }; ";

/// Defines `digest FILE`, which prints the SHA-256 of a file. OpenSSL is several times faster than coreutils if the
/// processor has SHA instructions, but is not installed on every board.
const DIGEST: &str = "digest() { d=$(openssl dgst -sha256 -r <\"$1\" 2>/dev/null) || d=$(sha256sum <\"$1\") && \
                      printf '%s\\n' \"${d%% *}\"; }; ";

/// Defines `used FILE...`, which sets the times of files and their directories to the harness' time.
fn used() -> String {
    let stamp = Date::from_unix_ns(unix_ns()).touch();
    format!(
        "used() {{ v=; for f in \"$@\"; do while :; do v=\"$v $f\"; case $f in */*) f=${{f%/*}};; *) break;; esac; \
         done; done; [ -z \"$v\" ] || TZ=UTC0 touch -t {stamp} $v; }}; "
    )
}

/// Sends missing files to the board.
///
/// # Errors
/// If the connection is lost, the board's disk is full, or a file arrives damaged.
pub(super) fn deploy(
    connection: &Connection,
    items: &[Item],
    interrupt: &Interrupt,
) -> Result<(BoardCache, Sent), SshError> {
    let (cache, missing) = look(connection, items, interrupt)?;
    let mut missing: Vec<&Item> = items.iter().filter(|item| missing.contains(&item.place)).collect();
    // The next file is sent while the board hashes the last one; so the smallest file comes last.
    missing.sort_by_key(|item| std::cmp::Reverse(item.bytes));
    let mut under_way = VecDeque::new();
    let sent = send(connection, &missing, &mut under_way, interrupt);
    // If one fails, the others still remove their temporary files.
    let ended: Vec<_> = under_way.into_iter().map(|upload| upload.finish(interrupt)).collect();
    let sent = sent?;
    ended.into_iter().collect::<Result<(), _>>()?;
    Ok((cache, sent))
}

fn send<'a>(
    connection: &'a Connection,
    missing: &[&'a Item],
    under_way: &mut VecDeque<Upload<'a>>,
    interrupt: &Interrupt,
) -> Result<Sent, SshError> {
    let mut sent = Sent::default();
    for item in missing {
        if under_way.len() == MAX_UPLOADS {
            finish_first(under_way, interrupt)?;
        }
        let mut upload = loop {
            match Upload::begin(connection, item) {
                // This sshd allows fewer sessions.
                Err(SshError::Open { .. }) if !under_way.is_empty() => finish_first(under_way, interrupt)?,
                begun => break begun?,
            }
        };
        upload.job.send(interrupt)?;
        under_way.push_back(upload);
        sent.files += 1;
        sent.bytes += item.bytes;
    }
    Ok(sent)
}

fn finish_first(under_way: &mut VecDeque<Upload<'_>>, interrupt: &Interrupt) -> Result<(), SshError> {
    under_way.pop_front().map_or(Ok(()), |first| first.finish(interrupt))
}

fn look(
    connection: &Connection,
    items: &[Item],
    interrupt: &Interrupt,
) -> Result<(BoardCache, Vec<String>), SshError> {
    let places: Vec<String> = items.iter().map(|item| quoted(&item.place)).collect();
    let mut script = format!(
        "{ENTER} {DIGEST} {} pwd -P; uname -m; {IDENTITY} n=$(printf '\\n.'); n=${{n%.}}; u=; k=$n$(cat \"$b\")$n; \
         w=$n$(wc -c {} 2>/dev/null)$n; missing() {{ printf 'missing %s\\n' \"$1\"; }}; \
         look() {{ case $w in *[!0-9]\"$2 $1$n\"*) ;; *) missing \"$1\"; return;; esac; \
         case $k in *\"$n$1 $3$n\"*) ;; *) [ \"$(digest \"$1\")\" = \"$3\" ] || {{ missing \"$1\"; return; }}; \
         printf '%s\\n' \"$1 $3\" >>\"$b\";; esac; u=\"$u $1\"; }}; ",
        used(),
        places.join(" ")
    );
    for (Item { sha256, bytes, .. }, place) in items.iter().zip(&places) {
        // Writing to a String cannot fail.
        let _ = write!(script, "look {place} {bytes} {sha256}; ");
    }
    script.push_str("used $u");
    let what = "check the board's cache";
    let output = connection.run(what, &script, SILENCE, interrupt)?;
    let mut lines = output.stdout.lines();
    let (Some(folder), Some(architecture), Some(identity), Ending::Code(0)) =
        (lines.next(), lines.next(), lines.next(), &output.ending)
    else {
        return Err(failed(connection, what, &output.stderr, &output.ending));
    };
    let (folder, architecture, identity) =
        (folder.to_owned(), architecture.to_owned(), identity.trim().to_owned());
    let cache = BoardCache { folder, architecture, identity };
    Ok((cache, lines.filter_map(|line| line.strip_prefix("missing ")).map(str::to_owned).collect()))
}

/// A running upload.
struct Upload<'a> {
    connection: &'a Connection,
    what: String,
    sha256: &'a str,
    job: Job<'a>,
}

impl<'a> Upload<'a> {
    fn begin(connection: &'a Connection, item: &'a Item) -> Result<Self, SshError> {
        let name = item.local.file_name().unwrap_or_default().to_string_lossy();
        let what = format!("store {name} ({:.1} MB)", item.bytes as f64 / 1e6);
        let local = |error: std::io::Error| SshError::Failed {
            what: what.clone(),
            host: connection.host().to_owned(),
            reason: format!("{}: {error}", item.local.display()),
        };
        let file = File::open(&item.local).map_err(local)?;
        let (place, sha256) = (quoted(&item.place), &item.sha256);
        // Hashing the stored file, which is still in memory, is faster than hashing it on the way with `tee`, which
        // makes sshd wait for 8 KiB at a time.
        let script = format!(
            "{ENTER} {DIGEST} {} t=incoming.$$; p={place}; f=${{p%/*}}; \
             [ -d \"$f\" ] || mkdir -p \"$f\" || exit 5; cat >\"$t\" || {{ rm -f \"$t\"; exit 5; }}; s=$(digest \"$t\"); [ \"$s\" = {sha256} ] || \
              {{ rm -f \"$t\"; echo \"$s\" >&2; exit 6; }}; \
             chmod 700 \"$t\" && mv -f \"$t\" \"$p\" && printf '%s\\n' \"$p {sha256}\" >>\"$b\" || \
             {{ rm -f \"$t\"; exit 5; }}; used \"$p\"",
            used()
        );
        let job = connection.begin(&what, &script, file, SILENCE)?;
        Ok(Self { connection, what, sha256, job })
    }

    /// Waits until the file is in its place.
    fn finish(self, interrupt: &Interrupt) -> Result<(), SshError> {
        let Self { connection, what, sha256, job } = self;
        let output = job.finish(interrupt)?;
        match output.ending {
            Ending::Code(0) => Ok(()),
            Ending::Code(6) => {
                let reason = format!(
                    "the file arrived with the SHA-256 {} instead of {sha256}; check the board's disk",
                    output.stderr.split_whitespace().next().unwrap_or("(unknown)")
                );
                Err(SshError::Failed { what, host: connection.host().to_owned(), reason })
            }
            ending => Err(failed(connection, &what, &output.stderr, &ending)),
        }
    }
}

/// Exit code of a shell for a program that cannot be executed.
const NOT_EXECUTABLE: i32 = 126;

/// The remedy if the board's kernel refused to execute the runner; otherwise empty.
pub(super) fn remedy_of_start(
    connection: &Connection,
    folder: &str,
    ending: &Ending,
    interrupt: &Interrupt,
) -> String {
    if *ending != Ending::Code(NOT_EXECUTABLE) {
        return String::new();
    }
    let what = "find the file system of the board's cache";
    let mount = connection.run(what, &mount_of(folder), SILENCE, interrupt).map(|output| output.stdout);
    let mount = mount.unwrap_or_default();
    let (point, options) = mount.trim().split_once(' ').unwrap_or_default();
    if options.split(',').any(|option| option == "noexec") {
        format!(
            "; {folder} is on {point}, which is mounted noexec: set XDG_CACHE_HOME for this user on the board (in \
             /etc/environment or ~/.bashrc) to a folder on another file system, or remount it with `sudo mount -o \
             remount,exec {point}`"
        )
    } else {
        format!(
            "; {folder} is on {point}, which is not mounted noexec; check `dmesg` on the board for a security module"
        )
    }
}

/// Prints mount point and options of the file system that a folder is on.
fn mount_of(folder: &str) -> String {
    format!(
        "d={}; p=; o=; while read -r x m t f x; do case $d/ in \"${{m%/}}\"/*) [ ${{#m}} -lt ${{#p}} ] || {{ p=$m; o=$f; }};; \
         esac; done </proc/self/mounts; printf '%s %s\\n' \"$p\" \"$o\"",
        quoted(folder)
    )
}

/// Removes the oldest content beyond the limit, and stale uploads. Only the holder of the board's lock may call this,
/// because files in use must not be removed.
///
/// # Errors
/// If the connection is lost.
pub(super) fn prune(connection: &Connection, interrupt: &Interrupt) -> Result<(), SshError> {
    let what = "remove old content from the board's cache";
    connection.run(what, &pruning(LIMIT_KIB), SILENCE, interrupt).map(drop)
}

/// Keeps the newest content up to the limit.
fn pruning(limit_kib: u64) -> String {
    format!(
        "{ENTER} for f in incoming.*; do [ -d \"/proc/${{f#incoming.}}\" ] || rm -f \"$f\"; done; t=0; \
         ls -1td library/* weights/* runner/* 2>/dev/null | xargs du -sk 2>/dev/null | while read -r s f; do \
         case $f in library/?*|weights/?*|runner/?*) t=$((t + s)); [ \"$t\" -le {limit_kib} ] || rm -rf \"$f\";; esac; done"
    )
}

fn failed(connection: &Connection, what: &str, stderr: &str, ending: &Ending) -> SshError {
    let said: String = stderr.trim().chars().take(400).collect();
    let mut reason = if said.is_empty() { format!("its shell {}", ending.describe()) } else { said.clone() };
    if said.contains("No space left") || said.contains("quota") {
        reason.push_str("; free disk space on the board (see `df -h ~/.cache`)");
    }
    SshError::Failed { what: what.to_owned(), host: connection.host().to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    /// Runs a script as the board's `/bin/sh` does, with a home folder of its own.
    fn run(home: &Path, script: &str) {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(script).current_dir(home).env("HOME", home).env_remove("XDG_CACHE_HOME");
        let output = shell.output().expect("a shell");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn kept(cache: &Path) -> Vec<String> {
        let mut kept = Vec::new();
        for kind in ["library", "runner", "weights"] {
            let names = fs::read_dir(cache.join(kind)).expect("a folder").flatten();
            kept.extend(names.map(|entry| format!("{kind}/{}", entry.file_name().to_string_lossy())));
        }
        kept.sort();
        kept
    }

    #[test]
    fn content_is_hashed_alike_with_openssl_and_without() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let folder = home.path().join("bin");
        fs::create_dir(&folder).expect("a folder");
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        fs::write(home.path().join("abc"), "abc").expect("a file");
        let check = format!("{DIGEST} [ \"$(digest abc)\" = {expected} ]");
        // One that is there and does not work, such as after an upgrade of its library.
        let broken = folder.join("openssl");
        for script in ["exit 1", "echo oops; exit 127"] {
            fs::write(&broken, format!("#!/bin/sh\n{script}\n")).expect("a file");
            fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).expect("a program");
            run(home.path(), &format!("PATH={}:$PATH; {check}", folder.display()));
        }
        run(home.path(), &check);
    }

    #[test]
    fn the_mount_of_a_folder_is_the_deepest_one() {
        let home = tempfile::tempdir().expect("a temporary folder");
        for (folder, point) in [("/proc/self", "/proc"), ("/", "/"), ("/processes", "/")] {
            run(home.path(), &format!("[ \"$({} | cut -d' ' -f1)\" = {point} ]", mount_of(folder)));
        }
        run(home.path(), &format!("{} | cut -d' ' -f2 | grep -q rw", mount_of("/proc/self")));
    }

    #[test]
    fn old_content_goes_and_what_was_used_last_stays_whatever_the_boards_clock_says() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let cache = home.path().join(".cache/edgepipe");
        for file in
            ["runner/old/runner", "runner/new/lib/a.so", "weights/old", "weights/new", "library/new.so"]
        {
            let path = cache.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, vec![1; 100 << 10]).expect("a file");
        }
        // Left by a broken upload, and by one at work: this very process stands for its shell.
        fs::write(cache.join("incoming.999999999"), "part").expect("a file");
        let at_work = cache.join(format!("incoming.{}", std::process::id()));
        fs::write(&at_work, "part").expect("a file");
        // All of it came while the board's clock stood in 1970, where it stands again; the old ones were used in 2020.
        run(&cache, "find . -exec touch -t 197001020000 {} +; touch -t 202001010000 runner/old weights/old");
        let used = used();
        run(
            home.path(),
            &format!("{ENTER} {used} used runner/new/lib/a.so; used weights/new; used library/new.so"),
        );
        run(home.path(), &pruning(10_000));
        assert_eq!(kept(&cache).len(), 5, "there is room for all");
        assert!(at_work.exists() && !cache.join("incoming.999999999").exists());
        run(home.path(), &pruning(400));
        assert_eq!(kept(&cache), ["library/new.so", "runner/new", "weights/new"]);
    }
}
