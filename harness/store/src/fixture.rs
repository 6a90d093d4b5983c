//! Records as a run on two CPUs yields them. Noise is drawn from seeds, so the same call gives the same samples.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, clippy::new_without_default)]
#![allow(missing_docs, reason = "for tests, which fail by panicking")]

use crate::{
    Access, ComparisonRecord, GpuRecord, NetworkRecord, Outcome, ProcessorRecord, ProfileRecord, Record,
    Revision, RunId, RunStart, ScheduleRecord, Store, StoreError, TransferRecord, TrialRecord, Versions,
};
use domain::{
    Boundary, Bytes, FramesPerSecond, Network, Prediction, ProcessorKind, ProcessorName, Schedule,
    SplitMix64, Stage, Tensor, Unit,
};
pub use protocol::fixture::{machine, machine_without_frequencies};
use protocol::{
    ArrivalTimes, Arrived, Compared, CudaDevice, Dropped, HandOver, HostLoad, Isolated, Measured, Occupancy,
    OutputDifference, Profiled, QueuePolicy, Span, StreamLoad, Streamed, Transferred, UnitSamples, WarmUp,
    Window,
};
use std::path::PathBuf;
use tempfile::TempDir;

/// 2025-11-23 13:30:02 UTC.
pub const BEGUN: u64 = 1_763_904_602_000_000_000;

/// A place for a database and journals.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// In memory, if this machine has a file system there: each commit to a disk takes milliseconds.
    pub fn in_memory() -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Self { folder: folder.unwrap() }
    }

    /// Below a directory that does not exist yet.
    pub fn database(&self) -> PathBuf {
        self.folder.path().join("results/results.db")
    }

    pub fn runs(&self) -> PathBuf {
        self.folder.path().join("target/edgepipe/runs")
    }

    pub fn open(&self) -> Store {
        Store::open(&self.database(), Access::ReadWrite).unwrap()
    }

    pub fn try_open(&self, access: Access) -> Result<Store, StoreError> {
        Store::open_with(&self.database(), access, std::time::Duration::from_millis(30))
    }
}

pub fn run_start() -> RunStart {
    run_start_at(BEGUN)
}

pub fn run_start_at(begun_unix_ns: u64) -> RunStart {
    let day = host::date::Date::from_unix_ns(begun_unix_ns).compact();
    let processor = |cpu: u32| ProcessorRecord {
        name: format!("cpu{cpu}"),
        kind: ProcessorKind::Cpu { cpus: vec![cpu], threads: 1, mcpu: None },
        gpu: None,
    };
    RunStart {
        id: RunId::try_from(format!("{day}-0badcafe")).unwrap(),
        begun_unix_ns,
        experiment: "quick".to_owned(),
        board: "local".to_owned(),
        processors: vec![processor(0), processor(1)],
        machine: machine(),
        host: "workbench".to_owned(),
        command: vec!["cargo xtask".to_owned(), "bench".to_owned()],
        configuration: "experiment: quick\ntolerance: 0.0001\n".to_owned(),
        // Does not fit the signed integers of a database as it is.
        seed: u64::MAX - 7,
        rounds: 5,
        versions: Versions {
            harness: "0.1.0".to_owned(),
            runner: Some("0.1.0".to_owned()),
            protocol: protocol::VERSION,
            tvm: Some("0.27.0.post1".to_owned()),
            llvm: None,
            python: Some("3.12.3".to_owned()),
        },
        revision: Some(Revision {
            commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
            dirty: true,
        }),
        provenance: serde_json::json!({ "rustc": "1.89.0" }),
        campaign: None,
        state: None,
    }
}

/// A GPU whose driver computes on CPUs, fed by CPU 0.
pub fn gpu() -> ProcessorRecord {
    ProcessorRecord {
        name: "gpu".to_owned(),
        kind: ProcessorKind::Cuda { arch: "sm_62".parse().unwrap(), device: 0, host_cpus: vec![0] },
        gpu: Some(GpuRecord {
            device: CudaDevice {
                index: 0,
                name: "sm_62 GPU emulated on CPUs".to_owned(),
                arch: "sm_62".to_owned(),
                memory_bytes: 4 << 30,
                multiprocessors: 2,
                max_khz: None,
                l2_bytes: None,
                integrated: true,
            },
            driver_path: "libcuda.so.1".to_owned(),
            driver_version: 10_020,
            emulated: true,
        }),
    }
}

/// Four units of equal work.
pub fn network(name: &str) -> NetworkRecord {
    let unit = |name: &str| Unit {
        name: name.to_owned(),
        operators: vec!["conv2d".to_owned(), "relu".to_owned()],
        macs: 1_000_000,
        parameters: 2_500,
    };
    let boundary = |cut: usize| Boundary {
        tensors: vec![Tensor {
            value: format!("x{cut}"),
            shape: vec![1, 64, 56, 56],
            dtype: "float32".to_owned(),
            bytes: Bytes(802_816),
        }],
    };
    let units = ["conv1", "layer1.0", "layer1.1", "fc"].map(unit).to_vec();
    let network = Network::new(name, units, (0..=4).map(boundary).collect()).unwrap();
    let source = serde_json::json!({ "zoo": name });
    NetworkRecord { source, sha256: "ab".repeat(32), fallback_units: vec![], network }
}

/// Durations around `ns`, up to 2 % above.
fn durations(numbers: &mut SplitMix64, count: usize, ns: u64) -> Vec<u64> {
    let noise = usize::try_from(ns / 50 + 1).unwrap();
    (0..count).map(|_| ns + numbers.below(noise) as u64).collect()
}

pub fn profile(network: &str, processor: &str, frame_ns: u64) -> ProfileRecord {
    let mut numbers = SplitMix64::new(frame_ns);
    let calls = (0..4)
        .map(|unit| UnitSamples { unit, samples_ns: durations(&mut numbers, 20, frame_ns / 4) })
        .collect();
    let profiled = Profiled {
        id: 3,
        calls,
        frame_ns: durations(&mut numbers, 20, frame_ns),
        instrumented_frame_ns: durations(&mut numbers, 20, frame_ns + 20_000),
        resident_bytes: 90 << 20,
        cuda: None,
        host: None,
    };
    ProfileRecord {
        network: network.to_owned(),
        processor: processor.to_owned(),
        contended: false,
        point: 0,
        profiled,
    }
}

pub fn transfer() -> TransferRecord {
    let size = |bytes: u64| HandOver {
        bytes,
        first_ns: vec![bytes / 10 + 900, bytes / 10 + 950],
        again_ns: vec![bytes / 12, bytes / 11],
    };
    let transferred = Transferred { id: 4, sizes: vec![size(4096), size(1 << 20)] };
    TransferRecord { from: "cpu0".to_owned(), to: "cpu1".to_owned(), point: 0, transferred }
}

/// What a schedule of the fixture is, and how fast.
#[derive(Debug, Clone)]
pub struct Planned {
    pub network: &'static str,
    /// `single`, `pipeline` or `replicate`.
    pub kind: &'static str,
    pub processors: &'static [&'static str],
    /// Time between completions.
    pub frame_ns: u64,
    /// What the profile says of it.
    pub predicted_ns: u64,
}

impl Planned {
    pub fn record(&self, place: u32) -> ScheduleRecord {
        let network = network(self.network).network;
        let names: Vec<ProcessorName> = self.processors.iter().map(|name| (*name).into()).collect();
        let schedule = match self.kind {
            "single" => Schedule::single(&network, names[0].clone()),
            "replicate" => Schedule::replicate(&network, names.clone()).unwrap(),
            _ => {
                let stages = names.iter().enumerate().map(|(index, processor)| {
                    let end = if index + 1 == names.len() { 4 } else { 2 * (index + 1) };
                    Stage { processor: processor.clone(), first: 2 * index, end }
                });
                Schedule::pipeline(&network, stages.collect()).unwrap()
            }
        };
        let copies = if self.kind == "replicate" { names.len() as u64 } else { 1 };
        let prediction = Prediction {
            // A fraction that takes all digits of a double.
            stage_ns: vec![(self.predicted_ns * copies) as f64 + 1.0 / 3.0; schedule.stages().len()],
            throughput: FramesPerSecond::from_frame_ns(self.predicted_ns as f64 + 1.0 / 3.0),
        };
        ScheduleRecord {
            place,
            network: self.network.to_owned(),
            schedule,
            point: 0,
            prediction: Some(prediction),
            queues: None,
        }
    }

    /// A trial of so many frames. Every stage is busy nearly all the time.
    pub fn measured(&self, seed: u64, frames: usize) -> Measured {
        let mut numbers = SplitMix64::new(seed);
        let stages = self.processors.len();
        let replicated = self.kind == "replicate" && stages > 1;
        let mut now = 0;
        let completed_ns: Vec<u64> = durations(&mut numbers, frames, self.frame_ns)
            .into_iter()
            .map(|ns| {
                now += ns;
                now
            })
            .collect();
        let own_ns = if replicated { self.frame_ns * stages as u64 } else { self.frame_ns };
        let latency_ns = durations(&mut numbers, frames, own_ns * if replicated { 1 } else { stages as u64 });
        let occupancy = || Occupancy {
            frames: (frames / if replicated { stages } else { 1 }) as u64,
            busy_ns: now / 100 * 97,
            waiting_input_ns: now / 100 * 2,
            waiting_output_ns: now / 100,
            cpu_ns: now / 100 * 96,
            minor_faults: 3,
            major_faults: 0,
            voluntary_switches: 2 * frames as u64,
            involuntary_switches: 4,
        };
        let span = |frame: u64, stage: u32| {
            let end_ns = (frame * self.frame_ns + u64::from(stage) * own_ns).cast_signed();
            Span { frame, stage, begin_ns: end_ns - own_ns.cast_signed(), end_ns }
        };
        let timeline = (0..32.min(frames as u64))
            .flat_map(|frame| (0..u32::try_from(stages).unwrap()).map(move |stage| span(frame, stage)))
            .collect();
        let (mut before, mut after) = (machine(), machine());
        before.load_milli = 200 + seed % 700;
        after.memory_available_bytes -= (seed % 1000) << 12;
        after.temperatures[0].milli_celsius += (seed % 2000).cast_signed();
        Measured {
            watched: None,
            cuda: Vec::new(),
            stream: None,
            id: seed,
            isolated: (0..stages)
                .map(|_| Isolated { samples_ns: durations(&mut numbers, 10, own_ns / 100 * 98) })
                .collect(),
            warm_up: WarmUp {
                completed_ns: (1..=10).map(|frame| frame * self.frame_ns).collect(),
                steady: true,
            },
            window: Window {
                opened_unix_ns: BEGUN + seed * 2_000_000_000,
                opened_monotonic_ns: 77_000_000_000 + seed * 2_000_000_000,
                completed_ns,
                latency_ns,
                completed_by: if replicated {
                    (0..frames).map(|frame| u32::try_from(frame % stages).unwrap()).collect()
                } else {
                    vec![]
                },
            },
            stages: (0..stages).map(|_| occupancy()).collect(),
            timeline,
            host: HostLoad {
                wall_ns: now,
                steal_ns: Some(now / 1000),
                busy_ns: Some(now * stages as u64),
                runner_ns: now / 100 * 97 * stages as u64,
                overhead_ns: 40_000,
            },
            power: None,
            before,
            after,
            weights_bytes: 46 << 20,
            resident_bytes: 120 << 20,
            anonymous_bytes: 60 << 20,
        }
    }
}

impl Planned {
    /// A trial under a stream of which every tenth frame is dropped. Frames arrive at equal distances and complete after the
    /// latency of [`Planned::measured`] and a wait of up to 2 ms.
    pub fn streamed(&self, seed: u64, frames: usize, load: StreamLoad) -> Measured {
        let mut measured = self.measured(seed, frames);
        let mut numbers = SplitMix64::new(seed ^ 0x5eed);
        let interval_ns = (1e9 / (load.fps * f64::from(load.streams))).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and small")]
        let interval_ns = interval_ns as u64;
        let (mut arrived, mut dropped) = (Arrived::default(), Dropped::default());
        let window = &mut measured.window;
        let latency_ns = std::mem::take(&mut window.latency_ns);
        window.completed_ns.clear();
        let (mut since_arrival_ns, mut completed_stream) = (Vec::new(), Vec::new());
        let mut arrival = 0u64;
        while since_arrival_ns.len() < frames {
            let scheduled = (arrival + 1) * interval_ns;
            let stream = u32::try_from(arrival % u64::from(load.streams)).unwrap();
            arrived.scheduled_ns.push(scheduled);
            arrived.late_ns.push(numbers.below(60_000) as u64);
            arrived.waiting.push(u32::try_from(arrival % 3).unwrap());
            if load.streams > 1 {
                arrived.stream.push(stream);
            }
            if arrival % 10 == 9 {
                dropped.dropped_ns.push(scheduled + 20_000);
                dropped.since_arrival_ns.push(20_000);
                if load.streams > 1 {
                    dropped.stream.push(stream);
                }
            } else {
                let latency = latency_ns[since_arrival_ns.len()];
                let since = latency + numbers.below(2_000_000) as u64;
                let earliest = window.completed_ns.last().copied().unwrap_or(0) + 1;
                let completed = (scheduled + since).max(earliest);
                window.completed_ns.push(completed);
                window.latency_ns.push(latency);
                since_arrival_ns.push(completed - scheduled);
                if load.streams > 1 {
                    completed_stream.push(stream);
                }
            }
            arrival += 1;
        }
        measured.host.wall_ns = *window.completed_ns.last().unwrap();
        measured.host.busy_ns = Some(measured.host.wall_ns);
        measured.host.runner_ns = measured.host.wall_ns;
        measured.stream = Some(Streamed {
            load,
            arrived,
            dropped,
            since_arrival_ns,
            completed_stream,
            source_cpu_ns: 1_200_000,
            source_apart: true,
            rest: None,
        });
        measured
    }
}

/// A camera of 30 frames per second.
pub fn camera() -> StreamLoad {
    StreamLoad {
        fps: 30.0,
        streams: 1,
        queue: 2,
        policy: QueuePolicy::DropOldest,
        arrivals: ArrivalTimes::Constant,
        deadline_ns: Some(33_000_000),
        seed: 1,
    }
}

/// Two baselines, a pipeline and a replicate of one network.
pub fn planned(network: &'static str) -> Vec<Planned> {
    let planned = |kind, processors, frame_ns, predicted_ns| Planned {
        network,
        kind,
        processors,
        frame_ns,
        predicted_ns,
    };
    vec![
        planned("single", &["cpu0"][..], 20_000_000, 20_100_000),
        planned("single", &["cpu1"][..], 20_400_000, 20_200_000),
        planned("pipeline", &["cpu0", "cpu1"][..], 10_600_000, 10_300_000),
        planned("replicate", &["cpu0", "cpu1"][..], 10_200_000, 10_100_000),
    ]
}

pub fn comparison(schedule: u32, reference: u32, max_abs: f64) -> ComparisonRecord {
    let output = OutputDifference {
        name: "logits".to_owned(),
        elements: 8000,
        non_finite: 0,
        max_abs,
        max_reference: 12.5,
        identical: max_abs == 0.0,
    };
    let compared = Compared { id: 9, frames: 8, outputs: vec![output] };
    ComparisonRecord { schedule, reference, tolerance: 1e-4, compared }
}

/// All records of a complete run of one network but the first and the last, with `rounds` trials of 40 frames of
/// each schedule.
pub fn records(network_name: &'static str, rounds: u32) -> Vec<Record> {
    let mut records = vec![
        Record::Network(Box::new(network(network_name))),
        Record::Profile(profile(network_name, "cpu0", 20_100_000)),
        Record::Profile(profile(network_name, "cpu1", 20_200_000)),
        Record::Transfer(transfer()),
    ];
    let planned = planned(network_name);
    let places = || 0..u32::try_from(planned.len()).unwrap();
    records.extend(places().zip(&planned).map(|(place, planned)| Record::Schedule(planned.record(place))));
    records.extend(places().skip(1).map(|place| Record::Comparison(comparison(place, 0, 0.0))));
    for round in 0..rounds {
        for (place, planned) in places().zip(&planned) {
            let position = round * u32::try_from(planned_count()).unwrap() + place;
            let measured = planned.measured(u64::from(position) + 1, 40);
            records.push(Record::Trial(trial(place, round, position, Outcome::Measured(Box::new(measured)))));
        }
    }
    records
}

fn planned_count() -> usize {
    planned("").len()
}

pub fn trial(schedule: u32, round: u32, position: u32, outcome: Outcome) -> TrialRecord {
    let begun_unix_ns = BEGUN + u64::from(position) * 2_000_000_000;
    TrialRecord { schedule, round, position, begun_unix_ns, cooling: None, prediction: None, outcome }
}

impl Store {
    /// The connection, to look behind the interface.
    pub fn connection(&self) -> &rusqlite::Connection {
        &self.connection
    }
}
