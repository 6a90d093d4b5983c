//! Settings from the command line, which replace those of the experiment's file before it is checked.

use std::sync::Arc;

use super::faults::{Faults, Spot};
use super::tree::{self, Entry, Node, Value};

/// Changes of an experiment from the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--network NAME`, repeated: replaces the networks of the file. Empty: no change.
    pub networks: Vec<String>,
    /// `--trials N`, as written.
    pub trials: Option<String>,
    /// `--set KEY=VALUE`, repeated: a dotted key such as `measure.min_seconds`, and a YAML value.
    pub set: Vec<String>,
}

impl Overrides {
    pub(super) fn lay_over(&self, tree: &mut Node, faults: &mut Faults) {
        // A file that is not a mapping is reported later; nothing can be set in it.
        if !matches!(tree.value, Value::Map(_)) {
            return;
        }
        if !self.networks.is_empty() {
            let item = |name: &String| Node {
                at: Spot::whole(format!("--network {name}")),
                value: Value::Text(name.clone()),
            };
            let list = Value::List(self.networks.iter().map(item).collect());
            put(tree, &["networks"], Node { at: Spot::whole("--network"), value: list });
        }
        if let Some(trials) = &self.trials {
            let argument = format!("--trials {trials}");
            if let Some(value) = read(&argument, trials, faults) {
                put(tree, &["trials"], value);
            }
        }
        for setting in &self.set {
            let argument = format!("--set {setting}");
            let Some((path, value)) = setting.split_once('=') else {
                faults.add(&Spot::whole(argument), "expected KEY=VALUE, such as measure.min_seconds=2");
                continue;
            };
            let steps: Vec<&str> = path.trim().split('.').collect();
            if steps.len() > 4 || steps.iter().any(|step| step.is_empty()) {
                let message = "expected a dotted key before \"=\", such as measure.min_seconds";
                faults.add(&Spot::whole(argument), message);
                continue;
            }
            if steps[0] == "experiment" {
                faults.add(
                    &Spot::whole(argument),
                    "the name of an experiment cannot be set; it is the file name",
                );
                continue;
            }
            if let Some(value) = read(&argument, value, faults) {
                put(tree, &steps, value);
            }
        }
    }
}

/// Reads a value; its locations are all the argument.
fn read(argument: &str, text: &str, faults: &mut Faults) -> Option<Node> {
    let source: Arc<str> = Arc::from(argument);
    let mut found = Faults::default();
    let node = tree::parse(&source, text, &mut found);
    for fault in &found {
        faults.add(&Spot::whole(Arc::clone(&source)), fault.message.clone());
    }
    let mut node = node.filter(|_| found.is_empty())?;
    forget_places(&mut node);
    Some(node)
}

fn forget_places(node: &mut Node) {
    node.at.place = None;
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(forget_places),
        Value::Map(entries) => {
            for entry in entries {
                entry.key_at.place = None;
                forget_places(&mut entry.value);
            }
        }
        _ => {}
    }
}

/// Sets `value` at the path `steps`; creates the mappings on the way.
fn put(tree: &mut Node, steps: &[&str], value: Node) {
    let Some((step, rest)) = steps.split_first() else {
        *tree = value;
        return;
    };
    let at = value.at.clone();
    if !matches!(tree.value, Value::Map(_)) {
        *tree = Node { at: at.clone(), value: Value::Map(Vec::new()) };
    }
    let Value::Map(entries) = &mut tree.value else { return };
    let index = entries.iter().position(|entry| entry.key == *step).unwrap_or_else(|| {
        let value = Node { at: at.clone(), value: Value::Null };
        entries.push(Entry { key: (*step).to_owned(), key_at: at.clone(), value });
        entries.len() - 1
    });
    entries[index].key_at = at;
    put(&mut entries[index].value, rest, value);
}
