//! From a host to a session that is logged in.

use super::connection::Connection;
use super::error::SshError;
use super::keys;
use super::known_hosts::Known;
use super::proxy::Proxy;
use super::settings::{Agent, Family, Hop};
use rustix::net::sockopt;
use ssh2::{ErrorCode, Session};
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

/// libssh2 ran out of time (`LIBSSH2_ERROR_TIMEOUT`).
const TIMEOUT: ErrorCode = ErrorCode::Session(-9);
/// The same where it waited for the socket (`LIBSSH2_ERROR_SOCKET_TIMEOUT`).
const SOCKET_TIMEOUT: ErrorCode = ErrorCode::Session(-30);
/// Largest file of a private key.
const LARGEST_KEY: u64 = 1 << 20;
/// A peer that acknowledges nothing for so long is gone.
const ACKNOWLEDGE: Duration = Duration::from_secs(20);

/// The socket below a session, and a second handle on it that can end it.
#[derive(Debug)]
pub(super) struct Socket(pub(super) OwnedFd);

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Connects to a host: directly, through the one before it, or by its `ProxyCommand`.
///
/// # Errors
/// Where nobody answers in time.
pub(super) fn connect(hop: &Hop, through: Option<&Connection>) -> Result<(OwnedFd, Option<Proxy>), SshError> {
    match (through, &hop.proxy_command) {
        (Some(jump), _) => Ok((jump.forward(&hop.host, hop.port)?, None)),
        (None, Some(command)) => Proxy::start(hop, command).map(|(socket, proxy)| (socket, Some(proxy))),
        (None, None) => Ok((connect_directly(hop)?.into(), None)),
    }
}

fn connect_directly(hop: &Hop) -> Result<TcpStream, SshError> {
    let failed = |reason: String| SshError::Connect { host: hop.text(), reason };
    let addresses = (hop.host.as_str(), hop.port).to_socket_addrs().map_err(|error| {
        failed(format!("{error}; is the name right, in the board's file or in ~/.ssh/config?"))
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
        Some(io::ErrorKind::ConnectionRefused) => "; is sshd running there, and on this port?",
        _ => "; is the board on and on this network?",
    };
    let reason = last.map_or_else(|| "the name has no address".to_owned(), |error| error.to_string());
    Err(failed(format!("{reason}{remedy}")))
}

/// Lets the kernel notice a peer that is gone. libssh2's own keep-alive makes reads fail after a silence.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(5))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(5))?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    let milliseconds = u32::try_from(ACKNOWLEDGE.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, milliseconds)?;
    Ok(())
}

/// Acknowledges at once what comes next. sshd waits for that before it sends another small packet (Nagle's algorithm),
/// and the kernel, as long as we have nothing to send, for 40 ms. It does not last: the kernel falls back by itself.
pub(super) fn acknowledge_at_once(socket: &impl AsFd) {
    // What leads through a jump host is no TCP socket, and without it things only take a moment longer.
    let _ = sockopt::set_tcp_quickack(socket, true);
}

/// Shakes hands, checks the host's key and logs in.
///
/// # Errors
/// Where any of it fails or takes too long.
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

/// Tries the keys: those of the agent that the user named, then the files, then whatever else the agent has.
fn authenticate(hop: &Hop, session: &Session) -> Result<(), SshError> {
    let methods = match session.auth_methods(&hop.user) {
        Ok(methods) => methods.to_owned(),
        // A server that lets anybody in needs no key.
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
                "{}: it is a public key, whose private one is not with the agent",
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
        tried.push("no key was found, neither with the agent nor in ~/.ssh".to_owned());
    }
    let remedy = if methods.split(',').any(|method| method == "publickey") {
        let key = hop.identities.first().map_or_else(String::new, |file| format!("-i {} ", file.display()));
        if found || hop.identities_are_named {
            format!("Put your public key on the board: `ssh-copy-id {key}{}`", hop.login_arguments())
        } else {
            "Make a key by `ssh-keygen -t ed25519` and put it on the board by ssh-copy-id".to_owned()
        }
    } else {
        "edgepipe logs in by public key only: allow it in the board's sshd_config".to_owned()
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
    if count == 0 { Ok(false) } else { Err(format!("{count} key(s) of the agent: not accepted")) }
}

fn with_file(hop: &Hop, session: &Session, file: &Path, text: &str) -> Result<(), String> {
    let passphrase = if keys::is_protected(text) {
        let asked = keys::ask(file);
        Some(asked.ok_or_else(|| {
            format!("it is protected by a passphrase; give it to the agent by `ssh-add {}`", file.display())
        })?)
    } else {
        None
    };
    let result = session.userauth_pubkey_file(&hop.user, None, file, passphrase.as_deref());
    result.map_err(|error| match (error.code(), &passphrase) {
        (TIMEOUT | SOCKET_TIMEOUT, _) => "no answer in time".to_owned(),
        // libssh2 calls a wrong passphrase an unreadable file (`LIBSSH2_ERROR_FILE`), or a failed callback.
        (ErrorCode::Session(-16 | -1), Some(_)) => "the passphrase is wrong".to_owned(),
        (ErrorCode::Session(-16), None) => "it is no private key that libssh2 can read".to_owned(),
        _ => "not accepted".to_owned(),
    })
}

fn lost(hop: &Hop, error: &ssh2::Error) -> SshError {
    match error.code() {
        TIMEOUT | SOCKET_TIMEOUT => SshError::Silent { host: hop.text(), after: hop.timeout },
        _ => SshError::Handshake { host: hop.text(), reason: error.message().to_owned() },
    }
}

/// Ends a socket from another thread.
pub(super) fn shut(socket: &impl AsFd) {
    // One that is gone already needs no ending.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}
