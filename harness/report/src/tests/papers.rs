//! The paper's table as Markdown and LaTeX.

use super::{Report, Scenario, optimization, pages, skipped, troubled};
use crate::{Format, OptimizeFormat};
use std::process::Command;

#[test]
fn paper() {
    insta::assert_snapshot!(crate::render(&Scenario::sound().report(), Format::Paper, false));
}

#[test]
fn paper_of_a_troubled_run() {
    insta::assert_snapshot!(crate::render(&troubled(), Format::Paper, false));
}

#[test]
fn latex() {
    insta::assert_snapshot!(crate::render(&pages::with_energy(), Format::Latex, false));
}

/// A report whose names are full of what LaTeX takes for commands.
fn nasty() -> Report {
    let mut report = pages::hostile();
    let name = "re_s&n%e#t$^~\\18{}|<>\"'`[x] été 網 \u{7} --x";
    let old = report.networks[0].name.clone();
    name.clone_into(&mut report.networks[0].name);
    for row in report.rows.iter_mut().filter(|row| row.network == old) {
        name.clone_into(&mut row.network);
    }
    report
}

#[test]
fn latex_has_as_many_cells_in_every_line_and_balanced_braces() {
    for report in [Scenario::sound().report(), troubled(), pages::zoo(), nasty(), pages::with_energy()] {
        let text = crate::render(&report, Format::Latex, false);
        let cells = |line: &str| line.replace("\\&", "").matches('&').count();
        let body = text.split("\\toprule\n").nth(1).unwrap().split("\\bottomrule").next().unwrap();
        let lines: Vec<&str> = body.lines().filter(|line| *line != "\\midrule").collect();
        assert_eq!(lines.len(), report.networks.len() + 1);
        for line in &lines {
            assert_eq!(cells(line), cells(lines[0]), "{line}");
            assert!(line.ends_with(" \\\\"), "{line}");
        }
        let plain = text.replace("\\{", "").replace("\\}", "");
        assert_eq!(plain.matches('{').count(), plain.matches('}').count());
        assert!(
            text.contains(&crate::render(&report, Format::LatexTable, false)),
            "the document holds the table"
        );
    }
}

#[test]
#[ignore = "needs pdflatex; run by cargo xtask test"]
fn latex_compiles() {
    if skipped("latex") {
        eprintln!("SKIPPED by EDGEPIPE_SKIP=latex: no table was compiled");
        return;
    }
    let reports = [Scenario::sound().report(), troubled(), pages::zoo(), nasty(), pages::with_energy()];
    let mut documents: Vec<String> =
        reports.iter().map(|report| crate::render(report, Format::Latex, false)).collect();
    documents.push(crate::render_optimization(&optimization::result(), OptimizeFormat::Latex));
    for document in documents {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("table.tex"), document).unwrap();
        let output = Command::new("pdflatex")
            .args(["-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "table.tex"])
            .current_dir(folder.path())
            .output()
            .expect(
                "pdflatex could not be started: install it (Debian: apt-get install texlive-latex-recommended), or \
                 leave this out with EDGEPIPE_SKIP=latex",
            );
        let log = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{log}");
        assert!(!log.contains("Missing character") && !log.contains("LaTeX Warning: Command"), "{log}");
        let pdf = std::fs::read(folder.path().join("table.pdf")).unwrap();
        assert!(pdf.starts_with(b"%PDF"));
    }
}
