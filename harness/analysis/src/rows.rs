//! What a report says, before anybody writes it down. This is also its JSON, whose schema is
//! `results/report.schema.json`.

use domain::{Reason, ReasonCode, ScheduleKind, Validity};
use protocol::Span;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// Version of the JSON. It rises when a field changes its meaning or goes; fields may be added without.
pub const SCHEMA: u32 = 1;

/// A report of one run. All intervals hold the true value with the probability `confidence`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "Report of edgepipe")]
pub struct Report {
    /// Version of this format.
    pub schema: u32,
    /// Version of the analysis that made the figures from raw observations.
    pub analysis_version: u32,
    /// Probability with which an interval holds the true value.
    pub confidence: f64,
    /// The run.
    pub run: RunSection,
    /// The machine it was measured on.
    pub measured_on: MachineSection,
    /// Its power meter; absent where it has none.
    pub power: Option<PowerSection>,
    /// Networks of the run.
    pub networks: Vec<NetworkSection>,
    /// How much the machine disturbed the run; absent where fewer than two trials of any schedule were measured.
    pub noise: Option<Noise>,
    /// One row a schedule, by network in the order of the experiment.
    pub rows: Vec<Row>,
    /// One a kind of schedule that was compared with single processors.
    pub summary: Vec<Summary>,
    /// Frames in the stages, for drawings; empty until [`Report::read_timelines`]. Not part of the JSON.
    #[serde(skip)]
    #[schemars(skip)]
    pub timelines: Vec<Timeline>,
}

/// Frames of a trial in the stages of their schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// Number of the schedule, as in [`Row::place`].
    pub place: u32,
    /// Round of the trial.
    pub round: u32,
    /// By time of their begin.
    pub spans: Vec<Span>,
}

/// The run.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RunSection {
    /// Its name.
    pub id: String,
    /// `running` (or killed), `complete`, `interrupted` or `failed`.
    pub status: String,
    /// Why it ended before it was complete, where that is known.
    pub ended_because: Option<String>,
    /// The experiment.
    pub experiment: String,
    /// The board.
    pub board: String,
    /// The boards that shared the rounds, where it is of several; empty where it is of one run.
    pub boards: Vec<String>,
    /// When it began: UTC, ISO 8601.
    pub begun: String,
    /// When it ended.
    pub ended: Option<String>,
    /// The command line.
    pub command: Vec<String>,
    /// Trials planned of each schedule.
    pub trials_planned: u32,
    /// Seed of the order of trials.
    pub seed: u64,
    /// Version of the harness.
    pub harness: String,
    /// Version of the runner.
    pub runner: Option<String>,
    /// Version of Apache TVM.
    pub tvm: Option<String>,
    /// Revision of the checkout.
    pub revision: Option<String>,
    /// Why there is no revision, where that is known.
    pub revision_absent: Option<String>,
    /// Whether files differed from that revision.
    pub dirty: Option<bool>,
    /// How narrow intervals were asked to be: half their width as a share. Absent where nothing was asked.
    pub precision_asked: Option<f64>,
    /// Whether the intervals of all rows that count are that narrow; absent where nothing was asked.
    pub precision_reached: Option<bool>,
    /// What was made worse on purpose, to see whether it is found. A run with this is not to be published.
    pub injected: Option<String>,
}

/// The machine as it was before the first trial.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct MachineSection {
    /// Name of the host of the harness.
    pub host: String,
    /// Model of the board.
    pub model: Option<String>,
    /// Model of its processor.
    pub cpu: Option<String>,
    /// As `uname` says.
    pub arch: String,
    /// Operating system.
    pub os: Option<String>,
    /// Release of the kernel.
    pub kernel: String,
    /// Frequency governors of the CPUs used, each once; absent where the machine does not tell.
    pub governor: Option<String>,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The processors.
    pub processors: Vec<ProcessorSection>,
    /// Processors of the board's file that no schedule used, because this version has no engine for them.
    pub left_out: Vec<String>,
    /// Power mode before the first trial; absent where the board has none.
    pub power_mode: Option<String>,
    /// The state its file asks for; absent where it asks for nothing.
    pub state: Option<StateSection>,
}

/// The state a board was brought to, in words.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct StateSection {
    /// What its file asks for.
    pub asked: String,
    /// How it was found.
    pub found: String,
    /// How it was measured, read back.
    pub set: String,
    /// The session that had left it otherwise than it had found it, which was restored first.
    pub leftover_of: Option<String>,
}

/// A power meter and what it said before the first trial, with nothing running.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PowerSection {
    /// Kernel driver and interface.
    pub driver: String,
    /// Rail that feeds everything measured.
    pub total: String,
    /// Time from one conversion to the next as measured; absent for counters of energy, and where it could not be
    /// told.
    pub refresh_ms: Option<f64>,
    /// Power of the total with nothing running, and how far it may be off. It is part of every energy below.
    pub idle_mw: Option<Interval>,
    /// Why it is absent.
    pub idle_absent_reason: Option<String>,
    /// All rails, the total first.
    pub rails: Vec<RailSection>,
}

/// A rail. The others are parts of the total or of each other.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RailSection {
    /// Its name.
    pub name: String,
    /// File it is read from.
    pub source: String,
    /// Its power with nothing running.
    pub idle_mw: Option<f64>,
    /// Least difference between two readings.
    pub step_mw: Option<f64>,
}

/// A processor.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ProcessorSection {
    /// Its name.
    pub name: String,
    /// Its CPUs.
    pub cpus: Vec<u32>,
    /// Threads of a stage on it.
    pub threads: u32,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NetworkSection {
    /// Its name.
    pub name: String,
    /// Learnable parameters.
    pub parameters: u64,
    /// Multiply-adds of one frame.
    pub macs: u64,
    /// Units between which it may be cut.
    pub units: usize,
    /// What is to be known of it.
    pub reasons: Vec<Reason>,
}

/// A schedule and what was measured of it. Figures are of the valid trials; where there are none, of all, and the
/// verdict is `void`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Row {
    /// The board.
    pub board: String,
    /// The network.
    pub network: String,
    /// One line that tells the schedule from the others.
    pub schedule: String,
    /// Its number within the run.
    pub place: u32,
    /// `single`, `pipeline`, `replicate`, or `peer`: the whole network in another inference engine.
    #[schemars(with = "String")]
    pub kind: ScheduleKind,
    /// Its processors, in stage order; none of a peer, which is given CPUs.
    pub processors: Vec<String>,
    /// The engine of a peer, `onnxruntime`.
    pub peer: Option<String>,
    /// Its version.
    pub peer_version: Option<String>,
    /// Threads of each of its sessions.
    pub peer_threads: Option<u32>,
    /// Its sessions, among which frames are dealt out.
    pub peer_sessions: Option<usize>,
    /// CPUs of all its sessions.
    pub peer_cpus: Vec<u32>,
    /// Trials the figures are of.
    pub trials: usize,
    /// Trials that were measured and are void.
    pub trials_void: usize,
    /// Trials that failed and were not repeated with success.
    pub trials_failed: usize,
    /// Frames the figures are of.
    pub frames: usize,
    /// Round of the trial whose throughput is nearest to the median of those the figures are of: its timeline is the
    /// one shown. Absent where none was measured.
    pub typical_round: Option<u32>,
    /// Frames a second: median over the trials. Absent where none was measured.
    pub throughput_fps: Option<Interval>,
    /// From entering the first stage to completion, over all frames. Absent where none was measured.
    pub latency_ms: Option<Latency>,
    /// Energy of a frame in millijoules, of all that the total rail feeds, idle power included: median over the trials.
    /// Its interval holds what trials differ by and what the meter may be off in each. Absent where it was not measured.
    pub energy_mj_per_frame: Option<Interval>,
    /// Why it is absent.
    pub energy_absent_reason: Option<String>,
    /// Trials the energy is of.
    pub energy_trials: usize,
    /// Power of the total rail over the windows in milliwatts, median over the trials.
    pub mean_power_mw: Option<f64>,
    /// Energy of a frame on other rails in millijoules. They are parts of the total or of each other, and never added.
    pub energy_breakdown_mj_per_frame: BTreeMap<String, f64>,
    /// Frames a joule over those of the single processor that has most, by trials of the same round: 1.1 is a tenth
    /// more frames from the same energy. Absent where gains are, and where energy is.
    pub energy_gain_over_best_single: Option<f64>,
    /// The same with its interval.
    pub energy_gain_over_best_single_interval: Option<Interval>,
    /// The single processor that has most frames a joule.
    pub best_single_by_energy: Option<String>,
    /// Throughput over that of the best single processor, by trials of the same round. Absent for singles, which are
    /// what is compared with, for void rows, and where no single has a valid trial.
    pub gain_over_best_single: Option<f64>,
    /// The same with its interval.
    pub gain_over_best_single_interval: Option<Interval>,
    /// The best single processor.
    pub best_single: Option<String>,
    /// Throughput over that of each single processor.
    pub gain_over: BTreeMap<String, f64>,
    /// The same with intervals.
    pub gain_over_intervals: BTreeMap<String, Interval>,
    /// Throughput over that of each peer, by trials of the same round. Of peers themselves it is left empty.
    pub gain_over_peer: BTreeMap<String, Interval>,
    /// Frames a second by the profile. Absent where there was none.
    pub predicted_fps: Option<f64>,
    /// Predicted over measured, less one: 0.1 is predicted 10 % too fast.
    pub prediction_error: Option<f64>,
    /// Measured frames a second over those of the slowest stage by itself, of replicates over the sum of all; median
    /// over the trials. Absent where the stages were not timed by themselves.
    pub pipeline_efficiency: Option<f64>,
    /// The stages.
    pub stages: Vec<StageSection>,
    /// Whether the figures count.
    pub verdict: Validity,
    /// What is to be known of them.
    pub reasons: Vec<Reason>,
}

impl Row {
    /// Whether its figures do not count.
    pub fn is_void(&self) -> bool {
        self.verdict == Validity::Void
    }

    /// Whether it is void for what it is rather than for what disturbed it, so that more trials would not help.
    pub fn is_wrong(&self) -> bool {
        self.reasons.iter().any(|reason| {
            matches!(
                reason.code,
                ReasonCode::OutputsDiffer | ReasonCode::OutputsNotFinite | ReasonCode::OutputsNotCompared
            )
        })
    }

    /// Half the widths of the intervals of throughput and of the gain over the best single processor, as shares of
    /// the figures that there are; absent where the interval cannot be told yet.
    pub fn halves(&self) -> impl Iterator<Item = (&'static str, Option<f64>)> {
        let figures = [("throughput", self.throughput_fps), ("gain", self.gain_over_best_single_interval)];
        figures.into_iter().filter_map(|(of, interval)| Some((of, interval?.precision())))
    }
}

/// A figure and how far it may be off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Interval {
    /// The figure.
    pub point: f64,
    /// Lower end; absent with a single trial.
    pub lo: Option<f64>,
    /// Upper end; absent with a single trial.
    pub hi: Option<f64>,
}

impl From<domain::Interval> for Interval {
    fn from(interval: domain::Interval) -> Self {
        Self { point: interval.point, lo: interval.lo, hi: interval.hi }
    }
}

impl Interval {
    /// Half its width as a share of the point.
    pub fn precision(&self) -> Option<f64> {
        Some(0.5 * (self.hi? - self.lo?) / self.point)
    }
}

/// Latency in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Latency {
    /// Half of the frames took no longer.
    pub p50: f64,
    /// 99 of 100 frames took no longer.
    pub p99: f64,
}

/// A stage. Shares are of the window's time, medians over the trials.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct StageSection {
    /// Its processor.
    pub processor: String,
    /// First unit.
    pub first_unit: usize,
    /// One past the last unit.
    pub end_unit: usize,
    /// Name of the first unit.
    pub first: String,
    /// Name of the last unit.
    pub last: String,
    /// Share of time inside the stage library.
    pub busy: Option<f64>,
    /// Share of time waiting for a frame.
    pub waiting_input: Option<f64>,
    /// Share of time waiting for a place to put one.
    pub waiting_output: Option<f64>,
    /// Time of a frame with the other processors idle, in ms.
    pub isolated_ms: Option<f64>,
    /// Time of a frame by the profile, in ms.
    pub predicted_ms: Option<f64>,
}

/// How much the machine disturbed the run.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Noise {
    /// Whether the intervals are wide, or many trials void.
    pub noisy: bool,
    /// Half the width of a throughput's interval as a share of it: median over the schedules.
    pub typical_interval: f64,
    /// The widest.
    pub widest_interval: f64,
    /// Trials that were measured and are void.
    pub trials_void: usize,
    /// Trials that were measured.
    pub trials: usize,
}

/// Gain of a kind of schedule over the best single processor, or over a peer.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Summary {
    /// `single`, `pipeline` or `replicate`.
    #[schemars(with = "String")]
    pub kind: ScheduleKind,
    /// The peer compared with; absent where it is the best single processor.
    pub over_peer: Option<String>,
    /// Networks with a valid schedule of this kind; of each the best counts.
    pub networks: usize,
    /// Geometric mean of the gains.
    pub gain_geometric_mean: f64,
    /// The least of them.
    pub gain_least: f64,
    /// The greatest of them.
    pub gain_greatest: f64,
}

/// Whether a schedule and a peer have as much to work with: a single one whose processor has all of the peer's CPUs, or
/// one over several processors against a peer that no processor holds.
pub fn is_comparable(row: &Row, peer: &Row, processors: &[ProcessorSection]) -> bool {
    let holds = |processor: &&ProcessorSection| peer.peer_cpus.iter().all(|cpu| processor.cpus.contains(cpu));
    match row.kind {
        ScheduleKind::Single => {
            let own = |processor: &&ProcessorSection| row.processors.contains(&processor.name);
            processors.iter().filter(own).any(|processor| holds(&processor))
        }
        ScheduleKind::Peer => false,
        ScheduleKind::Pipeline | ScheduleKind::Replicate => {
            !processors.iter().any(|processor| holds(&processor))
        }
    }
}
