//! The rules of ARCHITECTURE.md as tests: `cargo xtask tidy`, and part of `cargo test`.

use std::fmt;
use std::fs;
use std::path::Path;

/// Longest source file, in lines.
const LONGEST: usize = 600;
/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 5] = ["utils", "util", "common", "helpers", "misc"];
/// What the pure crate may not name.
const IMPURE: [&str; 8] = [
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::io",
    "std::thread",
    "Instant::now",
    "SystemTime",
];
/// What each crate may depend on, where that is limited.
const ALLOWED: [(&str, &[&str]); 3] = [
    ("domain", &["schemars", "serde", "thiserror"]),
    ("protocol", &["serde"]),
    (
        "runner",
        &[
            "libc",
            "libloading",
            "ort",
            "protocol",
            "rand_xoshiro",
            "rustix",
            "serde",
            "serde_json",
            "signal-hook",
            "thiserror",
            "tvm-ffi",
            "tvm-ffi-sys",
        ],
    ),
];

/// A file of the tree, by its path below the root.
struct File {
    path: String,
    text: String,
}

/// A broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    path: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.path, self.line, self.rule)
    }
}

/// Checks the tree at `root`, prints what is wrong and returns the exit code.
pub(crate) fn run(root: &Path) -> u8 {
    let files = match read_tree(root) {
        Ok(files) => files,
        Err(error) => {
            eprintln!("error: failed to read the tree at {}: {error}", root.display());
            return crate::USAGE;
        }
    };
    let faults = check(&files);
    for fault in &faults {
        eprintln!("{fault}");
    }
    eprintln!("tidy: {} files, {} faults", files.len(), faults.len());
    u8::from(!faults.is_empty())
}

fn check(files: &[File]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in files {
        check_size_and_name(file, &mut faults);
        check_purity(file, &mut faults);
        check_unsafe(file, &mut faults);
        check_links(file, files, &mut faults);
    }
    check_dependencies(files, &mut faults);
    faults
}

fn is_source(file: &File) -> bool {
    has_extension(file, "rs") || has_extension(file, "py")
}

fn has_extension(file: &File, wanted: &str) -> bool {
    Path::new(&file.path).extension().is_some_and(|extension| extension == wanted)
}

fn check_size_and_name(file: &File, faults: &mut Vec<Fault>) {
    if !is_source(file) {
        return;
    }
    let lines = file.text.lines().count();
    if lines > LONGEST {
        faults.push(fault(
            file,
            lines,
            format!("{lines} lines, more than {LONGEST}: is there a second noun in it?"),
        ));
    }
    for part in file.path.split(['/', '.']) {
        if EMPTY_NAMES.contains(&part) {
            faults.push(fault(file, 1, format!("\"{part}\" names nothing: call it by the noun inside")));
        }
    }
}

fn check_purity(file: &File, faults: &mut Vec<Fault>) {
    if !file.path.starts_with("domain/src/") {
        return;
    }
    for (number, line) in numbered(file) {
        for word in IMPURE {
            if line.contains(word) {
                faults.push(fault(file, number, format!("domain is pure, found {word}")));
            }
        }
    }
}

fn check_unsafe(file: &File, faults: &mut Vec<Fault>) {
    let engine = file.path.starts_with("runner/src/engine/") || file.path == "xtask/src/tidy.rs";
    if engine || !has_extension(file, "rs") {
        return;
    }
    for (number, line) in numbered(file) {
        let code = line.split("//").next().unwrap_or("");
        let opens = ["unsafe {", "unsafe impl", "unsafe fn", "unsafe extern"];
        if opens.iter().any(|word| code.contains(word)) {
            faults.push(fault(file, number, "unsafe stands in runner/src/engine only".to_owned()));
        }
    }
}

/// Relative links of Markdown files lead somewhere.
fn check_links(file: &File, files: &[File], faults: &mut Vec<Fault>) {
    if !has_extension(file, "md") {
        return;
    }
    for (number, line) in numbered(file) {
        for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or("");
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let path = normal(&format!("{folder}/{target}"));
            let folder_of = format!("{path}/");
            if !files.iter().any(|other| other.path == path || other.path.starts_with(&folder_of)) {
                faults.push(fault(file, number, format!("the link to {target} leads nowhere")));
            }
        }
    }
}

/// `a/b/../c/./d` as `a/c/d`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    parts.join("/")
}

/// Dependency directions, and a line in ARCHITECTURE.md for every dependency of the workspace.
fn check_dependencies(files: &[File], faults: &mut Vec<Fault>) {
    for (name, allowed) in ALLOWED {
        let path = format!("{name}/Cargo.toml");
        let Some(file) = files.iter().find(|file| file.path == path) else { continue };
        for (number, dependency) in dependencies(file, "[dependencies]") {
            if !allowed.contains(&dependency.as_str()) {
                let rule = format!("{name} may not depend on {dependency}, only on {}", allowed.join(", "));
                faults.push(fault(file, number, rule));
            }
        }
    }
    let Some(root) = files.iter().find(|file| file.path == "Cargo.toml") else { return };
    let architecture =
        files.iter().find(|file| file.path == "ARCHITECTURE.md").map_or("", |file| file.text.as_str());
    for (number, dependency) in dependencies(root, "[workspace.dependencies]") {
        let ours = files.iter().any(|file| file.path == format!("{dependency}/Cargo.toml"));
        if !ours && !architecture.contains(&format!("`{dependency}`")) {
            let rule =
                format!("the dependency {dependency} has no line in ARCHITECTURE.md (as `{dependency}`)");
            faults.push(fault(root, number, rule));
        }
    }
}

fn dependencies(file: &File, section: &str) -> Vec<(usize, String)> {
    let mut inside = false;
    let mut found = Vec::new();
    for (number, line) in numbered(file) {
        if line.starts_with('[') {
            inside = line.trim() == section;
        } else if inside && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or("").trim();
            if !name.is_empty() {
                found.push((number, name.to_owned()));
            }
        }
    }
    found
}

fn numbered(file: &File) -> impl Iterator<Item = (usize, &str)> {
    file.text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn fault(file: &File, line: usize, rule: String) -> Fault {
    Fault { path: file.path.clone(), line, rule }
}

/// All text files of the tree, without what git ignores by .gitignore's folders.
fn read_tree(root: &Path) -> std::io::Result<Vec<File>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let skipped = ["target", ".git", "__pycache__", ".pytest_cache", ".ruff_cache"];
            if entry.file_type()?.is_dir() {
                if !skipped.iter().any(|skip| name == *skip) {
                    folders.push(path);
                }
                continue;
            }
            let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            // Binary files have no lines to check; they count as present.
            let text =
                fs::read(&path).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
            files.push(File { path: relative, text });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn this_tree_is_tidy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
        let faults = check(&read_tree(root).expect("the tree can be read"));
        let lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
        assert!(faults.is_empty(), "{}", lines.join("\n"));
    }

    #[test]
    fn every_rule_finds_what_it_forbids() {
        let long = "x\n".repeat(LONGEST + 1);
        let table = [
            (file("harness/src/a.rs", &long), "second noun"),
            (file("harness/src/utils.rs", ""), "names nothing"),
            (file("domain/src/a.rs", "use std::fs;"), "domain is pure"),
            (file("harness/src/a.rs", "let x = unsafe { f() };"), "runner/src/engine only"),
            (file("README.md", "[gone](docs/gone.md)"), "leads nowhere"),
            (file("protocol/Cargo.toml", "[dependencies]\nanyhow = \"1\"\n"), "may not depend on anyhow"),
            (
                file("Cargo.toml", "[workspace.dependencies]\nleft-pad = \"1\"\n"),
                "no line in ARCHITECTURE.md",
            ),
        ];
        for (file, expected) in table {
            let path = file.path.clone();
            let faults = check(&[file]);
            assert!(faults.iter().any(|fault| fault.rule.contains(expected)), "{path}: {faults:?}");
        }
    }

    #[test]
    fn what_is_allowed_passes() {
        let files = [
            file("README.md", "[here](configs/a.yaml#top) [web](https://example.org) [up](#up)"),
            file("configs/a.yaml", ""),
            file("runner/src/engine/call.rs", "unsafe { f() }"),
            file(
                "domain/Cargo.toml",
                "[dependencies]\nserde.workspace = true\n\n[dev-dependencies]\nproptest = \"1\"\n",
            ),
        ];
        assert_eq!(check(&files), Vec::new());
    }
}
