//! How this process describes itself when it locks a board.

use host::date::{Date, unix_ns};

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
pub(super) fn user() -> String {
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
