//! Files on a board, by their content: `~/.cache/edgepipe/<kind>/<sha256>`. What is there is not sent again.
//!
//! A file is written under another name, hashed on the board while it arrives, and moved to its place in one step. What
//! is in its place is hashed again after the board was started anew, because a power cut may have damaged it.
//!
//! No clock of the board is asked: one without a battery starts in 1970, and what it used last would be the oldest. Files
//! get the harness' time when they are used, and a broken upload is one whose process is gone.

use super::process::Ending;
use super::ssh::{Connection, SshError, quoted};
use crate::compiler::hash_file;
use crate::interrupt::Interrupt;
use crate::store::{Date, unix_ns};
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest time in which a check or an upload may not move. Hashing a large file on a slow board takes a while.
const SILENCE: Duration = Duration::from_secs(60);
/// What the cache on a board may grow to, in KiB, besides what is in use.
const LIMIT_KIB: u64 = 4 << 20;

/// A file and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// The file on this machine.
    pub(super) local: PathBuf,
    /// Its place below the cache, such as `library/<sha256>`. Letters, digits, `_`, `.`, `-` and `/` only.
    pub(super) place: String,
    /// Its content.
    pub(super) sha256: String,
    /// Its size in bytes.
    pub(super) bytes: u64,
}

impl Item {
    /// A file by its content alone.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(super) fn of(kind: &str, local: &Path) -> anyhow::Result<Self> {
        let sha256 = hash_file(local)?;
        let bytes = std::fs::metadata(local)?.len();
        // TVM knows by its ending how to load a library.
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
}

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) files: u32,
    pub(super) bytes: u64,
}

/// Goes to the cache, makes it where it is not there, and finds the list of what was checked since the board started.
const ENTER: &str = "umask 077; c=${XDG_CACHE_HOME:-$HOME/.cache}/edgepipe; mkdir -p \"$c\" && cd \"$c\" || exit 9; \
                     read -r b </proc/sys/kernel/random/boot_id || b=unknown; b=checked-$b; \
                     [ -f \"$b\" ] || { rm -f checked-*; : >\"$b\" || exit 9; }; ";

/// Defines `used FILE`, which gives a file and its folders the harness' time, by which old content is told from new.
fn used() -> String {
    let stamp = Date::from_unix_ns(unix_ns()).touch();
    format!(
        "used() {{ u=$1; while :; do TZ=UTC0 touch -t {stamp} \"$u\"; case $u in */*) u=${{u%/*}};; *) break;; esac; \
         done; }}; "
    )
}

/// Brings files to the board and returns where they lie there, in order.
///
/// # Errors
/// Where the link is lost, the board's disk is full, or what arrived is not what was sent.
pub(super) fn deploy(
    connection: &Connection,
    items: &[Item],
    interrupt: &Interrupt,
) -> Result<(BoardCache, Sent), SshError> {
    let (cache, missing) = look(connection, items, interrupt)?;
    let mut sent = Sent::default();
    for item in items.iter().filter(|item| missing.contains(&item.place)) {
        send(connection, item, interrupt)?;
        sent.files += 1;
        sent.bytes += item.bytes;
    }
    Ok((cache, sent))
}

fn look(
    connection: &Connection,
    items: &[Item],
    interrupt: &Interrupt,
) -> Result<(BoardCache, Vec<String>), SshError> {
    let mut script = format!(
        "{ENTER} {} pwd -P; uname -m; \
         look() {{ if [ -f \"$1\" ] && [ \"$(wc -c <\"$1\")\" -eq \"$2\" ] && {{ grep -qxF \"$1 $3\" \"$b\" || \
         {{ [ \"$(sha256sum <\"$1\")\" = \"$3  -\" ] && printf '%s\\n' \"$1 $3\" >>\"$b\"; }}; }}; \
         then used \"$1\"; else printf 'missing %s\\n' \"$1\"; fi; }}; ",
        used()
    );
    for Item { place, sha256, bytes, .. } in items {
        // Writing to a String cannot fail.
        let _ = write!(script, "look {} {bytes} {sha256}; ", quoted(place));
    }
    let what = "look at the board's cache";
    let output = connection.run(what, &script, &mut std::io::empty(), SILENCE, interrupt)?;
    let mut lines = output.stdout.lines();
    let (Some(folder), Some(architecture), Ending::Code(0)) = (lines.next(), lines.next(), &output.ending)
    else {
        return Err(failed(connection, what, &output.stderr, &output.ending));
    };
    let cache = BoardCache { folder: folder.to_owned(), architecture: architecture.to_owned() };
    Ok((cache, lines.filter_map(|line| line.strip_prefix("missing ")).map(str::to_owned).collect()))
}

fn send(connection: &Connection, item: &Item, interrupt: &Interrupt) -> Result<(), SshError> {
    let name = item.local.file_name().unwrap_or_default().to_string_lossy();
    let what = format!("store {name} ({:.1} MB)", item.bytes as f64 / 1e6);
    let local = |error: std::io::Error| SshError::Failed {
        what: what.clone(),
        host: connection.host().to_owned(),
        reason: format!("{}: {error}", item.local.display()),
    };
    let mut file = File::open(&item.local).map_err(local)?;
    let (place, sha256, bytes) = (quoted(&item.place), &item.sha256, item.bytes);
    // Hashed while it arrives, without a second pass. `tee` goes on to the hash when the disk is full, so its own failure
    // is told by the file being gone.
    let script = format!(
        "{ENTER} {} t=incoming.$$; p={place}; mkdir -p \"${{p%/*}}\" || exit 5; \
         s=$({{ tee \"$t\" || rm -f \"$t\"; }} | sha256sum); [ -f \"$t\" ] || exit 5; \
         [ \"$s $(wc -c <\"$t\")\" = '{sha256}  - {bytes}' ] || {{ rm -f \"$t\"; echo \"$s\" >&2; exit 6; }}; \
         chmod 700 \"$t\" && mv -f \"$t\" \"$p\" && printf '%s\\n' \"$p {sha256}\" >>\"$b\" || {{ rm -f \"$t\"; exit 5; }}; \
         used \"$p\"",
        used()
    );
    let output = connection.run(&what, &script, &mut file, SILENCE, interrupt)?;
    match output.ending {
        Ending::Code(0) => Ok(()),
        Ending::Code(6) => {
            let reason = format!(
                "what arrived has the SHA-256 {}, and what was sent {sha256}; is the board's disk sound?",
                output.stderr.split_whitespace().next().unwrap_or("(unknown)")
            );
            Err(SshError::Failed { what, host: connection.host().to_owned(), reason })
        }
        ending => Err(failed(connection, &what, &output.stderr, &ending)),
    }
}

/// Removes the oldest content beyond the limit, and what broken uploads left. To be called by the one who has the
/// board: others' files must not go while they are in use.
///
/// # Errors
/// Where the link is lost.
pub(super) fn prune(connection: &Connection, interrupt: &Interrupt) -> Result<(), SshError> {
    let what = "remove old content from the board's cache";
    connection.run(what, &pruning(LIMIT_KIB), &mut std::io::empty(), SILENCE, interrupt).map(drop)
}

/// Looks at the newest first, and removes what lies beyond the limit.
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
        reason.push_str("; make room on the board: `df -h ~/.cache` there shows how much there is");
    }
    SshError::Failed { what: what.to_owned(), host: connection.host().to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
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
