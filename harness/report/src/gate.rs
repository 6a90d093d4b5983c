//! The result of a check as text.

#[cfg(test)]
mod tests;

use crate::junit::escaped as xml;
use analysis::gate::{Baseline, CheckReport, CheckedRow, GateVerdict};
use clap::ValueEnum;
use domain::gate::Ruling;
use host::progress;
use std::fmt::Write as _;

/// A baseline schedule with fewer valid trials causes a warning.
const FEW: usize = 4;

/// A warning about schedules with few trials.
pub fn few_trials(baseline: &Baseline) -> Option<String> {
    let rows = &baseline.rows;
    let few: Vec<String> = rows
        .iter()
        .filter(|row| row.trials.len() < FEW)
        .map(|row| format!("{} on {} ({})", row.network, row.schedule, row.trials.len()))
        .collect();
    (!few.is_empty()).then(|| {
        format!(
            "{} of {} schedules have fewer than {FEW} valid trials: {}; a check can detect little with so few; measure \
             again with more trials",
            few.len(),
            rows.len(),
            progress::several(&few)
        )
    })
}

/// Formats of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// For reading.
    Terminal,
    /// For a comment on a pull request.
    Markdown,
    /// JUnit XML, one test per row, for CI systems.
    Junit,
    /// For programs; its schema is results/check.schema.json.
    Json,
}

/// The rulings in display order, with their titles.
const SECTIONS: [(Ruling, &str); 5] = [
    (Ruling::Regression, "Regressions"),
    (
        Ruling::Suspect,
        "Suspects: worse at 95 % confidence, possibly by chance, given the number of comparisons",
    ),
    (Ruling::Improvement, "Improvements"),
    (Ruling::Inconclusive, "Inconclusive"),
    (Ruling::Unchanged, "Unchanged"),
];

/// More schedules with the same reason share one line.
const MOST_APART: usize = 4;

/// The report as text that ends with a line end.
pub(crate) fn render(check: &CheckReport, format: CheckFormat) -> String {
    match format {
        CheckFormat::Terminal => terminal(check),
        CheckFormat::Markdown => markdown(check),
        CheckFormat::Junit => junit(check),
        // Every number is finite and every key a string, so there is nothing to fail.
        CheckFormat::Json => {
            serde_json::to_string_pretty(check).map_or_else(|error| error.to_string(), |text| text + "\n")
        }
    }
}

/// The verdict in a sentence.
fn sentence(check: &CheckReport) -> String {
    let count = |ruling| check.rows.iter().filter(|row| row.ruling == ruling).count();
    let regressions = count(Ruling::Regression);
    let word = match check.verdict {
        GateVerdict::Pass => "passed",
        GateVerdict::Fail => "FAILED",
        GateVerdict::Incomplete => "INCOMPLETE",
    };
    let missing = check.not_compared.iter().filter(|missed| missed.gap).count()
        + check.rows.iter().filter(|row| row.is_unchecked()).count();
    let missing = if missing > 0 { format!(", {missing} not checked") } else { String::new() };
    format!(
        "{word} against {}: {regressions} of {} figures regressed beyond the threshold, {} improved, {} unchanged, \
         {} inconclusive{missing}",
        check.baseline,
        check.rows.len(),
        count(Ruling::Improvement),
        count(Ruling::Unchanged),
        count(Ruling::Inconclusive) + count(Ruling::Suspect),
    )
}

fn method(check: &CheckReport) -> String {
    let source = if check.between_runs_estimated {
        "estimated from the runs of the baseline"
    } else {
        "from the thresholds; larger for a row whose trials vary more within a run"
    };
    format!(
        "95 % intervals; spread between runs ±{:.1} % ({source}); false alarms in at most {} % of checks",
        100.0 * check.between_runs,
        100.0 * check.false_alarms
    )
}

fn of(check: &CheckReport, ruling: Ruling) -> impl Iterator<Item = &CheckedRow> {
    check.rows.iter().filter(move |row| row.ruling == ruling)
}

/// Schedules that could not be compared, with the reason; many with the same reason are one entry.
fn missed(check: &CheckReport) -> Vec<(String, &str)> {
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    for missed in &check.not_compared {
        let schedule = format!("{} {}", missed.network, missed.schedule);
        match groups.iter_mut().find(|(reason, _)| *reason == missed.reason) {
            Some((_, schedules)) => schedules.push(schedule),
            None => groups.push((&missed.reason, vec![schedule])),
        }
    }
    let mut entries = Vec::new();
    for (reason, schedules) in groups {
        if schedules.len() > MOST_APART {
            entries
                .push((format!("{} schedules ({})", schedules.len(), progress::several(&schedules)), reason));
        } else {
            entries.extend(schedules.into_iter().map(|schedule| (schedule, reason)));
        }
    }
    entries
}

fn terminal(check: &CheckReport) -> String {
    let mut out = format!("{}\nrun {}; {}\n", sentence(check), check.run, method(check));
    let names: Vec<String> = check.rows.iter().map(name).collect();
    let room = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (ruling, title) in SECTIONS {
        if of(check, ruling).next().is_none() {
            continue;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\n{title}");
        for row in of(check, ruling) {
            let change = format!("{} ({} → {})", percent(row), number(row.before), number(row.now));
            let _ = writeln!(out, "  {:<room$}  {change}{}", name(row), advice(row));
        }
    }
    if !check.not_compared.is_empty() {
        out += "\nNot compared\n";
        for (schedules, reason) in missed(check) {
            let _ = writeln!(out, "  {schedules}: {reason}");
        }
    }
    for difference in &check.differences {
        let _ = writeln!(out, "\nallowed difference: {difference}");
    }
    out
}

fn markdown(check: &CheckReport) -> String {
    let mark = match check.verdict {
        GateVerdict::Pass => "✅",
        GateVerdict::Fail => "❌",
        GateVerdict::Incomplete => "⚠️",
    };
    let mut out = format!("### {mark} {}\n\n", escaped(&sentence(check)));
    for (ruling, title) in SECTIONS {
        let rows: Vec<&CheckedRow> = of(check, ruling).collect();
        if rows.is_empty() {
            continue;
        }
        let folded = matches!(ruling, Ruling::Unchanged | Ruling::Inconclusive);
        if folded {
            let _ = write!(out, "<details><summary>{title}: {}</summary>\n\n", rows.len());
        } else {
            let _ = write!(out, "**{title}**\n\n");
        }
        out += "| network | schedule | measure | before | now | change | threshold | |\n";
        out += "|---|---|---|--:|--:|--:|--:|---|\n";
        for row in rows {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} % | {} |",
                escaped(&row.network),
                escaped(&row.schedule),
                row.measure,
                number(row.before),
                number(row.now),
                percent(row),
                digits(100.0 * row.threshold),
                escaped(advice(row).trim_start_matches([';', ' ']))
            );
        }
        out += if folded { "\n</details>\n\n" } else { "\n" };
    }
    for (schedules, reason) in missed(check) {
        let _ = writeln!(out, "- not compared: {}: {}", escaped(&schedules), escaped(reason));
    }
    for difference in &check.differences {
        let _ = writeln!(out, "- allowed difference: {}", escaped(&difference.to_string()));
    }
    let _ = writeln!(out, "\nRun {}; {}.", check.run, method(check));
    out
}

fn junit(check: &CheckReport) -> String {
    let failures = of(check, Ruling::Regression).count();
    let gaps: Vec<_> = check.not_compared.iter().filter(|missed| missed.gap).collect();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        out,
        "<testsuites>\n  <testsuite name=\"edgepipe against {}\" tests=\"{}\" failures=\"{failures}\" errors=\"{}\">",
        xml(&check.baseline),
        check.rows.len() + gaps.len(),
        gaps.len()
    );
    for row in &check.rows {
        let text = format!(
            "{}, {} before, {} now, threshold {} %",
            percent(row),
            number(row.before),
            number(row.now),
            digits(100.0 * row.threshold)
        );
        let case = format!(
            "    <testcase classname=\"{}\" name=\"{}\"",
            xml(&row.network),
            xml(&format!("{} {}", row.schedule, row.measure))
        );
        let _ = if row.ruling == Ruling::Regression {
            writeln!(out, "{case}>\n      <failure message=\"{}\"/>\n    </testcase>", xml(&text))
        } else {
            let text = format!("{}: {text}{}", word(row.ruling), advice(row));
            writeln!(out, "{case}>\n      <system-out>{}</system-out>\n    </testcase>", xml(&text))
        };
    }
    for missed in gaps {
        let _ = writeln!(
            out,
            "    <testcase classname=\"{}\" name=\"{}\">\n      <error message=\"{}\"/>\n    </testcase>",
            xml(&missed.network),
            xml(&missed.schedule),
            xml(&missed.reason)
        );
    }
    out += "  </testsuite>\n</testsuites>\n";
    out
}

fn word(ruling: Ruling) -> &'static str {
    match ruling {
        Ruling::Regression => "regression",
        Ruling::Suspect => "suspect",
        Ruling::Improvement => "improvement",
        Ruling::Unchanged => "unchanged",
        Ruling::Inconclusive => "inconclusive",
    }
}

fn name(row: &CheckedRow) -> String {
    format!("{} {} {}", row.network, row.schedule, row.measure)
}

/// The change with its interval: `−4.8 % [−5.1, −4.4]`, or `−4.8 % [?]` if it says hardly anything.
fn percent(row: &CheckedRow) -> String {
    let change = |ratio: f64| signed(100.0 * (ratio - 1.0));
    match row.ratio_lo.zip(row.ratio_hi) {
        Some(_) if row.is_unchecked() => format!("{} % [?]", change(row.ratio)),
        Some((lo, hi)) => format!("{} % [{}, {}]", change(row.ratio), change(lo), change(hi)),
        None => format!("{} %", change(row.ratio)),
    }
}

fn signed(value: f64) -> String {
    // Neither −0.0 nor +0.0.
    if value.abs() < 0.05 { "0.0".to_owned() } else { format!("{value:+.1}").replace('-', "−") }
}

fn digits(value: f64) -> String {
    // 0.5 and not 0.50000001.
    format!("{}", (value * 1e6).round() / 1e6)
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// What to do about a ruling, and whether cuts or queues differ.
fn advice(row: &CheckedRow) -> String {
    let mut text = match (row.ruling, row.more_trials) {
        (Ruling::Inconclusive, _) if row.ratio_lo.is_some() && row.is_unchecked() => {
            "; not checked: the interval is wider than ±100 %; measure at least 5 trials on each side, or on a quieter machine"
                .to_owned()
        }
        (Ruling::Inconclusive | Ruling::Suspect, Some(more)) => {
            format!("; about {more} more trials on each side would probably be enough")
        }
        (Ruling::Inconclusive, None) if row.ratio_lo.is_none() => {
            "; a single trial has no interval: measure more trials".to_owned()
        }
        (Ruling::Inconclusive | Ruling::Suspect, None) => {
            "; limited by the spread between runs: save a baseline of more runs; more trials do not help"
                .to_owned()
        }
        _ => String::new(),
    };
    if let Some(before) = &row.schedule_before {
        let _ = write!(text, "; cut in the baseline: {before}");
    }
    if let Some((before, now)) = row.queues_before.as_ref().zip(row.queues_now.as_ref()) {
        let _ = write!(text, "; queues in the baseline: {before}; now: {now}");
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;").replace('*', "\\*").replace('\n', " ")
}
