//! The figures of one trial.

use super::meter::Readings;
use super::stream_trial::StreamTrial;
use domain::{
    Absence, Energy, FramesPerSecond, Metric, Nanoseconds, Observation, Prediction, ReasonCode, Schedule,
    Stage, SustainedLoad, Validity, Window, disturbance, median_in_place, periods_ns, stream, throughput,
    validity,
};
use protocol::text;
use protocol::{
    LowestFrequency, MachineState, Measured, SettingChange, SettingDifference, Settings, Temperature,
};
use store::StateRecord;

/// What the validity rules need besides the trial.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<'a> {
    /// CPUs of the schedule's processors.
    pub(super) cpus: &'a [u32],
    /// Whether a stage runs on a GPU.
    pub(super) uses_gpu: bool,
    /// Present for a pipeline, whose stages may have replicas.
    pub(super) pipeline: Option<&'a Schedule>,
    /// Fewest frames of a window, if the configuration has it.
    pub(super) min_frames: Option<usize>,
    pub(super) limits: &'a validity::Limits,
    /// The state that was set before the first trial, if one was requested.
    pub(super) state: Option<&'a StateRecord>,
}

/// Figures of a measured trial.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trial {
    pub(super) round: u32,
    pub(super) frames: usize,
    pub(super) throughput: FramesPerSecond,
    /// In the order of completion; in a stream from the scheduled arrival.
    pub(super) latency: Vec<Nanoseconds>,
    /// Absent if the load was saturating.
    pub(super) stream: Option<StreamTrial>,
    /// The result of a search for the highest sustained rate.
    pub(super) sustained: Option<SustainedRate>,
    pub(super) stages: Vec<Shares>,
    /// Median time of each stage running alone, in ns; empty if it was not measured.
    pub(super) isolated_ns: Vec<f64>,
    pub(super) reasons: Vec<validity::Reason>,
    pub(super) power: Result<Readings, Absence>,
    /// From a profile of the same round.
    pub(super) prediction: Option<Prediction>,
    /// Set after the meter's character was learned from all trials of the run.
    pub(super) energy: Energy,
}

/// The result of a search for the highest sustained rate, in frames per second of all streams together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SustainedRate {
    pub(super) highest: f64,
    /// The lowest rate that is too high.
    pub(super) above: f64,
    /// Saturated throughput in the same round, if that trial is valid.
    pub(super) saturated_fps: Option<f64>,
}

impl SustainedRate {
    /// The rate in the middle of what the search left open.
    pub(super) fn middle(&self) -> f64 {
        (self.highest * self.above).sqrt()
    }
}

/// Shares of a window that a stage spent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shares {
    pub(super) busy: f64,
    pub(super) waiting_input: f64,
    pub(super) waiting_output: f64,
}

impl Trial {
    /// Computes the figures. An error if the completions do not form a window.
    pub(super) fn new(
        round: u32,
        measured: Measured,
        bounds: Bounds<'_>,
    ) -> Result<Self, throughput::WindowError> {
        let mut reasons = reasons(&measured, bounds);
        let mut window = Window::new(0, measured.window.completed_ns.clone())?;
        let (stream, latency) = match &measured.stream {
            None => {
                let rhythm = bounds.pipeline.map_or(1, |schedule| rhythm(schedule, &measured));
                reasons.extend(disturbance::pace(&window.inter_frame_over(rhythm)));
                (None, Nanoseconds::of_all(measured.window.latency_ns))
            }
            Some(streamed) => {
                if let Some(rest) = &streamed.rest {
                    let frames = usize::try_from(rest.completed).unwrap_or(usize::MAX);
                    window = window.with_more(frames, rest.closed_ns);
                }
                let (trial, latency, notes) =
                    StreamTrial::new(streamed, &window, &measured.window.completed_ns);
                reasons.extend(notes);
                (Some(trial), latency)
            }
        };
        let power = Readings::of_trial(
            measured.power.as_ref(),
            measured.window.opened_monotonic_ns,
            window.duration(),
        );
        let wall = window.duration().as_f64();
        let share = |ns: u64| ns as f64 / wall;
        let stages = measured.stages.iter().map(|stage| Shares {
            busy: share(stage.busy_ns),
            waiting_input: share(stage.waiting_input_ns),
            waiting_output: share(stage.waiting_output_ns),
        });
        let isolated = measured.isolated.iter().map(|stage| {
            let mut samples: Vec<f64> = stage.samples_ns.iter().map(|ns| *ns as f64).collect();
            median_in_place(&mut samples)
        });
        Ok(Self {
            round,
            frames: window.frames(),
            throughput: window.throughput(),
            latency,
            stream,
            sustained: None,
            stages: stages.collect(),
            isolated_ns: isolated.collect::<Option<Vec<_>>>().unwrap_or_default(),
            reasons,
            power,
            prediction: None,
            energy: Energy::Absent { reason: Absence::NotRead },
        })
    }

    /// The figure of this trial, in the unit of the metric. Absent if it was not measured.
    pub(super) fn figure(&self, metric: Metric) -> Option<f64> {
        let latency = || throughput::Latency::of(&self.latency).ok();
        match metric {
            Metric::Throughput => Some(self.throughput.0),
            Metric::LatencyP50 => latency().map(|latency| latency.p50_ns / 1e6),
            Metric::LatencyP90 => latency().map(|latency| latency.p90_ns / 1e6),
            Metric::LatencyP99 => latency().map(|latency| latency.p99_ns / 1e6),
            Metric::Sustained => self.sustained.map(|sustained| sustained.middle()),
            Metric::Delivered => self.stream.as_ref()?.delivered_percent(),
            Metric::OnTime => self.stream.as_ref()?.on_time_percent(),
            Metric::Age => self.stream.as_ref()?.age_ns.map(|age| age / 1e6),
            Metric::EnergyPerFrame => Some(self.energy.drawn()?.energy.0 / self.frames as f64),
            Metric::Power => Some(self.energy.drawn()?.mean_power().0),
        }
    }

    /// Whether drops and p99 are within their limits and latency did not grow; absent without a stream.
    pub(super) fn sustains(&self, wanted: &SustainedLoad) -> Option<bool> {
        let drops = 1.0 - self.stream.as_ref()?.delivered_percent()? / 100.0;
        let p99 = self.figure(Metric::LatencyP99)?;
        let grows = self.reasons.iter().any(|reason| reason.code == ReasonCode::LatencyGrows);
        Some(drops <= wanted.max_drops + 1e-12 && p99 <= wanted.deadline_ms && !grows)
    }

    pub(super) fn is_valid(&self) -> bool {
        validity::validity(&self.reasons) == Validity::Valid
    }

    /// Throughput over that of the slowest stage, if every stage runs alone. Absent for a stream, whose throughput is that
    /// of its arrivals.
    pub(super) fn efficiency(&self, schedule: &Schedule) -> Option<f64> {
        let slowest = periods_ns(schedule, &self.isolated_ns).into_iter().fold(0.0, f64::max);
        let possible = FramesPerSecond::from_frame_ns(slowest).0;
        (possible.is_finite() && self.stream.is_none()).then(|| self.throughput.0 / possible)
    }
}

/// The figures of the trials that have one.
pub(super) fn observations(trials: &[&Trial], metric: Metric) -> Vec<Observation> {
    let observation = |trial: &&Trial| Some(Observation { round: trial.round, value: trial.figure(metric)? });
    trials.iter().filter_map(observation).collect()
}

/// Frames that pass a stage with replicas while its slowest one has a frame. They may leave together, so frame times repeat after
/// so many.
fn rhythm(schedule: &Schedule, measured: &Measured) -> usize {
    let mut frames = measured.stages.iter().map(|stage| stage.frames);
    let of_stage = |replicas: &[Stage]| {
        let own: Vec<u64> = frames.by_ref().take(replicas.len()).collect();
        let fewest = own.iter().copied().min().filter(|_| own.len() > 1)?.max(1);
        usize::try_from(own.iter().sum::<u64>().div_ceil(fewest)).ok()
    };
    schedule.replicas().filter_map(of_stage).max().unwrap_or(1)
}

fn reasons(measured: &Measured, bounds: Bounds<'_>) -> Vec<validity::Reason> {
    let Bounds { cpus, uses_gpu, min_frames, limits, state, .. } = bounds;
    let (host, count) = (&measured.host, cpus.len() as u64);
    let cpu_time = Nanoseconds(host.cpu_time_ns(count));
    let stolen = host.surely_stolen_ns(count).map(Nanoseconds);
    let others = host.surely_others_ns(count).map(Nanoseconds);
    let mut reasons = Vec::new();
    reasons.extend(stolen.and_then(|stolen| validity::steal(stolen, cpu_time, limits)));
    reasons.extend(others.and_then(|others| validity::other_load(others, cpu_time, limits)));
    for cpu in cpus {
        let khz = frequency(&measured.before, *cpu).zip(frequency(&measured.after, *cpu));
        reasons.extend(khz.and_then(|(before, after)| validity::frequency(*cpu, before, after, limits)));
    }
    let throttled = measured.watched.iter().flat_map(|watched| &watched.throttled);
    reasons.extend(throttled.map(|throttled| {
        validity::throttled(&throttled.group, throttled.milli_cpus, Nanoseconds(throttled.throttled_ns))
    }));
    reasons.extend(state_changes(measured, cpus, state));
    reasons.extend(below_pinned(measured, state, limits));
    let gpu = measured.before.gpu.as_ref().filter(|gpu| uses_gpu && gpu.min_hz == gpu.max_hz);
    let lowest = measured.watched.as_ref().and_then(|watched| watched.gpu_lowest.as_ref());
    reasons.extend(
        gpu.zip(lowest).and_then(|(gpu, lowest)| validity::gpu_pinned(gpu.max_hz, lowest.hz, limits)),
    );
    for (stage, occupancy) in measured.stages.iter().enumerate() {
        reasons.extend(validity::major_faults(stage, occupancy.major_faults));
    }
    let frames = measured.window.completed_ns.len();
    reasons.extend(min_frames.and_then(|asked| validity::frames(frames, asked)));
    reasons.extend(match &measured.stream {
        None => validity::steady(measured.warm_up.steady),
        Some(_) => stream::settled(measured.warm_up.steady),
    });
    let faults = measured.stages.iter().map(|stage| stage.minor_faults).sum();
    reasons.extend(disturbance::minor_faults(faults, frames));
    for zone in &measured.before.temperatures {
        let after = measured.after.temperatures.iter().find(|other| other.zone == zone.zone);
        let celsius = |zone: &Temperature| zone.milli_celsius as f64 / 1000.0;
        reasons
            .extend(after.and_then(|after| disturbance::warmer(&zone.zone, celsius(zone), celsius(after))));
    }
    reasons
}

/// Settings that differ from the requested state or changed between the warm-up and the end of the window; each once.
fn state_changes(measured: &Measured, cpus: &[u32], state: Option<&StateRecord>) -> Vec<validity::Reason> {
    let of = |machine: &MachineState| Settings::from(machine).of_cpus(cpus);
    let (before, after) = (of(&measured.before), of(&measured.after));
    let mut seen: Vec<(SettingDifference, String)> = Vec::new();
    let mut add = |changed: SettingDifference, when: String| {
        if !seen.iter().any(|(known, _)| known.setting == changed.setting) {
            seen.push((changed, when));
        }
    };
    if let Some(record) = state.filter(|record| !record.asked.is_nothing()) {
        let set = record.brought.set.of_cpus(cpus);
        set.changes_to(&before).into_iter().for_each(|changed| add(changed, ", before the trial".to_owned()));
    }
    for SettingChange { at_ns, setting, from, to } in
        measured.watched.iter().flat_map(|watched| &watched.changes)
    {
        let opened = measured.window.opened_monotonic_ns;
        let seconds = |ns: u64| ns as f64 / 1e9;
        let when = if *at_ns < opened {
            format!(", {:.1} s before the window", seconds(opened - at_ns))
        } else {
            format!(", {:.1} s into the window", seconds(at_ns - opened))
        };
        add(SettingDifference { setting: setting.clone(), from: from.clone(), to: to.clone() }, when);
    }
    before.changes_to(&after).into_iter().for_each(|changed| add(changed, ", after the window".to_owned()));
    let (from, to) = (text::quota(&measured.before), text::quota(&measured.after));
    if from != to {
        add(SettingDifference { setting: "CPU quota".to_owned(), from, to }, ", after the window".to_owned());
    }
    let shown = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
    let reason = |(SettingDifference { setting, from, to }, when): (SettingDifference, String)| {
        validity::state_changed(&setting, &shown(from), &shown(to), &when)
    };
    seen.into_iter().map(reason).collect()
}

/// CPUs that ran below their pinned clock.
fn below_pinned(
    measured: &Measured,
    state: Option<&StateRecord>,
    limits: &validity::Limits,
) -> Vec<validity::Reason> {
    let Some(asked) = state.map(|record| &record.asked) else { return Vec::new() };
    let lowest = measured.watched.iter().flat_map(|watched| &watched.lowest);
    let reason = |lowest: &LowestFrequency| {
        let cpu = measured.before.cpus.iter().find(|cpu| cpu.id == lowest.cpu)?;
        // The governor `performance` keeps a CPU at the limit of its operating point.
        let is_limited = asked.cpu_limits.iter().any(|limit| limit.cpus.contains(&cpu.id));
        let is_kept = is_limited && cpu.governor.as_deref() == Some("performance");
        let is_pinned = asked.jetson_clocks == Some(true) && cpu.min_khz == cpu.max_khz;
        let pinned = cpu.max_khz.filter(|_| is_pinned || is_kept)?;
        validity::pinned(lowest.cpu, pinned, lowest.khz, limits)
    };
    lowest.filter_map(reason).collect()
}

fn frequency(machine: &MachineState, cpu: u32) -> Option<u64> {
    machine.cpus.iter().find(|known| known.id == cpu)?.current_khz
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::fixture::{self, Planned};

    #[test]
    fn frames_that_leave_a_stage_together_have_one_pace() {
        let stage = |name: &str, first, end| Stage { processor: name.into(), first, end };
        let network = fixture::network("resnet18").network;
        let pipeline = |stages: &[Stage]| Schedule::pipeline(&network, stages.to_vec()).unwrap();
        let planned = Planned {
            network: "resnet18",
            kind: "pipeline",
            processors: &["gpu", "cpu0", "cpu1"],
            frame_ns: 100,
            predicted_ns: 100,
        };
        let mut measured = planned.measured(1, 91);
        for (stage, frames) in measured.stages.iter_mut().zip([91, 61, 30]) {
            stage.frames = frames;
        }
        let shared = pipeline(&[stage("gpu", 0, 2), stage("cpu0", 2, 4), stage("cpu1", 2, 4)]);
        assert_eq!(rhythm(&shared, &measured), 4, "cpu0 passes up to three frames while cpu1 has one");
        let apart = pipeline(&[stage("gpu", 0, 2), stage("cpu0", 2, 3), stage("cpu1", 3, 4)]);
        assert_eq!(rhythm(&apart, &measured), 1);
        // Three leave together.
        let completed: Vec<u64> = (1..=90).map(|frame: u64| frame.div_ceil(3) * 3000).collect();
        let window = Window::new(0, completed).unwrap();
        assert_eq!(disturbance::pace(&window.inter_frame_over(3)), None);
    }
}
