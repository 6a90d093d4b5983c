//! Time of every kernel call of a network, frame by frame.

use crate::clock::monotonic_ns;
use crate::engine::{Instrument, Library, StageCode, WeightsCache, WeightsFile};
use crate::failure::Failure;
use crate::frames::FrameSet;
use crate::meters::resident_bytes;
use crate::packet::Packet;
use crate::placement::settle;
use crate::wiring::{Program, StageLibrary, Wiring};
use protocol::{Kind, Profile, Profiled, Schedule, UnitSamples};
use std::sync::Arc;

/// Times the kernel calls. Frames with and without the instrument alternate, so that drift hits both alike.
pub(crate) fn profile(request: &Profile, cache: &mut WeightsCache) -> Result<Profiled, Failure> {
    let wiring = Wiring::new(&Schedule {
        kind: Kind::Single,
        values: request.values.clone(),
        inputs: request.stage.inputs.clone(),
        outputs: request.stage.outputs.clone(),
        stages: vec![request.stage.clone()],
    })?;
    let Program::Library(library) = &wiring.stages[0].program else {
        return Err(Failure::request("failed to profile: only stage libraries tell what their kernels cost"));
    };
    let weights = cache.map(wiring.weights())?.remove(0).ok_or_else(|| {
        Failure::internal("failed to profile: the weights of the stage library are not mapped")
    })?;
    let frames = FrameSet::new(&request.frames, &wiring.input_specs())?;
    // A thread of its own, because its binding and its pool of workers end with it.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("profile".to_owned()).stack_size(8 << 20);
        let thread = thread
            .spawn_scoped(scope, || Bench::prepare(&wiring, library, &weights, &frames)?.run(request))
            .map_err(|error| Failure::internal(format!("failed to start the profiling thread: {error}")))?;
        thread.join().unwrap_or_else(|_| Err(Failure::internal("failed to profile: the thread panicked")))
    })
}

/// Two machines of the same stage, one of them instrumented.
struct Bench<'a> {
    wiring: &'a Wiring,
    program: &'a StageLibrary,
    frames: &'a FrameSet,
    packet: Packet,
    plain: StageCode,
    instrumented: StageCode,
    instrument: Instrument,
    next_frame: u64,
}

impl<'a> Bench<'a> {
    fn prepare(
        wiring: &'a Wiring,
        program: &'a StageLibrary,
        weights: &Arc<WeightsFile>,
        frames: &'a FrameSet,
    ) -> Result<Self, Failure> {
        let stage = &wiring.stages[0];
        settle(&stage.binding)?;
        let library = Library::load(&program.path)?;
        let instrument = Instrument::new();
        let machine = |hook| library.machine(&program.entry, weights.tensors(&program.weights)?, hook);
        let (plain, instrumented) = (machine(None)?, machine(Some(&instrument))?);
        let packet = Packet::new(wiring.values.len(), 1);
        Ok(Self { wiring, program, frames, packet, plain, instrumented, instrument, next_frame: 0 })
    }

    fn run(mut self, request: &Profile) -> Result<Profiled, Failure> {
        self.learn(request)?;
        for _ in 0..request.warm_up_frames {
            self.plain_frame()?;
            self.instrumented_frame()?;
        }
        let unit = |call: &protocol::Call| UnitSamples { unit: call.unit, samples_ns: Vec::new() };
        let mut calls: Vec<_> = request.calls.iter().map(unit).collect();
        let (mut frame_ns, mut instrumented_frame_ns) = (Vec::new(), Vec::new());
        let begun = monotonic_ns();
        loop {
            frame_ns.push(self.plain_frame()?);
            let (whole, durations) = self.instrumented_frame()?;
            instrumented_frame_ns.push(whole);
            for (call, duration) in calls.iter_mut().zip(durations) {
                call.samples_ns.push(duration);
            }
            let elapsed = monotonic_ns() - begun;
            let enough = frame_ns.len() as u64 >= u64::from(request.min_frames) && elapsed >= request.min_ns;
            if enough || elapsed >= request.max_ns {
                let (resident_bytes, _) = resident_bytes();
                return Ok(Profiled {
                    id: request.id,
                    calls,
                    frame_ns,
                    instrumented_frame_ns,
                    resident_bytes,
                });
            }
        }
    }

    /// The first frame: checks what comes out, and that the kernels are those the request names.
    fn learn(&mut self, request: &Profile) -> Result<(), Failure> {
        let fit = |failure: Failure| Failure::library(failure.message);
        self.instrument.begin_frame();
        self.frame(|bench| &mut bench.instrumented).map_err(fit)?;
        let stage = &self.wiring.stages[0];
        self.instrumented.check(&self.packet.values, &stage.outputs, &self.wiring.values)?;
        self.instrument.end_frame();
        let found = self.instrument.names();
        let asked: Vec<_> = request.calls.iter().map(|call| call.function.as_str()).collect();
        if found == asked {
            return Ok(());
        }
        let place = found.iter().zip(&asked).take_while(|(found, asked)| found == *asked).count();
        let name =
            |name: Option<&str>| name.map_or_else(|| "nothing".to_owned(), |name| format!("\"{name}\""));
        Err(Failure::library(format!(
            "failed to fit stage library {} to the request: kernel call {place} is {}, the request says {} \
             ({} calls in all, the request says {})",
            self.program.path.display(),
            name(found.get(place).map(String::as_str)),
            name(asked.get(place).copied()),
            found.len(),
            asked.len()
        )))
    }

    fn plain_frame(&mut self) -> Result<u64, Failure> {
        self.frame(|bench| &mut bench.plain)
    }

    fn instrumented_frame(&mut self) -> Result<(u64, Vec<u64>), Failure> {
        self.instrument.begin_frame();
        let whole = self.frame(|bench| &mut bench.instrumented)?;
        let durations = self.instrument.end_frame().ok_or_else(|| {
            Failure::execution("failed to profile: the kernel calls were not the same in every frame")
        })?;
        // Both machines see every distinct frame.
        self.next_frame += 1;
        Ok((whole, durations))
    }

    /// Runs a frame; its duration in ns.
    fn frame(&mut self, machine: impl Fn(&mut Self) -> &mut StageCode) -> Result<u64, Failure> {
        let (wiring, number) = (self.wiring, self.next_frame);
        let stage = &wiring.stages[0];
        self.packet.admit(number, &wiring.inputs, self.frames.frame(number));
        let mut values = std::mem::take(&mut self.packet.values);
        let begin = monotonic_ns();
        let result = machine(self).run(&mut values, &stage.inputs, &stage.outputs);
        let duration = monotonic_ns() - begin;
        self.packet.values = values;
        result.map_err(Failure::execution)?;
        Ok(duration)
    }
}
