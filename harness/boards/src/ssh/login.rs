//! Connects to a host and logs in.

use super::error::SshError;
use super::keys;
use super::known_hosts::Known;
use super::route::{Agent, Family, Hop};
use super::socket::{acknowledge_at_once, keep_alive};
use ssh2::{ErrorCode, Session};
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

/// libssh2 ran out of time (`LIBSSH2_ERROR_TIMEOUT`).
const TIMEOUT: ErrorCode = ErrorCode::Session(-9);
/// The same while it waited for the socket (`LIBSSH2_ERROR_SOCKET_TIMEOUT`).
const SOCKET_TIMEOUT: ErrorCode = ErrorCode::Session(-30);
/// Largest file of a private key.
const LARGEST_KEY: u64 = 1 << 20;
/// The socket below a session, and a second handle on it that can end it.
#[derive(Debug)]
pub(super) struct Socket(pub(super) OwnedFd);

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Connects to a host by TCP.
///
/// # Errors
/// If the host does not answer in time.
pub(super) fn connect(hop: &Hop) -> Result<TcpStream, SshError> {
    let failed = |reason: String| SshError::Connect { host: hop.text(), reason };
    let addresses = (hop.host.as_str(), hop.port).to_socket_addrs().map_err(|error| {
        failed(format!("{error}; check the name in the board's file and in ~/.ssh/config"))
    })?;
    let is_wanted = |address: &SocketAddr| match hop.family {
        Family::Any => true,
        Family::Inet => address.is_ipv4(),
        Family::Inet6 => address.is_ipv6(),
    };
    let mut last = None;
    for address in addresses.filter(is_wanted) {
        match TcpStream::connect_timeout(&address, hop.timeout) {
            Ok(stream) => {
                keep_alive(&stream).map_err(|error| failed(error.to_string()))?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    let remedy = match last.as_ref().map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => "; check that sshd is running on the board, on this port",
        _ => "; check that the board is switched on and on this network",
    };
    let reason = last.map_or_else(|| "the name has no address".to_owned(), |error| error.to_string());
    Err(failed(format!("{reason}{remedy}")))
}

/// Performs the handshake, checks the host key and logs in.
///
/// # Errors
/// If any of it fails or takes too long.
pub(super) fn log_in(hop: &Hop, socket: OwnedFd) -> Result<Session, SshError> {
    let handshake = |error: ssh2::Error| match error.code() {
        TIMEOUT | SOCKET_TIMEOUT => SshError::Silent { host: hop.text(), after: hop.timeout },
        _ => SshError::Handshake { host: hop.text(), reason: error.message().to_owned() },
    };
    let mut session = Session::new().map_err(handshake)?;
    let handle = rustix::io::fcntl_dupfd_cloexec(&socket, 3)
        .map_err(|error| SshError::Connect { host: hop.text(), reason: error.to_string() })?;
    session.set_timeout(u32::try_from(hop.timeout.as_millis()).unwrap_or(u32::MAX));
    session.set_tcp_stream(Socket(socket));
    let known = Known::read(hop, &session);
    known.prefer(&session);
    acknowledge_at_once(&handle);
    session.handshake().map_err(handshake)?;
    acknowledge_at_once(&handle);
    known.check(hop, &session)?;
    authenticate(hop, &session)?;
    acknowledge_at_once(&handle);
    Ok(session)
}

/// Tries the agent's keys, those that the user named first, and then the key files.
fn authenticate(hop: &Hop, session: &Session) -> Result<(), SshError> {
    let methods = match session.auth_methods(&hop.user) {
        Ok(methods) => methods.to_owned(),
        // This server needs no key.
        Err(_) if session.authenticated() => return Ok(()),
        Err(error) => return Err(lost(hop, &error)),
    };
    let mut tried = Vec::new();
    let texts: Vec<_> = hop.identities.iter().map(|file| host::files::read_text(file, LARGEST_KEY)).collect();
    let named: Vec<Vec<u8>> = hop
        .identities
        .iter()
        .zip(&texts)
        .filter_map(|(file, text)| keys::public_part(file, text.as_deref().unwrap_or_default()))
        .collect();
    match with_agent(hop, session, &named) {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(note) => tried.push(note),
    }
    let mut found = false;
    for (file, text) in hop.identities.iter().zip(texts) {
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                if hop.identities_are_named {
                    tried.push(format!("{}: cannot be read ({error})", file.display()));
                }
                continue;
            }
        };
        found = true;
        if keys::is_public(&text) {
            tried.push(format!(
                "{}: it is a public key, and the agent does not have its private key",
                file.display()
            ));
            continue;
        }
        match with_file(hop, session, file, &text) {
            Ok(()) => return Ok(()),
            Err(note) => tried.push(format!("{}: {note}", file.display())),
        }
    }
    if tried.is_empty() {
        tried.push("no key was found, neither in the agent nor in ~/.ssh".to_owned());
    }
    let remedy = if methods.split(',').any(|method| method == "publickey") {
        let key = hop.identities.first().map_or_else(String::new, |file| format!("-i {} ", file.display()));
        if found || hop.identities_are_named {
            format!("Copy your public key to the board with `ssh-copy-id {key}{}`", hop.login_arguments())
        } else {
            "Create a key with `ssh-keygen -t ed25519`, and copy it to the board with `ssh-copy-id`"
                .to_owned()
        }
    } else {
        "edgepipe logs in by public key only; allow `PubkeyAuthentication` in the board's sshd_config"
            .to_owned()
    };
    Err(SshError::Refused { host: hop.text(), user: hop.user.clone(), tried, methods, remedy })
}

/// Tries the agent's keys, those with these public parts first.
fn with_agent(hop: &Hop, session: &Session, named: &[Vec<u8>]) -> Result<bool, String> {
    match &hop.agent {
        Agent::None => return Ok(false),
        Agent::Environment if std::env::var_os("SSH_AUTH_SOCK").is_none() => return Ok(false),
        Agent::Environment | Agent::At(_) => {}
    }
    let broken = |error: ssh2::Error| format!("the agent: {}", error.message());
    let mut agent = session.agent().map_err(broken)?;
    if let Agent::At(path) = &hop.agent {
        agent.set_identity_path(path).map_err(broken)?;
    }
    agent.connect().map_err(broken)?;
    agent.list_identities().map_err(broken)?;
    let is_named = |key: &ssh2::PublicKey| named.iter().any(|named| named == key.blob());
    let mut identities = agent.identities().map_err(broken)?;
    identities.retain(|key| !hop.identities_only || is_named(key));
    identities.sort_by_key(|key| !is_named(key));
    let count = identities.len();
    for identity in identities {
        if agent.userauth(&hop.user, &identity).is_ok() {
            return Ok(true);
        }
    }
    if count == 0 { Ok(false) } else { Err(format!("{count} keys of the agent: not accepted")) }
}

fn with_file(hop: &Hop, session: &Session, file: &Path, text: &str) -> Result<(), String> {
    let passphrase = if keys::is_protected(text) {
        let asked = keys::ask(file);
        Some(asked.ok_or_else(|| {
            format!("it is protected by a passphrase; add it to the agent with `ssh-add {}`", file.display())
        })?)
    } else {
        None
    };
    let result = session.userauth_pubkey_file(&hop.user, None, file, passphrase.as_deref());
    result.map_err(|error| match (error.code(), &passphrase) {
        (TIMEOUT | SOCKET_TIMEOUT, _) => "no answer within the timeout".to_owned(),
        // libssh2 calls a wrong passphrase an unreadable file (`LIBSSH2_ERROR_FILE`), or a failed callback.
        (ErrorCode::Session(-16 | -1), Some(_)) => "the passphrase is wrong".to_owned(),
        (ErrorCode::Session(-16), None) => "libssh2 cannot read it as a private key".to_owned(),
        _ => "not accepted".to_owned(),
    })
}

fn lost(hop: &Hop, error: &ssh2::Error) -> SshError {
    match error.code() {
        TIMEOUT | SOCKET_TIMEOUT => SshError::Silent { host: hop.text(), after: hop.timeout },
        _ => SshError::Handshake { host: hop.text(), reason: error.message().to_owned() },
    }
}
