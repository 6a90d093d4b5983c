//! The search on simulated boards whose truth is known: it measures with noise, and is compared with every schedule there is.
#![cfg(test)]

use domain::objective::Figures;
use domain::search::{Candidate, Knowledge, MeasuredSchedule, busy_shares, calibrate, next, spread};
use domain::{
    Boundary, Bytes, Choice, Confidence, Costs, Milliwatts, Network, Objective, Options, PowerModel,
    PowerWindow, ProcessorName, Samples, Schedule, ScheduleKind, SplitMix64, Stage, Tensor, Transfer, Unit,
    median_interval, plan, predict,
};

const BOARDS: u64 = 200;
const TRIALS: u32 = 5;
/// Standard deviation of a measured rate and of a measured power, as a share.
const NOISE: f64 = 0.01;
/// The clock changes by so much over a search, as a share.
const DRIFT: f64 = 0.02;

fn network(units: usize, random: &mut SplitMix64) -> Network {
    let unit = |index| Unit { name: format!("u{index}"), operators: vec![], macs: 0, parameters: 0 };
    let boundaries = (0..=units).map(|cut| {
        let bytes = 10_000 + random.below(500_000) as u64;
        let tensor = Tensor {
            value: format!("t{cut}"),
            shape: vec![bytes],
            dtype: "int8".to_owned(),
            bytes: Bytes(bytes),
        };
        Boundary { tensors: vec![tensor] }
    });
    Network::new("n", (0..units).map(unit).collect(), boundaries.collect()).unwrap()
}

/// A board of which the profile knows less than the truth.
struct Simulated {
    network: Network,
    profiled: Costs,
    truth: Costs,
    idle_mw: f64,
    dynamic_mw: Vec<f64>,
    /// Copies of the whole network share the caches worse than a pipeline does: true over expected rate.
    replicate: f64,
    random: SplitMix64,
    measurements: u32,
}

impl Simulated {
    fn new(seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let (units, processors) = (12 + random.below(5), 2 + random.below(2));
        let network = network(units, &mut random);
        let names: Vec<ProcessorName> =
            (0..processors).map(|index| ProcessorName::new(format!("p{index}"))).collect();
        let (mut profiled, mut truth, mut dynamic_mw) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..processors {
            let speed = 0.5 + 3.0 * random.unit();
            // Contention differs from the profile's by processor, and memory-bound units suffer more.
            let contention = 0.85 + 0.4 * random.unit();
            let row: Vec<f64> = (0..units).map(|_| (0.5 + 5.0 * random.unit()) * 1e6 / speed).collect();
            truth.push(row.iter().map(|ns| ns * contention * (0.97 + 0.06 * random.unit())).collect());
            profiled.push(row);
            // Faster processors need more than in proportion.
            dynamic_mw.push(600.0 * speed.powf(1.5) * (0.7 + 0.6 * random.unit()));
        }
        let transfer = Transfer::uniform(5_000.0, 0.1);
        Self {
            network,
            profiled: Costs::new(names.clone(), profiled, transfer.clone()).unwrap(),
            truth: Costs::new(names, truth, transfer).unwrap(),
            idle_mw: 500.0 + 2500.0 * random.unit(),
            dynamic_mw,
            replicate: 0.5 + 0.5 * random.unit(),
            random,
            measurements: 0,
        }
    }

    /// True figures. Power rises a little faster than the sum of its parts.
    fn truth(&self, schedule: &Schedule) -> (Figures, Vec<f64>) {
        let prediction = predict(&self.network, &self.truth, schedule).unwrap();
        let is_replicate = schedule.kind() == ScheduleKind::Replicate;
        let fps = prediction.throughput.0 * if is_replicate { self.replicate } else { 1.0 };
        let busy = busy_shares(schedule, &prediction.stage_ns, fps, &self.truth);
        let parts: f64 = busy.iter().zip(&self.dynamic_mw).map(|(busy, mw)| busy * mw).sum();
        let power = self.idle_mw + parts * (1.0 + 0.02 * parts / 5000.0);
        (Figures { fps, mj_per_frame: Some(power / fps) }, busy)
    }

    fn noise(&mut self) -> f64 {
        // The sum of twelve uniform numbers is nearly normal.
        1.0 + NOISE * ((0..12).map(|_| self.random.unit()).sum::<f64>() - 6.0)
    }

    /// Trials of a schedule with noise and drift: rates, energies, and windows for the power model.
    fn measure(&mut self, schedule: &Schedule, place: u32, measured: &mut Measured) {
        let (truth, busy) = self.truth(schedule);
        let (mut rates, mut energies) = (Vec::new(), Vec::new());
        for _ in 0..TRIALS {
            self.measurements += 1;
            let drift = 1.0 - DRIFT * f64::from(self.measurements % 100) / 100.0;
            let fps = truth.fps * self.noise() * drift;
            let power = truth.mj_per_frame.unwrap() * truth.fps * self.noise();
            // A meter with steps of 20 mW.
            let power = (power / 20.0).round() * 20.0;
            rates.push(fps);
            energies.push(power / fps);
            measured.windows.push(PowerWindow {
                schedule: Some(place),
                busy: busy.clone(),
                power: Milliwatts(power),
                uncertainty: Milliwatts(10.0),
            });
        }
        let (rates, energies) = (Samples::new(&rates).unwrap(), Samples::new(&energies).unwrap());
        let fps = rates.median();
        let stage_ns = schedule
            .stages()
            .iter()
            .map(|stage| busy[self.truth.index_of(&stage.processor).unwrap()] * 1e9 / fps)
            .collect();
        measured.careful.push(Figures {
            fps: median_interval(&rates, Confidence::P95).lo.unwrap(),
            mj_per_frame: median_interval(&energies, Confidence::P95).hi,
        });
        measured.schedules.push(MeasuredSchedule {
            schedule: schedule.clone(),
            figures: Some(Figures { fps, mj_per_frame: Some(energies.median()) }),
            stage_ns,
        });
    }

    /// All schedules there are.
    fn every_schedule(&self) -> Vec<Schedule> {
        let names = self.truth.processors();
        let mut all: Vec<Schedule> =
            names.iter().map(|name| Schedule::single(&self.network, name.clone())).collect();
        for set in 1usize..1 << names.len() {
            if set.count_ones() > 1 {
                let members = names.iter().enumerate().filter(|(at, _)| set & 1 << at != 0);
                let members = members.map(|(_, name)| name.clone()).collect();
                all.push(Schedule::replicate(&self.network, members).unwrap());
            }
        }
        self.extend(&mut Vec::new(), &mut all);
        all
    }

    fn extend(&self, stages: &mut Vec<Stage>, all: &mut Vec<Schedule>) {
        let first = stages.last().map_or(0, |stage| stage.end);
        if first == self.network.len() {
            if stages.len() > 1 {
                all.push(Schedule::pipeline(&self.network, stages.clone()).unwrap());
            }
            return;
        }
        for processor in self.truth.processors() {
            if stages.iter().all(|stage| stage.processor != *processor) {
                for end in first + 1..=self.network.len() {
                    stages.push(Stage { processor: processor.clone(), first, end });
                    self.extend(stages, all);
                    stages.pop();
                }
            }
        }
    }
}

#[derive(Default)]
struct Measured {
    schedules: Vec<MeasuredSchedule>,
    /// Figures at the unfavourable ends of their intervals.
    careful: Vec<Figures>,
    windows: Vec<PowerWindow>,
    /// Predicted over true energy of the chosen candidates.
    energy_ratios: Vec<f64>,
}

/// Searches as `optimize` does, with at most `most` schedules.
fn search(board: &mut Simulated, objective: Objective, most: usize) -> Measured {
    let mut measured = Measured::default();
    measured.windows.push(PowerWindow {
        schedule: None,
        busy: vec![0.0; board.dynamic_mw.len()],
        power: Milliwatts(board.idle_mw),
        uncertainty: Milliwatts(10.0),
    });
    let names = board.truth.processors().to_vec();
    let mut first: Vec<Schedule> =
        names.iter().map(|name| Schedule::single(&board.network, name.clone())).collect();
    first.push(plan(&board.network, &board.profiled, &Options::default()).unwrap().schedule);
    first.push(Schedule::replicate(&board.network, names).unwrap());
    first.dedup();
    for schedule in first {
        let place = u32::try_from(measured.schedules.len()).unwrap();
        board.measure(&schedule, place, &mut measured);
    }
    for step in 0.. {
        let power = PowerModel::fit(board.dynamic_mw.len(), &measured.windows).unwrap();
        let calibration = calibrate(&board.network, &board.profiled, &measured.schedules).unwrap();
        let knowledge = Knowledge {
            network: &board.network,
            // Singles are measured, so these are not used for any candidate.
            alone: &board.truth,
            calibration: &calibration,
            power: Some(&power),
            measured: &measured.schedules,
        };
        let threshold = if step == 0 { 0.0 } else { calibration.uncertainty };
        let room = most.saturating_sub(measured.schedules.len());
        let chosen: Vec<Candidate> = spread(next(knowledge, objective).unwrap(), threshold, room.min(4));
        if chosen.is_empty() {
            return measured;
        }
        for candidate in chosen {
            let truth = board.truth(&candidate.point.schedule).0;
            measured.energy_ratios.push(candidate.point.energy.0 / truth.mj_per_frame.unwrap());
            let place = u32::try_from(measured.schedules.len()).unwrap();
            board.measure(&candidate.point.schedule, place, &mut measured);
        }
    }
    measured
}

/// Area that a set of figures dominates, in units of the reference: 0 frames/s and the most energy of all.
fn hypervolume(points: &[Figures], most_energy: f64) -> f64 {
    let mut sorted: Vec<(f64, f64)> =
        points.iter().map(|point| (point.mj_per_frame.unwrap(), point.fps)).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut area, mut best) = (0.0, 0.0_f64);
    for (place, (energy, fps)) in sorted.iter().enumerate() {
        best = best.max(*fps);
        let until = sorted.get(place + 1).map_or(most_energy, |next| next.0.min(most_energy));
        area += best * (until - energy).max(0.0);
    }
    area
}

#[test]
fn the_found_front_is_nearly_that_of_every_schedule() {
    let mut shares = Vec::new();
    let mut ratios = Vec::new();
    for seed in 0..BOARDS {
        let mut board = Simulated::new(seed);
        let all: Vec<Figures> =
            board.every_schedule().iter().map(|schedule| board.truth(schedule).0).collect();
        // A tenth of all schedules, but no fewer than the first ones and one step.
        let most = (all.len() / 10).max(9);
        let measured = search(&mut board, Objective::Pareto, most);
        assert!(measured.schedules.len() <= most, "{} of {}", measured.schedules.len(), all.len());
        let found: Vec<Figures> =
            measured.schedules.iter().map(|known| board.truth(&known.schedule).0).collect();
        let most_energy = all.iter().filter_map(|of| of.mj_per_frame).fold(0.0, f64::max);
        shares.push(hypervolume(&found, most_energy) / hypervolume(&all, most_energy));
        ratios.extend(measured.energy_ratios);
    }
    let shares = Samples::new(&shares).unwrap();
    let near = ratios.iter().filter(|ratio| (**ratio - 1.0).abs() <= 0.05).count();
    println!(
        "hypervolume: median {:.4}, 5 % quantile {:.4}, least {:.4}; energy predicted within 5 %: {near} of {}",
        shares.median(),
        shares.quantile(0.05),
        shares.least(),
        ratios.len()
    );
    assert!(shares.median() >= 0.98, "{}", shares.median());
    assert!(10 * near >= 9 * ratios.len(), "{near} of {}", ratios.len());
}

#[test]
fn a_requirement_that_the_intervals_meet_holds_in_truth() {
    let (mut chosen, mut held, mut gaps) = (0, 0, Vec::new());
    for seed in 0..BOARDS {
        let mut board = Simulated::new(seed);
        let all: Vec<Figures> =
            board.every_schedule().iter().map(|schedule| board.truth(schedule).0).collect();
        let fastest = all.iter().map(|of| of.fps).fold(0.0, f64::max);
        let min_fps = (0.4 + 0.5 * board.random.unit()) * fastest;
        let objective = Objective::EnergyAtLeast { min_fps };
        let measured = search(&mut board, objective, 24);
        let Choice::Met(best) = objective.choose(&measured.careful) else { continue };
        let truth = board.truth(&measured.schedules[best].schedule).0;
        let Choice::Met(optimum) = objective.choose(&all) else { continue };
        chosen += 1;
        // The clock that the schedule was measured with is slower than the truth, never faster.
        held += u32::from(truth.fps >= min_fps);
        gaps.push(truth.mj_per_frame.unwrap() / all[optimum].mj_per_frame.unwrap());
    }
    let gaps = Samples::new(&gaps).unwrap();
    println!(
        "requirement: holds in {held} of {chosen}; energy over the optimum: median {:.3}, 95 % quantile {:.3}",
        gaps.median(),
        gaps.quantile(0.95)
    );
    assert!(chosen >= 150, "{chosen}");
    assert!(100 * held >= 95 * chosen, "{held} of {chosen}");
    assert!(gaps.median() <= 1.02, "{}", gaps.median());
}

#[test]
fn a_search_ends_when_nothing_better_is_predicted() {
    let (mut tried, mut all, mut pipelines) = (0, 0, 0);
    for seed in 0..20 {
        let mut board = Simulated::new(seed);
        all += board.every_schedule().len();
        let measured = search(&mut board, Objective::Pareto, usize::MAX).schedules;
        tried += measured.len();
        pipelines += measured.iter().filter(|known| known.schedule.kind() == ScheduleKind::Pipeline).count();
    }
    println!("{tried} of {all} schedules measured, {pipelines} of them pipelines");
    assert!(10 * tried < all, "{tried} of {all}");
    assert!(pipelines > 40, "it adds pipelines to the first one: {pipelines}");
}
