//! Arrows between crates, and imports between the files inside each crate and the Python package.

use crate::circles::{self, Import};
use crate::tree::{Fault, File};
use crate::{python_imports, rust_imports};
use std::collections::BTreeMap;

/// The Python package that is checked for circles.
const PYTHON_PACKAGE: &str = "compiler/edgepipe_compiler";
/// First cells of the table in ARCHITECTURE.md that lists the arrows.
const TABLE_HEAD: &str = "| crate | may use |";
/// What some crates may depend on outside the workspace.
const EXTERNAL: [(&str, &[&str]); 3] = [
    ("domain", &["schemars", "serde", "strsim", "thiserror"]),
    ("protocol", &["serde"]),
    (
        "runner",
        &[
            "hdrhistogram",
            "libc",
            "libloading",
            "ort",
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

/// A crate of the workspace.
struct Package<'a> {
    name: String,
    folder: &'a str,
    manifest: &'a File,
}

/// Checks arrows, dependencies and import circles.
pub(crate) fn check(files: &[File], faults: &mut Vec<Fault>) {
    let packages = packages(files);
    check_arrows(&packages, files, faults);
    check_external(&packages, faults);
    check_documented(&packages, files, faults);
    for package in &packages {
        check_rust_circles(package, files, faults);
    }
    let python = files.iter().map(|file| (file.path.as_str(), file.text.as_str()));
    report_circles(&python_imports::of_package(PYTHON_PACKAGE, python), faults);
}

fn packages(files: &[File]) -> Vec<Package<'_>> {
    let read = |manifest: &File| {
        let name = manifest.text.split_once("[package]\nname = \"")?.1.split('"').next()?;
        Some(name.to_owned())
    };
    files
        .iter()
        .filter_map(|manifest| Some((manifest, manifest.path.strip_suffix("/Cargo.toml")?)))
        .filter_map(|(manifest, folder)| Some(Package { name: read(manifest)?, folder, manifest }))
        .collect()
}

/// The arrows in the table of ARCHITECTURE.md: for each crate its line and what it may use.
fn table(architecture: &File) -> BTreeMap<&str, (usize, Vec<&str>)> {
    architecture
        .lines()
        .skip_while(|(_, line)| !line.starts_with(TABLE_HEAD))
        .skip(2)
        .take_while(|(_, line)| line.starts_with('|'))
        .filter_map(|(number, line)| {
            let mut cells = line.split('|').skip(1);
            Some((*quoted(cells.next()?).first()?, (number, quoted(cells.next()?))))
        })
        .collect()
}

/// What is between backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Each arrow between crates is in the table, and each arrow of the table exists.
fn check_arrows(packages: &[Package<'_>], files: &[File], faults: &mut Vec<Fault>) {
    let Some(architecture) = files.iter().find(|file| file.path == "ARCHITECTURE.md") else { return };
    let table = table(architecture);
    for package in packages {
        let Some((row, allowed)) = table.get(package.name.as_str()) else {
            let rule = format!(
                "the crate {} has no row in the table \"{TABLE_HEAD}\" of ARCHITECTURE.md",
                package.name
            );
            faults.push(package.manifest.fault(1, rule));
            continue;
        };
        let used: Vec<(usize, String)> = dependencies(package.manifest, "[dependencies]")
            .into_iter()
            .filter(|(_, name)| packages.iter().any(|package| package.name == *name))
            .collect();
        for (line, name) in &used {
            if !allowed.contains(&name.as_str()) {
                let rule = format!(
                    "{} must not use {name}; ARCHITECTURE.md allows {}",
                    package.name,
                    listed(allowed)
                );
                faults.push(package.manifest.fault(*line, rule));
            }
        }
        for name in allowed {
            if !used.iter().any(|(_, used)| used == name) {
                let rule = format!("{} does not depend on {name}; delete the arrow", package.name);
                faults.push(architecture.fault(*row, rule));
            }
        }
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "no crate of the workspace".to_owned() } else { names.join(", ") }
}

fn check_external(packages: &[Package<'_>], faults: &mut Vec<Fault>) {
    for (name, allowed) in EXTERNAL {
        let Some(package) = packages.iter().find(|package| package.name == name) else { continue };
        for (line, dependency) in dependencies(package.manifest, "[dependencies]") {
            let is_ours = packages.iter().any(|package| package.name == dependency);
            if !is_ours && !allowed.contains(&dependency.as_str()) {
                let rule = format!("{name} must not depend on {dependency}, only on {}", allowed.join(", "));
                faults.push(package.manifest.fault(line, rule));
            }
        }
    }
}

/// Each dependency of the workspace has a line in ARCHITECTURE.md.
fn check_documented(packages: &[Package<'_>], files: &[File], faults: &mut Vec<Fault>) {
    let Some(root) = files.iter().find(|file| file.path == "Cargo.toml") else { return };
    let architecture = files.iter().find(|file| file.path == "ARCHITECTURE.md");
    let architecture = architecture.map_or("", |file| file.text.as_str());
    for (line, dependency) in dependencies(root, "[workspace.dependencies]") {
        let is_ours = packages.iter().any(|package| package.name == dependency);
        if !is_ours && !architecture.contains(&format!("`{dependency}`")) {
            let rule =
                format!("the dependency {dependency} has no line in ARCHITECTURE.md (as `{dependency}`)");
            faults.push(root.fault(line, rule));
        }
    }
}

/// Names in a section of a manifest, with their lines.
fn dependencies(manifest: &File, section: &str) -> Vec<(usize, String)> {
    let mut is_inside = false;
    let mut found = Vec::new();
    for (number, line) in manifest.lines() {
        if line.starts_with('[') {
            is_inside = line.trim() == section;
        } else if is_inside && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or("").trim();
            if !name.is_empty() {
                found.push((number, name.to_owned()));
            }
        }
    }
    found
}

fn check_rust_circles(package: &Package<'_>, files: &[File], faults: &mut Vec<Fault>) {
    let read = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.text.as_str());
    for root in ["lib.rs", "main.rs"] {
        match rust_imports::of_crate(&format!("{}/src/{root}", package.folder), read) {
            Ok(imports) => report_circles(&imports, faults),
            Err((path, error)) => {
                faults.push(Fault { path, line: 1, rule: format!("failed to parse: {error}") });
            }
        }
    }
}

/// One fault for each import inside a circle, so that every line that could change is listed.
fn report_circles(imports: &[Import], faults: &mut Vec<Fault>) {
    for circle in circles::find(imports) {
        let size = circle.files.len();
        for Import { from, to, line } in circle.imports {
            faults.push(Fault {
                rule: format!("imports {to}, in an import circle of {size} files"),
                path: from,
                line,
            });
        }
    }
}
