//! One measured execution of one schedule.

use crate::cgroups::Groups;
use crate::crew::Crew;
use crate::engine::WeightsCache;
use crate::failure::Failure;
use crate::flow::{Flow, Sink, StageReport};
use crate::frames::FrameSet;
use crate::hindrance::Hindrance;
use crate::meters::{Reading, resident_bytes};
use crate::power::Sampler;
use crate::recorder::Recorder;
use crate::state;
use crate::watch::Watch;
use crate::wiring::Wiring;
use protocol::{Measured, Occupancy, Phase, Power, Trial};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Measures a schedule. `announce` is called as phases begin, never inside the window.
pub(crate) fn measure(
    trial: &Trial,
    cache: &mut WeightsCache,
    mut announce: impl FnMut(Phase),
) -> Result<Measured, Failure> {
    announce(Phase::Load);
    let wiring = Arc::new(Wiring::new(&trial.schedule)?);
    let recorder = Recorder::new(trial, wiring.stages.len())?;
    let hindrance = Hindrance::new(&trial.slow_down_per_mille);
    let weights = cache.map(wiring.weights())?;
    let mapped: HashMap<_, _> = wiring
        .weights()
        .zip(&weights)
        .filter_map(|(path, file)| Some((path?, file.as_ref()?.bytes())))
        .collect();
    let weights_bytes = mapped.values().sum();
    let frames = Arc::new(FrameSet::new(&trial.frames, &wiring.input_specs())?);
    let crew = Crew::start(&wiring, &weights)?;
    crew.check(&frames, 0)?;
    let (cpus, threads) = (wiring.cpus(), crew.threads());
    // After the threads of the stages: they are told apart as those that are new. It drops, and ends, on every way out.
    let sampler = trial.power.as_ref().map(|meter| Sampler::start(meter, &cpus));
    let mut isolated = Vec::new();
    if let Some(rule) = &trial.isolate {
        announce(Phase::Isolate);
        isolated = crew.isolate(&frames, rule, &hindrance)?;
    }
    let sysfs = Path::new(&trial.sysfs);
    let before = state::read(sysfs);
    let watch = Watch::start(sysfs, &cpus).map_err(Failure::internal)?;
    announce(Phase::WarmUp);
    let sink = Sink::Record(Mutex::new(recorder));
    let flow = Arc::new(Flow::new(&wiring, frames, trial.queue_depth, sink).hindered(hindrance));
    let groups = Groups::of_process();
    let take = || (Reading::take(&cpus, &threads), groups.throttling());
    let (reports, readings) = crew.run(&flow, || {
        let opening = flow.wait_opened().then(take)?;
        flow.wait_closed().then(|| (opening, take()))
    })?;
    let power = sampler.map(|sampler| match sampler.and_then(Sampler::finish) {
        Ok(readings) => Power::Read(readings),
        Err(message) => Power::Unreadable { message },
    });
    let mut watched = watch.finish();
    let Sink::Record(recorder) = flow.finish()? else {
        return Err(Failure::internal("failed to end the trial: its frames were not recorded"));
    };
    let ((opening, throttled_before), (closing, throttled)) =
        readings.ok_or_else(|| Failure::internal("failed to end the trial: it ended before its window"))?;
    let (host, cpu_ns) = closing.since(&opening);
    if let Some(watched) = &mut watched {
        watched.throttled = throttled.since(&throttled_before);
    }
    let recorder = recorder.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (warm_up, window, timeline) = recorder.into_parts();
    let (resident_bytes, anonymous_bytes) = resident_bytes();
    Ok(Measured {
        id: trial.id,
        isolated,
        warm_up,
        window,
        stages: reports.iter().zip(cpu_ns).map(|(report, cpu_ns)| occupancy(report, cpu_ns)).collect(),
        timeline,
        host,
        power,
        watched,
        before,
        after: state::read(sysfs),
        weights_bytes,
        resident_bytes,
        anonymous_bytes,
    })
}

fn occupancy(report: &StageReport, cpu_ns: u64) -> Occupancy {
    Occupancy {
        frames: report.frames,
        busy_ns: report.busy_ns,
        waiting_input_ns: report.waiting_input_ns,
        waiting_output_ns: report.waiting_output_ns,
        cpu_ns,
        minor_faults: report.usage.minor_faults,
        major_faults: report.usage.major_faults,
        voluntary_switches: report.usage.voluntary_switches,
        involuntary_switches: report.usage.involuntary_switches,
    }
}
