//! Rules that look at one file: length, name, `unsafe`, purity of `domain`, links.

use crate::tree::{Fault, File};

/// Longest source file, in lines.
const LONGEST: usize = 600;
/// Names that say nothing about the content.
const EMPTY_NAMES: [&str; 5] = ["utils", "util", "common", "helpers", "misc"];
/// What `domain` must not use: it is pure.
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
/// Where `unsafe` is allowed: what calls foreign code; the CUDA driver's stand-in, whose interface is pointers; and this
/// crate, which names the word.
const UNSAFE: [&str; 3] = ["runner/src/engine/", "cuda-standin/", "tidy/src/"];

/// Checks the rules that look at one file.
pub(crate) fn check(file: &File, files: &[File], faults: &mut Vec<Fault>) {
    check_size_and_name(file, faults);
    check_purity(file, faults);
    check_unsafe(file, faults);
    check_links(file, files, faults);
}

fn check_size_and_name(file: &File, faults: &mut Vec<Fault>) {
    if !file.has_extension("rs") && !file.has_extension("py") {
        return;
    }
    let lines = file.text.lines().count();
    if lines > LONGEST {
        faults.push(file.fault(lines, format!("{lines} lines, more than {LONGEST}: split the file")));
    }
    for part in file.path.split(['/', '.']) {
        if EMPTY_NAMES.contains(&part) {
            faults.push(file.fault(1, format!("\"{part}\" says nothing: name the file after its content")));
        }
    }
}

fn check_purity(file: &File, faults: &mut Vec<Fault>) {
    if !file.path.starts_with("domain/src/") {
        return;
    }
    for (number, line) in file.lines() {
        for word in IMPURE {
            if line.contains(word) {
                faults.push(file.fault(number, format!("domain must not use {word}")));
            }
        }
    }
}

fn check_unsafe(file: &File, faults: &mut Vec<Fault>) {
    let is_exempt = UNSAFE.iter().any(|folder| file.path.starts_with(folder));
    if is_exempt || !file.has_extension("rs") {
        return;
    }
    for (number, line) in file.lines() {
        let code = line.split("//").next().unwrap_or("");
        let opens = ["unsafe {", "unsafe impl", "unsafe fn", "unsafe extern"];
        if opens.iter().any(|word| code.contains(word)) {
            faults.push(file.fault(number, format!("unsafe is allowed in {} only", UNSAFE.join(", "))));
        }
    }
}

/// Relative links of Markdown files lead somewhere.
fn check_links(file: &File, files: &[File], faults: &mut Vec<Fault>) {
    if !file.has_extension("md") {
        return;
    }
    for (number, line) in file.lines() {
        for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or("");
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let path = normal(&format!("{folder}/{target}"));
            let folder_of = format!("{path}/");
            if !files.iter().any(|other| other.path == path || other.path.starts_with(&folder_of)) {
                faults.push(file.fault(number, format!("the link to {target} is broken")));
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
