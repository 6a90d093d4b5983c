//! The records of a run. The journal contains them as lines and the database in tables; both return them unchanged.

use super::processor_record::ProcessorRecord;
use super::run_id::RunId;
use domain::{FleetMode, FloatFormat, Network, OperatingPoint, Prediction, QueuePlan, Schedule, Winograd};
use protocol::{
    AppliedState, Compared, Fault, Idled, MachineState, Measured, OutputDifference, Profiled, StateRequest,
    Transferred,
};
use serde::{Deserialize, Serialize};

/// A line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Record {
    /// The first line.
    Run(Box<RunStart>),
    /// The run was resumed.
    Resumed(Resumed),
    /// The board was power-cycled.
    PowerCycle(PowerCycleRecord),
    /// A network takes part.
    Network(Box<NetworkRecord>),
    /// A network was profiled on a processor.
    Profile(ProfileRecord),
    /// The power meter was read while nothing ran.
    Idle(Idled),
    /// Hand-overs between two processors were timed.
    Transfer(TransferRecord),
    /// The board was brought to an operating point.
    OperatingPoint(Box<OperatingPointRecord>),
    /// A schedule will be measured.
    Schedule(ScheduleRecord),
    /// Outputs were compared.
    Comparison(ComparisonRecord),
    /// A trial ended.
    Trial(TrialRecord),
    /// The run ended.
    Finished(Finished),
}

/// A run at its start, with everything needed to repeat it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunStart {
    /// Its name.
    pub id: RunId,
    /// When it began, ns since 1970.
    pub begun_unix_ns: u64,
    /// Name of the experiment.
    pub experiment: String,
    /// Name of the board.
    pub board: String,
    /// Processors of the board, found or configured.
    pub processors: Vec<ProcessorRecord>,
    /// The board before the first trial.
    pub machine: MachineState,
    /// Name of the machine the harness runs on.
    pub host: String,
    /// The command line.
    pub command: Vec<String>,
    /// Resolved configuration, as YAML.
    pub configuration: String,
    /// Seed of the order of trials.
    pub seed: u64,
    /// Trials planned of each schedule.
    pub rounds: u32,
    /// What ran.
    pub versions: Versions,
    /// What was checked out; absent outside a git repository.
    pub revision: Option<Revision>,
    /// Whatever else there is to know.
    pub provenance: serde_json::Value,
    /// The campaign, if one `bench` measured on several boards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign: Option<CampaignRecord>,
    /// The state that was set; absent if none was requested and nothing was left to restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateRecord>,
}

/// The state a board was brought to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateRecord {
    /// What its file asks for.
    pub asked: StateRequest,
    /// What was found and set, and what another session had left.
    pub brought: AppliedState,
}

impl StateRecord {
    /// Absent if there is nothing to report.
    pub fn new(asked: StateRequest, brought: AppliedState) -> Option<Self> {
        (!asked.is_nothing() || brought.leftover.is_some()).then_some(Self { asked, brought })
    }
}

/// What a trial waited for before it began: the hottest zone at first, and when it was cool enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cooling {
    /// How long it waited.
    pub waited_ns: u64,
    /// Type of the zone that was the hottest at first.
    pub zone: String,
    /// Its temperature then, in thousandths of a degree Celsius.
    pub from_milli_celsius: i64,
    /// The hottest zone's temperature at the end.
    pub to_milli_celsius: i64,
}

/// One `bench` on several boards, which is a run on each of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CampaignRecord {
    /// Its name, made as a run's.
    pub id: RunId,
    /// What the boards do.
    pub mode: FleetMode,
    /// All requested boards, in order. A board without a run was not available.
    pub boards: Vec<String>,
}

/// Versions of the programs. The analysis is not among them: it can be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// Of the harness.
    pub harness: String,
    /// Of the runner.
    pub runner: Option<String>,
    /// Of the protocol between them.
    pub protocol: u32,
    /// Of Apache TVM.
    pub tvm: Option<String>,
    /// Of LLVM within it.
    pub llvm: Option<String>,
    /// Of Python.
    pub python: Option<String>,
}

/// A git revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// The commit.
    pub commit: String,
    /// Whether files differed from it.
    pub dirty: bool,
}

/// An interrupted run continues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resumed {
    /// When, ns since 1970.
    pub unix_ns: u64,
    /// The command line.
    pub command: Vec<String>,
    /// The state the board was brought to this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateRecord>,
}

/// The power of the board was cut and restored, because it did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerCycleRecord {
    /// When, ns since 1970.
    pub unix_ns: u64,
    /// Place of the board on the farm.
    pub place: String,
    /// Why: the error of the connection.
    pub reason: String,
}

/// A network of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRecord {
    /// Where it came from: `{"zoo": NAME}` or `{"onnx": PATH}`, with [`PRECISION`] if that is not single,
    /// and [`WINOGRAD`] if that is off.
    pub source: serde_json::Value,
    /// Identity of its content.
    pub sha256: String,
    /// Units that the compiler has no schedule rule for on this board; they are slow.
    pub fallback_units: Vec<u32>,
    /// Its units and boundaries. Its name is unique within the run.
    pub network: Network,
}

/// The key of the format that GPUs compute in, within the source of a network.
pub const PRECISION: &str = "precision";
/// The key of whether kernels may use Winograd's algorithm, within the source of a network.
pub const WINOGRAD: &str = "winograd";

impl NetworkRecord {
    /// What GPUs compute it in.
    pub fn precision(&self) -> FloatFormat {
        self.source.get(PRECISION).and_then(|known| FloatFormat::deserialize(known).ok()).unwrap_or_default()
    }

    /// Whether its kernels may use Winograd's algorithm.
    pub fn winograd(&self) -> Winograd {
        self.source.get(WINOGRAD).and_then(|known| Winograd::deserialize(known).ok()).unwrap_or_default()
    }
}

/// An operating point that a search has set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatingPointRecord {
    /// Its number within the run; 0 is the point of the board's file.
    pub number: u32,
    /// The point.
    pub point: OperatingPoint,
    /// How it was set; absent if it asks for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateRecord>,
    /// The power meter while nothing ran; absent if it was not read at this point. [`Record::Idle`] has that of point 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idled>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference to the field")]
fn is_default(point: &u32) -> bool {
    *point == 0
}

/// Raw profile of a network on a processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ProfileLine")]
pub struct ProfileRecord {
    /// Name of the network.
    pub network: String,
    /// Name of the processor.
    pub processor: String,
    /// Whether all other processors were busy; then there are frames, but no kernel calls.
    pub contended: bool,
    /// Number of the operating point.
    #[serde(skip_serializing_if = "is_default")]
    pub point: u32,
    /// As observed.
    pub profiled: Profiled,
}

/// Raw timings of hand-overs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferRecord {
    /// Name of the processor that writes.
    pub from: String,
    /// Name of the processor that reads.
    pub to: String,
    /// Number of the operating point.
    #[serde(default, skip_serializing_if = "is_default")]
    pub point: u32,
    /// As observed.
    pub transferred: Transferred,
}

/// A schedule to be measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "ScheduleLine")]
pub struct ScheduleRecord {
    /// Its number within the run, by which trials and comparisons name it. Rows of a report have this order.
    pub place: u32,
    /// Name of the network.
    pub network: String,
    /// What runs where.
    pub schedule: Schedule,
    /// Number of the operating point at which it runs.
    #[serde(skip_serializing_if = "is_default")]
    pub point: u32,
    /// Predicted from the profiles; absent if there are none, or if they say that a stage costs nothing.
    pub prediction: Option<Prediction>,
    /// How many frames of a stream can wait, if the experiment left that to the planner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<QueuePlan>,
}

/// Outputs of a schedule against those of another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComparisonRecord {
    /// Number of the compared schedule.
    pub schedule: u32,
    /// Number of the schedule whose outputs were taken as right.
    pub reference: u32,
    /// Largest difference allowed, relative to the greatest value of the reference.
    pub tolerance: f64,
    /// As observed.
    pub compared: Compared,
}

impl ComparisonRecord {
    /// Whether every output is finite and within the tolerance.
    pub fn within_tolerance(&self) -> bool {
        self.compared.outputs.iter().all(|output| is_within(output, self.tolerance))
    }
}

/// Whether an output is as near to its reference as `tolerance`, a share of the greatest value, asks for.
pub fn is_within(output: &OutputDifference, tolerance: f64) -> bool {
    output.identical || (output.non_finite == 0 && output.max_abs <= tolerance * output.max_reference)
}

/// A measured execution of a schedule, or one that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialRecord {
    /// Number of the schedule.
    pub schedule: u32,
    /// Trials of one round ran one after the other.
    pub round: u32,
    /// Place in the interleaved order of the run, from 0.
    pub position: u32,
    /// When it began, ns since 1970.
    pub begun_unix_ns: u64,
    /// The wait before that; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooling: Option<Cooling>,
    /// From a profile of the same round, made just before the schedules of its network were measured; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<Prediction>,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a trial ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// As observed.
    Measured(Box<Measured>),
    /// Nothing was measured.
    Failed {
        /// The fault as the runner names it; absent if the runner did not (it died, hung, or printed something else).
        fault: Option<Fault>,
        /// The error, as shown.
        message: String,
    },
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finished {
    /// When, ns since 1970.
    pub unix_ns: u64,
    /// How it ended; not [`Status::Running`].
    pub status: Status,
    /// The error that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is going on, or was killed.
    Running,
    /// All that was planned was tried.
    Complete,
    /// The user ended it; it can be resumed.
    Interrupted,
    /// An error ended it; it can be resumed.
    Failed,
}

impl Status {
    /// Its name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
        }
    }

    /// Undoes [`Status::as_str`].
    pub(super) fn from_text(text: &str) -> Option<Self> {
        [Self::Running, Self::Complete, Self::Interrupted, Self::Failed]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.as_str())
    }
}

/// Ending of a processor's name that marked contended profiles before protocol version 9.
const CONTENDED: &str = " with all others busy";

/// A profile in a journal of any version.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileLine {
    network: String,
    processor: String,
    #[serde(default)]
    contended: bool,
    #[serde(default)]
    point: u32,
    profiled: Profiled,
}

impl From<ProfileLine> for ProfileRecord {
    fn from(line: ProfileLine) -> Self {
        let ProfileLine { network, processor, contended, point, profiled } = line;
        match processor.strip_suffix(CONTENDED) {
            Some(name) => Self { network, processor: name.to_owned(), contended: true, point, profiled },
            None => Self { network, processor, contended, point, profiled },
        }
    }
}

/// A schedule in a journal of any version.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleLine {
    place: u32,
    network: String,
    schedule: Schedule,
    #[serde(default)]
    point: u32,
    prediction: Option<Prediction>,
    #[serde(default)]
    queues: Option<QueuePlan>,
    /// Written, always empty, before protocol version 9.
    #[serde(default, rename = "warnings")]
    _warnings: Vec<String>,
}

impl From<ScheduleLine> for ScheduleRecord {
    fn from(line: ScheduleLine) -> Self {
        let ScheduleLine { place, network, schedule, point, prediction, queues, _warnings } = line;
        Self { place, network, schedule, point, prediction, queues }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use serde_json::{Value, json};

    fn read(line: &Value) -> Record {
        serde_json::from_str(&line.to_string()).unwrap()
    }

    #[test]
    fn lines_of_earlier_versions_are_read() {
        let profile = fixture::profile("tiny", "cpu0", 1000);
        let mut line = serde_json::to_value(Record::Profile(profile.clone())).unwrap();
        assert_eq!(line["profile"]["contended"], false);
        line["profile"].as_object_mut().unwrap().remove("contended");
        assert_eq!(read(&line), Record::Profile(profile.clone()));
        line["profile"]["processor"] = json!("cpu0 with all others busy");
        assert_eq!(read(&line), Record::Profile(ProfileRecord { contended: true, ..profile }));

        let schedule = fixture::planned("tiny")[2].record(2);
        let mut line = serde_json::to_value(Record::Schedule(schedule.clone())).unwrap();
        line["schedule"]["warnings"] = json!([]);
        assert_eq!(read(&line), Record::Schedule(schedule));
    }
}
