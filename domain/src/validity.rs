//! Whether a trial is valid. Each rule takes observations and returns a reason, or none.

use crate::units::{FramesPerSecond, Nanoseconds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether the figures of a trial or a schedule count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Validity {
    /// The figures count.
    Valid,
    /// The figures are kept and shown as void. No other figure is computed from them.
    Void,
}

/// What a reason does to the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The figures count; the report shows the reason beside them.
    Warn,
    /// The figures do not count.
    Void,
}

/// Why a figure needs a note. The names in JSON are these in snake case, and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// The outputs are not those of the baseline.
    OutputsDiffer,
    /// An output has infinities or NaN.
    OutputsNotFinite,
    /// The hypervisor stole CPU time.
    Steal,
    /// Other processes used the CPUs.
    OtherLoad,
    /// A CPU ran slower after the window than before.
    FrequencyDrop,
    /// Pages were read from disk.
    MajorFaults,
    /// The window holds too few frames.
    TooFewFrames,
    /// Frame times had not settled when the window opened.
    NotSteady,
    /// The prediction differs from the measurement.
    PredictionOff,
    /// Throughput changed within the window.
    PaceChanged,
    /// Some trials are outliers.
    OutlyingTrials,
    /// The machine warmed up in the window.
    Warmed,
    /// Many minor page faults.
    MinorFaults,
    /// The board's state changed, or was not the one that was set.
    StateChanged,
    /// A CPU whose clock was pinned ran below that.
    BelowPinned,
    /// A CPU quota throttled the runner.
    Throttled,
    /// `inject` slowed a stage down.
    SlowedOnPurpose,
    /// An interval is wider than the precision asked for.
    Imprecise,
    /// The outputs were not compared with the baseline's.
    OutputsNotCompared,
    /// A stage ran on a GPU that is emulated on CPUs.
    Emulated,
    /// Trials failed.
    FailedTrials,
    /// Planned trials were not run.
    MissingTrials,
    /// No trial was measured.
    NotMeasured,
    /// Some trials have no energy.
    TrialsWithoutEnergy,
    /// The compiler had no schedule rule for some units.
    FallbackUnits,
    /// The source of a stream did not keep its pace.
    SourceLate,
    /// The latency of a stream rose throughout the window.
    LatencyGrows,
    /// Only some frames of a stream have stamps of their own.
    StampsLimited,
    /// No rate of a stream was sustained, or the search for the highest one did not end.
    NothingSustained,
    /// An interval is wider than its figure.
    TooFewTrials,
}

impl ReasonCode {
    /// The name in JSON and CSV.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OutputsDiffer => "outputs_differ",
            Self::OutputsNotFinite => "outputs_not_finite",
            Self::Steal => "steal",
            Self::OtherLoad => "other_load",
            Self::FrequencyDrop => "frequency_drop",
            Self::MajorFaults => "major_faults",
            Self::TooFewFrames => "too_few_frames",
            Self::NotSteady => "not_steady",
            Self::PredictionOff => "prediction_off",
            Self::PaceChanged => "pace_changed",
            Self::OutlyingTrials => "outlying_trials",
            Self::Warmed => "warmed",
            Self::MinorFaults => "minor_faults",
            Self::StateChanged => "state_changed",
            Self::BelowPinned => "below_pinned",
            Self::Throttled => "throttled",
            Self::SlowedOnPurpose => "slowed_on_purpose",
            Self::Imprecise => "imprecise",
            Self::OutputsNotCompared => "outputs_not_compared",
            Self::Emulated => "emulated",
            Self::FailedTrials => "failed_trials",
            Self::MissingTrials => "missing_trials",
            Self::NotMeasured => "not_measured",
            Self::TrialsWithoutEnergy => "trials_without_energy",
            Self::FallbackUnits => "fallback_units",
            Self::SourceLate => "source_late",
            Self::LatencyGrows => "latency_grows",
            Self::StampsLimited => "stamps_limited",
            Self::NothingSustained => "nothing_sustained",
            Self::TooFewTrials => "too_few_trials",
        }
    }
}

/// A note on a figure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// Short name of the rule that found it; it never changes.
    #[schemars(with = "String")]
    pub code: ReasonCode,
    /// Whether the figures count.
    pub severity: Severity,
    /// What was observed, with the figures.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

impl Reason {
    /// A reason of this rule.
    pub fn new(code: ReasonCode, severity: Severity, text: String, remedy: &str) -> Self {
        Self { code, severity, text, remedy: remedy.to_owned() }
    }
}

/// Void if any reason is [`Severity::Void`].
pub fn validity(reasons: &[Reason]) -> Validity {
    if reasons.iter().any(|reason| reason.severity == Severity::Void) {
        Validity::Void
    } else {
        Validity::Valid
    }
}

/// The shares above which a rule warns and voids.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Warns above this.
    pub warn: f64,
    /// Voids above this.
    pub void: f64,
}

impl Limit {
    fn judge(self, share: f64) -> Option<Severity> {
        if share > self.void {
            Some(Severity::Void)
        } else if share > self.warn {
            Some(Severity::Warn)
        } else {
            None
        }
    }
}

/// The limits of all rules.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Greatest difference of an output from the baseline's, as a share of the greatest value of the baseline's.
    pub outputs: f64,
    /// Share of CPU time stolen.
    pub steal: Limit,
    /// Share of CPU time used by others.
    pub other_load: Limit,
    /// Share of the frequency lost.
    pub frequency_drop: Limit,
    /// Prediction error above which there is a warning, as a share.
    pub prediction: f64,
}

impl Default for Limits {
    /// Chosen, not measured. Outputs may differ by a thousandth of their range, because kernels for different
    /// processors sum in different orders. A loss of 2 % of the CPU time warns, of 20 % voids.
    fn default() -> Self {
        Self {
            outputs: 1e-3,
            steal: Limit { warn: 0.02, void: 0.20 },
            other_load: Limit { warn: 0.02, void: 0.20 },
            frequency_drop: Limit { warn: 0.02, void: 0.20 },
            prediction: 0.10,
        }
    }
}

/// The difference of an output from the baseline's, over all compared frames and elements.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputCheck {
    /// Name of the output.
    pub name: String,
    /// Elements compared.
    pub elements: u64,
    /// Elements that are not finite on either side.
    pub non_finite: u64,
    /// Greatest absolute difference.
    pub max_abs: f64,
    /// Greatest absolute value of the baseline's.
    pub max_reference: f64,
}

/// Voids if an output differs from the baseline's. An output without compared elements counts as different.
pub fn outputs(check: &OutputCheck, limits: &Limits) -> Option<Reason> {
    let remedy = "find the first stage whose outputs differ; do not use any figure of this schedule";
    if check.non_finite > 0 {
        let text = format!(
            "{} of {} elements of output {} are not finite",
            check.non_finite, check.elements, check.name
        );
        return Some(Reason::new(ReasonCode::OutputsNotFinite, Severity::Void, text, remedy));
    }
    let bound = limits.outputs * check.max_reference;
    if check.elements > 0 && check.max_abs <= bound {
        return None;
    }
    let text = format!(
        "output `{}` differs from the baseline by up to {:.3e} ({:.3e} allowed, {} elements compared)",
        check.name, check.max_abs, bound, check.elements
    );
    Some(Reason::new(ReasonCode::OutputsDiffer, Severity::Void, text, remedy))
}

/// Time stolen by the hypervisor, over the window's time on all CPUs of the schedule.
pub fn steal(stolen: Nanoseconds, cpu_time: Nanoseconds, limits: &Limits) -> Option<Reason> {
    let share = share(stolen, cpu_time)?;
    let severity = limits.steal.judge(share)?;
    let text = format!("the hypervisor took {} of the CPU time", percent(share));
    let remedy = "measure on a dedicated machine, or raise `trials` until the interval is narrow enough";
    Some(Reason::new(ReasonCode::Steal, severity, text, remedy))
}

/// Time other processes used on the CPUs of the schedule, over the window's time on all of these.
pub fn other_load(others: Nanoseconds, cpu_time: Nanoseconds, limits: &Limits) -> Option<Reason> {
    let share = share(others, cpu_time)?;
    let severity = limits.other_load.judge(share)?;
    let text = format!("other processes used {} of the CPU time", percent(share));
    Some(Reason::new(
        ReasonCode::OtherLoad,
        severity,
        text,
        "stop the other processes on these CPUs, or choose other CPUs",
    ))
}

/// Frequency of a CPU before and after the window, in kHz.
pub fn frequency(cpu: u32, before_khz: u64, after_khz: u64, limits: &Limits) -> Option<Reason> {
    if before_khz == 0 {
        return None;
    }
    let share = 1.0 - after_khz as f64 / before_khz as f64;
    let severity = limits.frequency_drop.judge(share)?;
    let text = format!(
        "CPU {cpu} ran at {} MHz after the window, {} below the {} MHz before it",
        after_khz / 1000,
        percent(share),
        before_khz / 1000
    );
    let remedy =
        "pin the frequency (governor `performance`, or the board's own tool), and let the board cool down";
    Some(Reason::new(ReasonCode::FrequencyDrop, severity, text, remedy))
}

const STATE_REMEDY: &str = "something else changes the board's state (another user, a power daemon, or heat: check \
                            the temperatures); stop it, or lower `state: { max_temperature_c }` if it is heat";

/// A setting of the board changed during a trial, or was not the one that was set. `when` completes the sentence.
pub fn state_changed(setting: &str, from: &str, to: &str, when: &str) -> Reason {
    let text = format!("the {setting} was {to} instead of {from}{when}");
    Reason::new(ReasonCode::StateChanged, Severity::Void, text, STATE_REMEDY)
}

/// The lowest observed frequency of a CPU with a pinned clock. On some processors the kernel measures the frequency, so
/// it deviates a little.
pub fn pinned(cpu: u32, pinned_khz: u64, lowest_khz: u64, limits: &Limits) -> Option<Reason> {
    let lost = 1.0 - lowest_khz as f64 / pinned_khz as f64;
    (pinned_khz > 0 && lost > limits.frequency_drop.warn).then(|| {
        let text = format!(
            "CPU {cpu} ran at {} MHz, {} below the {} MHz it was pinned to",
            lowest_khz / 1000,
            percent(lost),
            pinned_khz / 1000
        );
        Reason::new(ReasonCode::BelowPinned, Severity::Void, text, STATE_REMEDY)
    })
}

/// The lowest observed frequency of a GPU with a pinned clock. Heat or a power limit lowers it.
pub fn gpu_pinned(pinned_hz: u64, lowest_hz: u64, limits: &Limits) -> Option<Reason> {
    let lost = 1.0 - lowest_hz as f64 / pinned_hz as f64;
    (pinned_hz > 0 && lost > limits.frequency_drop.warn).then(|| {
        let text = format!(
            "the GPU ran at {} MHz, {} below the {} MHz it was pinned to",
            lowest_hz / 1_000_000,
            percent(lost),
            pinned_hz / 1_000_000
        );
        Reason::new(ReasonCode::BelowPinned, Severity::Void, text, STATE_REMEDY)
    })
}

/// Time within the window in which a CPU quota throttled the runner, summed over its CPUs. Any throttling voids: the
/// figures would describe the quota and not the processors.
pub fn throttled(group: &str, milli_cpus: Option<u64>, waited: Nanoseconds) -> Reason {
    let quota = milli_cpus.map_or_else(String::new, |milli| format!(" of {} CPUs", milli as f64 / 1000.0));
    let text = format!("the CPU quota{quota} of the cgroup {group} throttled the trial for {waited}");
    let remedy = "run edgepipe outside the container or service with this limit, or raise the limit";
    Reason::new(ReasonCode::Throttled, Severity::Void, text, remedy)
}

/// Pages a stage read from disk during the window.
pub fn major_faults(stage: usize, faults: u64) -> Option<Reason> {
    (faults > 0).then(|| {
        let text = format!("stage {stage} waited for the disk {faults} times");
        let remedy = "raise `warm_up`, or free memory: weights were not resident when the window opened";
        Reason::new(ReasonCode::MajorFaults, Severity::Warn, text, remedy)
    })
}

/// Frames in the window against those asked for. With less than half of them the trial is void.
pub fn frames(found: usize, asked: usize) -> Option<Reason> {
    (found < asked).then(|| {
        let severity = if 2 * found < asked { Severity::Void } else { Severity::Warn };
        let text = format!("the window has {found} frames, {asked} were requested");
        Reason::new(ReasonCode::TooFewFrames, severity, text, "raise `measure.max_seconds`")
    })
}

/// Whether frame times had settled when the window opened.
pub fn steady(settled: bool) -> Option<Reason> {
    (!settled).then(|| {
        let text = "frame times had not settled when the window opened".to_owned();
        Reason::new(ReasonCode::NotSteady, Severity::Warn, text, "raise `warm_up.max_seconds`")
    })
}

/// Predicted against measured throughput. `error` is by how much the prediction is too fast, as a share.
pub fn prediction(
    predicted: FramesPerSecond,
    measured: FramesPerSecond,
    error: f64,
    limits: &Limits,
) -> Option<Reason> {
    // Written so that NaN warns too.
    if error.abs() <= limits.prediction {
        return None;
    }
    let text = format!("predicted {predicted} ({:+.0} %), measured {measured}", 100.0 * error);
    let remedy = "measure on a quiet machine; if the difference remains and the schedule has several stages, \
                  they compete for memory or clocks";
    Some(Reason::new(ReasonCode::PredictionOff, Severity::Warn, text, remedy))
}

fn share(part: Nanoseconds, whole: Nanoseconds) -> Option<f64> {
    (whole.0 > 0).then(|| part.as_f64() / whole.as_f64())
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reason: Option<Reason>, wanted: Option<(ReasonCode, Severity, &str)>) {
        let found = reason.as_ref().map(|reason| (reason.code, reason.severity, reason.text.as_str()));
        assert_eq!(found, wanted);
        assert!(reason.is_none_or(|reason| !reason.remedy.is_empty()));
    }

    fn output(elements: u64, non_finite: u64, max_abs: f64, max_reference: f64) -> OutputCheck {
        OutputCheck { name: "y".to_owned(), elements, non_finite, max_abs, max_reference }
    }

    #[test]
    fn outputs_that_differ_void() {
        let limits = Limits::default();
        let differs = |text| Some((ReasonCode::OutputsDiffer, Severity::Void, text));
        check(outputs(&output(1000, 0, 0.009, 10.0), &limits), None);
        check(outputs(&output(1000, 0, 0.0, 0.0), &limits), None);
        check(
            outputs(&output(1000, 0, 0.5, 10.0), &limits),
            differs(
                "output `y` differs from the baseline by up to 5.000e-1 (1.000e-2 allowed, 1000 elements compared)",
            ),
        );
        check(
            outputs(&output(0, 0, 0.0, 0.0), &limits),
            differs(
                "output `y` differs from the baseline by up to 0.000e0 (0.000e0 allowed, 0 elements compared)",
            ),
        );
        assert!(outputs(&output(1, 0, f64::NAN, 1.0), &limits).is_some());
        check(
            outputs(&output(1000, 3, 0.0, 10.0), &limits),
            Some((
                ReasonCode::OutputsNotFinite,
                Severity::Void,
                "3 of 1000 elements of output y are not finite",
            )),
        );
    }

    #[test]
    fn lost_cpu_time_warns_then_voids() {
        let limits = Limits::default();
        let time = Nanoseconds(1_000_000);
        check(steal(Nanoseconds(20_000), time, &limits), None);
        let text = "the hypervisor took 5.0 % of the CPU time";
        check(steal(Nanoseconds(50_000), time, &limits), Some((ReasonCode::Steal, Severity::Warn, text)));
        let text = "the hypervisor took 25.0 % of the CPU time";
        check(steal(Nanoseconds(250_000), time, &limits), Some((ReasonCode::Steal, Severity::Void, text)));
        let text = "other processes used 3.0 % of the CPU time";
        check(
            other_load(Nanoseconds(30_000), time, &limits),
            Some((ReasonCode::OtherLoad, Severity::Warn, text)),
        );
        check(other_load(Nanoseconds(0), Nanoseconds(0), &limits), None);
    }

    #[test]
    fn a_quota_that_held_a_trial_up_voids_it() {
        let voids = |text| Some((ReasonCode::Throttled, Severity::Void, text));
        check(
            Some(throttled("/x", Some(1300), Nanoseconds(70_000_000))),
            voids("the CPU quota of 1.3 CPUs of the cgroup /x throttled the trial for 70.0 ms"),
        );
        check(
            Some(throttled("above /", None, Nanoseconds(200_000))),
            voids("the CPU quota of the cgroup above / throttled the trial for 200 µs"),
        );
    }

    #[test]
    fn a_cpu_that_slows_down() {
        let limits = Limits::default();
        check(frequency(3, 2_000_000, 1_990_000, &limits), None);
        check(frequency(3, 2_000_000, 2_100_000, &limits), None);
        check(frequency(3, 0, 2_100_000, &limits), None);
        let text = "CPU 3 ran at 1500 MHz after the window, 25.0 % below the 2000 MHz before it";
        check(
            frequency(3, 2_000_000, 1_500_000, &limits),
            Some((ReasonCode::FrequencyDrop, Severity::Void, text)),
        );
    }

    #[test]
    fn a_state_that_does_not_stay() {
        let limits = Limits::default();
        let text = "the governor of CPU 3 was schedutil instead of performance, 2.0 s into the window";
        let reason =
            state_changed("governor of CPU 3", "performance", "schedutil", ", 2.0 s into the window");
        check(Some(reason), Some((ReasonCode::StateChanged, Severity::Void, text)));
        check(pinned(3, 2_000_000, 2_000_000, &limits), None);
        check(pinned(3, 2_000_000, 1_970_000, &limits), None);
        check(pinned(3, 0, 0, &limits), None);
        let text = "CPU 3 ran at 1500 MHz, 25.0 % below the 2000 MHz it was pinned to";
        check(
            pinned(3, 2_000_000, 1_500_000, &limits),
            Some((ReasonCode::BelowPinned, Severity::Void, text)),
        );
    }

    #[test]
    fn counts() {
        check(major_faults(0, 0), None);
        check(frames(50, 50), None);
        check(steady(true), None);
        check(
            major_faults(1, 2),
            Some((ReasonCode::MajorFaults, Severity::Warn, "stage 1 waited for the disk 2 times")),
        );
        let text = "the window has 30 frames, 50 were requested";
        check(frames(30, 50), Some((ReasonCode::TooFewFrames, Severity::Warn, text)));
        let text = "the window has 3 frames, 50 were requested";
        check(frames(3, 50), Some((ReasonCode::TooFewFrames, Severity::Void, text)));
        let text = "frame times had not settled when the window opened";
        check(steady(false), Some((ReasonCode::NotSteady, Severity::Warn, text)));
    }

    #[test]
    fn predictions_that_were_off() {
        let limits = Limits::default();
        check(prediction(FramesPerSecond(54.0), FramesPerSecond(50.0), 0.08, &limits), None);
        let text = "predicted 60.0 frames/s (+20 %), measured 50.0 frames/s";
        let warned = Some((ReasonCode::PredictionOff, Severity::Warn, text));
        check(prediction(FramesPerSecond(60.0), FramesPerSecond(50.0), 0.2, &limits), warned);
        assert!(prediction(FramesPerSecond(0.0), FramesPerSecond(0.0), f64::NAN, &limits).is_some());
    }

    #[test]
    fn one_void_voids() {
        let warning = steady(false).unwrap();
        let void = frames(1, 50).unwrap();
        assert_eq!(validity(&[]), Validity::Valid);
        assert_eq!(validity(std::slice::from_ref(&warning)), Validity::Valid);
        assert_eq!(validity(&[warning, void]), Validity::Void);
        for code in [ReasonCode::OutputsNotFinite, ReasonCode::MajorFaults, ReasonCode::FallbackUnits] {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{}\"", code.as_str()));
        }
    }
}
