//! A report. Its JSON has the schema `results/report.schema.json`.

use super::stream_section::{LatencyBin, LatencyIntervals, LatencyQuantile, StreamSection, StreamTrace};
use domain::{
    FloatFormat, Load, ProcessorName, QueuePlan, Reason, ReasonCode, ScheduleKind, Validity, Winograd,
    statistics,
};
use protocol::Span;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// Version of the JSON. It rises if a field changes its meaning or is removed, not if one is added.
pub const SCHEMA: u32 = 1;

/// The report of one run. Intervals contain the true value with the probability `confidence`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "Report of edgepipe")]
pub struct Report {
    /// Version of this format.
    pub schema: u32,
    /// Version of the analysis that made the figures from raw observations.
    pub analysis_version: u32,
    /// Probability with which an interval contains the true value.
    pub confidence: f64,
    /// The run.
    pub run: RunSection,
    /// The machine it was measured on.
    pub measured_on: MachineSection,
    /// Its power meter; absent if it has none.
    pub power: Option<PowerSection>,
    /// Networks of the run.
    pub networks: Vec<NetworkSection>,
    /// Noise of the machine; absent if no schedule has two measured trials.
    pub noise: Option<Noise>,
    /// One row per schedule, by network in the order of the experiment.
    pub rows: Vec<Row>,
    /// Gains by kind of schedule.
    pub summary: Vec<Summary>,
    /// Frames in the stages, for drawings; empty until [`Report::read_timelines`]. Not part of the JSON.
    #[serde(skip)]
    #[schemars(skip)]
    pub timelines: Vec<Timeline>,
    /// Queues of streams over time, for drawings; empty until [`Report::read_streams`]. Not part of the JSON.
    #[serde(skip)]
    #[schemars(skip)]
    pub streams: Vec<StreamTrace>,
}

/// Frames of a trial in the stages of their schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// Number of the schedule, as in [`Row::place`].
    pub place: u32,
    /// Round of the trial.
    pub round: u32,
    /// By start time.
    pub spans: Vec<Span>,
}

/// The run.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RunSection {
    /// Its name.
    pub id: String,
    /// `running` (or killed), `complete`, `interrupted` or `failed`.
    pub status: String,
    /// Why it ended before it was complete, if known.
    pub ended_because: Option<String>,
    /// The experiment.
    pub experiment: String,
    /// The board.
    pub board: String,
    /// Place of the board on a farm, and its coordinator; absent for other boards.
    pub place: Option<String>,
    /// The boards that shared the rounds; empty for a report on one run.
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
    /// Why there is no revision, if known.
    pub revision_absent: Option<String>,
    /// Whether there were uncommitted changes.
    pub dirty: Option<bool>,
    /// Requested precision: half the width of intervals as a share. Absent if none was requested.
    pub precision_asked: Option<f64>,
    /// Whether the intervals of all valid rows are that narrow; absent if no precision was requested.
    pub precision_reached: Option<bool>,
    /// What was fed: `file DIGEST` or `pictures DIGEST`; absent if the frames were random.
    pub fed: Option<String>,
    /// Frames that can wait between two stages; absent if the planner chose this number for each schedule.
    pub queue_depth: Option<u32>,
    /// What `inject` made slower on purpose. Do not publish a run with this.
    pub injected: Option<String>,
    /// Power cycles of the board during the run.
    pub power_cycles: Vec<PowerCycleSection>,
}

/// The power of the board was cut and restored, because it did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PowerCycleSection {
    /// When: UTC, ISO 8601.
    pub at: String,
    /// Place of the board on the farm.
    pub place: String,
    /// Why.
    pub reason: String,
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
    /// As `uname` reports it.
    pub arch: String,
    /// Operating system.
    pub os: Option<String>,
    /// Release of the kernel.
    pub kernel: String,
    /// Frequency governors of the used CPUs, each once; absent if unknown.
    pub governor: Option<String>,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The processors.
    pub processors: Vec<ProcessorSection>,
    /// GPUs of the board file that the run did not use, because it was measured by a version without an engine for them.
    pub left_out: Vec<String>,
    /// Power mode before the first trial; absent if the board has none.
    pub power_mode: Option<String>,
    /// The requested state; absent if the board file requests none.
    pub state: Option<StateSection>,
}

/// The state of the board, as text.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct StateSection {
    /// The state that the board file requests.
    pub asked: String,
    /// The state before the run.
    pub found: String,
    /// The state during the run, read back from the board.
    pub set: String,
    /// A session that had not restored the board; its changes were undone first.
    pub leftover_of: Option<String>,
}

/// A power meter, and the idle power it measured before the first trial.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PowerSection {
    /// Kernel driver and interface.
    pub driver: String,
    /// The rail that supplies everything that is measured, or the rails of a sum, such as `GPU + CPU`.
    pub total: String,
    /// Measured time between conversions; absent for energy counters and if it could not be measured.
    pub refresh_ms: Option<f64>,
    /// Idle power of the total rail with its uncertainty. It is included in every energy.
    pub idle_mw: Option<Interval>,
    /// Why it is absent.
    pub idle_absent_reason: Option<String>,
    /// All rails, those of the total first.
    pub rails: Vec<RailSection>,
}

/// A rail. All but the total are parts of the total or of each other.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RailSection {
    /// Its name.
    pub name: String,
    /// File it is read from.
    pub source: String,
    /// Its idle power.
    pub idle_mw: Option<f64>,
    /// Resolution of its readings.
    pub step_mw: Option<f64>,
}

/// A processor.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ProcessorSection {
    /// Its name.
    pub name: String,
    /// Its CPUs; of a GPU, those of the thread that feeds it.
    pub cpus: Vec<u32>,
    /// CPU threads of a stage on it.
    pub threads: u32,
    /// Absent for CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuSection>,
}

impl ProcessorSection {
    /// Whether it is a GPU that is emulated on CPUs.
    pub fn is_emulated(&self) -> bool {
        self.gpu.as_ref().is_some_and(|gpu| gpu.emulated)
    }
}

/// A GPU and its driver.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct GpuSection {
    /// Index of the device in the driver.
    pub device: u32,
    /// Name of the device.
    pub model: String,
    /// Architecture of the device, such as `sm_62`.
    pub compute_capability: String,
    /// Architecture that the kernels were compiled for.
    pub code: String,
    /// Memory in bytes; of a Jetson, that of the board.
    pub memory_bytes: u64,
    /// Number of multiprocessors.
    pub multiprocessors: u32,
    /// The driver's library on the board.
    pub driver: String,
    /// Latest CUDA version that the driver supports, such as `10.2`.
    pub driver_cuda: String,
    /// Whether edgepipe's stand-in for the CUDA driver computed on CPUs. Its times are not those of a GPU.
    pub emulated: bool,
    /// Processors that compute on the CPUs that feed the GPU.
    pub shares_cpus_with: Vec<String>,
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
    /// Its units; cuts lie between them.
    pub units: usize,
    /// What GPUs compute it in. CPUs compute in `fp32`.
    pub precision: FloatFormat,
    /// Whether its convolutions may use Winograd's algorithm.
    pub winograd: Winograd,
    /// Notes on it.
    pub reasons: Vec<Reason>,
}

/// A schedule with its figures. They are computed from the valid trials; if there are none, from all trials, and the
/// verdict is `void`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Row {
    /// The board.
    pub board: String,
    /// The network.
    pub network: String,
    /// Its label, unique within the run and network.
    pub schedule: String,
    /// Its number within the run.
    pub place: u32,
    /// `single`, `merged`, `pipeline`, `replicate`, or `peer`: the whole network in another inference engine.
    #[schemars(with = "String")]
    pub kind: ScheduleKind,
    /// Its processors, in stage order; empty for a peer, which has CPUs instead.
    pub processors: Vec<String>,
    /// Those of its processors that are GPUs emulated on CPUs. Times of such a schedule are not those of a GPU.
    pub emulated: Vec<String>,
    /// Those of its processors that compute in half precision; the others compute in single precision.
    pub fp16: Vec<String>,
    /// The engine of a peer: `onnxruntime`.
    pub peer: Option<String>,
    /// Its version.
    pub peer_version: Option<String>,
    /// What it computes with: `cpu`, or on a GPU `cuda` or `tensorrt`.
    pub peer_provider: Option<String>,
    /// The processor whose GPU it computes on.
    pub peer_gpu: Option<String>,
    /// Threads of each of its sessions.
    pub peer_threads: Option<u32>,
    /// Its sessions, among which frames are distributed.
    pub peer_sessions: Option<usize>,
    /// CPUs of all its sessions.
    pub peer_cpus: Vec<u32>,
    /// Trials that the figures are computed from.
    pub trials: usize,
    /// Measured trials that are void.
    pub trials_void: usize,
    /// Trials that failed and did not succeed when they were repeated.
    pub trials_failed: usize,
    /// Frames that the figures are computed from.
    pub frames: usize,
    /// Round of the trial with the throughput nearest to the median, whose timeline is shown. Absent if none was
    /// measured.
    pub typical_round: Option<u32>,
    /// Frames per second: median over the trials. Absent if none was measured.
    pub throughput_fps: Option<Interval>,
    /// When frames arrived, as in the experiment: `saturating`, `one_at_a_time`, or a mapping with `stream` or `sustained`.
    pub load: Load,
    /// How many frames could wait, and why, if the planner chose it (`queue: auto`, `queue_depth: auto`).
    pub queues: Option<QueuePlan>,
    /// Highest rate of a stream that the schedule sustains, in frames per second of all streams together: median over the
    /// rounds. The other figures are those at this rate. Absent unless it was searched for.
    pub sustained_fps: Option<Interval>,
    /// The same as a share of the saturated throughput, which each round measures before it searches for the rate.
    pub sustained_share: Option<Interval>,
    /// Time to completion from entering the first stage or, in a stream, from the scheduled arrival; over the frames of all
    /// trials. Absent if none was measured.
    pub latency_ms: Option<Latency>,
    /// The same with intervals. Absent without a stream.
    pub latency_ms_intervals: Option<LatencyIntervals>,
    /// Dropped frames as a share of those that were dropped or completed. Absent without a stream.
    pub drop_rate: Option<Interval>,
    /// Frames that completed after their deadline; dropped ones are not among them. Absent without a deadline.
    pub deadline_misses: Option<u64>,
    /// Mean age of the newest result in ms, median over the trials: at a random moment, the time since
    /// the arrival of the frame whose result is the newest. Absent without a stream.
    pub age_ms: Option<f64>,
    /// The same with its interval.
    pub age_ms_interval: Option<Interval>,
    /// Counts and other figures of a stream. Absent without one.
    pub stream: Option<StreamSection>,
    /// Frames by latency, for drawings. Not part of the JSON.
    #[serde(skip)]
    #[schemars(skip)]
    pub latency_distribution: Vec<LatencyBin>,
    /// Energy per frame in mJ of everything that the total rail supplies, idle power included: median over the trials. Its
    /// interval covers the noise between trials and the uncertainty of the meter. Absent if it was not measured.
    pub energy_mj_per_frame: Option<Interval>,
    /// Why it is absent.
    pub energy_absent_reason: Option<String>,
    /// Trials that the energy is computed from.
    pub energy_trials: usize,
    /// Mean power of the total rail over the window in mW, median over the trials.
    pub mean_power_mw: Option<f64>,
    /// Energy per frame in mJ on each rail of a total that is a sum, and on the other rails. The other rails are parts of the
    /// total or of each other, and are never added.
    pub energy_breakdown_mj_per_frame: BTreeMap<String, f64>,
    /// Frames per joule over those of the single processor with the most, by trials of the same round: 1.1 is 10 % more
    /// frames from the same energy. Absent for void rows, and if the energy of the schedule or of all single processors was
    /// not measured.
    pub energy_gain_over_best_single: Option<f64>,
    /// The same with its interval.
    pub energy_gain_over_best_single_interval: Option<Interval>,
    /// The single processor with the most frames per joule.
    pub best_single_by_energy: Option<String>,
    /// Throughput over that of the best single processor, by trials of the same round. Absent for void rows, and if no
    /// schedule on a single processor has a valid trial.
    pub gain_over_best_single: Option<f64>,
    /// The same with its interval.
    pub gain_over_best_single_interval: Option<Interval>,
    /// The best single processor.
    pub best_single: Option<String>,
    /// Throughput over that of each single processor.
    pub gain_over: BTreeMap<String, f64>,
    /// The same with intervals.
    pub gain_over_intervals: BTreeMap<String, Interval>,
    /// Throughput over that of each peer, by trials of the same round. Empty for peers.
    pub gain_over_peer: BTreeMap<String, Interval>,
    /// Predicted frames per second. Absent without a prediction.
    pub predicted_fps: Option<f64>,
    /// Predicted over measured throughput, minus 1: 0.1 means that the prediction is 10 % too fast.
    pub prediction_error: Option<f64>,
    /// Measured throughput over that of the slowest stage running alone, for replicates over the sum of all stages; median
    /// over the trials. Absent if stages were not timed alone.
    pub pipeline_efficiency: Option<f64>,
    /// The stages.
    pub stages: Vec<StageSection>,
    /// Whether the figures count.
    pub verdict: Validity,
    /// Notes on the figures.
    pub reasons: Vec<Reason>,
}

impl Row {
    /// Whether its figures are void.
    pub fn is_void(&self) -> bool {
        self.verdict == Validity::Void
    }

    /// Whether its outputs are wrong or unchecked, so that more trials would not help.
    pub fn is_wrong(&self) -> bool {
        self.reasons.iter().any(|reason| {
            matches!(
                reason.code,
                ReasonCode::OutputsDiffer | ReasonCode::OutputsNotFinite | ReasonCode::OutputsNotCompared
            )
        })
    }

    /// The precision of throughput and of the gain over the best single processor, if the row has them; `None` if there
    /// is no interval yet.
    pub fn precisions(&self) -> impl Iterator<Item = (&'static str, Option<f64>)> {
        let figures = [("throughput", self.throughput_fps), ("gain", self.gain_over_best_single_interval)];
        figures.into_iter().filter_map(|(of, interval)| Some((of, interval?.precision())))
    }

    /// Names of the figures whose intervals over trials are too wide to be shown.
    pub(super) fn too_wide(&self) -> Vec<&'static str> {
        let figures = [
            ("throughput", self.throughput_fps),
            ("gain", self.gain_over_best_single_interval),
            ("sustained rate", self.sustained_fps),
            ("age", self.age_ms_interval),
            ("energy", self.energy_mj_per_frame),
            ("gain in energy", self.energy_gain_over_best_single_interval),
        ];
        let is_wide = |interval: &Option<Interval>| interval.is_some_and(|interval| interval.is_too_wide());
        figures.into_iter().filter(|(_, interval)| is_wide(interval)).map(|(name, _)| name).collect()
    }
}

/// A figure with its interval.
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

impl From<LatencyQuantile> for Interval {
    fn from(quantile: LatencyQuantile) -> Self {
        Self { point: quantile.point, lo: quantile.lo, hi: quantile.hi }
    }
}

impl Interval {
    /// Half the width as a share of the point.
    pub fn precision(&self) -> Option<f64> {
        Some(0.5 * (self.hi? - self.lo?) / self.point)
    }

    /// Its ends for a drawing; absent without both, and if it is so wide that nothing else could be seen beside it.
    pub fn drawn_ends(&self) -> Option<(f64, f64)> {
        self.lo.zip(self.hi).filter(|_| !self.is_too_wide())
    }

    /// Whether it is so wide that it says hardly anything about the figure, as after two trials. Texts show it as `?`.
    pub fn is_too_wide(&self) -> bool {
        self.precision().is_some_and(|precision| precision.abs() > statistics::WIDEST_SHOWN)
    }
}

/// Latency in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// A stage. Shares are of the window's duration, medians over the trials.
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
    /// Share of time computing.
    pub busy: Option<f64>,
    /// Share of time waiting for a frame.
    pub waiting_input: Option<f64>,
    /// Share of time waiting for a free output buffer.
    pub waiting_output: Option<f64>,
    /// Time per frame with the other processors idle, in ms.
    pub isolated_ms: Option<f64>,
    /// Predicted time per frame, in ms.
    pub predicted_ms: Option<f64>,
}

/// Noise of the machine during the run.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Noise {
    /// Whether intervals are wide or many trials are void.
    pub noisy: bool,
    /// Whether intervals are wide.
    pub wide: bool,
    /// Precision of throughput (of the median latency if the load is a stream): median over the schedules.
    pub typical_interval: f64,
    /// The widest.
    pub widest_interval: f64,
    /// Measured trials that are void.
    pub trials_void: usize,
    /// Trials that were measured.
    pub trials: usize,
}

/// Gain of a kind of schedule over the best single processor, or over a peer.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Summary {
    /// `single`, `merged`, `pipeline` or `replicate`.
    #[schemars(with = "String")]
    pub kind: ScheduleKind,
    /// The peer compared with; absent if it is the best single processor.
    pub over_peer: Option<String>,
    /// Networks with a valid schedule of this kind; the best one of each counts.
    pub networks: usize,
    /// Geometric mean of the gains.
    pub gain_geometric_mean: f64,
    /// The smallest gain.
    pub gain_least: f64,
    /// The largest gain.
    pub gain_greatest: f64,
}

/// Whether a schedule and a peer use comparable resources: a single or merged processor with all CPUs of the peer, or several
/// processors and a peer whose CPUs no single processor of the board has. With a peer on a GPU: what uses that GPU.
pub fn is_comparable(row: &Row, peer: &Row, processors: &[ProcessorSection]) -> bool {
    if let Some(gpu) = &peer.peer_gpu {
        return row.kind != ScheduleKind::Peer && row.processors.contains(gpu);
    }
    let holds = |processor: &&ProcessorSection| {
        processor.gpu.is_none() && peer.peer_cpus.iter().all(|cpu| processor.cpus.contains(cpu))
    };
    match row.kind {
        ScheduleKind::Single | ScheduleKind::Merged => {
            let own = |processor: &&ProcessorSection| row.processors.contains(&processor.name);
            processors.iter().filter(own).any(|processor| holds(&processor))
        }
        ScheduleKind::Peer => false,
        ScheduleKind::Pipeline | ScheduleKind::Replicate => {
            let is_own = |processor: &&ProcessorSection| !ProcessorName::new(&processor.name).is_merged();
            !processors.iter().filter(is_own).any(|processor| holds(&processor))
        }
    }
}
