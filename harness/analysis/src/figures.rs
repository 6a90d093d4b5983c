//! Figures of single trials, for comparing runs: the regression gate and histories.

use super::measurements::{self, Measurements};
use super::trial::Trial;
use domain::{
    FloatFormat, Interval, Metric, Observation, QueuePlan, ScheduleKind, Severity, Validity, Winograd,
};
use store::{NetworkRecord, Store, StoreError, StoredRun};

/// A schedule with the figures of its valid trials.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleFigures {
    /// Its network.
    pub network: String,
    /// The label, which is unique among the schedules of a run.
    pub label: String,
    /// How it uses its stages.
    pub kind: ScheduleKind,
    /// In stage order.
    pub processors: Vec<String>,
    /// Half if one of them is a GPU that computes in half precision.
    pub precision: FloatFormat,
    /// Whether convolutions of the network may use Winograd's algorithm.
    pub winograd: Winograd,
    /// How many frames could wait, if the planner chose it.
    pub queues: Option<QueuePlan>,
    /// As in the report.
    pub validity: Validity,
    /// Why the gate must not use it; absent if it may.
    pub void: Option<String>,
    /// Valid trials by round.
    pub trials: Vec<TrialFigures>,
}

/// Figures of a trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrialFigures {
    /// Trials of one round ran next to each other.
    pub round: u32,
    /// Frames per second.
    pub throughput_fps: f64,
    /// Median latency.
    pub latency_p50_ms: Option<f64>,
    /// 90th percentile of the latency.
    pub latency_p90_ms: Option<f64>,
    /// 99th percentile of the latency.
    pub latency_p99_ms: Option<f64>,
    /// Highest sustained rate of a stream.
    pub sustained_fps: Option<f64>,
    /// Frames of a stream that were not dropped.
    pub delivered_percent: Option<f64>,
    /// Frames of a stream with a result before its deadline.
    pub on_time_percent: Option<f64>,
    /// Mean age of the newest result of a stream.
    pub age_ms: Option<f64>,
    /// Absent if it was not measured.
    pub energy_mj_per_frame: Option<f64>,
}

impl TrialFigures {
    fn of(trial: &Trial) -> Self {
        Self {
            round: trial.round,
            throughput_fps: trial.throughput.0,
            latency_p50_ms: trial.figure(Metric::LatencyP50),
            latency_p90_ms: trial.figure(Metric::LatencyP90),
            latency_p99_ms: trial.figure(Metric::LatencyP99),
            sustained_fps: trial.figure(Metric::Sustained),
            delivered_percent: trial.figure(Metric::Delivered),
            on_time_percent: trial.figure(Metric::OnTime),
            age_ms: trial.figure(Metric::Age),
            energy_mj_per_frame: trial.figure(Metric::EnergyPerFrame),
        }
    }
}

impl ScheduleFigures {
    /// How many frames could wait, as text, if the planner chose it.
    pub(crate) fn queue_lengths(&self) -> Option<String> {
        self.queues.map(|queues| {
            format!("{} before the first stage, {} between stages", queues.before, queues.between)
        })
    }

    /// The metric over the valid trials. Absent if none has a positive figure.
    pub fn interval(&self, metric: Metric) -> Option<Interval> {
        let value = |trial: &TrialFigures| match metric {
            Metric::Throughput => Some(trial.throughput_fps),
            Metric::LatencyP50 => trial.latency_p50_ms,
            Metric::LatencyP90 => trial.latency_p90_ms,
            Metric::LatencyP99 => trial.latency_p99_ms,
            Metric::Sustained => trial.sustained_fps,
            Metric::Delivered => trial.delivered_percent,
            Metric::OnTime => trial.on_time_percent,
            Metric::Age => trial.age_ms,
            Metric::EnergyPerFrame => trial.energy_mj_per_frame,
            Metric::Power => None,
        };
        let observed = self.trials.iter().filter_map(|trial| {
            value(trial).filter(|value| *value > 0.0).map(|value| Observation { round: trial.round, value })
        });
        metric.over_trials(&observed.collect::<Vec<_>>())
    }
}

/// The figures of all schedules of a run, in the order of the report.
pub fn schedule_figures(store: &Store, run: &StoredRun) -> Result<Vec<ScheduleFigures>, StoreError> {
    let mut schedules = measurements::measurements(store, run)?;
    measurements::add_energy(&mut schedules, store.idle_power(run)?.as_ref());
    let networks = store.networks(run)?;
    let figures = |measurements: &Measurements| {
        let schedule = &measurements.record.schedule;
        let network = networks.iter().find(|known| known.network.name() == measurements.record.network);
        let precision = network.map(NetworkRecord::precision).unwrap_or_default();
        ScheduleFigures {
            winograd: network.map(NetworkRecord::winograd).unwrap_or_default(),
            precision: if measurements.uses_gpu { precision } else { FloatFormat::Fp32 },
            network: measurements.record.network.clone(),
            label: measurements.label.clone(),
            kind: schedule.kind(),
            processors: schedule.processors().map(ToString::to_string).collect(),
            queues: measurements.record.queues,
            validity: measurements.validity(),
            void: void(measurements),
            trials: measurements.valid().map(TrialFigures::of).collect(),
        }
    };
    Ok(schedules.iter().map(figures).collect())
}

/// Why a schedule is void for the gate. If more than half of its trials are void, so is the schedule: the cause probably
/// affected the other trials too.
fn void(measurements: &Measurements) -> Option<String> {
    let of_trials = || {
        let mut reasons = measurements.trials.values().flat_map(|trial| &trial.reasons);
        reasons.find(|reason| reason.severity == Severity::Void).map(|reason| reason.text.clone())
    };
    if measurements.validity() == Validity::Void {
        let own = measurements.reasons.iter().find(|reason| reason.severity == Severity::Void);
        let reason = own
            .map(|reason| reason.text.clone())
            .or_else(of_trials)
            .or_else(|| measurements.failed.values().next().cloned());
        return Some(reason.unwrap_or_else(|| "nothing was measured".to_owned()));
    }
    let (valid, all) = (measurements.valid().count(), measurements.trials.len());
    (2 * valid < all).then(|| {
        let reason = of_trials().unwrap_or_else(|| "void trials".to_owned());
        format!("{} of {all} trials are void ({reason}); measure again", all - valid)
    })
}
