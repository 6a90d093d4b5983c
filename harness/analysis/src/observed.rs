//! The figures of single trials, for comparing runs.

use super::assembly;
use super::rows::{Severity, Verdict};
use domain::{Energy, throughput};
use store::{Store, StoreError, StoredRun};

/// A schedule and what its valid trials gave.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleFigures {
    /// The network.
    pub network: String,
    /// One line that tells the schedule from the others.
    pub label: String,
    /// `single`, `pipeline` or `replicate`.
    pub kind: String,
    /// Its processors, in stage order.
    pub processors: Vec<String>,
    /// Why nothing of it counts; absent where it does.
    pub void: Option<String>,
    /// Valid trials by round; none where it is void.
    pub trials: Vec<TrialFigures>,
}

/// Figures of a trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrialFigures {
    /// Its round.
    pub round: u32,
    /// Frames a second.
    pub throughput_fps: f64,
    /// Half of the frames took no longer, in ms.
    pub latency_p50_ms: Option<f64>,
    /// 99 of 100 frames took no longer, in ms.
    pub latency_p99_ms: Option<f64>,
    /// Energy of a frame in joules; absent where it was not measured.
    pub joules_per_frame: Option<f64>,
}

/// Figures of all schedules of a run, by their numbers. Where more than half of the trials are void, so is the schedule:
/// what disturbed them has hardly spared the others.
pub fn trial_figures(store: &Store, run: &StoredRun) -> Result<Vec<ScheduleFigures>, StoreError> {
    let mut schedules = assembly::measurements(store, run)?;
    assembly::add_energy(&mut schedules, store.idle_power(run)?.as_ref());
    Ok(schedules
        .iter()
        .map(|measurements| {
            let schedule = &measurements.record.schedule;
            let of_trials = || {
                let reasons = measurements.trials.values().flat_map(|trial| &trial.reasons);
                reasons.into_iter().find(|reason| reason.severity == domain::Severity::Void)
            };
            let (valid, all) = (measurements.valid().count(), measurements.trials.len());
            let mostly = (2 * valid < all).then(|| {
                let reason = of_trials().map_or("void trials", |reason| &reason.text);
                format!(
                    "{} of {all} trials are void ({reason}), and the others hardly better; measure again",
                    all - valid
                )
            });
            let void = (measurements.verdict() == Verdict::Void).then(|| {
                let own = measurements.reasons.iter().find(|reason| reason.severity == Severity::Void);
                own.map(|reason| reason.text.clone())
                    .or_else(|| of_trials().map(|reason| reason.text.clone()))
                    .or_else(|| measurements.failed.values().next().cloned())
                    .unwrap_or_else(|| "nothing was measured".to_owned())
            });
            let void = void.or(mostly);
            let trials = measurements.valid().filter(|_| void.is_none()).map(|trial| {
                let latency = throughput::Latency::of(&trial.latency).ok();
                TrialFigures {
                    round: trial.round,
                    throughput_fps: trial.throughput.0,
                    latency_p50_ms: latency.map(|latency| latency.p50_ns / 1e6),
                    latency_p99_ms: latency.map(|latency| latency.p99_ns / 1e6),
                    joules_per_frame: match &trial.energy {
                        Energy::Measured { drawn, .. } => Some(drawn.energy.0 / 1e3 / trial.frames as f64),
                        Energy::Absent { .. } => None,
                    },
                }
            });
            ScheduleFigures {
                network: measurements.record.network.clone(),
                label: schedule.label(),
                kind: schedule.kind().to_string(),
                processors: schedule.processors().map(ToString::to_string).collect(),
                trials: trials.collect(),
                void,
            }
        })
        .collect())
}
