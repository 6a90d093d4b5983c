//! How a host is reached: what the board's file says, and what OpenSSH's configuration adds.

use super::error::SshError;
use ssh2_config::{HostParams, ParseRule, SshConfig};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time for a connection, where the configuration names none.
const CONNECT: Duration = Duration::from_secs(15);
/// Environment variable with a file that is read before the user's own configuration: that of the virtual boards.
const CONFIG_VARIABLE: &str = "EDGEPIPE_SSH_CONFIG";
/// Most hosts on the way.
const MOST_HOPS: usize = 8;

/// Where a board listens, as its file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Host name, address or alias.
    pub host: String,
    /// User on the board.
    pub user: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Private key, `~/` not yet replaced.
    pub identity: Option<String>,
    /// Host to go through.
    pub jump: Option<String>,
}

/// A host on the way, with everything filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// What the user calls it.
    pub alias: String,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User.
    pub user: String,
    /// Private keys to try.
    pub identities: Vec<PathBuf>,
    /// Whether the user named them, so that a missing one is worth a word.
    pub identities_are_named: bool,
    /// Whether keys of the agent that are not among them stay out of it.
    pub identities_only: bool,
    /// Files of known hosts.
    pub known_hosts: Vec<PathBuf>,
    /// How these call the host.
    pub known_as: String,
    /// Time for a connection and for each step of the login.
    pub timeout: Duration,
}

impl Hop {
    /// Host and port, for messages.
    pub fn text(&self) -> String {
        let place = if self.port == 22 { self.host.clone() } else { format!("{}:{}", self.host, self.port) };
        if self.alias == self.host { place } else { format!("{} ({place})", self.alias) }
    }

    /// The same login by OpenSSH.
    pub fn login(&self) -> String {
        let port = if self.port == 22 { String::new() } else { format!("-p {} ", self.port) };
        format!("ssh {port}{}@{}", self.user, self.alias)
    }
}

/// All hosts on the way to a board; the board is the last.
///
/// # Errors
/// Where OpenSSH's configuration cannot be read.
pub fn route(address: &Address) -> Result<Vec<Hop>, SshError> {
    let home = home();
    let config = read(&home)?;
    let mut hops = Vec::new();
    let mut next = Some((address.clone(), true));
    while let Some((address, is_board)) = next.take() {
        if hops.len() == MOST_HOPS {
            return Err(SshError::Connect {
                host: address.host,
                reason: format!("more than {MOST_HOPS} jump hosts on the way; do they name each other?"),
            });
        }
        let params = config.query(&address.host);
        let jump = match (&address.jump, &params.proxy_jump) {
            (Some(jump), _) => Some(jump.clone()),
            // Only of the board itself: OpenSSH takes the jump hosts' own jumps from their entries as well.
            (None, Some(jumps)) => jumps.last().filter(|jump| jump.as_str() != "none").cloned(),
            (None, None) => None,
        };
        if jump.is_none() && is_board && params.unsupported_fields.contains_key("proxycommand") {
            return Err(SshError::Connect {
                host: address.host,
                reason: "OpenSSH's configuration asks for a ProxyCommand, which edgepipe does not run; use ProxyJump, or \
                         `jump` in the board's file"
                    .to_owned(),
            });
        }
        // Several in a row, as in "a,b,board": the one before the last is reached through those before it.
        let earlier = match (&address.jump, &params.proxy_jump) {
            (None, Some(jumps)) if jumps.len() > 1 => Some(jumps[..jumps.len() - 1].join(",")),
            _ => None,
        };
        hops.push(hop(&address, &params, &home));
        next = jump.map(|jump| (jump_address(&jump, earlier), false));
    }
    hops.reverse();
    Ok(hops)
}

/// `[user@]host[:port]`, or several of them with commas in between.
fn jump_address(text: &str, earlier: Option<String>) -> Address {
    let (before, last) = match text.rsplit_once(',') {
        Some((before, last)) => (Some(before.to_owned()), last),
        None => (earlier, text),
    };
    let last = last.strip_prefix("ssh://").unwrap_or(last);
    let (user, place) = match last.rsplit_once('@') {
        Some((user, place)) => (Some(user.to_owned()), place),
        None => (None, last),
    };
    // An IPv6 address has colons of its own and stands in brackets where a port follows.
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match place.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (place, None),
        },
    };
    let port = port.and_then(|port| port.parse().ok());
    Address { host: host.to_owned(), user, port, identity: None, jump: before }
}

fn hop(address: &Address, params: &HostParams, home: &Path) -> Hop {
    let host = params
        .host_name
        .as_ref()
        .map_or_else(|| address.host.clone(), |name| name.replace("%h", &address.host));
    let port = address.port.or(params.port).unwrap_or(22);
    let user = address.user.clone().or_else(|| params.user.clone()).unwrap_or_else(local_user);
    // The parser keeps what it does not know itself by its name in small letters.
    let first = |key: &str| params.unsupported_fields.get(key).and_then(|values| values.first()).cloned();
    let expand = |text: &str| {
        let text = text.replace("%h", &host).replace("%r", &user).replace("%p", &port.to_string());
        let text = text.replace("%d", &home.to_string_lossy());
        match text.strip_prefix("~/") {
            Some(rest) => home.join(rest),
            None => PathBuf::from(text),
        }
    };
    let named: Vec<PathBuf> = match (&address.identity, &params.identity_file) {
        (Some(identity), _) => vec![expand(identity)],
        (None, Some(files)) => files.iter().map(|file| expand(&file.to_string_lossy())).collect(),
        (None, None) => Vec::new(),
    };
    let usual = ["id_ed25519", "id_ecdsa", "id_rsa"];
    let identities_are_named = !named.is_empty();
    let identities = if identities_are_named {
        named
    } else {
        usual.iter().map(|name| home.join(".ssh").join(name)).collect()
    };
    let user_files = params.unsupported_fields.get("userknownhostsfile").cloned();
    let user_files =
        user_files.unwrap_or_else(|| vec!["~/.ssh/known_hosts".to_owned(), "~/.ssh/known_hosts2".to_owned()]);
    let global_files = params.unsupported_fields.get("globalknownhostsfile").cloned();
    let global_files = global_files.unwrap_or_else(|| {
        vec!["/etc/ssh/ssh_known_hosts".to_owned(), "/etc/ssh/ssh_known_hosts2".to_owned()]
    });
    let known_hosts = user_files
        .iter()
        .chain(&global_files)
        .filter(|file| *file != "none")
        .map(|file| expand(file))
        .collect();
    let known_as = first("hostkeyalias")
        .unwrap_or_else(|| if port == 22 { host.clone() } else { format!("[{host}]:{port}") });
    Hop {
        alias: address.host.clone(),
        identities_only: first("identitiesonly").is_some_and(|value| value.eq_ignore_ascii_case("yes")),
        timeout: params.connect_timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(CONNECT),
        host,
        port,
        user,
        identities,
        identities_are_named,
        known_hosts,
        known_as,
    }
}

fn read(home: &Path) -> Result<SshConfig, SshError> {
    let mut config = SshConfig::default().home_dir(home);
    // The first value of a setting is the one that counts; the user's own come before the system's.
    let named = std::env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let usual = [home.join(".ssh/config"), PathBuf::from("/etc/ssh/ssh_config")];
    for file in named.into_iter().chain(usual) {
        let Ok(opened) = File::open(&file) else { continue };
        let rules = ParseRule::ALLOW_UNKNOWN_FIELDS | ParseRule::ALLOW_UNSUPPORTED_FIELDS;
        config = config
            .parse(&mut BufReader::new(opened), rules)
            .map_err(|reason| SshError::Config { file, reason: reason.to_string() })?;
    }
    Ok(config)
}

/// The user's home folder, as the environment names it.
pub(super) fn home() -> PathBuf {
    std::env::home_dir().unwrap_or_else(|| PathBuf::from("/"))
}

fn local_user() -> String {
    let known = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    known.filter(|name| !name.is_empty()).unwrap_or_else(|| "root".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jump_hosts_are_read_as_openssh_writes_them() {
        let table = [
            ("gate", ("gate", None, None, None)),
            ("me@gate:2222", ("gate", Some("me"), Some(2222), None)),
            ("[fe80::1]:22", ("fe80::1", None, Some(22), None)),
            ("fe80::1", ("fe80::1", None, None, None)),
            ("first,me@second", ("second", Some("me"), None, Some("first"))),
        ];
        for (text, (host, user, port, jump)) in table {
            let found = jump_address(text, None);
            let found = (found.host.as_str(), found.user.as_deref(), found.port, found.jump.as_deref());
            assert_eq!(found, (host, user, port, jump), "{text}");
        }
    }
}
