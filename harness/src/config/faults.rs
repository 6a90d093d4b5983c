//! What is wrong with the configuration, all of it at once.

use std::fmt;
use std::sync::Arc;

/// A place in a file, or a command-line argument.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// Path below the root (`configs/boards/local.yaml`), or the argument (`--set trials=0`).
    pub source: Arc<str>,
    /// Line and column, both from 1; absent for arguments and for what concerns a whole file.
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

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub at: Spot,
    /// What was found, what was expected, and the nearest valid name where there is one.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "failed to read {}: {}", self.at, self.message)
    }
}

/// Everything that is wrong, one line each; in the order of the files, and of the lines in them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, at: &Spot, message: impl Into<String>) {
        self.0.push(Fault { at: at.clone(), message: message.into() });
    }

    /// The value, where nothing is wrong. A value is absent only where a fault says why.
    pub(super) fn into_result<T>(mut self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.is_empty() => Ok(value),
            _ => {
                self.sort();
                Err(self)
            }
        }
    }

    /// Orders by line within each file; files stay in the order in which they were read.
    fn sort(&mut self) {
        let mut sources: Vec<Arc<str>> = Vec::new();
        for fault in &self.0 {
            if !sources.contains(&fault.at.source) {
                sources.push(Arc::clone(&fault.at.source));
            }
        }
        let file = |fault: &Fault| sources.iter().position(|source| *source == fault.at.source);
        self.0.sort_by_key(|fault| (file(fault), fault.at.place));
        self.0.dedup();
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
        for (index, fault) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(out, "{newline}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// `; did you mean "x"?` for the nearest valid name, where one is near enough to be a slip of the pen.
pub(super) fn did_you_mean<'a>(asked: &str, valid: impl IntoIterator<Item = &'a str>) -> String {
    nearest(asked, valid).map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

/// The nearest name by edits, no further than a third of the letters; the first of equals.
fn nearest<'a>(asked: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace(['-', ' ', '.'], "_");
    let asked = plain(asked);
    let allowed = (asked.chars().count().div_ceil(3)).max(1);
    valid
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&asked, &plain(name)), name))
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// `a, b and c`, for messages.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>, last: &str) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.as_slice() {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        [most @ .., end] => format!("{} {last} {end}", most.join(", ")),
    }
}
