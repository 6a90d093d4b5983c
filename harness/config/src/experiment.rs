//! An experiment's file. The struct that mirrors the file is the one that the program uses.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use domain::{Load, Network, Objective, QueueLength};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::faults::{Faults, Spot};
use super::files::{self, Kind};
use super::frames::Frames;
use super::mentions::{self, CutMention, Mention};
use super::network::{self, NetworkSource};
use super::overrides::Overrides;
use super::schedules::{self, ScheduleSpec};
use super::schema::{self, DEFAULTS_PATH, DEFAULTS_TREE};
use super::tree::{Node, Value};
use super::values::{Name, PercentOrNone, minutes, percent_or_none, seconds};
use super::{check, objective, typed};

/// What to measure and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Name of the experiment; must equal the file name.
    #[serde(rename = "experiment")]
    #[schemars(with = "Name")]
    pub name: String,
    /// Networks: names from the zoo (configs/zoo.txt) or of files in configs/networks/.
    #[serde(with = "network::by_name")]
    #[schemars(with = "Vec<Name>", length(min = 1), extend("uniqueItems" = true))]
    pub networks: Vec<NetworkSource>,
    /// Ways to run each network, which are compared.
    #[schemars(with = "Vec<schedules::Notation>", length(min = 1), extend("uniqueItems" = true))]
    pub schedules: Vec<ScheduleSpec>,
    /// What is optimized. `bench` plans `pipeline: auto` for throughput or latency only; for all others use `optimize`.
    #[serde(with = "objective")]
    #[schemars(with = "objective::Notation")]
    pub objective: Objective,
    /// Makes this an experiment of `optimize`, which adds the schedules that it predicts to be best. `bench` refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// Trials of each schedule, interleaved with those of the others.
    #[schemars(range(min = 1, max = 10_000))]
    pub trials: u32,
    /// Adds rounds until each confidence interval of throughput and gain is at most ± this share of its figure; `none`:
    /// exactly `trials` rounds.
    #[serde(default, with = "percent_or_none")]
    #[schemars(with = "PercentOrNone")]
    pub precision: Option<f64>,
    /// With `precision`: no round starts after this many minutes of measuring.
    #[serde(rename = "max_minutes", default = "thirty_minutes", with = "minutes")]
    #[schemars(with = "f64", range(min = 0.01, max = 10_080))]
    pub max_time: Duration,
    /// The warm-up before each measured window.
    pub warm_up: WarmUp,
    /// The measured window of each trial.
    pub measure: Measure,
    /// Each stage alone, before the whole schedule runs.
    pub isolate: Isolate,
    /// Timing of every unit on every processor, the basis of plans and predictions.
    pub profile: Profile,
    /// When frames arrive: as fast as a schedule takes them, or at the rate of a camera.
    #[serde(default)]
    pub load: Load,
    /// Frames that can wait between two stages, or `auto`: as many as the planner chooses for each schedule under a stream.
    pub queue_depth: QueueLength,
    /// Number of frames at the start of a window whose times in each stage are recorded.
    #[schemars(range(max = 100_000))]
    pub timeline_frames: u32,
    /// Input frames.
    pub frames: Frames,
    /// Seed of the trial order and of resampling.
    pub seed: u64,
    /// Largest relative difference between the outputs of a schedule and the baseline. Beyond it, the schedule is void.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub tolerance: f64,
    /// `tolerance` for a network with `precision: fp16`, if the schedule or the baseline has a stage on a GPU.
    #[serde(default = "one_percent")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub fp16_tolerance: f64,
    /// Pause before each trial, for the board to cool down.
    #[serde(rename = "cooldown_seconds", with = "seconds")]
    #[schemars(with = "f64", range(min = 0, max = 86_400))]
    pub cooldown: Duration,
    /// Injected faults, to test whether they are detected. Every output marks a run with an injected fault.
    #[serde(rename = "inject", default, with = "inject")]
    #[schemars(with = "inject::Inject")]
    pub slow_down: Option<SlowDown>,
    /// Every processor that the schedules name, and where; see [`check_processors`].
    #[serde(skip)]
    pub mentions: Vec<Mention>,
    /// Every cut set by hand, and where; see [`check_cuts`].
    #[serde(skip)]
    pub cuts: Vec<CutMention>,
}

/// For stored configurations from before half precision existed.
fn one_percent() -> f64 {
    0.01
}

/// For stored configurations from before `max_minutes` existed.
fn thirty_minutes() -> Duration {
    Duration::from_secs(30 * 60)
}

/// A processor that is slowed down on purpose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowDown {
    /// The processor.
    #[schemars(with = "Name")]
    pub processor: String,
    /// Extra time of every stage on it, as a percentage of the stage's own time: 5 is 5 %.
    #[schemars(range(min = 0.1, max = 1000))]
    pub percent: f64,
}

impl SlowDown {
    /// In thousandths.
    pub fn per_mille(&self) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0.1 to 1000 by the schema"
        )]
        {
            (10.0 * self.percent).round() as u32
        }
    }
}

/// Injected faults as YAML has them.
mod inject {
    use super::SlowDown;
    use schemars::JsonSchema;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Injected faults.
    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case", deny_unknown_fields)]
    pub(super) enum Inject {
        /// None.
        None,
        /// The stages of a processor spin after each frame.
        SlowDown(SlowDown),
    }

    #[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
    pub(super) fn serialize<S: Serializer>(
        value: &Option<SlowDown>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.clone().map_or(Inject::None, Inject::SlowDown).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SlowDown>, D::Error> {
        Ok(match Inject::deserialize(deserializer)? {
            Inject::None => None,
            Inject::SlowDown(slow_down) => Some(slow_down),
        })
    }
}

/// Settings of `optimize`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// No further step of the search starts after this many minutes.
    #[serde(rename = "budget_minutes", with = "minutes")]
    #[schemars(with = "f64", range(min = 0.01, max = 10_080))]
    pub budget: Duration,
    /// Measure the schedules of the experiment at every operating point, instead of searching.
    #[serde(default)]
    pub sweep: bool,
}

/// Ends when `min_frames` have run, `min_seconds` have passed and the frame time is steady; at the latest after
/// `max_seconds`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WarmUp {
    /// Minimum number of frames.
    #[schemars(range(max = 1_000_000))]
    pub min_frames: u32,
    /// Minimum time.
    #[serde(rename = "min_seconds", with = "seconds")]
    #[schemars(with = "f64", range(min = 0, max = 86_400))]
    pub min: Duration,
    /// Maximum time, steady or not.
    #[serde(rename = "max_seconds", with = "seconds")]
    #[schemars(with = "f64", range(min = 0.001, max = 86_400))]
    pub max: Duration,
}

/// Ends when `min_frames` have completed and `min_seconds` have passed; at the latest at either maximum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// Minimum number of frames.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_frames: u32,
    /// Minimum time.
    #[serde(rename = "min_seconds", with = "seconds")]
    #[schemars(with = "f64", range(min = 0, max = 86_400))]
    pub min: Duration,
    /// Maximum time, even if fewer frames have completed.
    #[serde(rename = "max_seconds", with = "seconds")]
    #[schemars(with = "f64", range(min = 0.001, max = 86_400))]
    pub max: Duration,
    /// Maximum number of frames, which bounds memory use. A stream continues beyond it, and counts later frames in
    /// histograms.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_frames: u32,
}

/// Ends when `min_frames` have run and `min_seconds` have passed; at the latest after `max_seconds`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Isolate {
    /// Whether stages are timed alone. If not, the efficiency of a pipeline is unknown.
    pub enabled: bool,
    /// Minimum number of frames.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_frames: u32,
    /// Minimum time.
    #[serde(rename = "min_seconds", with = "seconds")]
    #[schemars(with = "f64", range(min = 0, max = 86_400))]
    pub min: Duration,
    /// Maximum time, even if fewer frames have run.
    #[serde(rename = "max_seconds", with = "seconds")]
    #[schemars(with = "f64", range(min = 0.001, max = 86_400))]
    pub max: Duration,
}

/// Ends when `min_frames` are recorded and `min_seconds` have passed; at the latest after `max_seconds`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Frames that run before any is recorded.
    #[schemars(range(max = 1_000_000))]
    pub warm_up_frames: u32,
    /// Minimum number of frames in which every unit is timed. As many frames are recorded without unit timing.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_frames: u32,
    /// Minimum time.
    #[serde(rename = "min_seconds", with = "seconds")]
    #[schemars(with = "f64", range(min = 0, max = 86_400))]
    pub min: Duration,
    /// Maximum time, even if fewer frames have run.
    #[serde(rename = "max_seconds", with = "seconds")]
    #[schemars(with = "f64", range(min = 0.001, max = 86_400))]
    pub max: Duration,
    /// Profile each network again in every round, before its schedules are measured, and predict the schedules from
    /// this profile. Predicted and measured throughput of a round then belong to the same state of the machine.
    /// `optimize`, and loads other than `saturating`, always profile once.
    pub every_round: bool,
}

/// The schema of an experiment's file.
pub(super) static SCHEMA: LazyLock<serde_json::Value> = LazyLock::new(|| {
    schema::of_partial::<Experiment>(&["experiment", "networks"], DEFAULTS_TREE.as_ref().ok())
});

/// Reads and checks the experiment `name`.
pub(super) fn read(
    root: &Path,
    name: &str,
    overrides: &Overrides,
    defaults: &Node,
    faults: &mut Faults,
) -> Option<Experiment> {
    let requested = Spot::whole(format!("--experiment {name}"));
    let mut tree = files::read(root, Kind::Experiment, name, &requested, faults)?;
    overrides.lay_over(&mut tree, faults);
    let valid = check::check(&tree, &SCHEMA, faults)?;
    let mut whole = without_board(defaults);
    whole.overlay(valid);
    let mut experiment: Experiment = typed::read_checked(&whole, faults)?;
    let mut find = |name: &str, at: &Spot, faults: &mut Faults| network::find(root, name, at, faults);
    experiment.resolve(&whole, &mut find, faults);
    experiment.frames.find_files(root, &whole, faults);
    Some(experiment)
}

/// The defaults contain those of boards too.
fn without_board(tree: &Node) -> Node {
    let mut tree = tree.clone();
    if let Value::Map(entries) = &mut tree.value {
        entries.retain(|entry| entry.key != "board");
    }
    tree
}

/// Finds a network by name; the second argument is where it is named.
pub(super) type Find<'a> = dyn FnMut(&str, &Spot, &mut Faults) -> Option<NetworkSource> + 'a;

impl Experiment {
    /// Finds the networks and reports what the schema cannot express. `tree` is the complete experiment.
    pub(super) fn resolve(&mut self, tree: &Node, find: &mut Find<'_>, faults: &mut Faults) {
        for (group, low, high) in [
            ("warm_up", "min_seconds", "max_seconds"),
            ("measure", "min_seconds", "max_seconds"),
            ("measure", "min_frames", "max_frames"),
            ("isolate", "min_seconds", "max_seconds"),
            ("profile", "min_seconds", "max_seconds"),
        ] {
            check_order(tree, group, low, high, faults);
        }
        let names = std::mem::take(&mut self.networks);
        for (index, network) in names.iter().enumerate() {
            let at = tree.spot(&format!("networks/{index}"));
            self.networks.extend(find(network.name(), &at, faults));
        }
        self.check_half_precision(tree, faults);
        self.check_load(tree, faults);
        let mentions = mentions::collect(&self.schedules, tree, faults);
        (self.mentions, self.cuts) = (mentions.processors, mentions.cuts);
        if self.precision.is_some_and(|share| !(0.0001..=0.5).contains(&share)) {
            faults.add(&tree.spot("precision"), "expected a percentage from 0.01% to 50%");
        }
        if let Some(SlowDown { processor, .. }) = &self.slow_down {
            let at = tree.spot("inject/slow_down/processor");
            self.mentions.push(Mention { processor: processor.clone(), at });
        }
    }

    /// A search looks for the most frames per second, and under a stream all schedules that keep up have the same.
    fn check_load(&self, tree: &Node, faults: &mut Faults) {
        if self.search.is_some() && !self.load.is_saturating() {
            let message = "`optimize` measures with `load: saturating`; remove `load`, and use `bench` to measure the best \
                           schedule under a stream";
            faults.add(&tree.spot("load"), message);
        }
        if self.objective == Objective::Latency && self.load.stream().is_none() {
            let message =
                "`objective: latency` needs the rate of a stream; set `load: { stream: { fps: … } }`";
            faults.add(&tree.spot("objective"), message);
        }
        if self.queue_depth == QueueLength::Auto && self.load.stream().is_none() {
            let message = "`queue_depth: auto` needs the rate of a stream; set `load: { stream: { fps: … } }`, or a number";
            faults.add(&tree.spot("queue_depth"), message);
        }
    }

    /// A peer computes in single precision, so its figures would be those of another network.
    fn check_half_precision(&self, tree: &Node, faults: &mut Faults) {
        let Some(half) = self.networks.iter().find(|network| !network.precision().is_single()) else {
            return;
        };
        for (index, schedule) in self.schedules.iter().enumerate() {
            if let ScheduleSpec::Peer(peer) = schedule {
                let message = format!(
                    "the peer {} computes in single precision, but the network {} has `precision: {}`; measure them in \
                     different experiments",
                    peer.engine,
                    half.name(),
                    half.precision()
                );
                faults.add(&tree.spot(&format!("schedules/{index}")), message);
            }
        }
    }
}

/// Checks the processors that schedules name against those of the board. If the board lists its processors,
/// [`load`](super::load) has already done it; for `auto`, do it once they are detected.
pub fn check_processors<S: AsRef<str>>(experiment: &Experiment, names: &[S]) -> Result<(), Faults> {
    let mut faults = Faults::default();
    mentions::find_unknown(&experiment.mentions, names, &mut faults);
    faults.into_result(Some(()))
}

/// Checks the cuts set by hand against a network whose units are known.
pub fn check_cuts(experiment: &Experiment, network: &Network) -> Result<(), Faults> {
    let mut faults = Faults::default();
    mentions::find_bad_cuts(&experiment.cuts, network, &mut faults);
    faults.into_result(Some(()))
}

/// Reports a minimum above its maximum, at whichever of the two the user wrote.
fn check_order(tree: &Node, group: &str, low: &str, high: &str, faults: &mut Faults) {
    let number = |key: &str| {
        let node = tree.find(&format!("{group}/{key}"))?;
        Some((node, typed::read::<f64>(node).ok()?))
    };
    let (Some((low_node, least)), Some((high_node, most))) = (number(low), number(high)) else { return };
    if least <= most {
        return;
    }
    let (least, most) = (check::found(low_node), check::found(high_node));
    if &*low_node.at.source == DEFAULTS_PATH {
        let message = format!("{high} is {most}, less than {low}, which is {least} ({})", low_node.at);
        faults.add(&high_node.at, message);
    } else {
        let message = format!("{low} is {least}, more than {high}, which is {most} ({})", high_node.at);
        faults.add(&low_node.at, message);
    }
}
