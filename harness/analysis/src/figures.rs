//! What a run says of each schedule, as intervals, for comparing runs.

use super::assembly::{add_energy, measurements};
use super::rows::Verdict;
use super::trial::Trial;
use domain::{Confidence, Interval, Kind, Observed, Samples, comparison};
use store::{Store, StoreError, StoredRun};

/// Figures of a schedule in a run: of the trials that count, or of all where none does.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// Name of the network.
    pub network: String,
    /// One line that tells the schedule from the others of the run.
    pub schedule: String,
    /// What it is.
    pub kind: Kind,
    /// Its processors, in stage order.
    pub processors: Vec<String>,
    /// Whether they count.
    pub verdict: Verdict,
    /// Frames a second.
    pub throughput_fps: Option<Interval>,
    /// Median over the trials of the median latency of each, in milliseconds.
    pub latency_ms: Option<Interval>,
    /// Energy of a frame in millijoules, over the trials that have one. What the meter is off by as a whole is not in
    /// it: that is the same in every run with this meter.
    pub energy_mj: Option<Interval>,
}

/// The figures of all schedules of a run, in the order of the report.
pub fn figures(store: &Store, run: &StoredRun) -> Result<Vec<Figures>, StoreError> {
    let of_schedule = |schedule: &super::assembly::Measurements| {
        let counted = schedule.counted();
        let summary = |value: &dyn Fn(&Trial) -> Option<f64>| {
            let values: Option<Vec<Observed>> = counted
                .iter()
                .map(|trial| Some(Observed { round: trial.round, value: value(trial)? }))
                .collect();
            comparison::summary(&values?, Confidence::P95).ok()
        };
        let planned = &schedule.record.schedule;
        Figures {
            network: schedule.record.network.clone(),
            schedule: planned.label(),
            kind: planned.kind(),
            processors: planned.processors().map(ToString::to_string).collect(),
            verdict: schedule.verdict(),
            throughput_fps: summary(&|trial| Some(trial.throughput.0)),
            latency_ms: summary(&|trial| Some(Samples::of_durations(&trial.latency).ok()?.median() / 1e6)),
            energy_mj: {
                let of_trial = |trial: &&Trial| {
                    let value = trial.energy.drawn()?.energy.0 / trial.frames as f64;
                    (value > 0.0).then_some(Observed { round: trial.round, value })
                };
                let values: Vec<Observed> = counted.iter().filter_map(of_trial).collect();
                comparison::summary(&values, Confidence::P95).ok()
            },
        }
    };
    let mut schedules = measurements(store, run)?;
    add_energy(&mut schedules, store.idle_power(run)?.as_ref());
    Ok(schedules.iter().map(of_schedule).collect())
}
