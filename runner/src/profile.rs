//! Times every kernel call of a network, frame by frame.

use crate::accounting::Reading;
use crate::clock::monotonic_ns;
use crate::engine::{FrameProfile, WeightsCache};
use crate::failure::Failure;
use crate::frames::FrameSet;
use crate::memory::resident_bytes;
use crate::schedule::CheckedSchedule;
use crate::stage_threads::{Profiler, StageThreads};
use protocol::{ExecutionMode, Profile, Profiled, Schedule, UnitSamples};
use std::sync::Arc;

/// Times the kernel calls. Frames with and without the instrument alternate, so that drift affects both equally.
pub(crate) fn profile(request: &Profile, cache: &mut WeightsCache) -> Result<Profiled, Failure> {
    let schedule = Arc::new(CheckedSchedule::new(&Schedule {
        kind: ExecutionMode::Single,
        values: request.values.clone(),
        inputs: request.stage.inputs.clone(),
        outputs: request.stage.outputs.clone(),
        stages: vec![request.stage.clone()],
    })?);
    let weights = cache.map(schedule.weights())?;
    let frames = FrameSet::generate(&request.frames, &schedule.input_specs())?;
    let threads = StageThreads::start(&schedule, &weights)?;
    let request = request.clone();
    let (cpus, ids) = (schedule.cpus(), threads.ids());
    let before = Reading::take(&cpus, &ids);
    let profiled = threads.profile(move |profiler| run(&request, &frames, profiler))?;
    let (host, _) = Reading::take(&cpus, &ids).since(&before);
    Ok(Profiled { host: Some(host), ..profiled })
}

fn run(request: &Profile, frames: &FrameSet, profiler: &mut Profiler<'_>) -> Result<Profiled, Failure> {
    let first = profiler.instrumented(frames, 0)?;
    profiler.check_outputs()?;
    check_calls(request, &first)?;
    let mut frame = 0;
    for _ in 0..request.warm_up_frames {
        profiler.plain(frames, frame)?;
        profiler.instrumented(frames, frame)?;
        frame += 1;
    }
    let unit = |call: &protocol::Call| UnitSamples { unit: call.unit, samples_ns: Vec::new() };
    let mut calls: Vec<_> = request.calls.iter().map(unit).collect();
    let (mut frame_ns, mut instrumented_frame_ns) = (Vec::new(), Vec::new());
    let begin = monotonic_ns();
    loop {
        frame_ns.push(profiler.plain(frames, frame)?);
        let profile = profiler.instrumented(frames, frame)?;
        frame += 1;
        instrumented_frame_ns.push(profile.frame_ns);
        for (unit, call) in calls.iter_mut().zip(&profile.calls) {
            unit.samples_ns.push(call.ns);
        }
        let elapsed = monotonic_ns() - begin;
        let enough = frame_ns.len() as u64 >= u64::from(request.min_frames) && elapsed >= request.min_ns;
        if enough || elapsed >= request.max_ns {
            let (resident_bytes, _) = resident_bytes();
            return Ok(Profiled {
                id: request.id,
                calls,
                frame_ns,
                instrumented_frame_ns,
                resident_bytes,
                cuda: profiler.cuda(),
                host: None,
            });
        }
    }
}

/// Checks that the kernels are those of the request.
fn check_calls(request: &Profile, profile: &FrameProfile) -> Result<(), Failure> {
    let found: Vec<&str> = profile.calls.iter().map(|call| &*call.function).collect();
    let expected: Vec<&str> = request.calls.iter().map(|call| call.function.as_str()).collect();
    if found == expected {
        return Ok(());
    }
    let place = found.iter().zip(&expected).take_while(|(found, expected)| found == expected).count();
    let name =
        |names: &[&str]| names.get(place).map_or_else(|| "missing".to_owned(), |name| format!("\"{name}\""));
    let path = request.stage.program.path();
    Err(Failure::library(format!(
        "failed to match stage library {path} with the request: kernel call {place} is {}, expected {} (it makes {} calls, \
         expected {})",
        name(&found),
        name(&expected),
        found.len(),
        expected.len()
    )))
}
