//! Has the runner time a network: every unit on a processor alone, and frames on each processor while the others are busy.

use crate::compile::CompiledNetwork;
use crate::processors::Processor;
use crate::runner_client::{LOADING, RunnerClient};
use crate::schedule_message::{self, nanoseconds};
use boards::SessionError;
use config::Experiment;
use domain::validity::{Limit, Limits, Reason, other_load, steal};
use domain::{Nanoseconds, QueueLength, Schedule};
use host::exit::{Coded, Exit};
use protocol::{Event, HostLoad, Profiled, Request};
use std::time::Duration;

/// Why a processor could not be profiled or verified.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    /// The runner failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A compiled artifact is missing or inconsistent.
    #[error(transparent)]
    Artifact(anyhow::Error),
    /// Too few frames were completed in time.
    #[error(
        "failed to {task}: {processor} completed fewer than two frames in time; raise `profile.max_seconds` in the \
         experiment"
    )]
    TooSlow {
        /// Completes "failed to …".
        task: String,
        /// The slow processor.
        processor: String,
    },
}

impl Coded for ProfileError {
    fn exit(&self) -> Exit {
        match self {
            Self::Session(error) => error.exit(),
            Self::Artifact(_) => Exit::Bug,
            Self::TooSlow { .. } => Exit::Trial,
        }
    }
}

/// Processors that are busy at the same time, by their places.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) members: Vec<usize>,
    /// The frames of so many of them count, from the first on.
    pub(crate) kept: usize,
}

/// Groups in which the frames of every processor count once: those of the board together, and each merged processor with
/// those that have none of its CPUs.
pub(crate) fn groups(processors: &[Processor]) -> Vec<Group> {
    let own = || (0..processors.len()).filter(|place| !processors[*place].name.is_merged());
    let merged = (0..processors.len()).filter(|place| processors[*place].name.is_merged());
    let beside = |place: usize| {
        let others = own().filter(|other| !processors[*other].name.overlaps(&processors[place].name));
        Group { members: std::iter::once(place).chain(others).collect(), kept: 1 }
    };
    let board = Group { members: own().collect(), kept: own().count() };
    std::iter::once(board).chain(merged.map(beside)).collect()
}

/// Share of the CPU time that others may take before a profile is repeated. A few percent move a cut by as much.
const DISTURBED: Limit = Limit { warn: 0.05, void: 1.0 };

/// Most profiles of the same frames. The fastest one counts, because other load only makes them slower.
const ATTEMPTS: usize = 3;

/// A profile that was repeated while others took CPU time.
#[derive(Debug)]
pub(crate) struct Undisturbed<T> {
    pub(crate) value: T,
    /// What disturbed the last attempt; absent if nothing did.
    pub(crate) disturbance: Option<Reason>,
}

/// Measures until an attempt is not disturbed, and joins what the attempts found.
fn undisturbed<T>(
    cpus: &[&Processor],
    mut attempt: impl FnMut() -> Result<(T, Option<HostLoad>), ProfileError>,
    faster: impl Fn(T, T) -> T,
) -> Result<Undisturbed<T>, ProfileError> {
    let count = cpus.iter().map(|processor| processor.kind.thread_cpus().len() as u64).sum();
    let (mut value, host) = attempt()?;
    let mut disturbance = host.and_then(|host| disturbance(&host, count));
    for _ in 1..ATTEMPTS {
        if disturbance.is_none() {
            break;
        }
        let (again, host) = attempt()?;
        value = faster(value, again);
        disturbance = host.and_then(|host| self::disturbance(&host, count));
    }
    Ok(Undisturbed { value, disturbance })
}

fn disturbance(host: &HostLoad, cpus: u64) -> Option<Reason> {
    let limits = Limits { steal: DISTURBED, other_load: DISTURBED, ..Limits::default() };
    let cpu_time = Nanoseconds(host.cpu_time_ns(cpus));
    let others = host.surely_others_ns(cpus).map(Nanoseconds);
    let stolen = host.surely_stolen_ns(cpus).map(Nanoseconds);
    let reason = others.and_then(|others| other_load(others, cpu_time, &limits));
    reason.or_else(|| steal(stolen?, cpu_time, &limits))
}

/// The median of times.
pub(crate) fn typical(frame_ns: &[u64]) -> u64 {
    let mut sorted = frame_ns.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

/// Times every unit of a network on a processor, again if others took CPU time.
///
/// # Errors
/// As [`measure_units`].
pub(crate) fn measure_units_undisturbed(
    runner: &mut RunnerClient,
    experiment: &Experiment,
    network: &CompiledNetwork,
    processor: &Processor,
) -> Result<Undisturbed<Profiled>, ProfileError> {
    let attempt = || {
        let mut profiled = measure_units(runner, experiment, network, processor)?;
        let host = profiled.host.take();
        Ok((profiled, host))
    };
    let faster = |one: Profiled, other: Profiled| {
        if typical(&other.frame_ns) < typical(&one.frame_ns) { other } else { one }
    };
    undisturbed(&[processor], attempt, faster)
}

/// Times every unit of a network on a processor.
///
/// # Errors
/// As [`RunnerClient::request`].
pub(crate) fn measure_units(
    runner: &mut RunnerClient,
    experiment: &Experiment,
    network: &CompiledNetwork,
    processor: &Processor,
) -> Result<Profiled, ProfileError> {
    let whole = Schedule::single(&network.network, processor.name.clone());
    let stages = network.stages(&whole, std::slice::from_ref(processor)).map_err(ProfileError::Artifact)?;
    let Some(stage) = stages.first() else {
        return Err(ProfileError::Artifact(anyhow::anyhow!("a single schedule has no stage")));
    };
    let (values, stage, calls) =
        schedule_message::profile(stage, processor.message()).map_err(ProfileError::Artifact)?;
    let task = format!("profile {} on {}", network.name, processor.name);
    let rule = &experiment.profile;
    let event = runner.request(&task, rule.max + LOADING, |id| {
        Request::Profile(protocol::Profile {
            id,
            values: values.clone(),
            stage: stage.clone(),
            calls: calls.clone(),
            frames: network.frames.clone(),
            warm_up_frames: rule.warm_up_frames,
            min_frames: rule.min_frames,
            min_ns: nanoseconds(rule.min),
            max_ns: nanoseconds(rule.max),
        })
    })?;
    match event {
        Event::Profiled(profiled) => Ok(profiled),
        other => Err(runner.unexpected(&task, &other).into()),
    }
}

/// How much longer than alone a frame may take while all processors are busy, and frames of the slowest processor in the window.
const SLOWEST_FRAMES: u64 = 2 * 4;

/// Shortest and longest window in ns: as the experiment asks, or longer if the slowest processor needs it for a few frames.
fn contended_window(least_ns: u64, most_ns: u64, alone: &[&Profiled]) -> (u64, u64) {
    let slowest = alone.iter().map(|profiled| typical(&profiled.frame_ns)).max().unwrap_or(0);
    window(least_ns, most_ns, slowest)
}

/// The same, from the time of a frame on the slowest processor.
pub(crate) fn window(least_ns: u64, most_ns: u64, slowest_ns: u64) -> (u64, u64) {
    let least = least_ns.max(slowest_ns.saturating_mul(SLOWEST_FRAMES));
    (least, most_ns.max(least.saturating_mul(2)))
}

/// How much longer the second window is, if a processor completes too few frames in the first one because other programs
/// hold it back.
const SECOND_WINDOW: u64 = 4;

/// Times frames of each of these members of `processors` while all of them run the whole network; in ns, by member. `alone` are
/// the profiles of all processors alone.
///
/// # Errors
/// As [`RunnerClient::request`], and if a processor completes fewer than two frames in the second window too.
pub(crate) fn measure_group(
    runner: &mut RunnerClient,
    experiment: &Experiment,
    network: &CompiledNetwork,
    processors: &[Processor],
    members: &[usize],
    alone: &[Profiled],
) -> Result<(Vec<Vec<u64>>, HostLoad), ProfileError> {
    let processors: Vec<Processor> = members.iter().map(|place| processors[*place].clone()).collect();
    let alone: Vec<&Profiled> = members.iter().map(|place| &alone[*place]).collect();
    let rule = &experiment.profile;
    let (least, most) = contended_window(nanoseconds(rule.min), nanoseconds(rule.max), &alone);
    match measure_in_window(runner, experiment, network, &processors, (least, most)) {
        Err(ProfileError::TooSlow { .. }) => {
            let longer = (least.saturating_mul(SECOND_WINDOW), most.saturating_mul(SECOND_WINDOW));
            measure_in_window(runner, experiment, network, &processors, longer)
        }
        measured => measured,
    }
}

/// The same, again if others took CPU time.
///
/// # Errors
/// As [`measure_group`].
pub(crate) fn measure_group_undisturbed(
    runner: &mut RunnerClient,
    experiment: &Experiment,
    network: &CompiledNetwork,
    processors: &[Processor],
    members: &[usize],
    alone: &[Profiled],
) -> Result<Undisturbed<Vec<Vec<u64>>>, ProfileError> {
    let attempt = || {
        let (frames, host) = measure_group(runner, experiment, network, processors, members, alone)?;
        Ok((frames, Some(host)))
    };
    let faster = |one: Vec<Vec<u64>>, other: Vec<Vec<u64>>| {
        let pairs = one.into_iter().zip(other);
        pairs.map(|(one, other)| if typical(&other) < typical(&one) { other } else { one }).collect()
    };
    let busy: Vec<&Processor> = members.iter().map(|place| &processors[*place]).collect();
    undisturbed(&busy, attempt, faster)
}

fn measure_in_window(
    runner: &mut RunnerClient,
    experiment: &Experiment,
    network: &CompiledNetwork,
    processors: &[Processor],
    (min_ns, max_ns): (u64, u64),
) -> Result<(Vec<Vec<u64>>, HostLoad), ProfileError> {
    let names = processors.iter().map(|processor| processor.name.clone()).collect();
    let all =
        Schedule::replicate(&network.network, names).map_err(|error| ProfileError::Artifact(error.into()))?;
    let stages = network.stages(&all, processors).map_err(ProfileError::Artifact)?;
    let schedule = schedule_message::schedule(&all, &network.manifest, &stages, processors)
        .map_err(ProfileError::Artifact)?;
    let task = format!("time {} on all processors at once", network.name);
    let rule = &experiment.profile;
    let each = |frames: u32| frames.saturating_mul(u32::try_from(processors.len()).unwrap_or(u32::MAX));
    let sysfs = runner.sysfs().to_owned();
    let event = runner.request(&task, rule.max + Duration::from_nanos(max_ns) + LOADING, |id| {
        Request::Trial(protocol::Trial {
            id,
            schedule: schedule.clone(),
            frames: network.frames.clone(),
            load: protocol::Load::Saturating,
            // Replicas have no queues between them.
            queue_depth: QueueLength::DEFAULT,
            isolate: None,
            warm_up: protocol::WarmUpRule {
                min_frames: each(rule.warm_up_frames),
                min_ns: 0,
                max_ns: nanoseconds(rule.max),
            },
            measure: protocol::WindowRule {
                min_frames: each(rule.min_frames),
                min_ns,
                max_ns,
                max_frames: experiment.measure.max_frames,
            },
            timeline_frames: 0,
            power: None,
            sysfs: sysfs.clone(),
            slow_down_per_mille: Vec::new(),
        })
    })?;
    let Event::Measured(measured) = event else { return Err(runner.unexpected(&task, &event).into()) };
    let window = &measured.window;
    let mut durations = Vec::new();
    for (place, processor) in processors.iter().enumerate() {
        let completed: Vec<u64> = window
            .completed_ns
            .iter()
            .zip(&window.completed_by)
            .filter(|(_, by)| **by as usize == place)
            .map(|(completed, _)| *completed)
            .collect();
        let frames: Vec<u64> = completed.windows(2).map(|pair| pair[1] - pair[0]).collect();
        if frames.is_empty() {
            return Err(ProfileError::TooSlow { task, processor: processor.name.to_string() });
        }
        durations.push(frames);
    }
    Ok((durations, measured.host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::fixture;

    /// Load of one CPU in a second, of which others took so many percent.
    fn load(others: u64, stolen: u64) -> HostLoad {
        let runner_ns = 700_000_000;
        HostLoad {
            wall_ns: 1_000_000_000,
            steal_ns: Some(stolen * 10_000_000),
            busy_ns: Some(runner_ns + others * 10_000_000),
            runner_ns,
            overhead_ns: 0,
        }
    }

    #[test]
    fn a_profile_is_repeated_while_others_take_cpu_time_and_the_fastest_one_counts() {
        let cpu = Processor::cpus(&fixture::machine(), "cpu0", vec![0], 1, None);
        let check = |attempts: &[(u64, HostLoad)], wanted: (u64, usize, Option<&str>)| {
            let mut made = attempts.iter();
            let attempt = || {
                made.next().map(|(ns, load)| (*ns, Some(load.clone()))).ok_or_else(|| panic!("one too many"))
            };
            let found = undisturbed(&[&cpu], attempt, u64::min).unwrap();
            let disturbance = found.disturbance.map(|reason| reason.text);
            assert_eq!((found.value, attempts.len() - made.len(), disturbance.as_deref()), wanted);
        };
        // Up to two ticks of busy time, and one of stolen time, may be rounding.
        check(&[(5, load(7, 6))], (5, 1, None));
        check(&[(9, load(8, 0)), (5, load(0, 0))], (5, 2, None));
        check(&[(5, load(0, 8)), (6, load(0, 0))], (5, 2, None));
        let busy = [(9, load(30, 0)), (7, load(30, 0)), (8, load(42, 0))];
        check(&busy, (7, 3, Some("other processes used 40.0 % of the CPU time")));
        // On some systems the kernel does not count.
        let unknown = HostLoad { steal_ns: None, busy_ns: None, ..load(50, 50) };
        check(&[(5, unknown)], (5, 1, None));
    }

    #[test]
    fn a_contended_window_has_frames_of_the_slowest_processor() {
        let profile = |ns: u64| fixture::profile("net", "cpu0", ns).profiled;
        let alone = [profile(1_000_000), profile(100_000_000)];
        let (least, most) = contended_window(50_000_000, 1_000_000_000, &alone.each_ref());
        assert!((800_000_000..820_000_000).contains(&least) && most == 2 * least, "{least} {most}");
        let fast = [profile(1_000_000)];
        assert_eq!(
            contended_window(50_000_000, 1_000_000_000, &fast.each_ref()),
            (50_000_000, 1_000_000_000)
        );
    }

    #[test]
    fn a_merged_processor_is_timed_beside_those_without_its_cpus() {
        let machine = fixture::machine();
        let make = |name: &str| Processor::cpus(&machine, name, vec![0], 1, None);
        let of = |names: &[&str]| {
            let processors: Vec<Processor> = names.iter().map(|name| make(name)).collect();
            groups(&processors).into_iter().map(|group| (group.members, group.kept)).collect::<Vec<_>>()
        };
        assert_eq!(of(&["a", "b"]), [(vec![0, 1], 2)]);
        assert_eq!(of(&["a", "b", "c", "a+b"]), [(vec![0, 1, 2], 3), (vec![3, 2], 1)]);
        assert_eq!(of(&["a", "b", "a+b"]), [(vec![0, 1], 2), (vec![2], 1)]);
    }
}
