//! The headline of a network: a sentence that claims no more than its interval shows.

use super::cells::{self, number, with_interval};
use analysis::speed;
use analysis::{Interval, Report, Row};
use domain::{ScheduleKind, Validity};

/// The finding, with the figures that support it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Headline {
    pub(super) finding: String,
    pub(super) detail: String,
}

/// Rows of a network, the fastest first and void ones last.
pub(super) fn sorted<'r>(report: &'r Report, network: &str) -> Vec<&'r Row> {
    let mut rows: Vec<&Row> = report.rows.iter().filter(|row| row.network == network).collect();
    rows.sort_by(|a, b| speed(b).total_cmp(&speed(a)));
    rows
}

/// The fastest valid row of a kind.
pub(super) fn fastest<'r>(rows: &[&'r Row], kind: ScheduleKind) -> Option<&'r Row> {
    rows.iter().find(|row| row.kind == kind && row.verdict == Validity::Valid).copied()
}

/// The row that represents the gain of a network: its fastest pipeline, else its fastest replicate.
pub(super) fn candidate<'r>(rows: &[&'r Row]) -> Option<&'r Row> {
    fastest(rows, ScheduleKind::Pipeline).or_else(|| fastest(rows, ScheduleKind::Replicate))
}

/// Networks by the gain of their pipeline, the greatest first; those without one last.
pub(super) fn networks(report: &Report) -> Vec<&str> {
    let gain = |network: &str| {
        let gain = candidate(&sorted(report, network)).and_then(|row| row.gain_over_best_single);
        gain.unwrap_or(f64::NEG_INFINITY)
    };
    let mut names: Vec<(&str, f64)> =
        report.networks.iter().map(|network| (network.name.as_str(), gain(&network.name))).collect();
    names.sort_by(|a, b| b.1.total_cmp(&a.1));
    names.into_iter().map(|(name, _)| name).collect()
}

/// The gain of a kind of schedule in words.
pub(super) fn finding(kind: ScheduleKind, gain: Interval) -> String {
    let kind = capital(kind.as_str());
    let times = format!("{:.2}×", gain.point);
    match gain.lo.zip(gain.hi) {
        None => format!("{kind} {times} the best single processor, in one trial"),
        Some((lo, hi)) if lo <= 1.0 && hi >= 1.0 && gain.is_too_wide() => {
            format!("{kind} {times} the best single processor, in too few trials to tell")
        }
        Some((lo, _)) if lo > 1.0 => format!("{kind} {times} the best single processor"),
        Some((_, hi)) if hi < 1.0 => format!("{kind} slower than the best single processor: {times}"),
        Some(_) => format!("{kind} not measurably different from the best single processor: {times}"),
    }
}

/// The headline of a network.
pub(super) fn headline(rows: &[&Row]) -> Headline {
    let Some(first) = rows.first().filter(|row| row.verdict == Validity::Valid) else {
        let finding = "No valid measurement".to_owned();
        return Headline { finding, detail: "See the reasons below.".to_owned() };
    };
    let fps = |row: &Row| {
        row.throughput_fps.map_or_else(|| "no".to_owned(), |fps| with_interval(&fps, "")) + " frames/s"
    };
    let gained = candidate(rows).and_then(|row| Some((row, row.gain_over_best_single_interval?)));
    let Some((row, gain)) = gained else {
        let finding = format!("Highest throughput: {} frames/s", number(speed(first)));
        return Headline { finding, detail: format!("With {}.", cells::label(first)) };
    };
    let best = row.best_single.as_deref().unwrap_or("none");
    let best_fps = rows
        .iter()
        .find(|row| {
            row.kind == ScheduleKind::Single && row.processors.first().is_some_and(|name| name == best)
        })
        .map(|single| format!(" ({} frames/s)", number(speed(single))))
        .unwrap_or_default();
    let range = gain.lo.zip(gain.hi).filter(|_| !gain.is_too_wide());
    let range = range.map(|(lo, hi)| format!("; gain between {lo:.2}× and {hi:.2}×")).unwrap_or_default();
    let faster = if first.place == row.place {
        String::new()
    } else {
        format!(" The {} {} has the highest median: {}.", first.kind, cells::label(first), fps(first))
    };
    let detail =
        format!("{} with {}, compared with {best}{best_fps}{range}.{faster}", fps(row), cells::label(row));
    Headline { finding: finding(row.kind, gain), detail }
}

/// The word with a capital.
pub(super) fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_claims_no_more_than_its_interval() {
        let gain = |point, ends: Option<(f64, f64)>| Interval {
            point,
            lo: ends.map(|ends| ends.0),
            hi: ends.map(|ends| ends.1),
        };
        for (gain, said) in [
            (gain(1.95, Some((1.84, 2.01))), "Pipeline 1.95× the best single processor"),
            (
                gain(1.05, Some((0.97, 1.12))),
                "Pipeline not measurably different from the best single processor: 1.05×",
            ),
            (gain(0.9, Some((0.85, 0.95))), "Pipeline slower than the best single processor: 0.90×"),
            (gain(1.9, None), "Pipeline 1.90× the best single processor, in one trial"),
            (
                gain(1.9, Some((0.002, 1690.0))),
                "Pipeline 1.90× the best single processor, in too few trials to tell",
            ),
        ] {
            assert_eq!(finding(ScheduleKind::Pipeline, gain), said);
        }
    }
}
