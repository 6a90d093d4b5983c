//! Files on a board, by their content: `~/.cache/edgepipe/<kind>/<sha256>`. What is there is not sent again.
//!
//! A file is written under another name, read back and hashed on the board, and moved to its place in one step. What
//! is in its place is hashed again after the board was started anew, because a power cut may have damaged it.

use super::process::Ending;
use super::ssh::{Connection, SshError, quoted};
use crate::compiler::hash_file;
use crate::interrupt::Interrupt;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest time in which a check or an upload may not move. Hashing a large file on a slow board takes a while.
const SILENCE: Duration = Duration::from_secs(120);
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
        "{ENTER} pwd -P; uname -m; \
         look() {{ if [ -f \"$1\" ] && [ \"$(wc -c <\"$1\")\" -eq \"$2\" ] && {{ grep -qxF \"$1 $3\" \"$b\" || \
         {{ [ \"$(sha256sum <\"$1\")\" = \"$3  -\" ] && printf '%s\\n' \"$1 $3\" >>\"$b\"; }}; }}; \
         then touch \"${{1%/*}}\" \"$1\"; else printf 'missing %s\\n' \"$1\"; fi; }}; "
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
    let (place, sha256) = (quoted(&item.place), &item.sha256);
    let script = format!(
        "{ENTER} t=incoming.$$; p={place}; mkdir -p \"${{p%/*}}\" && cat >\"$t\" || {{ rm -f \"$t\"; exit 5; }}; \
         s=$(sha256sum <\"$t\"); [ \"$s\" = '{sha256}  -' ] || {{ rm -f \"$t\"; echo \"$s\" >&2; exit 6; }}; \
         chmod 700 \"$t\" && mv -f \"$t\" \"$p\" && printf '%s\\n' \"$p {sha256}\" >>\"$b\" || {{ rm -f \"$t\"; exit 5; }}"
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
    prune_to(connection, LIMIT_KIB, interrupt)
}

fn prune_to(connection: &Connection, limit_kib: u64, interrupt: &Interrupt) -> Result<(), SshError> {
    let script = format!(
        "{ENTER} find . -maxdepth 1 -name 'incoming.*' -mmin +60 -exec rm -f {{}} + 2>/dev/null; t=0; \
         for f in $(ls -1td library/* weights/* runner/* 2>/dev/null); do s=$(du -sk \"$f\" | cut -f1); \
         t=$((t + s)); [ \"$t\" -le {limit_kib} ] || rm -rf \"$f\"; done"
    );
    let what = "remove old content from the board's cache";
    connection.run(what, &script, &mut std::io::empty(), SILENCE, interrupt).map(drop)
}

fn failed(connection: &Connection, what: &str, stderr: &str, ending: &Ending) -> SshError {
    let said: String = stderr.trim().chars().take(400).collect();
    let mut reason = if said.is_empty() { format!("its shell {}", ending.describe()) } else { said.clone() };
    if said.contains("No space left") || said.contains("quota") {
        reason.push_str("; make room on the board: `df -h ~/.cache` there shows how much there is");
    }
    SshError::Failed { what: what.to_owned(), host: connection.host().to_owned(), reason }
}
