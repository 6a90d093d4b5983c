//! The address of a board, and the options that OpenSSH's configuration has for it.

use std::time::Duration;

/// The address of a board, from its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Host name, address or alias.
    pub host: String,
    /// User on the board.
    pub user: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Private key; `~/` is not expanded yet.
    pub identity: Option<String>,
    /// Jump host.
    pub jump: Option<String>,
}

/// Options of a host, as they are written. Absent ones have no value in the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HostOptions {
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

impl HostOptions {
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
}
