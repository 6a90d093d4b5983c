//! Import circles: files that import each other, directly or through others.

use std::collections::{BTreeMap, BTreeSet};

/// One file imports another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Import {
    /// Path of the file that imports.
    pub(crate) from: String,
    /// Path of the file that is imported.
    pub(crate) to: String,
    /// Line of the import.
    pub(crate) line: usize,
}

/// Imports between files of a circle. Files of different circles cannot reach each other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Circle {
    /// The files, sorted.
    pub(crate) files: Vec<String>,
    /// One import for each pair of files, sorted.
    pub(crate) imports: Vec<Import>,
}

/// The circles among `imports`: strongly connected components with more than one file.
pub(crate) fn find(imports: &[Import]) -> Vec<Circle> {
    let mut targets: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for import in imports.iter().filter(|import| import.from != import.to) {
        targets.entry(&import.from).or_default().insert(&import.to);
    }
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        targets.keys().map(|file| (*file, reachable(file, &targets))).collect();
    let reaches = |from: &str, to: &str| reach.get(from).is_some_and(|found| found.contains(to));
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for file in targets.keys().copied().filter(|file| reaches(file, file)) {
        if seen.contains(file) {
            continue;
        }
        let files: Vec<String> = targets
            .keys()
            .filter(|other| reaches(file, other) && reaches(other, file))
            .map(|other| (*other).to_owned())
            .collect();
        seen.extend(targets.keys().copied().filter(|other| files.iter().any(|file| file == other)));
        let mut inside: Vec<Import> = imports
            .iter()
            .filter(|import| {
                import.from != import.to && files.contains(&import.from) && files.contains(&import.to)
            })
            .cloned()
            .collect();
        inside.sort();
        inside.dedup_by(|a, b| a.from == b.from && a.to == b.to);
        circles.push(Circle { files, imports: inside });
    }
    circles
}

fn reachable<'a>(file: &'a str, targets: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![file];
    while let Some(next) = waiting.pop() {
        for target in targets.get(next).into_iter().flatten() {
            if found.insert(*target) {
                waiting.push(target);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Import, find};

    #[test]
    fn circles_are_found_and_chains_are_not() {
        let imports: Vec<Import> = ["ab", "bc", "ca", "cd", "de", "fg", "gf", "hh"]
            .iter()
            .map(|pair| Import { from: pair[..1].to_owned(), to: pair[1..].to_owned(), line: 1 })
            .collect();
        let circles = find(&imports);
        let files: Vec<String> = circles.iter().map(|circle| circle.files.concat()).collect();
        assert_eq!(files, ["abc", "fg"]);
        assert_eq!(circles[0].imports.len(), 3);
    }
}
