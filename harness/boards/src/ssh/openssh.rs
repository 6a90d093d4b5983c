//! What OpenSSH's configuration says about a host. `ssh -G` evaluates all of it (`Match`, `Include`, canonical names);
//! without that program the files are evaluated here, as far as that is possible.

use super::account::Account;
use super::config_file;
use super::error::SshError;
use super::settings::Address;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Environment variable with a file that is read before the user's own configuration: that of the virtual boards.
const CONFIG_VARIABLE: &str = "EDGEPIPE_SSH_CONFIG";
/// The configuration of the machine.
const SYSTEM_CONFIG: &str = "/etc/ssh/ssh_config";
/// Longest evaluation. `Match exec` runs commands, and `CanonicalizeHostname` asks name servers.
const LONGEST: Duration = Duration::from_secs(30);
/// Exit code of OpenSSH's client for its own errors. A program of the same name that is none of OpenSSH's has others.
const FATAL: i32 = 255;

/// Settings of a host, as they are written. Absent ones have no value in the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) address_family: Option<String>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) global_known_hosts: Option<Vec<String>>,
    /// Evaluated: without tokens.
    pub(super) host_name: Option<String>,
    pub(super) host_key_alias: Option<String>,
    pub(super) identities_only: Option<bool>,
    pub(super) identity_agent: Option<String>,
    pub(super) identity_files: Vec<String>,
    pub(super) port: Option<u16>,
    pub(super) proxy_command: Option<String>,
    pub(super) proxy_jump: Option<String>,
    pub(super) proxy_use_fdpass: Option<bool>,
    pub(super) revoked_host_keys: Option<String>,
    pub(super) strict_host_key_checking: Option<String>,
    pub(super) user: Option<String>,
    pub(super) user_known_hosts: Option<Vec<String>>,
}

impl Settings {
    /// Takes the first value of a keyword in lower case, and ignores later ones and unknown keywords.
    ///
    /// # Errors
    /// If the value has the wrong form.
    pub(super) fn set(&mut self, keyword: &str, values: &[String]) -> Result<(), String> {
        let Some(value) = values.first().cloned() else { return Err(format!("{keyword} has no value")) };
        match keyword {
            "addressfamily" => first(&mut self.address_family, value.to_lowercase()),
            "connecttimeout" if value != "none" => first(&mut self.connect_timeout, seconds(&value)?),
            "globalknownhostsfile" => first(&mut self.global_known_hosts, values.to_vec()),
            "hostname" => first(&mut self.host_name, value),
            "hostkeyalias" => first(&mut self.host_key_alias, value),
            "identitiesonly" => first(&mut self.identities_only, flag(keyword, &value)?),
            "identityagent" => first(&mut self.identity_agent, value),
            "identityfile" if !self.identity_files.contains(&value) => self.identity_files.push(value),
            "port" => first(
                &mut self.port,
                value
                    .parse()
                    .ok()
                    .filter(|port| *port != 0)
                    .ok_or_else(|| format!("Port {value} is not a number from 1 to 65535"))?,
            ),
            // Whichever of the two comes first prevents the other.
            "proxycommand" if self.proxy_jump.is_none() => first(&mut self.proxy_command, value),
            "proxyjump" if self.proxy_command.is_none() => first(&mut self.proxy_jump, value),
            "proxyusefdpass" => first(&mut self.proxy_use_fdpass, flag(keyword, &value)?),
            "revokedhostkeys" => first(&mut self.revoked_host_keys, value),
            "stricthostkeychecking" => first(&mut self.strict_host_key_checking, value.to_lowercase()),
            "user" => first(&mut self.user, value),
            "userknownhostsfile" => first(&mut self.user_known_hosts, values.to_vec()),
            _ => {}
        }
        Ok(())
    }
}

fn first<T>(setting: &mut Option<T>, value: T) {
    setting.get_or_insert(value);
}

fn flag(keyword: &str, value: &str) -> Result<bool, String> {
    match value.to_lowercase().as_str() {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(format!("{keyword} is {value:?}; expected yes or no")),
    }
}

/// `90`, `90s`, `1m30s`: a number of seconds, or numbers with units.
fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time such as 15 or 1m30s");
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let count: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let (unit, length) = match rest[digits..].chars().next() {
            None => (1, 0),
            Some('s' | 'S') => (1, 1),
            Some('m' | 'M') => (60, 1),
            Some('h' | 'H') => (3600, 1),
            Some('d' | 'D') => (86400, 1),
            Some('w' | 'W') => (604_800, 1),
            Some(_) => return Err(wrong()),
        };
        total = count.checked_mul(unit).and_then(|seconds| total.checked_add(seconds)).ok_or_else(wrong)?;
        rest = &rest[digits + length..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_secs(total)) }
}

/// The settings of the host at this address. What the address itself says is passed on, because `Match user` and tokens
/// depend on it.
///
/// # Errors
/// If the configuration is wrong, or says something that cannot be evaluated without OpenSSH's client.
pub(super) fn settings(address: &Address, account: &Account) -> Result<Settings, SshError> {
    let before = std::env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let odd_user = address.user.as_deref().filter(|user| !is_plain(user));
    // Removed when it is dropped.
    let combined = (before.is_some() || odd_user.is_some())
        .then(|| combine(odd_user, before.as_deref(), account))
        .transpose()
        .map_err(|error| {
            let reason = format!("failed to write a temporary file for `ssh -G`: {error}");
            SshError::Evaluation { host: address.host.clone(), reason }
        })?;
    if let Some(settings) = ask("ssh", address, combined.as_ref().map(tempfile::NamedTempFile::path))? {
        return Ok(settings);
    }
    let usual = [account.home.join(".ssh/config"), PathBuf::from(SYSTEM_CONFIG)];
    config_file::evaluate(before.into_iter().chain(usual), address, account)
}

/// What OpenSSH's client says by this file alone.
#[cfg(test)]
pub(super) fn ask_with(address: &Address, file: &Path) -> Result<Settings, SshError> {
    let failed = |reason: String| SshError::Evaluation { host: address.host.clone(), reason };
    ask("ssh", address, Some(file))?.ok_or_else(|| failed("there is no OpenSSH client".to_owned()))
}

/// Asks OpenSSH's client, by its usual files or by this one; absent if there is no such program.
fn ask(program: &str, address: &Address, file: Option<&Path>) -> Result<Option<Settings>, SshError> {
    let failed = |reason: String| SshError::Evaluation { host: address.host.clone(), reason };
    let io_failed = |error: io::Error| failed(format!("failed to run `{program} -G`: {error}"));
    let mut command = Command::new(program);
    command.args(["-G", "-T"]);
    if let Some(file) = file {
        command.arg("-F").arg(file);
    }
    if let Some(user) = address.user.as_ref().filter(|user| is_plain(user)) {
        command.args(["-l", user]);
    }
    if let Some(jump) = &address.jump {
        command.arg("-J").arg(jump);
    }
    if let Some(port) = address.port {
        command.args(["-p", &port.to_string()]);
    }
    let (stdout, stderr) =
        (tempfile::tempfile().map_err(io_failed)?, tempfile::tempfile().map_err(io_failed)?);
    command.arg("--").arg(&address.host).stdin(Stdio::null());
    command.stdout(stdout.try_clone().map_err(io_failed)?).stderr(stderr.try_clone().map_err(io_failed)?);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_failed(error)),
    };
    let Some(status) = wait(&mut child).map_err(io_failed)? else {
        return Err(failed(format!(
            "`{program} -G {}` gave no answer within {} s; which command of `Match exec` hangs?",
            address.host,
            LONGEST.as_secs()
        )));
    };
    if status.success() {
        return parse(&read(stdout).map_err(io_failed)?).map(Some).map_err(failed);
    }
    if status.code() != Some(FATAL) {
        return Ok(None);
    }
    let said = read(stderr).map_err(io_failed)?;
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).take(5).collect();
    Err(failed(format!("`{program} -G {}` says: {}; correct that", address.host, lines.join("; "))))
}

/// Whether OpenSSH takes this name of a user on its command line: one with signs that mean something to a shell it takes
/// from a file only.
fn is_plain(user: &str) -> bool {
    !user.starts_with('-') && user.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// A file that names the user and includes `before` and those files that OpenSSH reads by itself: with `-F` it reads no
/// other.
fn combine(
    user: Option<&str>,
    before: Option<&Path>,
    account: &Account,
) -> io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new()?;
    if let Some(user) = user {
        if user.contains(['\n', '\r', '\0']) {
            return Err(io::Error::other("the name of the user has a line break"));
        }
        writeln!(file, "User \"{}\"", user.replace('\\', "\\\\").replace('"', "\\\""))?;
    }
    let usual = [account.home.join(".ssh/config"), PathBuf::from(SYSTEM_CONFIG)];
    for path in before.map(Path::to_path_buf).into_iter().chain(usual) {
        // A relative path would be looked for in ~/.ssh, and the path is a pattern within quotes.
        let path = std::path::absolute(path)?;
        let mut quoted = Vec::new();
        for byte in path.as_os_str().as_encoded_bytes() {
            match byte {
                b'\\' => quoted.extend_from_slice(b"\\\\\\\\"),
                b'"' => quoted.extend_from_slice(b"\\\""),
                b'*' | b'?' | b'[' | b']' | b'{' | b'}' => quoted.extend_from_slice(&[b'\\', *byte]),
                _ => quoted.push(*byte),
            }
        }
        file.write_all(b"Include \"")?;
        file.write_all(&quoted)?;
        file.write_all(b"\"\n")?;
    }
    file.flush()?;
    Ok(file)
}

fn wait(child: &mut std::process::Child) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + LONGEST;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn read(mut file: File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What `ssh -G` prints: a keyword in lower case and the rest of the line is its value.
fn parse(text: &str) -> Result<Settings, String> {
    let mut settings = Settings::default();
    for line in text.lines() {
        let Some((keyword, value)) = line.split_once(' ') else { continue };
        let values = match keyword {
            "userknownhostsfile" | "globalknownhostsfile" => split_paths(value),
            _ => vec![value.to_owned()],
        };
        settings.set(keyword, &values)?;
    }
    Ok(settings)
}

/// Several paths in a line without quotes. What does not begin as a path goes on with the one before it, whose name
/// has a space.
fn split_paths(text: &str) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match paths.last_mut() {
            Some(last) if !word.starts_with(['/', '~', '%', '$']) && word != "none" => {
                last.push(' ');
                last.push_str(word);
            }
            _ => paths.push(word.to_owned()),
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_openssh_writes_them() {
        for (text, expected) in [("15", 15), ("5m", 300), ("1m30s", 90), ("1h1", 3601), ("0", 0)] {
            assert_eq!(seconds(text), Ok(Duration::from_secs(expected)), "{text}");
        }
        for text in ["", "m", "5x", "-1", "99999999999999999999", "99999999999999999w"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_with_spaces_are_put_together_again() {
        let paths = |text: &str| split_paths(text);
        assert_eq!(paths("/a/known /b/known2"), ["/a/known", "/b/known2"]);
        assert_eq!(paths("/my files/known ~/k"), ["/my files/known", "~/k"]);
        assert_eq!(paths("none"), ["none"]);
    }
}
