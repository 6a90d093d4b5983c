//! The notes on a schedule: from its trials, the comparison of its outputs, and its planning.

use super::stored_settings::StoredSettings;
use super::trial::Trial;
use domain::{Absence, Nanoseconds, Profile, Reason, ReasonCode, ScheduleKind, Severity, validity};
use std::collections::BTreeMap;
use store::{ComparisonRecord, NetworkRecord, ProcessorRecord, ProfileRecord, ScheduleRecord};

/// With this many trials or more, a wide interval has other causes than their number.
const ENOUGH_TRIALS: usize = 5;
/// Share of a network's time above which units without a schedule rule are reported.
const SLOW_SHARE: f64 = 0.02;

/// Whether `inject` slowed this schedule down.
pub(super) fn injected(schedule: &ScheduleRecord, settings: &StoredSettings) -> Option<Reason> {
    let (processor, percent) = settings.slow_down.as_ref()?;
    schedule.schedule.processors().any(|used| used.parts().any(|part| part == processor)).then(|| {
        let text = format!("`inject` made the stages on {processor} {percent} % slower on purpose");
        Reason::new(
            ReasonCode::SlowedOnPurpose,
            Severity::Warn,
            text,
            "do not publish these figures; measure again without `inject`",
        )
    })
}

/// Stages on a GPU that is emulated on CPUs.
pub(super) fn emulated(schedule: &ScheduleRecord, processors: &[ProcessorRecord]) -> Option<Reason> {
    let used = |name: &str| schedule.schedule.processors().any(|used| used.as_str() == name);
    let gpu = processors.iter().find(|known| known.is_emulated() && used(&known.name))?;
    let text = format!(
        "the GPU {} is emulated on CPUs: its outputs are right, its times are not those of a GPU",
        gpu.name
    );
    Some(Reason::new(
        ReasonCode::Emulated,
        Severity::Warn,
        text,
        "measure on a board with this GPU before you publish or compare these figures",
    ))
}

/// Whether an interval is wider than requested.
pub(super) fn precision(half: Option<f64>, of: &str, wanted: f64) -> Option<Reason> {
    if half.is_some_and(|half| half <= wanted) {
        return None;
    }
    let wide = half.map_or_else(|| "unknown".to_owned(), |half| format!("±{:.1} %", 100.0 * half));
    let text = format!("the interval of the {of} is {wide}, ±{:.1} % was requested", 100.0 * wanted);
    Some(Reason::new(
        ReasonCode::Imprecise,
        Severity::Warn,
        text,
        "raise `max_minutes`, or measure on a quieter machine",
    ))
}

/// Intervals, over this many trials, that are wider than their figures.
pub(super) fn too_few_trials(wide: &[&str], trials: usize) -> Option<Reason> {
    if wide.is_empty() {
        return None;
    }
    let (figures, is) = (wide.join(" and "), if wide.len() == 1 { "interval is" } else { "intervals are" });
    let text = format!("{figures} over {trials} trials: the {is} wider than ±100 % and shown as ?");
    let remedy = if trials < ENOUGH_TRIALS {
        "measure at least 5 trials (`--trials 5`)"
    } else {
        "measure on a quieter machine, or with longer windows (`measure.min_seconds`)"
    };
    Some(Reason::new(ReasonCode::TooFewTrials, Severity::Warn, text, remedy))
}

/// Outputs that differ from the baseline's. Sets the limit to the tolerance of the comparison.
pub(super) fn outputs<'a>(
    schedule: &ScheduleRecord,
    comparisons: impl Iterator<Item = &'a ComparisonRecord>,
    limits: &mut validity::Limits,
) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut compared = false;
    for comparison in comparisons {
        compared = true;
        limits.outputs = comparison.tolerance;
        for output in comparison.compared.outputs.iter().filter(|output| !output.identical) {
            let check = validity::OutputCheck {
                name: output.name.clone(),
                elements: output.elements,
                non_finite: output.non_finite,
                max_abs: output.max_abs,
                max_reference: output.max_reference,
            };
            reasons.extend(validity::outputs(&check, limits));
        }
    }
    if !compared && schedule.schedule.kind() != ScheduleKind::Single {
        let text = "the outputs were not compared with those of the baseline".to_owned();
        let remedy =
            "continue with --resume, or run again: a schedule is valid only after its outputs were compared";
        reasons.push(Reason::new(ReasonCode::OutputsNotCompared, Severity::Void, text, remedy));
    }
    reasons
}

/// The reasons of the trials, each once, with the number of affected trials.
pub(super) fn trials<'a>(
    measured: impl ExactSizeIterator<Item = &'a Trial>,
    failed: impl ExactSizeIterator<Item = &'a String>,
    planned: usize,
) -> Vec<Reason> {
    let (count, failures) = (measured.len(), failed.len());
    let mut found: BTreeMap<_, (&Reason, usize)> = BTreeMap::new();
    for trial in measured {
        // One reason is enough if several stages have it.
        let of_trial: BTreeMap<_, &Reason> =
            trial.reasons.iter().rev().map(|reason| ((reason.code, reason.severity), reason)).collect();
        for (rule, reason) in of_trial {
            found.entry(rule).or_insert((reason, 0)).1 += 1;
        }
    }
    let mut reasons: Vec<Reason> = found
        .into_values()
        .map(|(reason, trials)| {
            let example = if trials > 1 { "for example, " } else { "" };
            let text = match reason.severity {
                Severity::Warn => format!("{trials} of {count} trials: {example}{}", reason.text),
                Severity::Void if trials == 1 => {
                    format!("1 of {count} trials is void: {}", reason.text)
                }
                Severity::Void => {
                    format!("{trials} of {count} trials are void: {example}{}", reason.text)
                }
            };
            Reason { text, ..reason.clone() }
        })
        .collect();
    let messages: Vec<&String> = failed.collect();
    if let Some(message) = messages.first() {
        let text = format!("{failures} of {} trials failed: {message}", count + failures);
        reasons.push(Reason::new(
            ReasonCode::FailedTrials,
            Severity::Warn,
            text,
            "fix the cause and continue with --resume",
        ));
    }
    let missing = planned.saturating_sub(count + failures);
    if missing > 0 {
        let text = format!("{missing} of {planned} trials were not run");
        reasons.push(Reason::new(ReasonCode::MissingTrials, Severity::Warn, text, "continue with --resume"));
    }
    if count == 0 {
        let text = "nothing was measured".to_owned();
        reasons.push(Reason::new(ReasonCode::NotMeasured, Severity::Void, text, "continue with --resume"));
    }
    reasons
}

/// Some trials have energy and others do not, with the reason of one of these.
pub(super) fn without_energy(without: usize, count: usize, example: &Absence) -> Reason {
    // Of the others, what follows the semicolon is how many readings failed.
    let has_remedy = matches!(
        example,
        Absence::WindowTooShort { .. } | Absence::RefreshUnknown { .. } | Absence::Unreadable { .. }
    );
    let told = example.to_string();
    let parts = has_remedy.then(|| told.split_once("; ")).flatten();
    let (text, remedy) = parts.unwrap_or((&told, "measure again if you need the energy"));
    let text =
        format!("{without} of {count} trials have no energy (mJ/frame is computed from the others): {text}");
    Reason::new(ReasonCode::TrialsWithoutEnergy, Severity::Warn, text, remedy)
}

/// Units without a schedule rule, with their share of the time on each processor.
pub(super) fn fallback(record: &NetworkRecord, profiles: &[ProfileRecord]) -> Vec<Reason> {
    if record.fallback_units.is_empty() {
        return Vec::new();
    }
    let network = &record.network;
    let of_network = profiles.iter().filter(|profile| profile.network == network.name());
    let shares: Vec<(&str, f64)> = of_network
        .filter_map(|profile| Some((profile.processor.as_str(), share(record, profile)?)))
        .collect();
    let most =
        shares.iter().map(|(_, share)| *share).fold(None, |most, share| Some(share.max(most.unwrap_or(0.0))));
    if most.is_some_and(|most| most < SLOW_SHARE) {
        return Vec::new();
    }
    let names: Vec<&str> = record
        .fallback_units
        .iter()
        .filter_map(|unit| network.units().get(*unit as usize))
        .map(|unit| unit.name.as_str())
        .collect();
    let (shown, more) = names.split_at(names.len().min(3));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    let shares: Vec<String> = shares
        .iter()
        .map(|(processor, share)| format!("{:.0} % of a frame on {processor}", 100.0 * share))
        .collect();
    let take = if shares.is_empty() { String::new() } else { format!(" take {}", shares.join(", ")) };
    let text = format!("units without a schedule rule ({}{more}){take}", shown.join(", "));
    let remedy = "TVM's own lowering compiles them; a schedule rule in compiler/edgepipe_compiler/kernels/ would make them faster";
    vec![Reason::new(ReasonCode::FallbackUnits, Severity::Warn, text, remedy)]
}

fn share(record: &NetworkRecord, profile: &ProfileRecord) -> Option<f64> {
    let ns = |samples: &[u64]| samples.iter().copied().map(Nanoseconds).collect::<Vec<_>>();
    let calls: Vec<(usize, Vec<Nanoseconds>)> =
        profile.profiled.calls.iter().map(|call| (call.unit as usize, ns(&call.samples_ns))).collect();
    let frames = ns(&profile.profiled.frame_ns);
    let profile =
        Profile::from_calls(profile.processor.as_str().into(), record.network.len(), &calls, &frames).ok()?;
    let costs = profile.unit_costs();
    let slow: f64 = record.fallback_units.iter().filter_map(|unit| costs.as_ns().get(*unit as usize)).sum();
    Some(slow / costs.sum_ns())
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Nanoseconds;

    #[test]
    fn the_example_is_split_from_its_remedy() {
        let gap = Absence::Gap {
            meter: "VDD_IN".to_owned(),
            gap: Nanoseconds(5_500_000_000),
            allowed: Nanoseconds(1_500_000_000),
            errors: 21,
            fault: Some("busy".to_owned()),
        };
        let reason = without_energy(1, 3, &gap);
        assert!(reason.text.ends_with("; 21 readings failed: busy"), "{}", reason.text);
        assert_eq!(reason.remedy, "measure again if you need the energy");
    }
}
