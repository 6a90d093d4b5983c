//! Private keys: whether one is protected, and asking for its passphrase.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Command;

/// First bytes of what OpenSSH's private keys hold.
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// Largest file of a public key.
const LARGEST_PUBLIC: u64 = 64 << 10;

/// Whether a private key needs a passphrase. libssh2 itself only reports that the file is not a key.
pub(super) fn is_protected(text: &str) -> bool {
    if text.contains("ENCRYPTED") {
        return true;
    }
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    let Ok(bytes) = STANDARD.decode(body.trim()) else { return false };
    let Some(rest) = bytes.strip_prefix(MAGIC) else { return false };
    // The name of the cipher follows, with its length in front.
    rest.get(..4).zip(rest.get(4..8)).is_some_and(|(length, name)| length != [0, 0, 0, 4] || name != b"none")
}

/// Whether this is the text of a public key.
pub(super) fn is_public(text: &str) -> bool {
    public(text).is_some()
}

/// The public part of a key: that of the file itself, else that of the file beside it whose name ends in `.pub`.
pub(super) fn public_part(file: &Path, text: &str) -> Option<Vec<u8>> {
    let beside = || {
        let mut name = file.as_os_str().to_owned();
        name.push(".pub");
        public(&host::files::read_text(Path::new(&name), LARGEST_PUBLIC).ok()?)
    };
    public(text).or_else(|| public_part_of_private(text)).or_else(beside)
}

/// `ssh-ed25519 BASE64 comment`.
fn public(text: &str) -> Option<Vec<u8>> {
    let mut words = text.split_ascii_whitespace();
    let kind = words.next()?;
    let key = STANDARD.decode(words.next()?).ok()?;
    let (name, _) = string(&key)?;
    (name == kind.as_bytes()).then_some(key)
}

/// OpenSSH's format contains the public part in plain text, even if a passphrase protects the rest.
fn public_part_of_private(text: &str) -> Option<Vec<u8>> {
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    let bytes = STANDARD.decode(body.trim()).ok()?;
    let mut rest = bytes.strip_prefix(MAGIC)?;
    // Cipher, key derivation and its options.
    for _ in 0..3 {
        (_, rest) = string(rest)?;
    }
    // Number of keys.
    string(rest.get(4..)?).map(|(key, _)| key.to_vec())
}

/// A string with its length in front, and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// Asks for the passphrase of a key: by the program that `SSH_ASKPASS` names, else on the terminal. `None` if there is
/// neither, or the user entered none.
pub(super) fn ask(file: &Path) -> Option<String> {
    let prompt = format!("Passphrase of {}: ", file.display());
    let terminal = File::options().read(true).write(true).open("/dev/tty").ok();
    let program = std::env::var_os("SSH_ASKPASS").filter(|program| !program.is_empty());
    let forced = std::env::var("SSH_ASKPASS_REQUIRE").is_ok_and(|value| value == "force");
    let answer = match (terminal, program) {
        (terminal, Some(program)) if forced || terminal.is_none() => {
            let output = Command::new(program).arg(&prompt).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())?
        }
        (Some(terminal), _) => ask_terminal(&terminal, &prompt)?,
        (None, _) => return None,
    };
    let answer = answer.trim_end_matches(['\n', '\r']).to_owned();
    (!answer.is_empty()).then_some(answer)
}

fn ask_terminal(mut terminal: &File, prompt: &str) -> Option<String> {
    let before = tcgetattr(terminal).ok()?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    terminal.write_all(prompt.as_bytes()).ok()?;
    tcsetattr(terminal, OptionalActions::Flush, &silent).ok()?;
    let mut answer = String::new();
    let read = BufReader::new(terminal).read_line(&mut answer);
    // The terminal is the user's; what cannot be restored cannot be helped from here.
    let _ = tcsetattr(terminal, OptionalActions::Flush, &before);
    let _ = terminal.write_all(b"\n");
    read.ok().map(|_| answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protected_keys_are_told_from_open_ones() {
        let key = |cipher: &str| {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(u32::try_from(cipher.len()).expect("short").to_be_bytes());
            bytes.extend(cipher.as_bytes());
            let body = STANDARD.encode(&bytes);
            format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n")
        };
        assert!(!is_protected(&key("none")));
        assert!(is_protected(&key("aes256-ctr")));
        assert!(is_protected("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"));
        assert!(!is_protected("not a key at all"));
    }
}
