//! The route to a board: its own host and its jump hosts, from the board's file and OpenSSH's configuration.

use super::account::Account;
use super::error::SshError;
use super::openssh;
use super::options::{Address, HostOptions};
use super::tokens::Tokens;
use std::path::PathBuf;
use std::time::Duration;

/// Default timeout of a connection.
const CONNECT: Duration = Duration::from_secs(15);
/// Most hosts on a route.
const MOST_HOPS: usize = 8;
/// Private keys that OpenSSH tries if the configuration names none, as far as libssh2 can read them.
const USUAL_KEYS: [&str; 3] = ["~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"];
/// A file of known hosts that keeps nothing.
const NOWHERE: &str = "/dev/null";

/// A host on a route, with all its options.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own of OpenSSH")]
pub struct Hop {
    /// What the user calls it.
    pub alias: String,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Addresses to connect to.
    pub family: Family,
    /// User.
    pub user: String,
    /// Shell command whose standard input and output are the connection, instead of a socket.
    pub proxy_command: Option<String>,
    /// Private keys to try.
    pub identities: Vec<PathBuf>,
    /// Whether the user named them; if so, a missing key is reported.
    pub identities_are_named: bool,
    /// Whether only these keys are tried, even if the agent has others.
    pub identities_only: bool,
    /// The agent to ask first.
    pub agent: Agent,
    /// Files of known hosts.
    pub known_hosts: Vec<PathBuf>,
    /// The name of the host in these files.
    pub known_as: String,
    /// Whether OpenSSH saves the key of a new host.
    pub keeps_host_keys: bool,
    /// Whether OpenSSH refuses an unknown host without asking.
    pub refuses_unknown: bool,
    /// File of revoked keys.
    pub revoked_keys: Option<PathBuf>,
    /// Timeout of the connection and of each step of the login.
    pub timeout: Duration,
}

/// An SSH agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agent {
    /// The agent in `SSH_AUTH_SOCK`, if set.
    Environment,
    /// None.
    None,
    /// The agent at this socket.
    At(PathBuf),
}

/// Kinds of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Both.
    Any,
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

impl Hop {
    /// Host and port, for messages.
    pub fn text(&self) -> String {
        let place = if self.port == 22 { self.host.clone() } else { format!("{}:{}", self.host, self.port) };
        if self.alias == self.host { place } else { format!("{} ({place})", self.alias) }
    }

    /// The same login by OpenSSH.
    pub fn login(&self) -> String {
        format!("ssh {}", self.login_arguments())
    }

    /// What follows the program's name in a login by OpenSSH.
    pub fn login_arguments(&self) -> String {
        let port = if self.port == 22 { String::new() } else { format!("-p {} ", self.port) };
        format!("{port}{}@{}", self.user, self.alias)
    }

    /// A login by OpenSSH that asks whether to trust an unknown host.
    pub fn first_login(&self) -> String {
        let ask = if self.refuses_unknown { "-o StrictHostKeyChecking=ask " } else { "" };
        format!("ssh {ask}{}", self.login_arguments())
    }
}

/// The route to a board, which is the last host.
///
/// # Errors
/// If OpenSSH's configuration cannot be read or followed.
pub fn route(address: &Address) -> Result<Vec<Hop>, SshError> {
    let account = Account::current();
    route_by(address, &account, |address| openssh::options(address, &account))
}

/// The same, with options from `settings`.
fn route_by(
    address: &Address,
    account: &Account,
    mut options: impl FnMut(&Address) -> Result<HostOptions, SshError>,
) -> Result<Vec<Hop>, SshError> {
    let mut hops = Vec::new();
    let mut next = Some(address.clone());
    while let Some(address) = next.take() {
        if hops.len() == MOST_HOPS {
            return Err(SshError::Connect {
                host: address.host,
                reason: format!(
                    "more than {MOST_HOPS} jump hosts; check whether their `ProxyJump` options form a loop"
                ),
            });
        }
        let wrong = |reason: String| SshError::Evaluation { host: address.host.clone(), reason };
        let options = options(&address)?;
        let tokens = tokens(&address, &options, account);
        let jump = options.proxy_jump.as_deref().map(|jump| tokens.expand_command(jump));
        let jump = jump.transpose().map_err(wrong)?;
        hops.push(hop(&address, &options, &tokens, account).map_err(wrong)?);
        next = jump.map(|jump| jump_address(&jump)).transpose().map_err(wrong)?;
    }
    hops.reverse();
    Ok(hops)
}

/// `[user@]host[:port]`, or several of them with commas in between: the last one is reached through the others.
fn jump_address(text: &str) -> Result<Address, String> {
    let (before, last) = match text.rsplit_once(',') {
        Some((before, last)) => (Some(before.to_owned()), last),
        None => (None, text),
    };
    let last = last.trim();
    let last = last.strip_prefix("ssh://").map_or(last, |last| last.trim_end_matches('/'));
    let (user, place) = match last.rsplit_once('@') {
        Some((user, place)) => (Some(user.to_owned()), place),
        None => (None, last),
    };
    // An IPv6 address has colons of its own and stands in brackets where a port follows.
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').unwrap_or(port))),
        None => match place.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (place, None),
        },
    };
    let wrong = |what: &str| format!("the jump host {text:?} has {what}; expected [user@]host[:port]");
    let port = match port {
        None => None,
        Some(port) => {
            Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("an invalid port"))?)
        }
    };
    if host.is_empty() || user.as_ref().is_some_and(String::is_empty) {
        return Err(wrong("an empty name"));
    }
    Ok(Address { host: host.to_owned(), user, port, identity: None, jump: before })
}

fn tokens(address: &Address, options: &HostOptions, account: &Account) -> Tokens {
    let host = options.host_name.clone().unwrap_or_else(|| address.host.clone());
    let user = address.user.clone().or_else(|| options.user.clone());
    Tokens {
        home: account.home.to_string_lossy().into_owned(),
        alias: address.host.clone(),
        host,
        port: address.port.or(options.port).unwrap_or(22),
        user: user.unwrap_or_else(|| account.name.clone()),
        local_user: account.name.clone(),
        uid: account.uid,
        local_host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        jump: options.proxy_jump.clone().unwrap_or_default(),
        known_as: options.host_key_alias.clone().unwrap_or_else(|| address.host.clone()),
    }
}

fn hop(address: &Address, options: &HostOptions, tokens: &Tokens, account: &Account) -> Result<Hop, String> {
    let (host, port) = (tokens.host.clone(), tokens.port);
    let path = |text: &str| -> Result<PathBuf, String> {
        Ok(PathBuf::from(tokens.expand_all(&account.expand_tilde(text)?)?))
    };
    if options.proxy_use_fdpass == Some(true) && options.proxy_command.is_some() {
        return Err(
            "ProxyUseFdpass is not supported; use ProxyJump, or a ProxyCommand that does not need it"
                .to_owned(),
        );
    }
    let proxy_command = options.proxy_command.as_deref().map(|command| tokens.expand_command(command));
    let is_none = |file: &&String| !file.eq_ignore_ascii_case("none");
    let configured = &options.identity_files;
    // Without a line of the user's, OpenSSH's client names all kinds of keys.
    let is_default =
        configured.is_empty() || USUAL_KEYS.iter().all(|usual| configured.iter().any(|file| file == usual));
    let (identities, identities_are_named) = match &address.identity {
        Some(identity) => (vec![path(identity)?], true),
        None if is_default => (USUAL_KEYS.iter().map(|file| path(file)).collect::<Result<_, _>>()?, false),
        None => (configured.iter().filter(is_none).map(|file| path(file)).collect::<Result<_, _>>()?, true),
    };
    let of_user = options
        .user_known_hosts
        .clone()
        .unwrap_or_else(|| vec!["~/.ssh/known_hosts".to_owned(), "~/.ssh/known_hosts2".to_owned()]);
    let of_machine = options.global_known_hosts.clone().unwrap_or_else(|| {
        vec!["/etc/ssh/ssh_known_hosts".to_owned(), "/etc/ssh/ssh_known_hosts2".to_owned()]
    });
    let mut known_hosts = Vec::new();
    for file in of_user.iter().filter(is_none) {
        known_hosts.push(path(file)?);
    }
    let keeps_host_keys = known_hosts.first().is_some_and(|file| file.as_os_str() != NOWHERE);
    for file in of_machine.iter().filter(is_none) {
        known_hosts.push(PathBuf::from(account.expand_tilde(file)?));
    }
    let known_as = options
        .host_key_alias
        .clone()
        .unwrap_or_else(|| if port == 22 { host.clone() } else { format!("[{host}]:{port}") });
    let revoked_keys = options.revoked_host_keys.as_ref().filter(is_none);
    Ok(Hop {
        alias: address.host.clone(),
        identities_only: options.identities_only == Some(true),
        timeout: options.connect_timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(CONNECT),
        family: match options.address_family.as_deref() {
            None | Some("any") => Family::Any,
            Some("inet") => Family::Inet,
            Some("inet6") => Family::Inet6,
            Some(other) => return Err(format!("AddressFamily is {other:?}; expected any, inet or inet6")),
        },
        agent: agent(options.identity_agent.as_deref(), path)?,
        revoked_keys: revoked_keys.map(|file| path(file)).transpose()?,
        refuses_unknown: matches!(options.strict_host_key_checking.as_deref(), Some("yes" | "true")),
        user: tokens.user.clone(),
        proxy_command: proxy_command.transpose()?,
        host,
        port,
        identities,
        identities_are_named,
        known_hosts,
        known_as,
        keeps_host_keys,
    })
}

/// The value of `IdentityAgent`: `none`, `SSH_AUTH_SOCK`, `$VARIABLE`, or a path.
fn agent(value: Option<&str>, path: impl Fn(&str) -> Result<PathBuf, String>) -> Result<Agent, String> {
    match value {
        None | Some("SSH_AUTH_SOCK") => Ok(Agent::Environment),
        Some(value) if value.eq_ignore_ascii_case("none") => Ok(Agent::None),
        Some(value) => match value.strip_prefix('$').filter(|name| !name.starts_with('{')) {
            Some(name) => std::env::var_os(name).map(|path| Agent::At(path.into())).ok_or_else(|| {
                format!("IdentityAgent names the environment variable {name}, which has no value; set it")
            }),
            None => path(value).map(Agent::At),
        },
    }
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
            let found = jump_address(text).unwrap();
            let found = (found.host.as_str(), found.user.as_deref(), found.port, found.jump.as_deref());
            assert_eq!(found, (host, user, port, jump), "{text}");
        }
    }

    #[test]
    fn wrong_jump_hosts_are_refused() {
        for text in ["gate:ssh", "gate:0", "gate:99999", "@gate", "", "a,", "[fe80::1]22x", "me@:22"] {
            let error = jump_address(text).unwrap_err();
            assert!(error.contains("expected [user@]host[:port]"), "{text}: {error}");
        }
    }

    fn address(host: &str) -> Address {
        Address { host: host.to_owned(), user: None, port: None, identity: None, jump: None }
    }

    fn account() -> Account {
        Account { name: "anna".to_owned(), uid: 7, home: "/home/anna".into() }
    }

    /// The route to an address with this configuration.
    fn routed(text: &str, address: &Address) -> Result<Vec<Hop>, SshError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let path = file.path().to_path_buf();
        route_by(address, &account(), |address| {
            super::super::config_file::evaluate([path.clone()], address, &account())
        })
    }

    fn board(text: &str) -> Hop {
        routed(text, &address("shelf")).unwrap().pop().unwrap()
    }

    #[test]
    fn paths_have_their_tokens_replaced() {
        let text = "HostName %h.lab\nUser nvidia\nPort 2222\nHostKeyAlias known\n\
                    IdentityFile ~/.ssh/%h_%r_%p\nIdentityFile ${CARGO_PKG_NAME}/%d/%u/%i/%n/%%\nIdentityFile none\n\
                    UserKnownHostsFile %d/%k none\nGlobalKnownHostsFile ~/%k\nIdentityAgent ~/agent-%h\n\
                    RevokedHostKeys ~/%h";
        let hop = board(text);
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let expected = ["/home/anna/.ssh/shelf.lab_nvidia_2222", "boards//home/anna/anna/7/shelf/%"];
        assert_eq!(hop.identities, paths(&expected));
        assert_eq!(hop.known_hosts, paths(&["/home/anna/known", "/home/anna/%k"]));
        assert_eq!(hop.agent, Agent::At("/home/anna/agent-shelf.lab".into()));
        assert_eq!(hop.revoked_keys.as_deref(), Some(std::path::Path::new("/home/anna/shelf.lab")));
        assert_eq!((hop.known_as.as_str(), hop.text().as_str()), ("known", "shelf (shelf.lab:2222)"));
        let plain = board("");
        assert_eq!(plain.identities[0], PathBuf::from("/home/anna/.ssh/id_ed25519"));
        assert_eq!(plain.known_hosts[0], PathBuf::from("/home/anna/.ssh/known_hosts"));
        assert!(plain.keeps_host_keys && !plain.identities_are_named && !plain.refuses_unknown);
        let mut named = address("shelf");
        named.identity = Some("~/of-the-board".to_owned());
        let hop = routed(text, &named).unwrap().pop().unwrap();
        assert_eq!(hop.identities, paths(&["/home/anna/of-the-board"]));
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        for (text, expected) in [
            ("IdentityFile ${EDGEPIPE_NO_SUCH}/x", "EDGEPIPE_NO_SUCH"),
            ("IdentityFile %C", "%C"),
            ("IdentityFile ~no-such-user/x", "no-such-user"),
            ("IdentityAgent $EDGEPIPE_NO_SUCH", "EDGEPIPE_NO_SUCH"),
            ("ProxyCommand nc\nProxyUseFdpass yes", "ProxyUseFdpass"),
            ("AddressFamily inet7", "inet7"),
            ("ProxyJump a:b", "expected [user@]host[:port]"),
            ("Host shelf gate\nProxyJump gate", "more than 8 jump hosts"),
        ] {
            let error = routed(text, &address("shelf")).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn jump_hosts_come_first_and_have_settings_of_their_own() {
        let text = "Host shelf\n  ProxyJump one,me@two:23\n  User nvidia\nHost two\n  HostName two.lab\n  ProxyJump never\n\
                    Host one\n  ProxyJump zero\nHost *\n  User anybody\n";
        let hops = routed(text, &address("shelf")).unwrap();
        let told: Vec<String> =
            hops.iter().map(|hop| format!("{}@{}:{}", hop.user, hop.host, hop.port)).collect();
        assert_eq!(told, ["anybody@zero:22", "anybody@one:22", "me@two.lab:23", "nvidia@shelf:22"]);
        // The board's file comes before OpenSSH's configuration, and "none" is no host.
        for (jump, expected) in [("six", 2), ("none", 1)] {
            let mut named = address("shelf");
            named.jump = Some(jump.to_owned());
            assert_eq!(routed(text, &named).unwrap().len(), expected, "{jump}");
        }
        assert_eq!(board("ProxyCommand nc %h %p ${X}").proxy_command.as_deref(), Some("nc shelf 22 ${X}"));
    }

    #[test]
    fn first_logins_are_such_that_the_key_is_kept() {
        let hop = board("UserKnownHostsFile /dev/null\nStrictHostKeyChecking no");
        assert!(!hop.keeps_host_keys && !hop.refuses_unknown);
        assert!(!board("UserKnownHostsFile none").keeps_host_keys);
        let hop = board("StrictHostKeyChecking yes\nPort 23\nUser nvidia");
        assert_eq!(hop.first_login(), "ssh -o StrictHostKeyChecking=ask -p 23 nvidia@shelf");
    }
}
