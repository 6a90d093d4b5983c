//! Made-up runs, written to a database by the real store, and their reports. For tests.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]
#![allow(missing_docs, reason = "for tests, which fail by panicking")]

use crate::{Report, Row};
use protocol::{Idled, Measured, Power, PowerReadings, RailReadings, StreamLoad};
use store::fixture::{self, Place, Planned};
use store::{
    NetworkRecord, Outcome, Record, RunRecorder, RunStart, ScheduleRecord, Status, Store, TrialRecord,
};

/// What happened in a run; tests change it.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub start: RunStart,
    pub records: Vec<Record>,
    pub status: Status,
}

impl Scenario {
    /// Two networks, each on two single CPUs, pipelined and replicated, five trials of 40 frames each.
    pub fn sound() -> Self {
        let mut records = fixture::records("resnet18", 5);
        let mut second = fixture::records("mobilenet_v1", 5);
        // Schedules and trials of the second network come after those of the first.
        for record in &mut second {
            match record {
                Record::Schedule(schedule) => schedule.place += 4,
                Record::Comparison(comparison) => {
                    comparison.schedule += 4;
                    comparison.reference += 4;
                }
                Record::Trial(trial) => {
                    trial.schedule += 4;
                    trial.position += 20;
                }
                _ => {}
            }
        }
        records.append(&mut second);
        Self { start: fixture::run_start(), records, status: Status::Complete }
    }

    /// One network, of it one trial of each schedule.
    pub fn small() -> Self {
        let mut start = fixture::run_start();
        start.rounds = 1;
        Self { start, records: fixture::records("resnet18", 1), status: Status::Complete }
    }

    /// One network under a camera of 30 frames per second: three trials of 400 frames of each schedule.
    pub fn camera() -> Self {
        Self::under(fixture::camera(), "{ fps: 30, queue: 2, policy: drop_oldest, deadline_ms: 33 }")
    }

    /// The same under another stream; `settings` are those of the experiment.
    pub fn under(load: StreamLoad, settings: &str) -> Self {
        let mut start = fixture::run_start();
        start.rounds = 3;
        start.configuration = format!("experiment: {{ load: {{ stream: {settings} }} }}");
        let mut run = Self { start, records: fixture::records("resnet18", 3), status: Status::Complete };
        for trial in run.trials() {
            let planned = fixture::planned("resnet18").swap_remove(trial.schedule as usize);
            let measured = planned.streamed(u64::from(trial.position) + 1, 400, load);
            trial.outcome = Outcome::Measured(Box::new(measured));
        }
        run
    }

    /// Adds an energy counter that is read every 10 ms: the idle board draws `idle_mw`, and a window what `power_mw` gives for
    /// the place of its schedule and the trial.
    #[must_use]
    pub fn metered(mut self, idle_mw: f64, power_mw: impl Fn(u32, &Measured) -> f64) -> Self {
        for trial in self.trials() {
            let Outcome::Measured(measured) = &mut trial.outcome else { continue };
            let milliwatts = power_mw(trial.schedule, measured);
            let opened = measured.window.opened_monotonic_ns;
            let closed = opened + measured.window.completed_ns.last().unwrap();
            measured.power =
                Some(Power::Read(counter(opened - 1_000_000_000, closed + 40_000_000, milliwatts)));
        }
        self.records.push(Record::Idle(Idled {
            id: 1,
            opened_monotonic_ns: 1_000_000_000,
            duration_ns: 8_000_000_000,
            readings: counter(1_000_000_000, 9_100_000_000, idle_mw),
        }));
        self
    }

    pub fn trials(&mut self) -> impl Iterator<Item = &mut TrialRecord> {
        self.records.iter_mut().filter_map(|record| match record {
            Record::Trial(trial) => Some(trial),
            _ => None,
        })
    }

    pub fn trial(&mut self, schedule: u32, round: u32) -> &mut TrialRecord {
        self.trials().find(|trial| (trial.schedule, trial.round) == (schedule, round)).unwrap()
    }

    /// The measured window of a trial, to be changed.
    pub fn measured(&mut self, schedule: u32, round: u32) -> &mut protocol::Measured {
        match &mut self.trial(schedule, round).outcome {
            Outcome::Measured(measured) => measured,
            Outcome::Failed { .. } => panic!("a failed trial has no window"),
        }
    }

    pub fn schedule(&mut self, place: u32) -> &mut ScheduleRecord {
        let schedules = self.records.iter_mut().filter_map(|record| match record {
            Record::Schedule(schedule) => Some(schedule),
            _ => None,
        });
        schedules.into_iter().find(|schedule| schedule.place == place).unwrap()
    }

    pub fn network(&mut self) -> &mut NetworkRecord {
        let mut networks = self.records.iter_mut().filter_map(|record| match record {
            Record::Network(network) => Some(network),
            _ => None,
        });
        networks.next().unwrap()
    }

    /// Makes a schedule of the first network this much slower.
    pub fn slow_down(&mut self, place: u32, factor: f64) {
        let planned: Planned = fixture::planned("resnet18").swap_remove(place as usize);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few milliseconds")]
        let slower = Planned { frame_ns: (planned.frame_ns as f64 * factor) as u64, ..planned };
        for trial in self.trials().filter(|trial| trial.schedule == place) {
            trial.outcome = Outcome::Measured(Box::new(slower.measured(u64::from(trial.position) + 1, 40)));
        }
    }

    /// The report of a database that this was written to.
    pub fn report(&self) -> Report {
        self.stored().0
    }

    /// The same with the database, which goes with its place.
    pub fn stored(&self) -> (Report, Store, Place) {
        let place = Place::new();
        let store = place.open();
        self.store_in(&store, &place);
        (Report::build(&store, &self.start.id).unwrap(), store, place)
    }

    /// Adds it to a database.
    pub fn store_in(&self, store: &Store, place: &Place) {
        let mut recorder = RunRecorder::create(store, &place.runs(), self.start.clone()).unwrap();
        for record in &self.records {
            recorder.record(record.clone()).unwrap();
        }
        recorder.finish(self.status, fixture::BEGUN + 90_000_000_000).unwrap();
    }
}

/// Readings of a counter of energy while `milliwatts` are drawn.
fn counter(from_ns: u64, to_ns: u64, milliwatts: f64) -> PowerReadings {
    let begun_ns: Vec<u64> = (from_ns..to_ns).step_by(10_000_000).collect();
    #[expect(clippy::cast_possible_truncation, reason = "a few joules")]
    let microjoules = |at: &u64| ((at - from_ns) as f64 * milliwatts * 1e-6).round() as i64;
    let rail = RailReadings {
        name: "package-0".to_owned(),
        source: "/sys/class/powercap/intel-rapl:0/energy_uj".to_owned(),
        took_ns: vec![0; begun_ns.len()],
        microjoules: begun_ns.iter().map(microjoules).collect(),
        range_microjoules: Some(262_143_328_850),
        begun_ns,
        ..RailReadings::default()
    };
    PowerReadings {
        driver: "rapl by powercap".to_owned(),
        total: rail.name.clone(),
        rails: vec![rail],
        cpu_ns: 1_000_000,
    }
}

/// A run in which much went wrong.
pub fn troubled() -> Report {
    let mut scenario = Scenario::sound();
    scenario.status = Status::Interrupted;
    scenario.start.machine = fixture::machine_without_frequencies();
    scenario.start.revision = None;
    scenario.start.provenance = serde_json::json!({ "git_absent": "git cannot be started" });
    scenario.start.versions.tvm = None;
    // The pipeline of the first network gives other outputs.
    scenario.records.push(Record::Comparison(fixture::comparison(2, 0, 0.5)));
    // Its replicate loses a trial to a neighbour, and others a little.
    scenario.measured(3, 1).host.busy_ns = Some(1_200_000_000);
    scenario.measured(3, 2).host.busy_ns = Some(880_000_000);
    scenario.measured(1, 0).host.busy_ns = Some(900_000_000);
    scenario.measured(1, 4).stages[0].major_faults = 12;
    // The second network was cut off: its pipeline ran once, its replicate never, and one of its baselines failed.
    scenario.records.retain(|record| match record {
        Record::Trial(trial) => !(trial.schedule == 6 && trial.round > 0 || trial.schedule == 7),
        _ => true,
    });
    let message = "failed to continue: the runner was killed (signal 9; out of memory, perhaps)".to_owned();
    scenario.trial(5, 2).outcome = Outcome::Failed { fault: None, message };
    scenario.schedule(4).prediction = None;
    scenario.network().fallback_units = vec![1, 3];
    scenario.report()
}

pub fn row<'r>(report: &'r Report, network: &str, kind: &str) -> &'r Row {
    report.rows.iter().find(|row| row.network == network && row.kind.as_str() == kind).unwrap()
}
