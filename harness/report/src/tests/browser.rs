//! Pages in a real browser: nothing on its console, nothing that axe-core finds, in light and dark and on a phone.

use super::{Report, Scenario, optimization, pages, troubled};
use crate::{Format, OptimizeFormat};
use std::path::PathBuf;
use std::process::Command;

/// Every page, by the name of its file.
fn all() -> Vec<(&'static str, Report)> {
    let (mut sound, store, _place) = Scenario::sound().stored();
    sound.read_timelines(&store).unwrap();
    vec![
        ("sound", sound),
        ("small", Scenario::small().report()),
        ("troubled", troubled()),
        ("energy", pages::with_energy()),
        ("zoo", pages::zoo()),
        ("hostile", pages::hostile()),
        ("empty", empty()),
    ]
}

/// A run that was cut off before its first trial.
fn empty() -> Report {
    let mut scenario = Scenario::small();
    scenario.records.clear();
    scenario.report()
}

#[test]
#[ignore = "needs a browser; run by cargo xtask test"]
fn pages_hold_before_a_browser_and_axe() {
    if super::skipped("browser") {
        eprintln!("SKIPPED by EDGEPIPE_SKIP=browser: no page was opened in a browser");
        return;
    }
    let Some(folder) = std::env::var_os("EDGEPIPE_BROWSER").map(PathBuf::from) else {
        panic!(
            "EDGEPIPE_BROWSER is not set: run this with `cargo xtask test`, or leave it out with EDGEPIPE_SKIP=browser"
        );
    };
    let pages = folder.join("pages");
    std::fs::create_dir_all(&pages).unwrap();
    let mut command = Command::new("node");
    command.arg(folder.join("check.mjs"));
    let mut texts: Vec<(&str, String)> =
        all().iter().map(|(name, report)| (*name, crate::render(report, Format::Html, false))).collect();
    texts.push(("front", crate::render_optimization(&optimization::result(), OptimizeFormat::Html)));
    for (name, text) in &texts {
        let file = pages.join(name).with_extension("html");
        std::fs::write(&file, text).unwrap();
        command.arg(file);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!("{said}");
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(&format!("{} pages", texts.len())), "{said}");
}
