//! The search on simulated boards whose truth is known: it measures with noise, and is compared with every schedule there is.
#![cfg(test)]

use domain::objective::Figures;
use domain::search::{
    Candidate, Knowledge, MeasuredSchedule, PredictedPoint, busy_shares, calibrate, next, spread,
};
use domain::{
    Boundary, Bytes, Choice, Confidence, Costs, FrequencyModel, Milliwatts, ModeOffer, Network, Objective,
    OperatingPoint, Options, PointPower, PointWindow, PowerWindow, ProcessorName, Samples, Schedule,
    ScheduleKind, SplitMix64, Stage, Tensor, Transfer, Unit, median_interval, plan, predict,
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

/// Highest frequency of each processor, in kHz.
const HIGHEST_KHZ: u64 = 2_000_000;

/// A board of which the profile knows less than the truth.
struct Simulated {
    network: Network,
    names: Vec<ProcessorName>,
    /// All operating points, and the places of those that are profiled; the first one is the default.
    points: Vec<OperatingPoint>,
    corners: Vec<usize>,
    /// By processor and unit: the time at the highest frequency, and the share of it that waits for memory.
    unit_ns: Vec<Vec<f64>>,
    memory: Vec<Vec<f64>>,
    /// By processor and unit: true time over that of the profile, under contention.
    contention: Vec<Vec<f64>>,
    idle_mw: f64,
    dynamic_mw: Vec<f64>,
    /// Copies of the whole network share the caches worse than a pipeline does: true over expected rate.
    replicate: f64,
    random: SplitMix64,
    measurements: u32,
}

impl Simulated {
    /// A board with one operating point.
    fn new(seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let (units, processors) = (12 + random.below(5), 2 + random.below(2));
        Self::with(random, units, processors, 1)
    }

    /// A board with two processors, each with so many frequencies, which are combined.
    fn with_frequencies(seed: u64, steps: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let units = 8 + random.below(3);
        Self::with(random, units, 2, steps)
    }

    fn with(mut random: SplitMix64, units: usize, processors: usize, steps: u64) -> Self {
        let network = network(units, &mut random);
        let names: Vec<ProcessorName> =
            (0..processors).map(|index| ProcessorName::new(format!("p{index}"))).collect();
        let (mut unit_ns, mut contended, mut dynamic_mw) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..processors {
            let speed = 0.5 + 3.0 * random.unit();
            // Contention differs from the profile's by processor, and memory-bound units suffer more.
            let contention = 0.85 + 0.4 * random.unit();
            let row: Vec<f64> = (0..units).map(|_| (0.5 + 5.0 * random.unit()) * 1e6 / speed).collect();
            contended.push(row.iter().map(|_| contention * (0.97 + 0.06 * random.unit())).collect());
            unit_ns.push(row);
            // Faster processors need more than in proportion.
            dynamic_mw.push(600.0 * speed.powf(1.5) * (0.7 + 0.6 * random.unit()));
        }
        let (idle_mw, replicate) = (500.0 + 2500.0 * random.unit(), 0.5 + 0.5 * random.unit());
        let mut waits = || if steps > 1 { 0.6 * random.unit() * random.unit() } else { 0.0 };
        let memory = unit_ns.iter().map(|row: &Vec<f64>| row.iter().map(|_| waits()).collect()).collect();
        let lowest = HIGHEST_KHZ / 5;
        let khz = |step: u64| HIGHEST_KHZ - (HIGHEST_KHZ - lowest) * step / (steps - 1).max(1);
        let varied: Vec<u64> = (0..steps).rev().map(khz).collect();
        let offer = ModeOffer {
            varied: names.iter().map(|name| (name.to_string(), varied.clone())).collect(),
            ..ModeOffer::default()
        };
        let points = offer.points();
        let place = |corner: &OperatingPoint| points.iter().position(|point| point == corner).unwrap();
        let corners = offer.corners().iter().map(place).collect();
        Self {
            network,
            names,
            points,
            corners,
            unit_ns,
            memory,
            contention: contended,
            idle_mw,
            dynamic_mw,
            replicate,
            random,
            measurements: 0,
        }
    }

    /// Frequency over the highest one.
    fn ratio(&self, at: usize, processor: usize) -> f64 {
        self.points[at].max_khz[self.names[processor].as_str()] as f64 / HIGHEST_KHZ as f64
    }

    fn costs(&self, at: usize, contention: impl Fn(usize, usize) -> f64) -> Costs {
        let row = |processor: usize| {
            let scale = |unit: usize| {
                let memory = self.memory[processor][unit];
                (1.0 - memory) / self.ratio(at, processor) + memory
            };
            let units = self.unit_ns[processor].iter().enumerate();
            units.map(|(unit, ns)| ns * scale(unit) * contention(processor, unit)).collect()
        };
        let rows = (0..self.names.len()).map(row).collect();
        Costs::new(self.names.clone(), rows, Transfer::uniform(5_000.0, 0.1)).unwrap()
    }

    /// What a profile at a point finds.
    fn profiled(&self, at: usize) -> Costs {
        self.costs(at, |_, _| 1.0)
    }

    fn true_costs(&self, at: usize) -> Costs {
        self.costs(at, |processor, unit| self.contention[processor][unit])
    }

    /// True idle power, and the power that each processor adds, at a point: the voltage rises with the clock.
    fn true_power(&self, at: usize) -> (f64, Vec<f64>) {
        let ratios: Vec<f64> = (0..self.names.len()).map(|processor| self.ratio(at, processor)).collect();
        let volts = |ratio: f64| 0.6 + 0.4 * ratio;
        let leakage: f64 = ratios.iter().map(|ratio| volts(*ratio)).sum::<f64>() / ratios.len() as f64;
        let dynamic =
            ratios.iter().zip(&self.dynamic_mw).map(|(ratio, mw)| mw * ratio * volts(*ratio).powi(2));
        (self.idle_mw * (0.7 + 0.3 * leakage), dynamic.collect())
    }

    /// True figures. Power rises a little faster than the sum of its parts.
    fn truth(&self, at: usize, schedule: &Schedule) -> (Figures, Vec<f64>) {
        self.truth_by(&self.true_costs(at), at, schedule)
    }

    fn truth_by(&self, costs: &Costs, at: usize, schedule: &Schedule) -> (Figures, Vec<f64>) {
        let prediction = predict(&self.network, costs, schedule).unwrap();
        let is_replicate = schedule.kind() == ScheduleKind::Replicate;
        let fps = prediction.throughput.0 * if is_replicate { self.replicate } else { 1.0 };
        let busy = busy_shares(schedule, &prediction.stage_ns, fps, &self.names);
        let (idle_mw, dynamic_mw) = self.true_power(at);
        let parts: f64 = busy.iter().zip(&dynamic_mw).map(|(busy, mw)| busy * mw).sum();
        let power = idle_mw + parts * (1.0 + 0.02 * parts / 5000.0);
        (Figures { fps, mj_per_frame: Some(power / fps) }, busy)
    }

    /// True figures of every schedule at every point.
    fn all_figures(&self) -> Vec<Figures> {
        let all = self.every_schedule();
        let of_point = |at: usize| {
            let costs = self.true_costs(at);
            all.iter().map(move |schedule| self.truth_by(&costs, at, schedule).0).collect::<Vec<_>>()
        };
        (0..self.points.len()).flat_map(of_point).collect()
    }

    fn noise(&mut self) -> f64 {
        // The sum of twelve uniform numbers is nearly normal.
        1.0 + NOISE * ((0..12).map(|_| self.random.unit()).sum::<f64>() - 6.0)
    }

    /// Trials of a schedule with noise and drift: rates, energies, and windows for the power model.
    fn measure(&mut self, at: usize, schedule: &Schedule, measured: &mut Measured) {
        let place = u32::try_from(measured.schedules.len()).unwrap();
        let (truth, busy) = self.truth(at, schedule);
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
            measured.add_window(self.points[at].clone(), Some(place), busy.clone(), power);
        }
        let (rates, energies) = (Samples::new(&rates).unwrap(), Samples::new(&energies).unwrap());
        let fps = rates.median();
        let stage_ns = schedule
            .stages()
            .iter()
            .map(|stage| {
                busy[self.names.iter().position(|name| *name == stage.processor).unwrap()] * 1e9 / fps
            })
            .collect();
        measured.careful.push(Figures {
            fps: median_interval(&rates, Confidence::P95).lo.unwrap(),
            mj_per_frame: median_interval(&energies, Confidence::P95).hi,
        });
        measured.schedules.push(MeasuredSchedule {
            at,
            schedule: schedule.clone(),
            figures: Some(Figures { fps, mj_per_frame: Some(energies.median()) }),
            stage_ns,
        });
    }

    /// All schedules there are.
    fn every_schedule(&self) -> Vec<Schedule> {
        let names = &self.names;
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
            let schedule = Schedule::pipeline(&self.network, stages.clone()).unwrap();
            if schedule.kind() == ScheduleKind::Pipeline {
                all.push(schedule);
            }
            return;
        }
        let free: Vec<&ProcessorName> =
            self.names.iter().filter(|name| stages.iter().all(|stage| stage.processor != **name)).collect();
        for set in 1usize..1 << free.len() {
            let group = free.iter().enumerate().filter(|(at, _)| set & 1 << at != 0);
            let group: Vec<ProcessorName> = group.map(|(_, name)| (*name).clone()).collect();
            for end in first + 1..=self.network.len() {
                let before = stages.len();
                stages.extend(group.iter().map(|name| Stage { processor: name.clone(), first, end }));
                self.extend(stages, all);
                stages.truncate(before);
            }
        }
    }
}

#[derive(Default)]
struct Measured {
    schedules: Vec<MeasuredSchedule>,
    /// Figures at the unfavourable ends of their intervals.
    careful: Vec<Figures>,
    windows: Vec<PointWindow>,
    /// Predicted over true energy of the chosen candidates.
    energy_ratios: Vec<f64>,
}

impl Measured {
    fn add_window(&mut self, point: OperatingPoint, schedule: Option<u32>, busy: Vec<f64>, power: f64) {
        let (power, uncertainty) = (Milliwatts(power), Milliwatts(10.0));
        self.windows.push(PointWindow { point, window: PowerWindow { schedule, busy, power, uncertainty } });
    }
}

/// Searches as `optimize` does, with at most `most` schedules.
fn search(board: &mut Simulated, objective: Objective, most: usize) -> Measured {
    let mut measured = Measured::default();
    let names = board.names.clone();
    let mut profiles = Vec::new();
    for at in board.corners.clone() {
        let costs = board.profiled(at);
        measured.add_window(board.points[at].clone(), None, vec![0.0; names.len()], board.true_power(at).0);
        let mut first: Vec<Schedule> =
            names.iter().map(|name| Schedule::single(&board.network, name.clone())).collect();
        first.push(plan(&board.network, &costs, &Options::default()).unwrap().schedule);
        first.push(Schedule::replicate(&board.network, names.clone()).unwrap());
        first.dedup();
        for schedule in first {
            board.measure(at, &schedule, &mut measured);
        }
        profiles.push((board.points[at].clone(), costs));
    }
    let times = FrequencyModel::fit(&profiles).unwrap();
    for step in 0.. {
        let power = PointPower::fit(&names, &measured.windows).unwrap();
        let predicted = |point: &OperatingPoint| {
            let costs = times.at(point, |_| true).unwrap();
            PredictedPoint {
                point: point.clone(),
                alone: costs.clone(),
                contended: costs,
                power: Some(power.at(point, &names).unwrap()),
            }
        };
        let points: Vec<PredictedPoint> = board.points.iter().map(predicted).collect();
        let calibration = calibrate(&board.network, &points, &measured.schedules).unwrap();
        let knowledge = Knowledge {
            network: &board.network,
            points: &points,
            calibration: &calibration,
            measured: &measured.schedules,
        };
        let threshold = if step == 0 { 0.0 } else { calibration.uncertainty };
        let room = most.saturating_sub(measured.schedules.len());
        let chosen: Vec<Candidate> = spread(next(knowledge, objective).unwrap(), threshold, room.min(4));
        if chosen.is_empty() {
            return measured;
        }
        for candidate in chosen {
            let truth = board.truth(candidate.at, &candidate.point.schedule).0;
            measured.energy_ratios.push(candidate.point.energy.0 / truth.mj_per_frame.unwrap());
            board.measure(candidate.at, &candidate.point.schedule, &mut measured);
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

/// Frequencies of each processor of the boards with several operating points.
const STEPS: u64 = 6;

#[test]
fn the_found_front_is_nearly_that_of_every_schedule() {
    check_front(Simulated::new);
}

#[test]
fn with_operating_points_the_found_front_is_nearly_that_of_all() {
    check_front(|seed| Simulated::with_frequencies(seed, STEPS));
}

fn check_front(make: impl Fn(u64) -> Simulated) {
    let mut shares = Vec::new();
    let mut ratios = Vec::new();
    for seed in 0..BOARDS {
        let mut board = make(seed);
        let all = board.all_figures();
        // A tenth of all schedules, but no fewer than the first ones and one step.
        let most = (all.len() / 10).max(9);
        let measured = search(&mut board, Objective::Pareto, most);
        assert!(measured.schedules.len() <= most, "{} of {}", measured.schedules.len(), all.len());
        let found: Vec<Figures> =
            measured.schedules.iter().map(|known| board.truth(known.at, &known.schedule).0).collect();
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
    check_requirement(24, Simulated::new);
}

#[test]
fn with_operating_points_a_requirement_that_the_intervals_meet_holds_in_truth() {
    check_requirement(60, |seed| Simulated::with_frequencies(seed, STEPS));
}

fn check_requirement(most: usize, make: impl Fn(u64) -> Simulated) {
    let (mut chosen, mut met, mut gaps) = (0, 0, Vec::new());
    for seed in 0..BOARDS {
        let mut board = make(seed);
        let all = board.all_figures();
        let fastest = all.iter().map(|of| of.fps).fold(0.0, f64::max);
        let min_fps = (0.4 + 0.5 * board.random.unit()) * fastest;
        let objective = Objective::EnergyAtLeast { min_fps };
        let measured = search(&mut board, objective, most);
        let Choice::Met(best) = objective.choose(&measured.careful) else { continue };
        let known = &measured.schedules[best];
        let truth = board.truth(known.at, &known.schedule).0;
        let Choice::Met(optimum) = objective.choose(&all) else { continue };
        chosen += 1;
        // The clock that the schedule was measured with is slower than the truth, never faster.
        met += u32::from(truth.fps >= min_fps);
        gaps.push(truth.mj_per_frame.unwrap() / all[optimum].mj_per_frame.unwrap());
    }
    let gaps = Samples::new(&gaps).unwrap();
    println!(
        "requirement: holds in {met} of {chosen}; energy over the optimum: median {:.3}, 95 % quantile {:.3}",
        gaps.median(),
        gaps.quantile(0.95)
    );
    assert!(chosen >= 150, "{chosen}");
    assert!(100 * met >= 95 * chosen, "{met} of {chosen}");
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

#[test]
fn merged_processors_are_searched_alone_and_beside_what_has_none_of_their_cpus() {
    let network = network(8, &mut SplitMix64::new(3));
    let names = ["a", "b", "gpu", "a+b"].map(ProcessorName::new).to_vec();
    // Both CPUs together are a little more than twice as fast as one of them.
    let rows = [8e6, 8e6, 3e6, 3.9e6].map(|ns| vec![ns; 8]).to_vec();
    let costs = Costs::new(names.clone(), rows, Transfer::FREE).unwrap();
    let single = |name: &ProcessorName| {
        let schedule = Schedule::single(&network, name.clone());
        let fps = predict(&network, &costs, &schedule).unwrap().throughput.0;
        let figures = Some(Figures { fps, mj_per_frame: None });
        MeasuredSchedule { at: 0, schedule, figures, stage_ns: vec![1e9 / fps] }
    };
    let measured: Vec<MeasuredSchedule> = names[..3].iter().map(single).collect();
    let (alone, contended) = (costs.clone(), costs.clone());
    let points = [PredictedPoint { point: OperatingPoint::default(), alone, contended, power: None }];
    let calibration = calibrate(&network, &points, &measured).unwrap();
    let knowledge =
        Knowledge { network: &network, points: &points, calibration: &calibration, measured: &measured };
    let found = next(knowledge, Objective::Throughput).unwrap();
    let labels: Vec<String> = found.iter().map(|candidate| candidate.point.schedule.label()).collect();
    assert_eq!(labels[0], "gpu | a+b", "its rate is higher than that of a | b | gpu: {labels:?}");
    assert!(labels.contains(&"a+b".to_owned()), "{labels:?}");
}
