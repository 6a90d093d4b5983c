//! The account of this process. OpenSSH takes it from the password database and ignores `HOME` and `USER`, so this does
//! too: the two programs must read the same files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Name, number and home directory of a user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) home: PathBuf,
}

impl Account {
    /// The user of this process. Falls back to the environment for a user without an entry, as in some containers.
    pub(super) fn current() -> Self {
        let uid = rustix::process::getuid().as_raw();
        find(&uid.to_string(), |account| account.uid == uid).unwrap_or_else(|| Self {
            name: std::env::var("USER").unwrap_or_else(|_| uid.to_string()),
            uid,
            home: std::env::home_dir().unwrap_or_else(|| PathBuf::from("/")),
        })
    }

    /// Another user by name, for `~name/`.
    fn named(name: &str) -> Option<Self> {
        find(name, |account| account.name == name)
    }

    /// Expands `~/` and `~user/` at the start of a path.
    ///
    /// # Errors
    /// If there is no such user.
    pub(super) fn expand_tilde(&self, path: &str) -> Result<String, String> {
        let Some(rest) = path.strip_prefix('~') else { return Ok(path.to_owned()) };
        let (user, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let home = if user.is_empty() {
            self.home.clone()
        } else {
            Self::named(user).ok_or_else(|| format!("{path:?} names the unknown user {user:?}"))?.home
        };
        home.join(rest)
            .into_os_string()
            .into_string()
            .map_err(|home| format!("the home directory {} is not UTF-8", Path::new(&home).display()))
    }
}

/// Looks into the local file first, and asks the name service (LDAP and the like) only for what is not there.
fn find(key: &str, wanted: impl Fn(&Account) -> bool) -> Option<Account> {
    let local = std::fs::read(PASSWD).ok().map(|text| String::from_utf8_lossy(&text).into_owned());
    let find_in = |text: &str| text.lines().filter_map(entry).find(&wanted);
    local.and_then(|text| find_in(&text)).or_else(|| {
        let asked = Command::new("getent").args(["passwd", key]).stdin(Stdio::null()).output().ok()?;
        find_in(&String::from_utf8_lossy(&asked.stdout))
    })
}

const PASSWD: &str = "/etc/passwd";

/// `name:password:uid:gid:comment:home:shell`.
fn entry(line: &str) -> Option<Account> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, _, _, home, ..] = fields.as_slice() else { return None };
    Some(Account { name: (*name).to_owned(), uid: uid.parse().ok()?, home: PathBuf::from(home) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tilde_stands_for_a_home_directory() {
        let account = Account { name: "anna".to_owned(), uid: 7, home: "/home/anna".into() };
        for (path, expected) in [
            ("~/.ssh/key", "/home/anna/.ssh/key"),
            ("~", "/home/anna/"),
            ("/a/~/b", "/a/~/b"),
            ("~root/key", "/root/key"),
        ] {
            assert_eq!(account.expand_tilde(path).as_deref(), Ok(expected), "{path}");
        }
        let unknown = account.expand_tilde("~no-such-user/key").unwrap_err();
        assert!(unknown.contains("unknown user \"no-such-user\""), "{unknown}");
    }

    #[test]
    fn entries_of_the_password_database_are_read() {
        let account = entry("anna:x:1000:1000:Anna,,,:/home/anna:/bin/sh");
        assert_eq!(account.map(|account| account.home), Some(PathBuf::from("/home/anna")));
        assert_eq!(entry("+::::::"), None);
        assert_eq!(entry("short:x:1"), None);
    }
}
