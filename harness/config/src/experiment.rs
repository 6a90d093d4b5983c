//! An experiment as the program uses it.

use std::path::Path;
use std::time::Duration;

use super::faults::{Faults, Spot};
use super::files::{self, Kind};
use super::network::{self, NetworkSource};
use super::overrides::Overrides;
use super::raw;
use super::schedules::{self, CutMention, Mention, Resolved};
use super::schema::{DEFAULTS_PATH, SCHEMAS};
use super::tree::Node;
use super::{check, typed};

/// What to measure and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// Its name.
    pub name: String,
    /// In the order of the file; never empty, each once.
    pub networks: Vec<NetworkSource>,
    /// In the order of the file; never empty, each once.
    pub schedules: Vec<ScheduleSpec>,
    /// What the planner optimizes.
    pub objective: Objective,
    /// Trials of each schedule, at least 1.
    pub trials: u32,
    /// Rounds are added until every interval is as narrow as this: half its width over its figure. `None`: none are.
    pub precision: Option<f64>,
    /// With `precision`: no round begins after so much measuring.
    pub max_time: Duration,
    /// What runs before each measured window.
    pub warm_up: WarmUp,
    /// The measured window.
    pub measure: Measure,
    /// Each stage by itself; `None`: not done.
    pub isolate: Option<Isolate>,
    /// Timing of units.
    pub profile: Profile,
    /// Frames that may wait between two stages, at least 1.
    pub queue_depth: u32,
    /// So many frames of a window are kept with their time spans.
    pub timeline_frames: u32,
    /// Input frames.
    pub frames: Frames,
    /// Seed of the trials' order and of resampling.
    pub seed: u64,
    /// Largest relative difference of outputs, above 0.
    pub tolerance: f64,
    /// Pause before each trial.
    pub cooldown: Duration,
    /// A processor made slower on purpose.
    pub slow_down: Option<SlowDown>,
    /// Every processor the schedules name, and where; see [`check_processors`](super::check_processors).
    pub mentions: Vec<Mention>,
    /// Every cut made by hand, and where; see [`check_cuts`](super::check_cuts).
    pub cuts: Vec<CutMention>,
}

/// A processor made slower on purpose.
#[derive(Debug, Clone, PartialEq)]
pub struct SlowDown {
    /// The processor.
    pub processor: String,
    /// By how much of its own time every stage on it takes longer: 5 is 5 %.
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

/// A way of running a network, as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleSpec {
    /// The whole network on each processor in turn: one schedule each.
    SingleEach,
    /// The whole network on this processor.
    Single(String),
    /// The planner cuts the network.
    PipelineAuto {
        /// Processors it may use, at least 2; `None`: all of the board's.
        processors: Option<Vec<String>>,
    },
    /// Cuts by hand: at least 2 stages, no processor twice, `until` in all but the last.
    PipelineManual(Vec<ManualStage>),
    /// The whole network on every processor of the board, frames dealt out.
    ReplicateAll,
    /// The whole network on these processors, at least 2, frames dealt out.
    Replicate(Vec<String>),
    /// The whole network in another inference engine.
    Peer(PeerSpec),
}

/// Another inference engine, as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSpec {
    /// Its name.
    pub engine: String,
    /// Threads of a session, at least 1; `None`: as many as there are CPUs.
    pub threads: Option<u32>,
    /// Sessions side by side, at least 1; `None`: as many as there is room for.
    pub sessions: Option<u32>,
    /// Processors whose CPUs it may use; `None`: all of the board's.
    pub processors: Option<Vec<String>>,
}

/// A stage by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManualStage {
    /// Where it runs.
    pub processor: String,
    /// Its last unit, or the beginning of that unit's dotted name; `None` for the last stage only.
    pub until: Option<String>,
}

/// What the planner optimizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objective {
    /// Frames per second.
    Throughput,
}

/// Ends once both minima are reached and the pace is steady, or at the maximum. Minimum ≤ maximum here and below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmUp {
    /// Frames at least.
    pub min_frames: u32,
    /// Time at least.
    pub min: Duration,
    /// Time at most.
    pub max: Duration,
}

/// Ends once both minima are reached, or at either maximum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measure {
    /// Frames at least, 1 or more.
    pub min_frames: u32,
    /// Time at least.
    pub min: Duration,
    /// Time at most.
    pub max: Duration,
    /// Frames at most.
    pub max_frames: u32,
}

/// Ends once both minima are reached, or at the maximum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolate {
    /// Frames at least, 1 or more.
    pub min_frames: u32,
    /// Time at least.
    pub min: Duration,
    /// Time at most.
    pub max: Duration,
}

/// Ends once both minima are reached, or at the maximum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Frames run before anything is kept.
    pub warm_up_frames: u32,
    /// Instrumented frames at least, 1 or more.
    pub min_frames: u32,
    /// Time at least.
    pub min: Duration,
    /// Time at most.
    pub max: Duration,
}

/// Input frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frames {
    /// Seed of the first frame.
    pub seed: u64,
    /// Distinct frames, at least 1.
    pub distinct: u32,
}

/// Reads and checks the experiment `name`.
pub(super) fn read(
    root: &Path,
    name: &str,
    overrides: &Overrides,
    defaults: &Node,
    faults: &mut Faults,
) -> Option<Experiment> {
    let asked = Spot::whole(format!("--experiment {name}"));
    let mut tree = files::read(root, Kind::Experiment, name, &asked, faults)?;
    overrides.lay_over(&mut tree, faults);
    let sound = check::check(&tree, &SCHEMAS.experiment, faults)?;
    let mut whole = defaults.clone();
    whole.overlay(sound);
    let raw = typed::read(&without_board(&whole));
    if let (Err(error), true) = (&raw, faults.is_empty()) {
        faults.add(&whole.at, error.to_string());
    }
    let mut find = |name: &str, asked: &Spot, faults: &mut Faults| network::find(root, name, asked, faults);
    Some(resolve(raw.ok()?, &whole, &mut find, faults))
}

/// The defaults hold those of boards too.
fn without_board(tree: &Node) -> Node {
    let mut tree = tree.clone();
    if let super::tree::Value::Map(entries) = &mut tree.value {
        entries.retain(|entry| entry.key != "board");
    }
    tree
}

/// How networks are found: name, where it was asked for.
pub(super) type Find<'a> = dyn FnMut(&str, &Spot, &mut Faults) -> Option<NetworkSource> + 'a;

/// Checks what a schema cannot say. `tree` is what `raw` was read from.
pub(super) fn resolve(
    raw: raw::Experiment,
    tree: &Node,
    find: &mut Find<'_>,
    faults: &mut Faults,
) -> Experiment {
    for (group, low, high) in [
        ("warm_up", "min_seconds", "max_seconds"),
        ("measure", "min_seconds", "max_seconds"),
        ("measure", "min_frames", "max_frames"),
        ("isolate", "min_seconds", "max_seconds"),
        ("profile", "min_seconds", "max_seconds"),
    ] {
        check_order(tree, group, low, high, faults);
    }
    let mut networks = Vec::new();
    for (index, name) in raw.networks.iter().enumerate() {
        let at = tree.spot(&format!("networks/{index}"));
        networks.extend(find(&name.0, &at, faults));
    }
    let Resolved { schedules, mut mentions, cuts } = schedules::resolve(raw.schedules, tree, faults);
    let precision = match &raw.precision {
        raw::Precision::Any(_) => None,
        raw::Precision::Within(percent) => Some(percent.share()),
    };
    if precision.is_some_and(|share| !(0.0001..=0.5).contains(&share)) {
        faults.add(&tree.spot("precision"), "expected a share from 0.01% to 50%");
    }
    let slow_down = match raw.inject {
        raw::Inject::None => None,
        raw::Inject::SlowDown(raw) => {
            let at = tree.spot("inject/slow_down/processor");
            mentions.push(Mention { processor: raw.processor.0.clone(), at });
            Some(SlowDown { processor: raw.processor.0, percent: raw.percent })
        }
    };
    let isolate = Isolate {
        min_frames: raw.isolate.min_frames,
        min: seconds(raw.isolate.min_seconds),
        max: seconds(raw.isolate.max_seconds),
    };
    Experiment {
        name: raw.name.0,
        networks,
        schedules,
        objective: match raw.objective {
            raw::Objective::Throughput => Objective::Throughput,
        },
        trials: raw.trials,
        precision,
        max_time: Duration::from_secs_f64(60.0 * raw.max_minutes),
        warm_up: WarmUp {
            min_frames: raw.warm_up.min_frames,
            min: seconds(raw.warm_up.min_seconds),
            max: seconds(raw.warm_up.max_seconds),
        },
        measure: Measure {
            min_frames: raw.measure.min_frames,
            min: seconds(raw.measure.min_seconds),
            max: seconds(raw.measure.max_seconds),
            max_frames: raw.measure.max_frames,
        },
        isolate: raw.isolate.enabled.then_some(isolate),
        profile: Profile {
            warm_up_frames: raw.profile.warm_up_frames,
            min_frames: raw.profile.min_frames,
            min: seconds(raw.profile.min_seconds),
            max: seconds(raw.profile.max_seconds),
        },
        queue_depth: raw.queue_depth,
        timeline_frames: raw.timeline_frames,
        frames: Frames { seed: raw.frames.seed, distinct: raw.frames.distinct },
        seed: raw.seed,
        tolerance: raw.tolerance,
        cooldown: seconds(raw.cooldown_seconds),
        slow_down,
        mentions,
        cuts,
    }
}

/// The schema holds seconds to 0…86400, for which this cannot fail.
fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value)
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
        let message = format!("{high} is {most}, below {low} of {least} ({})", low_node.at);
        faults.add(&high_node.at, message);
    } else {
        let message = format!("{low} is {least}, above {high} of {most} ({})", high_node.at);
        faults.add(&low_node.at, message);
    }
}
