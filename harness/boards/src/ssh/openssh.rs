//! OpenSSH's configuration for a host. `ssh -G` evaluates all of it (`Match`, `Include`, canonical names); without that
//! program the files are evaluated here, as far as possible.

use super::account::Account;
use super::config_file;
use super::error::SshError;
use super::options::{Address, HostOptions};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Environment variable that names a file to read before the user's configuration; used for the virtual boards.
const CONFIG_VARIABLE: &str = "EDGEPIPE_SSH_CONFIG";
/// The configuration of the machine.
const SYSTEM_CONFIG: &str = "/etc/ssh/ssh_config";
/// Longest evaluation. `Match exec` runs commands, and `CanonicalizeHostname` asks name servers.
const LONGEST: Duration = Duration::from_secs(30);
/// Exit code of OpenSSH's client for its own errors. Another program of that name has other exit codes.
const FATAL: i32 = 255;

/// The options of the host at this address. User and port of the address are passed on, because `Match user` and tokens
/// depend on them.
///
/// # Errors
/// If the configuration is invalid, or cannot be evaluated without OpenSSH's client.
pub(super) fn options(address: &Address, account: &Account) -> Result<HostOptions, SshError> {
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
    if let Some(options) = ask("ssh", address, combined.as_ref().map(tempfile::NamedTempFile::path))? {
        return Ok(options);
    }
    let usual = [account.home.join(".ssh/config"), PathBuf::from(SYSTEM_CONFIG)];
    config_file::evaluate(before.into_iter().chain(usual), address, account)
}

/// The options according to OpenSSH's client, from this file only.
#[cfg(test)]
pub(super) fn ask_with(address: &Address, file: &Path) -> Result<HostOptions, SshError> {
    let failed = |reason: String| SshError::Evaluation { host: address.host.clone(), reason };
    ask("ssh", address, Some(file))?.ok_or_else(|| failed("there is no OpenSSH client".to_owned()))
}

/// Runs OpenSSH's client with its default files or with `file`; `None` if it is not installed.
fn ask(program: &str, address: &Address, file: Option<&Path>) -> Result<Option<HostOptions>, SshError> {
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
            "`{program} -G {}` gave no answer within {} s; check the commands of `Match exec`",
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
    Err(failed(format!(
        "`{program} -G {}` reports: {}; correct OpenSSH's configuration",
        address.host,
        lines.join("; ")
    )))
}

/// Whether OpenSSH accepts this user name on its command line. Names with shell metacharacters are accepted only from a
/// file.
fn is_plain(user: &str) -> bool {
    !user.starts_with('-') && user.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// A file that sets the user and includes `before` and OpenSSH's default files, which it does not read with `-F`.
fn combine(
    user: Option<&str>,
    before: Option<&Path>,
    account: &Account,
) -> io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new()?;
    if let Some(user) = user {
        if user.contains(['\n', '\r', '\0']) {
            return Err(io::Error::other("the user name contains a line break"));
        }
        writeln!(file, "User \"{}\"", user.replace('\\', "\\\\").replace('"', "\\\""))?;
    }
    let usual = [account.home.join(".ssh/config"), PathBuf::from(SYSTEM_CONFIG)];
    for path in before.map(Path::to_path_buf).into_iter().chain(usual) {
        // A relative path would refer to ~/.ssh, and the quoted path is a pattern.
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

/// Parses the output of `ssh -G`: a keyword in lower case, then its value.
fn parse(text: &str) -> Result<HostOptions, String> {
    let mut options = HostOptions::default();
    for line in text.lines() {
        let Some((keyword, value)) = line.split_once(' ') else { continue };
        let values = match keyword {
            "userknownhostsfile" | "globalknownhostsfile" => split_paths(value),
            _ => vec![value.to_owned()],
        };
        options.set(keyword, &values)?;
    }
    Ok(options)
}

/// Several paths in a line without quotes. A word that does not begin like a path belongs to the one before, whose name
/// contains a space.
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
    fn paths_with_spaces_are_put_together_again() {
        let paths = |text: &str| split_paths(text);
        assert_eq!(paths("/a/known /b/known2"), ["/a/known", "/b/known2"]);
        assert_eq!(paths("/my files/known ~/k"), ["/my files/known", "~/k"]);
        assert_eq!(paths("none"), ["none"]);
    }
}
