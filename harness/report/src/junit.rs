//! JUnit XML: rows as tests, for CI systems.

use crate::cells;
use analysis::{Report, Row};
use domain::Severity;
use std::fmt::Write as _;

/// A test for each schedule of a run, which fails if its figures do not count.
pub(super) fn render(report: &Report) -> String {
    let void = report.rows.iter().filter(|row| row.is_void()).count();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "<testsuites>\n  <testsuite name=\"{}\" tests=\"{}\" failures=\"{void}\" errors=\"0\">",
        escaped(&format!("edgepipe {} on {}", report.run.experiment, cells::board(&report.run))),
        report.rows.len()
    );
    for row in &report.rows {
        let case = format!(
            "    <testcase classname=\"{}\" name=\"{}\"",
            escaped(&row.network),
            escaped(&cells::label(row))
        );
        let figures = escaped(&figures(row));
        let _ = if row.is_void() {
            writeln!(
                out,
                "{case}>\n      <failure message=\"{}\"/>\n      <system-out>{figures}</system-out>\n    </testcase>",
                escaped(&reasons(row))
            )
        } else {
            writeln!(out, "{case}>\n      <system-out>{figures}</system-out>\n    </testcase>")
        };
    }
    out += "  </testsuite>\n</testsuites>\n";
    out
}

fn figures(row: &Row) -> String {
    let fps = row.throughput_fps.as_ref().map(|fps| format!("{} frames/s", cells::with_precision(fps)));
    let gain = cells::gain(row).map(|gain| format!("gain {gain} over the best single processor"));
    let trials =
        format!("trials: {} used, {} void, {} failed", row.trials, row.trials_void, row.trials_failed);
    let words: Vec<String> = fps.into_iter().chain(gain).chain([trials]).collect();
    words.join("; ")
}

fn reasons(row: &Row) -> String {
    let void = row.reasons.iter().filter(|reason| reason.severity == Severity::Void);
    let reasons: Vec<&str> = void.map(|reason| reason.text.as_str()).collect();
    if reasons.is_empty() { "no valid trial".to_owned() } else { reasons.join("; ") }
}

/// Text within an attribute or element.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            // XML 1.0 has no way to write these.
            control if control.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out
}
