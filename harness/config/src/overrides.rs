//! Settings from the command line, laid over the experiment's file before it is checked.

use std::sync::Arc;

use super::faults::{Faults, Spot};
use super::tree::{self, Entry, Node, Value};

/// What the command line changes of an experiment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--network NAME`, repeated: these networks in place of the file's. Empty: the file's.
    pub networks: Vec<String>,
    /// `--trials N`, as written.
    pub trials: Option<String>,
    /// `--set KEY=VALUE`, repeated; the key dotted as in `measure.min_seconds`, the value YAML.
    pub set: Vec<String>,
}

impl Overrides {
    pub(super) fn lay_over(&self, tree: &mut Node, faults: &mut Faults) {
        // A file that is no mapping is reported as such; nothing can be laid over it.
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
                faults
                    .add(&Spot::whole(argument), "the name of an experiment is its file's and cannot be set");
                continue;
            }
            if let Some(value) = read(&argument, value, faults) {
                put(tree, &steps, value);
            }
        }
    }
}

/// Reads a value; all its places are the argument's.
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

/// Puts `value` at the path `steps`, with what lies on the way.
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
