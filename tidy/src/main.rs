//! `cargo xtask tidy`: checks the rules of ARCHITECTURE.md. The tests of this crate check them as well.

mod circles;
mod crates;
mod python_imports;
mod rules;
mod rust_imports;
mod tree;

use std::path::PathBuf;
use std::process::ExitCode;
use tree::{Fault, File};

/// Exit code for a tree that cannot be read.
const USAGE: u8 = 2;

/// Checks the tree at the path given as the argument, and prints what is wrong.
fn main() -> ExitCode {
    let root = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let files = match tree::read(&root) {
        Ok(files) => files,
        Err(error) => {
            eprintln!("error: failed to read the tree at {}: {error}", root.display());
            return USAGE.into();
        }
    };
    let faults = check(&files);
    for fault in &faults {
        eprintln!("{fault}");
    }
    eprintln!("tidy: {} files, {} faults", files.len(), faults.len());
    u8::from(!faults.is_empty()).into()
}

fn check(files: &[File]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in files {
        rules::check(file, files, &mut faults);
    }
    crates::check(files, &mut faults);
    faults
}

#[cfg(test)]
mod tests {
    use super::{File, check};
    use std::path::Path;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn this_tree_is_tidy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tidy is in the workspace");
        let faults = check(&super::tree::read(root).expect("the tree can be read"));
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(faults.is_empty(), "{}", lines.join("\n"));
    }

    #[test]
    fn every_rule_finds_what_it_forbids() {
        let long = "x\n".repeat(601);
        let table = [
            (file("harness/src/a.rs", &long), "split the file"),
            (file("harness/src/utils.rs", ""), "says nothing"),
            (file("domain/src/a.rs", "use std::fs;"), "domain must not use"),
            (file("harness/src/a.rs", "let x = unsafe { f() };"), "unsafe is allowed in runner/src/engine/"),
            (file("README.md", "[gone](docs/gone.md)"), "is broken"),
            (
                file(
                    "protocol/Cargo.toml",
                    "[package]\nname = \"protocol\"\n[dependencies]\nanyhow = \"1\"\n",
                ),
                "must not depend on anyhow",
            ),
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
                "[package]\nname = \"domain\"\n[dependencies]\nserde.workspace = true\n\n[dev-dependencies]\nproptest = \"1\"\n",
            ),
        ];
        assert_eq!(check(&files), Vec::new());
    }

    #[test]
    fn planted_arrows_are_found() {
        let head = "| crate | may use |\n|---|---|\n";
        let manifest = |name: &str, uses: &str| {
            let text = format!("[package]\nname = \"{name}\"\n\n[dependencies]\n{uses}");
            file(&format!("harness/{name}/Cargo.toml"), &text)
        };
        let table = [
            ("| `a` | `b` |\n| `b` | – |\n", "b.workspace = true\n", None),
            ("| `a` | – |\n| `b` | – |\n", "b.workspace = true\n", Some("a must not use b")),
            ("| `a` | `b` |\n| `b` | – |\n", "", Some("a does not depend on b")),
            ("| `a` | `b` |\n", "b.workspace = true\n", Some("the crate b has no row")),
        ];
        for (rows, uses, expected) in table {
            let architecture = file("ARCHITECTURE.md", &format!("{head}{rows}"));
            let faults = check(&[architecture, manifest("a", uses), manifest("b", "")]);
            let rules: Vec<&str> = faults.iter().map(|fault| fault.rule.as_str()).collect();
            assert_eq!(rules.len(), usize::from(expected.is_some()), "{rows}: {rules:?}");
            assert!(expected.is_none_or(|expected| rules[0].contains(expected)), "{rows}: {rules:?}");
        }
    }

    #[test]
    fn planted_circles_are_found() {
        let files = [
            file("a/Cargo.toml", "[package]\nname = \"a\"\n"),
            file("a/src/lib.rs", "mod b; mod c;"),
            file("a/src/b.rs", "use crate::c::C;\npub struct B;"),
            file("a/src/c.rs", "use crate::b::B;\npub struct C;"),
            file("compiler/edgepipe_compiler/d.py", "from . import e\n"),
            file("compiler/edgepipe_compiler/e.py", "def f():\n    from .d import g\n"),
        ];
        let faults: Vec<String> = check(&files).iter().map(ToString::to_string).collect();
        assert_eq!(
            faults,
            [
                "a/src/b.rs:1: imports a/src/c.rs, in an import circle of 2 files",
                "a/src/c.rs:1: imports a/src/b.rs, in an import circle of 2 files",
                "compiler/edgepipe_compiler/d.py:1: imports compiler/edgepipe_compiler/e.py, in an import circle of 2 files",
                "compiler/edgepipe_compiler/e.py:2: imports compiler/edgepipe_compiler/d.py, in an import circle of 2 files",
            ]
        );
    }
}
