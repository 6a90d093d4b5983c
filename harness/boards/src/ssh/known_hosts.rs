//! Files of known hosts. libssh2's own check knows neither `@revoked` nor wildcards, and takes a known key of another
//! type for a changed one; so the lines are read here, and libssh2 is asked about hashed names only.

use super::error::{HostKeyError, SshError};
use super::pattern::matches;
use super::route::Hop;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ssh2::{CheckResult, KnownHostFileKind, MethodType, Session};
use std::path::{Path, PathBuf};

/// Largest file of keys.
const LARGEST: u64 = 64 << 20;
/// First bytes of a binary list of revoked keys.
const REVOCATION_LIST: &[u8] = b"SSHKRL\n\0";

/// A line about the host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    file: PathBuf,
    number: usize,
    is_revoked: bool,
    /// Type of the key, such as `ssh-ed25519`.
    kind: String,
    /// The key, in base64.
    key: String,
}

/// What is known about a host.
#[derive(Debug)]
pub(super) struct Known {
    lines: Vec<Line>,
}

impl Known {
    /// Reads the files of known hosts; missing ones are empty.
    pub(super) fn read(hop: &Hop, session: &Session) -> Self {
        let mut lines = Vec::new();
        for file in &hop.known_hosts {
            let Ok(text) = host::files::read(file, LARGEST) else { continue };
            for (index, text) in String::from_utf8_lossy(&text).lines().enumerate() {
                let Some((names, is_revoked, kind, key)) = fields(text) else { continue };
                if is_about(names, hop, session) {
                    let (kind, key) = (kind.to_owned(), key.to_owned());
                    lines.push(Line { file: file.clone(), number: index + 1, is_revoked, kind, key });
                }
            }
        }
        Self { lines }
    }

    /// Prefers key types that are known for this host. Otherwise a server with several keys may send an unknown one.
    pub(super) fn prefer(&self, session: &Session) {
        let mut wanted: Vec<&str> = Vec::new();
        for line in self.lines.iter().filter(|line| !line.is_revoked) {
            match line.kind.as_str() {
                "ssh-rsa" => wanted.extend(["rsa-sha2-512", "rsa-sha2-256"]),
                other => wanted.push(other),
            }
        }
        let Ok(supported) = session.supported_algs(MethodType::HostKey) else { return };
        let first = wanted.iter().copied().filter(|kind| supported.contains(kind));
        let rest = supported.iter().copied().filter(|kind| !wanted.contains(kind));
        let preference: Vec<&str> = first.chain(rest).collect();
        // Where it is refused, the worst that happens is that the server's key counts as unknown.
        let _ = session.method_pref(MethodType::HostKey, &preference.join(","));
    }

    /// Checks the key that the server showed.
    ///
    /// # Errors
    /// If it is unknown, different from the known one, or revoked.
    pub(super) fn check(&self, hop: &Hop, session: &Session) -> Result<(), SshError> {
        let host = hop.text();
        let Some((key, _)) = session.host_key() else {
            return Err(SshError::Handshake { host, reason: "it sent no host key".to_owned() });
        };
        let kind = kind_of(key);
        let fingerprint = session
            .host_key_hash(ssh2::HashType::Sha256)
            .map_or_else(String::new, |hash| format!("SHA256:{}", STANDARD_NO_PAD.encode(hash)));
        let shown = STANDARD.encode(key);
        if let Some(file) = &hop.revoked_keys {
            check_revocations(file, &shown, &host, &fingerprint)?;
        }
        let find = |revoked: bool| {
            let known = self.lines.iter().filter(move |line| line.is_revoked == revoked);
            known.map(|line| (line, line.key == shown)).collect::<Vec<_>>()
        };
        if let Some((line, _)) = find(true).into_iter().find(|(_, same)| *same) {
            let (file, line) = (line.file.clone(), line.number);
            return Err(SshError::HostKey(Box::new(HostKeyError::Revoked { host, fingerprint, file, line })));
        }
        let valid = find(false);
        if valid.iter().any(|(_, same)| *same) {
            return Ok(());
        }
        let login = hop.first_login();
        if let Some((line, _)) = valid.first() {
            return Err(SshError::HostKey(Box::new(HostKeyError::Changed {
                host,
                name: hop.known_as.clone(),
                fingerprint,
                kind,
                file: line.file.clone(),
                line: line.number,
                login,
            })));
        }
        let before = if hop.keeps_host_keys {
            "Compare"
        } else {
            "OpenSSH keeps no keys of this host, because its configuration says UserKnownHostsFile /dev/null: name a file \
             there, such as ~/.ssh/known_hosts. Then compare"
        };
        let short = short(&kind);
        Err(SshError::HostKey(Box::new(HostKeyError::Unknown {
            host,
            fingerprint,
            short,
            kind,
            before,
            login,
        })))
    }
}

/// Checks a key against the file of `RevokedHostKeys`. As with OpenSSH, no host is trusted without that file.
fn check_revocations(file: &Path, shown: &str, host: &str, fingerprint: &str) -> Result<(), SshError> {
    let unusable = |reason: String| {
        SshError::HostKey(Box::new(HostKeyError::Revocations {
            host: host.to_owned(),
            file: file.to_path_buf(),
            reason,
        }))
    };
    let text = host::files::read(file, LARGEST).map_err(|error| unusable(error.to_string()))?;
    if text.starts_with(REVOCATION_LIST) {
        return Err(unusable(
            "it is a binary key revocation list, and edgepipe reads only lists of public keys".to_owned(),
        ));
    }
    let text = String::from_utf8_lossy(&text);
    let found = text.lines().position(|line| line.split_ascii_whitespace().any(|word| word == shown));
    found.map_or(Ok(()), |index| {
        Err(SshError::HostKey(Box::new(HostKeyError::Revoked {
            host: host.to_owned(),
            fingerprint: fingerprint.to_owned(),
            file: file.to_path_buf(),
            line: index + 1,
        })))
    })
}

/// Names, whether revoked, type and key of a line. `@cert-authority` is left out: libssh2 knows no certificates.
fn fields(text: &str) -> Option<(&str, bool, &str, &str)> {
    let mut words = text.split_ascii_whitespace();
    let first = words.next().filter(|word| !word.starts_with('#'))?;
    let (names, is_revoked) = match first {
        "@revoked" => (words.next()?, true),
        marker if marker.starts_with('@') => return None,
        names => (names, false),
    };
    Some((names, is_revoked, words.next()?, words.next()?))
}

fn is_about(names: &str, hop: &Hop, session: &Session) -> bool {
    if names.starts_with("|1|") {
        return hashed_is_about(names, hop, session);
    }
    // On another port than 22 only "[host]:port" counts, as with OpenSSH.
    let name = hop.known_as.to_ascii_lowercase();
    let mut found = false;
    for pattern in names.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches(&pattern.to_ascii_lowercase(), &name) => return false,
            None if matches(&pattern.to_ascii_lowercase(), &name) => found = true,
            _ => {}
        }
    }
    found
}

/// libssh2 finds a hashed name; whatever key it compares, "not found" means that the line is about another host.
fn hashed_is_about(names: &str, hop: &Hop, session: &Session) -> bool {
    let Ok(mut one) = session.known_hosts() else { return false };
    // A key of the right shape; only the name matters here.
    let line = format!("{names} ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQD=");
    if one.read_str(&line, KnownHostFileKind::OpenSSH).is_err() {
        return false;
    }
    matches!(one.check(&hop.known_as, &[0]), CheckResult::Match | CheckResult::Mismatch)
}

/// A key begins with the name of its type.
fn kind_of(key: &[u8]) -> String {
    let length =
        key.get(..4).map_or(0, |head| head.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)));
    key.get(4..4 + length)
        .map_or_else(|| "unknown".to_owned(), |kind| String::from_utf8_lossy(kind).into_owned())
}

fn short(kind: &str) -> &'static str {
    match kind {
        kind if kind.contains("ecdsa") => "ecdsa",
        kind if kind.contains("rsa") => "rsa",
        _ => "ed25519",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_with_openssh() {
        let table = [
            ("board", "board", true),
            ("board", "boards", false),
            ("*.lab", "tx2.lab", true),
            ("*.lab", "tx2.lab.org", false),
            ("tx?", "tx2", true),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn lines_that_say_nothing_of_a_host_are_left_out() {
        assert_eq!(fields("# a comment"), None);
        assert_eq!(fields(""), None);
        assert_eq!(fields("@cert-authority *.lab ssh-rsa AAAA"), None);
        assert_eq!(fields("host ssh-rsa"), None);
        assert_eq!(fields("@revoked host ssh-rsa AAAA"), Some(("host", true, "ssh-rsa", "AAAA")));
        assert_eq!(fields("host,other ssh-rsa AAAA words"), Some(("host,other", false, "ssh-rsa", "AAAA")));
    }
}
