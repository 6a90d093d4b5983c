//! One measured execution of a schedule.

use crate::accounting::Reading;
use crate::arrivals;
use crate::cgroups::Groups;
use crate::engine::WeightsCache;
use crate::failure::Failure;
use crate::frames::FrameSet;
use crate::machine_state;
use crate::memory::resident_bytes;
use crate::pipeline::{Pipeline, Sink, Slowdown, StageReport};
use crate::power::Sampler;
use crate::recorder::Recorder;
use crate::schedule::CheckedSchedule;
use crate::source;
use crate::stage_threads::StageThreads;
use crate::watch::Watch;
use protocol::{Measured, Occupancy, Phase, Power, Trial};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Measures a schedule. `announce` is called when a phase starts, never inside the window.
pub(crate) fn measure(
    trial: &Trial,
    cache: &mut WeightsCache,
    mut announce: impl FnMut(Phase),
) -> Result<Measured, Failure> {
    announce(Phase::Load);
    let load = trial.load.stream();
    load.map(arrivals::check).transpose()?;
    let schedule = Arc::new(CheckedSchedule::new(&trial.schedule)?);
    let recorder = Recorder::new(trial, schedule.stages.len())?;
    let slowdown = Slowdown::new(&trial.slow_down_per_mille);
    let weights = cache.map(schedule.weights())?;
    let mapped: HashMap<_, _> = schedule
        .weights()
        .zip(&weights)
        .filter_map(|(path, file)| Some((path?, file.as_ref()?.bytes())))
        .collect();
    let weights_bytes = mapped.values().sum();
    let frames = Arc::new(FrameSet::generate(&trial.frames, &schedule.input_specs())?);
    let threads = StageThreads::start(&schedule, &weights)?;
    threads.run_frame(&frames, 0)?;
    let (cpus, ids) = (schedule.cpus(), threads.ids());
    // Started after the stage threads, because engines recognize their own threads as the new ones.
    let sampler = trial.power.as_ref().map(|meter| Sampler::start(meter, &cpus));
    let mut isolated = Vec::new();
    if let Some(rule) = &trial.isolate {
        if !rule.at_once {
            announce(Phase::Isolate);
        }
        isolated = threads.isolate(&frames, rule, &slowdown)?;
    }
    let sysfs = Path::new(&trial.sysfs);
    let before = machine_state::read(sysfs);
    let watch = Watch::start(sysfs, &cpus, !threads.cuda().is_empty()).map_err(Failure::internal)?;
    announce(Phase::WarmUp);
    let sink = Sink::Record(Box::new(Mutex::new(recorder)));
    let pipeline = Pipeline::new(&schedule, frames, trial.queue_depth, sink)
        .with_slowdown(slowdown)
        .with_load(&trial.load);
    let pipeline = Arc::new(pipeline);
    let source =
        load.map(|load| source::start(&pipeline, *load, &cpus)).transpose().map_err(Failure::internal)?;
    let groups = Groups::of_process();
    let take = || (Reading::take(&cpus, &ids), groups.throttling());
    let executed = threads.execute(&pipeline, || {
        let opening = pipeline.wait_opened().then(take)?;
        pipeline.wait_closed().then(|| (opening, take()))
    });
    if let Some(source) = source {
        pipeline.stop();
        // If it panicked, the pipeline has failed.
        drop(source.join());
    }
    let (reports, readings) = executed?;
    let power = sampler.map(|sampler| match sampler.and_then(Sampler::finish) {
        Ok(readings) => Power::Read(readings),
        Err(message) => Power::Unreadable { message },
    });
    let mut watched = watch.finish();
    let Sink::Record(recorder) = pipeline.finish()? else {
        return Err(Failure::internal("failed to finish the trial: its frames were not recorded"));
    };
    let ((opening, throttled_before), (closing, throttled)) = readings.ok_or_else(|| {
        Failure::internal("failed to finish the trial: it stopped before its window closed")
    })?;
    let (host, cpu_ns) = closing.since(&opening);
    if let Some(watched) = &mut watched {
        watched.throttled = throttled.since(&throttled_before);
    }
    let recorder = (*recorder).into_inner().unwrap_or_else(PoisonError::into_inner);
    let (warm_up, window, timeline, stream) = recorder.into_parts();
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
        after: machine_state::read(sysfs),
        weights_bytes,
        resident_bytes,
        anonymous_bytes,
        cuda: threads.cuda(),
        stream,
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
