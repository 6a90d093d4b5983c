//! Checks a tree against a schema. Reports all faults, and returns the valid part of the tree, so that its values can be
//! checked in the same run.

use serde_json::Value as Json;

use super::faults::{Faults, did_you_mean, listed};
use super::schema::properties;
use super::tree::{Entry, Node, Value};
use super::values::{PATTERNS, Pattern};

/// Checks `node` against `schema`. The result lacks invalid values of known keys and invalid entries of lists. A value with
/// several alternatives is either complete or missing.
pub(super) fn check(node: &Node, schema: &Json, faults: &mut Faults) -> Option<Node> {
    Walk { root: schema, faults }.node(node, schema)
}

/// Key of a schema: why a setting cannot be `auto`, although a similar one can.
const WITHOUT_AUTO: &str = "x-without-auto";

struct Walk<'a> {
    root: &'a Json,
    faults: &'a mut Faults,
}

impl<'a> Walk<'a> {
    fn node(&mut self, node: &Node, schema: &'a Json) -> Option<Node> {
        let leaves = self.leaves(schema);
        let fitting: Vec<&Json> = leaves.iter().copied().filter(|leaf| fits(leaf, node)).collect();
        let whole = leaves.len() > 1;
        let before = self.faults.len();
        let valid = match (&node.value, fitting.as_slice()) {
            (_, []) => {
                self.mismatch(node, &leaves);
                None
            }
            (Value::Map(_), fitting) => self.mapping(node, fitting, whole),
            (Value::List(items), [leaf, ..]) => Some(self.list(node, items, leaf)),
            (Value::Text(text), fitting) => self.text(node, text, fitting, &leaves),
            (Value::Integer(_) | Value::Float(_), [leaf, ..]) => self.number(node, leaf),
            (Value::Bool(_) | Value::Null, _) => Some(node.clone()),
        };
        valid.filter(|_| !whole || self.faults.len() == before)
    }

    /// What a schema allows, with references and alternatives resolved.
    fn leaves(&self, schema: &'a Json) -> Vec<&'a Json> {
        let mut leaves = Vec::new();
        self.collect(schema, &mut leaves);
        leaves
    }

    fn collect(&self, schema: &'a Json, leaves: &mut Vec<&'a Json>) {
        if let Some(reference) = schema["$ref"].as_str() {
            let target = reference.strip_prefix('#').and_then(|path| self.root.pointer(path));
            if let Some(target) = target {
                self.collect(target, leaves);
            }
            return;
        }
        match schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
            Some(alternatives) => alternatives.iter().for_each(|schema| self.collect(schema, leaves)),
            None => leaves.push(schema),
        }
    }

    fn mismatch(&mut self, node: &Node, leaves: &[&Json]) {
        let is_auto = matches!(&node.value, Value::Text(text) if text == "auto");
        let reason = leaves.iter().find_map(|leaf| leaf[WITHOUT_AUTO].as_str()).filter(|_| is_auto);
        let hint = match reason {
            Some(reason) => format!("; {reason}"),
            None if leaves.iter().any(|leaf| allows_quoted(leaf, node)) => {
                "; quote it to make it text".to_owned()
            }
            None => String::new(),
        };
        let expected = describe(leaves);
        self.faults.add(&node.at, format!("expected {expected}, found {}{hint}", found(node)));
    }

    /// Checks against the alternative with the most keys in common.
    fn mapping(&mut self, node: &Node, leaves: &[&'a Json], whole: bool) -> Option<Node> {
        let shared = |leaf: &Json| {
            node.entries().iter().filter(|entry| properties(leaf).contains_key(&entry.key)).count()
        };
        // Of equal ones the first, which is the one documented first.
        let best = leaves.iter().copied().rev().max_by_key(|leaf| shared(leaf))?;
        let open = leaves.iter().copied().find(|leaf| leaf["additionalProperties"].is_object());
        if whole && shared(best) == 0 && open.is_none() {
            let keys = || leaves.iter().flat_map(|leaf| properties(leaf).keys().map(String::as_str));
            match node.entries() {
                [] => self
                    .faults
                    .add(&node.at, format!("the mapping is empty; expected {}", listed(keys(), "or"))),
                entries => {
                    for entry in entries {
                        self.unknown(entry, keys());
                    }
                }
            }
            return None;
        }
        let others: Vec<&str> = leaves
            .iter()
            .filter(|leaf| !std::ptr::eq(**leaf, best))
            .flat_map(|leaf| properties(leaf).keys().map(String::as_str))
            .collect();
        Some(self.entries(node, best, &others))
    }

    fn entries(&mut self, node: &Node, schema: &'a Json, others: &[&str]) -> Node {
        let known = properties(schema);
        let more = &schema["additionalProperties"];
        let mut valid = Vec::new();
        for entry in node.entries() {
            let value = if let Some(property) = known.get(&entry.key) {
                self.node(&entry.value, property)
            } else if more.is_object() {
                let named = self.name(entry, &schema["propertyNames"]);
                let before = self.faults.len();
                self.node(&entry.value, more).filter(|_| named && self.faults.len() == before)
            } else if others.contains(&entry.key.as_str()) {
                let beside = listed(known.keys().map(String::as_str), "or");
                let message = format!(
                    "{:?} cannot be combined with {beside:?}; remove one; in a list, make them separate entries",
                    entry.key
                );
                self.faults.add(&entry.key_at, message);
                None
            } else {
                self.unknown(entry, known.keys().map(String::as_str));
                None
            };
            valid.extend(value.map(|value| Entry { value, ..entry.clone() }));
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            if node.get(name).is_none() {
                let expected =
                    known.get(name).map_or_else(String::new, |schema| self.describe_schema(schema));
                self.faults.add(&node.at, format!("missing key {name:?}; expected {expected}"));
            }
        }
        if schema["minProperties"].as_u64().is_some_and(|least| (node.entries().len() as u64) < least) {
            self.faults.add(&node.at, "the mapping is empty; expected at least one entry");
        }
        Node { at: node.at.clone(), value: Value::Map(valid) }
    }

    fn unknown<'k>(&mut self, entry: &Entry, known: impl Iterator<Item = &'k str> + Clone) {
        let nearest = did_you_mean(&entry.key, known.clone());
        let expected = listed(known, "or");
        let message = format!("unknown key {:?}; expected {expected}{nearest}", entry.key);
        self.faults.add(&entry.key_at, message);
    }

    fn name(&mut self, entry: &Entry, schema: &Json) -> bool {
        let Some(pattern) = pattern_of(schema) else { return true };
        let allowed = (pattern.allows)(&entry.key);
        if !allowed {
            self.faults.add(&entry.key_at, format!("expected {}, found {:?}", pattern.expected, entry.key));
        }
        allowed
    }

    fn list(&mut self, node: &Node, items: &[Node], schema: &'a Json) -> Node {
        let least = schema["minItems"].as_u64().unwrap_or(0);
        if (items.len() as u64) < least {
            let found = match items.len() {
                0 => "an empty list".to_owned(),
                1 => "a list of one entry".to_owned(),
                count => format!("a list of {count} entries"),
            };
            let entries = if least == 1 { "entry" } else { "entries" };
            self.faults.add(&node.at, format!("expected at least {least} {entries}, found {found}"));
        }
        let mut valid: Vec<Node> = Vec::new();
        for item in items {
            let before = self.faults.len();
            let Some(item) = self.node(item, &schema["items"]) else { continue };
            if schema["uniqueItems"] == true
                && let Some(first) = valid.iter().find(|other| same(other, &item))
            {
                let line =
                    first.at.place.map_or_else(String::new, |(line, _)| format!("; first in line {line}"));
                let what = match item.value {
                    Value::List(_) | Value::Map(_) => String::new(),
                    _ => format!(" {}", found(&item)),
                };
                let message = format!("duplicate entry{what}{line}");
                self.faults.add(&item.at, message);
            } else if self.faults.len() == before {
                valid.push(item);
            }
        }
        Node { at: node.at.clone(), value: Value::List(valid) }
    }

    /// `leaves` are the alternatives that are text, `all` are all alternatives.
    fn text(&mut self, node: &Node, text: &str, leaves: &[&'a Json], all: &[&'a Json]) -> Option<Node> {
        if leaves.iter().any(|leaf| words(leaf).any(|word| word == text)) {
            return Some(node.clone());
        }
        let Some(open) = leaves.iter().find(|leaf| words(leaf).next().is_none()) else {
            let settings = all.iter().any(|leaf| properties(leaf).contains_key(text));
            let hint = if settings {
                format!("; write it with its settings: {{ {text}: … }}")
            } else {
                did_you_mean(text, leaves.iter().flat_map(|leaf| words(leaf)))
            };
            let expected = describe(all);
            self.faults.add(&node.at, format!("expected {expected}, found {text:?}{hint}"));
            return None;
        };
        match pattern_of(open) {
            Some(pattern) if !(pattern.allows)(text) => {
                self.faults.add(&node.at, format!("expected {}, found {text:?}", pattern.expected));
                None
            }
            _ => Some(node.clone()),
        }
    }

    fn number(&mut self, node: &Node, schema: &Json) -> Option<Node> {
        let value = match node.value {
            Value::Integer(value) => value as f64,
            Value::Float(value) => value,
            _ => return None,
        };
        let whole = has_type(schema, "integer");
        let low = schema["minimum"].as_f64().is_some_and(|least| value < least)
            || schema["exclusiveMinimum"].as_f64().is_some_and(|least| value <= least);
        let high = schema["maximum"].as_f64().is_some_and(|most| value > most)
            || matches!(node.value, Value::Integer(value) if value > largest(schema));
        if low || high || !value.is_finite() || (whole && matches!(node.value, Value::Float(_))) {
            let expected = describe(&[schema]);
            self.faults.add(&node.at, format!("expected {expected}, found {}", found(node)));
            return None;
        }
        Some(node.clone())
    }

    fn describe_schema(&self, schema: &'a Json) -> String {
        describe(&self.leaves(schema))
    }
}

/// Describes what the alternatives allow.
fn describe(leaves: &[&Json]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut keys: Vec<&str> = Vec::new();
    for leaf in leaves {
        if leaf["type"] == "null" {
            continue;
        }
        if has_type(leaf, "object") && !leaf["additionalProperties"].is_object() {
            keys.extend(properties(leaf).keys().map(String::as_str));
        } else {
            parts.push(describe_leaf(leaf));
        }
    }
    if let [key] = keys.as_slice() {
        parts.push(format!("a mapping with the key {key}"));
    } else if !keys.is_empty() {
        parts.push(format!("a mapping with {}", listed(keys, "or")));
    }
    listed(parts.iter().map(String::as_str), "or")
}

fn describe_leaf(leaf: &Json) -> String {
    let words: Vec<&str> = words(leaf).collect();
    if !words.is_empty() {
        let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        return listed(quoted.iter().map(String::as_str), "or");
    }
    if let Some(pattern) = pattern_of(leaf) {
        return pattern.expected.to_owned();
    }
    if has_type(leaf, "array") {
        return "a list".to_owned();
    }
    if has_type(leaf, "object") {
        return "a mapping".to_owned();
    }
    if has_type(leaf, "boolean") {
        return "true or false".to_owned();
    }
    if has_type(leaf, "integer") || has_type(leaf, "number") {
        let kind = if has_type(leaf, "integer") { "a whole number" } else { "a number" };
        let above = leaf["exclusiveMinimum"].as_f64().map(|least| format!(" above {least}"));
        let least = leaf["minimum"].as_f64();
        return match (above, least, leaf["maximum"].as_f64()) {
            (Some(above), _, Some(most)) => format!("{kind}{above}, at most {most}"),
            (_, Some(least), Some(most)) => format!("{kind} from {least} to {most}"),
            (_, Some(least), None) => format!("{kind} of at least {least}"),
            _ => kind.to_owned(),
        };
    }
    "text".to_owned()
}

fn has_type(schema: &Json, name: &str) -> bool {
    match &schema["type"] {
        Json::String(one) => one == name,
        Json::Array(several) => several.iter().any(|one| one == name),
        _ => false,
    }
}

fn fits(leaf: &Json, node: &Node) -> bool {
    has_type(
        leaf,
        match node.value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Integer(_) | Value::Float(_) => {
                return has_type(leaf, "integer") || has_type(leaf, "number");
            }
            Value::Text(_) => "string",
            Value::List(_) => "array",
            Value::Map(_) => "object",
        },
    )
}

/// Whether the schema would allow this number or boolean in quotes. A boolean may be a word that YAML did not keep, such as
/// `off`.
fn allows_quoted(schema: &Json, node: &Node) -> bool {
    let is_enumeration = words(schema).next().is_some();
    let is_allowed = || pattern_of(schema).is_none_or(|pattern| (pattern.allows)(&found(node)));
    has_type(schema, "string")
        && match node.value {
            Value::Bool(_) => is_enumeration || is_allowed(),
            Value::Integer(_) | Value::Float(_) => !is_enumeration && is_allowed(),
            _ => false,
        }
}

/// The words that a schema allows, if it is an enumeration.
fn words(schema: &Json) -> impl Iterator<Item = &str> {
    let listed = schema["enum"].as_array().into_iter().flatten();
    schema["const"].as_str().into_iter().chain(listed.filter_map(Json::as_str))
}

fn pattern_of(schema: &Json) -> Option<&'static Pattern> {
    let text = schema["pattern"].as_str()?;
    PATTERNS.iter().find(|pattern| pattern.text == text)
}

/// The largest number the type behind the schema holds.
fn largest(schema: &Json) -> i128 {
    match schema["format"].as_str() {
        Some("uint16") => u16::MAX.into(),
        Some("uint32") => u32::MAX.into(),
        _ => u64::MAX.into(),
    }
}

/// Equal, regardless of locations.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            let other = |key: &str| b.iter().find(|entry| entry.key == key);
            a.len() == b.len()
                && a.iter()
                    .all(|entry| other(&entry.key).is_some_and(|other| same(&entry.value, &other.value)))
        }
        (a, b) => a == b,
    }
}

/// A value as messages show it.
pub(super) fn found(node: &Node) -> String {
    match &node.value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Float(value) => format!("{value:?}"),
        Value::Text(text) => format!("{text:?}"),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a mapping".to_owned(),
    }
}
