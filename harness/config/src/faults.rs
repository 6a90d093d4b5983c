//! All faults of the configuration, reported together.

use host::exit::{Coded, Exit};
use std::fmt;
use std::sync::Arc;

/// A location in a file, or a command-line argument.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// Path below the root (`configs/boards/local.yaml`), or the argument (`--set trials=0`).
    pub source: Arc<str>,
    /// Line and column, both from 1; `None` for arguments and whole files.
    pub place: Option<(usize, usize)>,
}

impl Spot {
    /// A whole file or argument.
    pub(super) fn whole(source: impl Into<Arc<str>>) -> Self {
        Self { source: source.into(), place: None }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.source)?;
        self.place.map_or(Ok(()), |(line, column)| write!(out, ":{line}:{column}"))
    }
}

/// A fault of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub at: Spot,
    /// What was found, what was expected, and the nearest valid name.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "failed to read {}: {}", self.at, self.message)
    }
}

/// Maximum number of faults kept; a generated file may have one in each line.
const MOST_KEPT: usize = 1000;
/// Maximum number of faults printed.
const MOST_SHOWN: usize = 30;
/// Maximum length of a message in characters. It may quote a value, which can be as long as a file.
const LONGEST_MESSAGE: usize = 1000;

/// All faults, in the order of files and lines. If there are very many, the last ones are only counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    kept: Vec<Fault>,
    more: usize,
}

impl Faults {
    /// Those that are kept.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.kept.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kept.len() + self.more
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(super) fn add(&mut self, at: &Spot, message: impl Into<String>) {
        if self.kept.len() == MOST_KEPT {
            self.more += 1;
        } else {
            let (at, message) = (at.clone(), shortened(message.into()));
            self.kept.push(Fault { at, message });
        }
    }

    /// The value, if there are no faults. A missing value must have a fault.
    pub(super) fn into_result<T>(mut self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.is_empty() => Ok(value),
            _ => {
                self.sort();
                Err(self)
            }
        }
    }

    /// Sorts by line within each file; files stay in the order in which they were read.
    fn sort(&mut self) {
        let mut sources: Vec<Arc<str>> = Vec::new();
        for fault in &self.kept {
            if !sources.contains(&fault.at.source) {
                sources.push(Arc::clone(&fault.at.source));
            }
        }
        let file = |fault: &Fault| sources.iter().position(|source| *source == fault.at.source);
        self.kept.sort_by_key(|fault| (file(fault), fault.at.place));
        self.kept.dedup();
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.kept.iter().take(MOST_SHOWN).enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(out, "{newline}{fault}")?;
        }
        match self.len().saturating_sub(MOST_SHOWN) {
            0 => Ok(()),
            more => write!(out, "\nand {more} more faults; correct these first"),
        }
    }
}

/// The message, without its middle if it is very long.
fn shortened(message: String) -> String {
    let count = message.chars().count();
    if count <= LONGEST_MESSAGE {
        return message;
    }
    let begin: String = message.chars().take(LONGEST_MESSAGE / 2).collect();
    let end: String = message.chars().skip(count - LONGEST_MESSAGE / 4).collect();
    format!("{begin} … {end}")
}

impl std::error::Error for Faults {}

impl Coded for Faults {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// `; did you mean "x"?` for the nearest valid name, if it is near enough to be a typo.
pub fn did_you_mean<'a>(name: &str, valid: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, valid).map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

/// The nearest name by edit distance, at most a third of the letters; of equal ones the first.
fn nearest<'a>(name: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace(['-', ' ', '.'], "_");
    let name = plain(name);
    let allowed = (name.chars().count().div_ceil(3)).max(1);
    valid
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&name, &plain(candidate)), candidate))
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// Maximum number of names listed in a message.
const MOST_LISTED: usize = 40;

/// `a, b and c`; if there are very many, only the first ones.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>, last: &str) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    let more = format!("{} more", names.len().saturating_sub(MOST_LISTED));
    if names.len() > MOST_LISTED + 1 {
        names.truncate(MOST_LISTED);
        return format!("{} {last} {more}", names.join(", "));
    }
    match names.as_slice() {
        [] => "none".to_owned(),
        [one] => (*one).to_owned(),
        [most @ .., end] => format!("{} {last} {end}", most.join(", ")),
    }
}
