//! The notes below the tables: warnings and reasons for void rows, each once.

use super::cells;
use analysis::Report;
use domain::{Reason, ScheduleKind, Severity, Validity};

/// A note, and the rows or network that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    /// `void` if it makes a row void, else `warning`.
    pub(super) label: &'static str,
    /// The row or network, and how many others.
    pub(super) place: String,
    pub(super) text: String,
    pub(super) remedy: String,
}

/// The notes of a report, void ones first. Reasons with the same code are one note.
pub(super) fn notes(report: &Report) -> Vec<Note> {
    let of_rows = report.rows.iter().flat_map(|row| {
        let place = format!("{} {}", row.network, cells::label(row));
        let void = row.verdict == Validity::Void;
        row.reasons
            .iter()
            .map(move |reason| (place.clone(), void && reason.severity == Severity::Void, reason))
    });
    let of_networks = report
        .networks
        .iter()
        .flat_map(|network| network.reasons.iter().map(|reason| (network.name.clone(), false, reason)));
    let mut groups: Vec<(&Reason, bool, Vec<String>)> = Vec::new();
    for (place, voids, reason) in of_rows.chain(of_networks) {
        let same = |group: &&mut (&Reason, bool, Vec<String>)| {
            let (other, also_voids, _) = group;
            let rule = |reason: &Reason| (reason.code, reason.severity, reason.remedy.clone());
            *also_voids == voids && rule(other) == rule(reason)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.2.push(place),
            None => groups.push((reason, voids, vec![place])),
        }
    }
    groups.sort_by_key(|(_, voids, _)| !voids);
    groups.into_iter().map(|(reason, voids, places)| note(reason, voids, &places)).collect()
}

fn note(reason: &Reason, voids: bool, places: &[String]) -> Note {
    let more = match places.len() - 1 {
        0 => String::new(),
        1 => " (and 1 more row)".to_owned(),
        more => format!(" (and {more} more rows)"),
    };
    let first = places.first().map(String::as_str).unwrap_or_default();
    Note {
        label: if voids { "void" } else { "warning" },
        place: format!("{first}{more}"),
        text: reason.text.clone(),
        remedy: reason.remedy.clone(),
    }
}

/// Why energies are absent, each reason once.
pub(super) fn energy(report: &Report) -> Vec<&str> {
    let mut reasons: Vec<&str> =
        report.rows.iter().filter_map(|row| row.energy_absent_reason.as_deref()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    reasons
}

/// The power meter, the idle power, and frames per joule of each schedule, one sentence each; empty without a meter.
pub(super) fn meter(report: &Report) -> Vec<String> {
    let Some(power) = &report.power else { return Vec::new() };
    let refresh = power.refresh_ms.map_or_else(String::new, |ms| format!(", refreshed every {ms:.0} ms"));
    let idle = match (&power.idle_mw, &power.idle_absent_reason) {
        (Some(idle), _) => {
            format!("idle power {} mW, included in every mJ/frame", cells::with_interval(idle, ""))
        }
        (None, Some(reason)) => format!("idle power is unknown: {reason}"),
        (None, None) => "idle power is unknown".to_owned(),
    };
    let rail = if power.rails.iter().any(|rail| rail.name == power.total) { "rail" } else { "rails" };
    let mut sentences = vec![format!("energy: {rail} {} ({}{refresh}); {idle}", power.total, power.driver)];
    for row in &report.rows {
        if let (Some(gain), Some(single)) =
            (&row.energy_gain_over_best_single_interval, &row.best_single_by_energy)
            && row.kind != ScheduleKind::Single
        {
            let gain = cells::with_interval(gain, "×");
            let (network, schedule) = (&row.network, cells::label(row));
            sentences.push(format!("frames per joule over {single}: {gain} for {network} on {schedule}"));
        }
    }
    sentences
}
