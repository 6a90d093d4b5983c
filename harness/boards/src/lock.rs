//! The lock of a board. The runner's `hold`, `holder` and `break` report it in words, which are parsed here and nowhere
//! else.

use host::date::{Date, unix_ns};

/// How the runner begins the description of a holder.
const BY: &str = "by ";

/// Who holds the lock of a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockHolder {
    /// Nobody.
    Free,
    /// A process, as it describes itself.
    Held(String),
}

impl LockHolder {
    /// The answer of `runner holder` and `runner break`; `None` if it is something else.
    pub fn parse(answer: &str) -> Option<Self> {
        match answer.trim() {
            "free" => Some(Self::Free),
            other => other.strip_prefix(BY).map(|holder| Self::Held(holder.to_owned())),
        }
    }
}

/// The first line that `runner hold` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HoldAnswer {
    /// It holds the lock.
    Held,
    /// Another process holds it, as it describes itself.
    Busy(String),
    /// An error message.
    Failed(String),
}

impl HoldAnswer {
    pub(super) fn parse(line: &str) -> Self {
        match line.trim() {
            "held" => Self::Held,
            other => match other.strip_prefix(BY) {
                Some(holder) => Self::Busy(holder.to_owned()),
                None => Self::Failed(other.to_owned()),
            },
        }
    }
}

/// Describes this process as the holder of a board: process, command, user, host, the board's name here and the time.
pub(super) fn describe_this_process(board: &str) -> String {
    let command = host::arguments();
    let verbs = ["bench", "plan", "layers", "check", "selftest"];
    let verb = command.iter().find(|word| verbs.contains(&word.as_str()));
    let verb = verb.map_or("edgepipe", String::as_str);
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let since = Date::from_unix_ns(unix_ns()).to_minutes();
    format!("process {} ({verb}) of {} on {host} as {board}, since {since}", std::process::id(), user())
}

/// The user's name. Services and containers have none in their environment.
fn user() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|name| !name.is_empty());
    let number = rustix::process::geteuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(number)).then(|| name.to_owned())
    });
    let variables = variable("USER").or_else(|| variable("LOGNAME"));
    variables.or(named).unwrap_or_else(|| format!("user number {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_runner_are_parsed() {
        let held = LockHolder::Held("process 7 (bench) of anna".to_owned());
        assert_eq!(LockHolder::parse("free\n"), Some(LockHolder::Free));
        assert_eq!(LockHolder::parse("by process 7 (bench) of anna"), Some(held));
        assert_eq!(LockHolder::parse("Segmentation fault"), None);
        assert_eq!(HoldAnswer::parse("held"), HoldAnswer::Held);
        assert_eq!(HoldAnswer::parse("by process 7"), HoldAnswer::Busy("process 7".to_owned()));
        assert_eq!(HoldAnswer::parse("no disk"), HoldAnswer::Failed("no disk".to_owned()));
    }
}
