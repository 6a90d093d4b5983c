//! Evaluates OpenSSH's configuration files for one host, as `ssh_config(5)` describes. What needs OpenSSH's client itself
//! (commands, canonical names, networks) is an error with file and line: a guess could log in as another user, with
//! another key, or through another host.

use super::account::Account;
use super::error::SshError;
use super::options::{Address, HostOptions};
use super::pattern::matches;
use std::io;
use std::path::{Path, PathBuf};

/// Deepest nesting of `Include`, as OpenSSH has it.
const DEEPEST: usize = 16;
/// Longest file. OpenSSH has no limit; this one excludes `/dev/zero`.
const LONGEST: u64 = 16 << 20;

/// Evaluates files; the first value of an option wins. Missing files are ignored.
///
/// # Errors
/// If a file cannot be read, a line is invalid, or OpenSSH's client is needed.
pub(super) fn evaluate(
    files: impl IntoIterator<Item = PathBuf>,
    address: &Address,
    account: &Account,
) -> Result<HostOptions, SshError> {
    let mut options =
        HostOptions { user: address.user.clone(), port: address.port, ..HostOptions::default() };
    options.proxy_jump.clone_from(&address.jump);
    let mut evaluation = Evaluation { host: &address.host, account, options };
    for file in files {
        evaluation.file(&file, 0)?;
    }
    let mut options = evaluation.options;
    let none =
        |value: &Option<String>| value.as_deref().is_some_and(|value| value.eq_ignore_ascii_case("none"));
    if none(&options.proxy_jump) {
        options.proxy_jump = None;
    }
    if none(&options.proxy_command) {
        options.proxy_command = None;
    }
    options.host_name = Some(evaluation_host(&options, &address.host));
    Ok(options)
}

/// The host name to connect to.
fn evaluation_host(options: &HostOptions, asked: &str) -> String {
    options.host_name.as_ref().map_or_else(
        || asked.to_owned(),
        |name| {
            let parts = name.split("%%").map(|part| part.replace("%h", asked));
            parts.collect::<Vec<_>>().join("%")
        },
    )
}

struct Evaluation<'a> {
    host: &'a str,
    account: &'a Account,
    options: HostOptions,
}

impl Evaluation<'_> {
    fn file(&mut self, path: &Path, depth: usize) -> Result<(), SshError> {
        let failed = |reason: String| SshError::Config { file: path.to_path_buf(), reason };
        let Some(text) = read(path).map_err(|error| failed(error.to_string()))? else { return Ok(()) };
        if depth > DEEPEST {
            return Err(failed(format!("includes are nested more than {DEEPEST} deep")));
        }
        let mut applies = true;
        for (index, line) in text.lines().enumerate() {
            let failed = |reason: String| failed(format!("line {}: {reason}", index + 1));
            let Some((keyword, rest)) = keyword(line) else { continue };
            let values = words(rest).map_err(failed)?;
            match keyword.as_str() {
                "host" => applies = self.host_matches(&values),
                "match" => applies = self.match_applies(&values).map_err(failed)?,
                _ if !applies => {}
                "include" => {
                    for pattern in &values {
                        for file in self.included(pattern, path).map_err(failed)? {
                            self.file(&file, depth + 1)?;
                        }
                    }
                }
                // The rest of the line is a command for a shell, quotes and all.
                "proxycommand" => self.options.set(&keyword, &[rest.to_owned()]).map_err(failed)?,
                "canonicalizehostname" if values.first().is_none_or(|value| value != "no") => {
                    return Err(failed(needs_client("CanonicalizeHostname")));
                }
                "hostname" => {
                    if let Some(token) = values.first().and_then(|name| foreign_token(name)) {
                        return Err(failed(format!("HostName supports %h and %%, not %{token}")));
                    }
                    self.options.set(&keyword, &values).map_err(failed)?;
                }
                _ => self.options.set(&keyword, &values).map_err(failed)?,
            }
        }
        Ok(())
    }

    /// `Host pattern !pattern …`.
    fn host_matches(&self, patterns: &[String]) -> bool {
        pattern_list(patterns.iter().map(String::as_str), self.host)
    }

    /// `Match criterion value …`; all of them must hold.
    fn match_applies(&self, words: &[String]) -> Result<bool, String> {
        let mut words = words.iter();
        let mut holds = true;
        let mut any = false;
        while let Some(word) = words.next() {
            any = true;
            let (word, given) = match word.split_once('=') {
                Some((word, value)) => (word, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let (is_negated, name) = match word.strip_prefix('!') {
                Some(name) => (true, name.to_lowercase()),
                None => (false, word.to_lowercase()),
            };
            if name == "all" {
                holds &= !is_negated;
                continue;
            }
            if matches!(name.as_str(), "canonical" | "final") {
                if holds {
                    return Err(needs_client(&format!("Match {name}")));
                }
                continue;
            }
            let value = given.or_else(|| words.next().cloned());
            let value = value.ok_or_else(|| format!("Match {name} has no value"))?;
            let user = || self.options.user.clone().unwrap_or_else(|| self.account.name.clone());
            let subject = match name.as_str() {
                "host" => evaluation_host(&self.options, self.host).to_lowercase(),
                "originalhost" => self.host.to_owned(),
                "user" => user(),
                "localuser" => self.account.name.clone(),
                // OpenSSH ignores what follows the first criterion that fails.
                _ if !holds => continue,
                _ => return Err(needs_client(&format!("Match {name}"))),
            };
            holds &= pattern_list(value.split(','), &subject) != is_negated;
        }
        if any { Ok(holds) } else { Err("Match has no criterion".to_owned()) }
    }

    /// Files of an `Include`, in order.
    fn included(&self, pattern: &str, including: &Path) -> Result<Vec<PathBuf>, String> {
        if pattern.contains(['[', '{', '\\']) {
            return Err(needs_client(&format!("the pattern {pattern}")));
        }
        let pattern = self.account.expand_tilde(pattern)?;
        let folder = if including.starts_with("/etc/ssh") {
            PathBuf::from("/etc/ssh")
        } else {
            self.account.home.join(".ssh")
        };
        let mut found = vec![PathBuf::new()];
        for part in folder.join(pattern).components() {
            let part = part.as_os_str().to_string_lossy().into_owned();
            found = found
                .iter()
                .flat_map(|folder| {
                    if part.contains(['*', '?']) { entries(folder, &part) } else { vec![folder.join(&part)] }
                })
                .collect();
        }
        found.retain(|file| file.exists());
        Ok(found)
    }
}

fn needs_client(what: &str) -> String {
    format!("only OpenSSH's client can evaluate {what}; install it (openssh-client), or remove the line")
}

/// A token that `HostName` does not have.
fn foreign_token(name: &str) -> Option<String> {
    let mut tokens = name.split('%').skip(1);
    while let Some(token) = tokens.next() {
        if token.is_empty() {
            // "%%"; what follows it is text.
            tokens.next();
        } else if !token.starts_with('h') {
            return token.chars().next().map(String::from);
        }
    }
    None
}

/// Entries of a folder whose names match, sorted; hidden ones only if the pattern begins with a dot.
fn entries(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            matches(pattern, &name) && (pattern.starts_with('.') || !name.starts_with('.'))
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Whether one of the patterns matches and none that is negated does.
fn pattern_list<'a>(patterns: impl Iterator<Item = &'a str>, subject: &str) -> bool {
    let mut found = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches(pattern, subject) => return false,
            None if matches(pattern, subject) => found = true,
            _ => {}
        }
    }
    found
}

fn read(path: &Path) -> io::Result<Option<String>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, LONGEST + 1), &mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::Error::other("it is longer than 16 MiB"));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Keyword in lower case and the rest of the line; absent for comments and empty lines.
fn keyword(line: &str) -> Option<(String, &str)> {
    let is_space = |letter: char| letter.is_ascii_whitespace();
    let line = line.trim_matches(is_space);
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|letter| is_space(letter) || letter == '=').unwrap_or(line.len());
    let rest = line[end..].trim_start_matches(is_space);
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start_matches(is_space);
    Some((line[..end].trim_matches('"').to_lowercase(), rest))
}

/// Words of a line: quotes hold spaces, a backslash takes the meaning from quotes and spaces, `#` begins a comment.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut letters = text.chars().peekable();
    loop {
        while letters.next_if(char::is_ascii_whitespace).is_some() {}
        if letters.peek().is_none_or(|letter| *letter == '#') {
            return Ok(words);
        }
        let mut word = String::new();
        let mut quote = None;
        while let Some(letter) = letters.next_if(|letter| quote.is_some() || !letter.is_ascii_whitespace()) {
            match letter {
                '\\' => {
                    let is_escape =
                        |next: &char| matches!(next, '"' | '\'' | '\\') || (quote.is_none() && *next == ' ');
                    word.push(letters.next_if(is_escape).unwrap_or('\\'));
                }
                '"' | '\'' if quote.is_none() => quote = Some(letter),
                _ if quote == Some(letter) => quote = None,
                _ => word.push(letter),
            }
        }
        if quote.is_some() {
            return Err("a quote is not closed".to_owned());
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests;
