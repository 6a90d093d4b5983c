//! Finds and reads files of `configs/` by name.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::faults::{Faults, Spot, did_you_mean, listed};
use super::tree::{self, Node};
use super::values::is_name;

/// Largest file read. Configuration is written by hand.
pub(super) const LARGEST: u64 = 1 << 20;

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `configs/boards/`
    Board,
    /// `configs/experiments/`
    Experiment,
    /// `configs/networks/`
    Network,
    /// `configs/groups/`
    Group,
}

impl Kind {
    /// Its word, which is also the key of the name in the file.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Board => "board",
            Self::Experiment => "experiment",
            Self::Network => "network",
            Self::Group => "group",
        }
    }

    pub(super) const fn folder(self) -> &'static str {
        match self {
            Self::Board => "configs/boards",
            Self::Experiment => "configs/experiments",
            Self::Network => "configs/networks",
            Self::Group => "configs/groups",
        }
    }
}

/// Names of the files of a kind below `root`, sorted. Empty if the directory is missing or cannot be read.
pub fn names(root: &Path, kind: Kind) -> Vec<String> {
    let entries = fs::read_dir(root.join(kind.folder())).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".yaml")?.to_owned()))
        .filter(|name| is_name(name))
        .collect();
    names.sort();
    names
}

/// Reads the tree of the file `name`, which was requested at `requested`, and checks that the name in the file equals it.
pub(super) fn read(
    root: &Path,
    kind: Kind,
    name: &str,
    requested: &Spot,
    faults: &mut Faults,
) -> Option<Node> {
    let word = kind.word();
    if !is_name(name) {
        let rule =
            "expected at most 64 letters, digits, \"_\", \".\" and \"-\"; must not start with \".\" or \"-\"";
        faults.add(requested, format!("invalid {word} name {name:?}; {rule}"));
        return None;
    }
    let path = format!("{}/{name}.yaml", kind.folder());
    let source: Arc<str> = Arc::from(path.as_str());
    let text = match host::files::read_text(&root.join(&path), LARGEST) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let groups = if kind == Kind::Board { names(root, Kind::Group) } else { Vec::new() };
            if groups.iter().any(|group| group == name) {
                let group = format!("{}/{name}.yaml", Kind::Group.folder());
                faults.add(
                    requested,
                    format!("{name:?} is a group, but this command takes one board; choose one from {group}"),
                );
                return None;
            }
            let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
            unknown(root, kind, name, &groups, requested, faults);
            return None;
        }
        Err(error) => {
            faults.add(&Spot::whole(source), error.to_string());
            return None;
        }
    };
    let tree = tree::parse(&source, &text, faults)?;
    if let Some(inside) = tree.get(word)
        && let Some(text) = inside.text()
        && text != name
    {
        let message =
            format!("the {word} is named {text:?}, but its file is {name}.yaml; the two must match");
        faults.add(&inside.at, message);
    }
    Some(tree)
}

/// Reports that there is no such file, which files there are, and the nearest name. `more` are names from other sources.
pub(super) fn unknown(
    root: &Path,
    kind: Kind,
    name: &str,
    more: &[&str],
    requested: &Spot,
    faults: &mut Faults,
) {
    let (word, folder) = (kind.word(), kind.folder());
    let names = names(root, kind);
    let all = || more.iter().copied().chain(names.iter().map(String::as_str));
    let nearest = did_you_mean(name, all());
    let there = match kind {
        Kind::Network => {
            let own = match names.as_slice() {
                [] => "none".to_owned(),
                names => listed(names.iter().map(String::as_str), "and"),
            };
            format!("configs/zoo.txt lists the zoo, and {folder}/ has {own}")
        }
        Kind::Board if !more.is_empty() => {
            let boards = listed(names.iter().map(String::as_str), "and");
            format!(
                "{folder}/ has {boards}, {}/ has {}",
                Kind::Group.folder(),
                listed(more.iter().copied(), "and")
            )
        }
        _ => format!("{folder}/ has {}", listed(all(), "and")),
    };
    let other = format!("{folder}/{name}.yml");
    let ending = if root.join(&other).exists() {
        format!("; rename {other} so that it ends in .yaml")
    } else {
        nearest
    };
    faults.add(requested, format!("unknown {word} {name:?}; {there}{ending}"));
}
