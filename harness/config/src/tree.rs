//! A YAML file as a tree in which every value has a location.
//!
//! Supports the part of YAML that configuration needs: mappings, lists and scalars. Anchors, tags, several documents,
//! keys that are not plain names, and duplicate keys are faults.

use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::faults::{Faults, Spot};

/// Maximum nesting; configuration needs five levels.
const DEEPEST: usize = 32;
/// Maximum number of values and keys. The largest experiment has a few hundred.
const MOST_VALUES: usize = 10_000;

/// A value and its location.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) at: Spot,
    pub(super) value: Value,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a mapping with its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: Spot,
    pub(super) value: Node,
}

impl Node {
    /// The value of a key, if this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The node at a path such as `schedules/0/pipeline`.
    pub(super) fn find(&self, path: &str) -> Option<&Self> {
        path.split('/').try_fold(self, |node, step| match &node.value {
            Value::List(items) => items.get(step.parse::<usize>().ok()?),
            _ => node.get(step),
        })
    }

    /// The location of the value at a path, or of its nearest existing parent.
    pub(super) fn spot(&self, path: &str) -> Spot {
        let mut path = path;
        loop {
            if let Some(node) = self.find(path) {
                return node.at.clone();
            }
            match path.rsplit_once('/') {
                Some((parent, _)) => path = parent,
                None => return self.at.clone(),
            }
        }
    }

    /// Keys and values of a mapping; empty for any other value.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The text, if this is text.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Merges `over` into this: mappings key by key; any other value replaces the present one.
    pub(super) fn overlay(&mut self, over: Self) {
        match (&mut self.value, over.value) {
            (Value::Map(below), Value::Map(above)) => {
                self.at = over.at;
                for entry in above {
                    match below.iter_mut().find(|other| other.key == entry.key) {
                        Some(other) => {
                            other.key_at = entry.key_at;
                            other.value.overlay(entry.value);
                        }
                        None => below.push(entry),
                    }
                }
            }
            (_, value) => *self = Self { at: over.at, value },
        }
    }
}

/// Parses `text`; `None` if it is too broken to continue.
pub(super) fn parse(source: &Arc<str>, text: &str, faults: &mut Faults) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if has_tabs(source, text, faults) {
        return None;
    }
    let mut builder = Builder { source, faults, open: Vec::new(), root: None, documents: 0, values: 0 };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => {
                if !builder.take(event, &span.start) {
                    return None;
                }
            }
            Err(error) => {
                let at = builder.spot(error.marker());
                builder.faults.add(&at, format!("not valid YAML: {}", error.info()));
                return None;
            }
        }
    }
    let nothing = Node { at: Spot { source: Arc::clone(source), place: Some((1, 1)) }, value: Value::Null };
    Some(builder.root.unwrap_or(nothing))
}

/// YAML forbids tabs in the indentation; the parser's own message does not say so.
fn has_tabs(source: &Arc<str>, text: &str, faults: &mut Faults) -> bool {
    let before = faults.len();
    for (index, line) in text.lines().enumerate() {
        let indentation = &line[..line.len() - line.trim_start_matches([' ', '\t']).len()];
        if let Some(column) = indentation.find('\t')
            && !line.trim().is_empty()
        {
            let at = Spot { source: Arc::clone(source), place: Some((index + 1, column + 1)) };
            faults.add(&at, "the indentation contains a tab; use spaces");
        }
    }
    faults.len() > before
}

/// A list or mapping that has not ended yet.
enum Open {
    List(Spot, Vec<Node>),
    Map(Spot, Vec<Entry>, Awaited),
}

/// What a mapping expects next.
enum Awaited {
    Key,
    Value(String, Spot),
    /// The value of an invalid key.
    Dropped,
}

struct Builder<'a> {
    source: &'a Arc<str>,
    faults: &'a mut Faults,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    /// Values and keys so far.
    values: usize,
}

impl Builder<'_> {
    fn spot(&self, mark: &Marker) -> Spot {
        Spot { source: Arc::clone(self.source), place: Some((mark.line().max(1), mark.col() + 1)) }
    }

    /// Handles the next event; false to stop parsing.
    fn take(&mut self, event: Event<'_>, mark: &Marker) -> bool {
        let at = self.spot(mark);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse(anchor, tag.is_some(), &at);
                let plain = matches!(style, ScalarStyle::Plain);
                let value = if plain { resolve(&text) } else { Value::Text(text.clone().into_owned()) };
                self.deliver(Node { at, value }, Some(&text));
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse(anchor, tag.is_some(), &at);
                self.open.push(Open::List(at, Vec::new()));
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse(anchor, tag.is_some(), &at);
                self.open.push(Open::Map(at, Vec::new(), Awaited::Key));
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(at, items)) => self.deliver(Node { at, value: Value::List(items) }, None),
                Some(Open::Map(at, entries, _)) => {
                    self.deliver(Node { at, value: Value::Map(entries) }, None);
                }
                None => {}
            },
            Event::Alias(_) => {
                self.faults.add(&at, "aliases (*name) are not supported; write out the value");
                self.skip();
            }
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.faults
                        .add(&at, "a second YAML document starts here; expected one document per file");
                    return false;
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        self.values += 1;
        if self.values > MOST_VALUES {
            let at = self.spot(mark);
            self.faults.add(&at, format!("more than {MOST_VALUES} values; this is not a configuration file"));
            return false;
        }
        if self.open.len() > DEEPEST {
            let at = self.spot(mark);
            self.faults.add(&at, format!("more than {DEEPEST} levels of nesting"));
            return false;
        }
        true
    }

    fn refuse(&mut self, anchor: usize, tagged: bool, at: &Spot) {
        if anchor != 0 {
            self.faults.add(at, "anchors (&name) are not supported; write out the value where it is used");
        }
        if tagged {
            self.faults.add(at, "tags (!name) are not supported; remove the tag");
        }
    }

    /// Skips an invalid value.
    fn skip(&mut self) {
        if let Some(Open::Map(_, _, awaited)) = self.open.last_mut() {
            *awaited = match awaited {
                Awaited::Key => Awaited::Dropped,
                Awaited::Value(..) | Awaited::Dropped => Awaited::Key,
            };
        }
    }

    /// Adds a complete node to its parent. `scalar` is its text as written.
    fn deliver(&mut self, node: Node, scalar: Option<&str>) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, entries, awaited)) => match std::mem::replace(awaited, Awaited::Key) {
                Awaited::Key => *awaited = key(node.at, scalar, entries, self.faults),
                Awaited::Value(key, key_at) => entries.push(Entry { key, key_at, value: node }),
                Awaited::Dropped => {}
            },
        }
    }
}

/// What to expect after a key: its value, or a value to drop if the key is invalid.
fn key(at: Spot, scalar: Option<&str>, entries: &[Entry], faults: &mut Faults) -> Awaited {
    let Some(text) = scalar else {
        faults.add(&at, "the key is a list or mapping; expected a name");
        return Awaited::Dropped;
    };
    let Some(first) = entries.iter().find(|entry| entry.key == text) else {
        return Awaited::Value(text.to_owned(), at);
    };
    let line = first.key_at.place.map_or_else(String::new, |(line, _)| format!("; first in line {line}"));
    faults.add(&at, format!("duplicate key {text:?}{line}"));
    Awaited::Dropped
}

/// The value of a plain scalar by the core schema of YAML 1.2.
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    let number = |digits: &str, radix| i128::from_str_radix(digits, radix).ok();
    let integer = match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
        (Some(digits), _) if !digits.starts_with(['+', '-']) => number(digits, 16),
        (_, Some(digits)) if !digits.starts_with(['+', '-']) => number(digits, 8),
        _ => number(text, 10),
    };
    // Rust parses "infinity" and "nan" as numbers, YAML does not.
    let numeric = || text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
    let letters = || text.chars().any(|letter| letter.is_ascii_alphabetic() && !"eE".contains(letter));
    match integer {
        Some(integer) => Value::Integer(integer),
        None => match text.parse::<f64>() {
            Ok(float) if numeric() && !letters() => Value::Float(float),
            _ => Value::Text(text.to_owned()),
        },
    }
}
