//! Energy against simulated meters whose load is known.

#![expect(clippy::unwrap_used, reason = "a test ends where its assumptions do")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and small")]

use domain::energy::{Character, Trace};
use domain::{Absence, Drawn, Energy, Nanoseconds, SplitMix64};
use std::collections::BTreeMap;
use std::f64::consts::TAU;

/// Step of the simulated time, in seconds.
const TICK: f64 = 0.001;
/// Simulated time before the window: idle, then the load of the warm-up.
const LEAD: f64 = 8.0;
/// Supply of the simulated rail, in V.
const SUPPLY: f64 = 19.0;

/// Power over time, in mW, and its integral. Time 0 is the opening of the window.
struct Curve {
    milliwatts: Vec<f64>,
    /// Integral up to each tick, in mJ.
    sum: Vec<f64>,
}

impl Curve {
    /// `load` from `-warm_up` to `length`, in seconds, and idle around it.
    fn new(warm_up: f64, length: f64, load: impl Fn(f64) -> f64) -> Self {
        let ticks = ((LEAD + length + 2.0) / TICK) as usize;
        let power = |tick: usize| {
            let time = tick as f64 * TICK - LEAD;
            if (-warm_up..length).contains(&time) { load(time) } else { 2000.0 }
        };
        let milliwatts: Vec<f64> = (0..ticks).map(power).collect();
        let mut sum = vec![0.0];
        for value in &milliwatts {
            sum.push(sum[sum.len() - 1] + value * TICK);
        }
        Self { milliwatts, sum }
    }

    fn energy(&self, from: f64, to: f64) -> f64 {
        let at = |time: f64| {
            let ticks = ((time + LEAD) / TICK).clamp(0.0, self.milliwatts.len() as f64 - 1.0);
            self.sum[ticks as usize] + ticks.fract() * TICK * self.milliwatts[ticks as usize]
        };
        at(to) - at(from)
    }
}

/// An INA3221 and its reader.
struct Sensor {
    /// Seconds a conversion takes, all of which it averages.
    refresh: f64,
    /// Seconds between two readings; 2.5 times as often at first.
    poll: f64,
    /// Step of the current, in mA: 40 µV over the shunt.
    step: f64,
    /// Share of readings that fail.
    failing: f64,
}

const TX2: Sensor = Sensor { refresh: 0.41, poll: 0.05, step: 4.0, failing: 0.02 };

impl Sensor {
    fn read(&self, curve: &Curve, length: f64, random: &mut SplitMix64) -> Trace {
        let phase = random.unit() * self.refresh;
        let (mut at_ns, mut volts, mut amperes) = (Vec::new(), Vec::new(), Vec::new());
        let mut errors = 0;
        let mut time = 1.0 - LEAD;
        while time < length + 0.05 {
            if random.unit() < self.failing {
                errors += 1;
            } else {
                let ended = ((time + LEAD - phase) / self.refresh).floor() * self.refresh + phase - LEAD;
                let mean = curve.energy(ended - self.refresh, ended) / self.refresh;
                let current = mean / SUPPLY;
                at_ns.push((time * 1e9) as i64);
                amperes.push(((current / self.step).round() * self.step) as i64);
                volts.push(((SUPPLY * 1000.0 - 0.05 * current) / 8.0).round() as i64 * 8);
            }
            let pace = if time < 4.0 - LEAD { self.poll / 2.5 } else { self.poll };
            // Threads are woken late, not early.
            time += pace * (1.0 + 0.2 * random.unit().powi(4));
        }
        let fault = (errors > 0).then(|| "Resource temporarily unavailable (os error 11)".to_owned());
        // The reader may be late with its last reading.
        Trace::of_factors("VDD_IN", &at_ns, &volts, &amperes, None).unwrap().with_errors(errors, fault)
    }

    fn measure(
        &self,
        curve: &Curve,
        length: f64,
        known: &BTreeMap<String, Character>,
        random: &mut SplitMix64,
    ) -> Energy {
        let trace = self.read(curve, length, random);
        Energy::of_window(std::slice::from_ref(&trace), &[], Nanoseconds((length * 1e9) as u64), known)
    }

    /// What the other trials of a run tell of the meter.
    fn known(&self, random: &mut SplitMix64) -> BTreeMap<String, Character> {
        let others = ["drift", "frames", "steady", "frames"].map(|name| {
            let load = load(name, random);
            self.read(&Curve::new(2.0, 15.0, load), 15.0, random).character()
        });
        let all = others.into_iter().reduce(Character::and).unwrap();
        BTreeMap::from([("VDD_IN".to_owned(), all)])
    }
}

type Load = Box<dyn Fn(f64) -> f64>;

/// A load by its name; each time another one.
fn load(name: &str, random: &mut SplitMix64) -> Load {
    let level = 5000.0 + 9000.0 * random.unit();
    let swing = level * (0.1 + 0.4 * random.unit());
    let phase = random.unit();
    match name {
        // A constant load and the noise of a converter.
        "steady" => {
            let noise = 60.0 + 100.0 * random.unit();
            Box::new(move |time| {
                level + noise * (TAU * (1.7 * time + phase)).sin() * (TAU * 0.31 * time).cos()
            })
        }
        // Two levels, from faster than the meter to slower than the window.
        "square" => {
            let period = 0.05 * (600.0_f64).powf(random.unit());
            Box::new(
                move |time| if (time / period + phase).rem_euclid(1.0) < 0.5 { level } else { level - swing },
            )
        }
        // Clocks that fall as the board grows warm.
        "drift" => {
            let rate = swing / 60.0;
            Box::new(move |time| level - rate * time + 40.0 * (TAU * (time * 0.9 + phase)).sin())
        }
        // Bursts as frames come, slower than the meter and uneven.
        "frames" => {
            let period = 0.2 + 1.5 * random.unit();
            let busy = 0.3 + 0.5 * random.unit();
            Box::new(move |time| {
                let place = time / period + phase + 0.1 * (time * 0.37).sin();
                if place.rem_euclid(1.0) < busy { level } else { level - swing }
            })
        }
        other => panic!("there is no load {other}"),
    }
}

const LOADS: [&str; 4] = ["steady", "square", "drift", "frames"];

/// Measures `count` windows; gives what was measured with what was drawn.
fn windows(
    name: &str,
    count: usize,
    seed: u64,
    mut length: impl FnMut(&mut SplitMix64) -> f64,
) -> Vec<(Drawn, f64)> {
    let mut random = SplitMix64::new(seed);
    let known = TX2.known(&mut random);
    let mut found = Vec::new();
    for _ in 0..count {
        let length = length(&mut random);
        let load = load(name, &mut random);
        let curve = Curve::new(1.0 + 3.0 * random.unit(), length, load);
        let energy = TX2.measure(&curve, length, &known, &mut random);
        let drawn = energy.drawn().unwrap_or_else(|| panic!("{name}, {length:.1} s: {energy:?}"));
        found.push((*drawn, curve.energy(0.0, length)));
    }
    found
}

#[test]
fn half_a_minute_is_known_to_one_percent() {
    for (name, seed) in LOADS.iter().zip(1..) {
        for (drawn, truth) in windows(name, 100, seed, |_| 30.0) {
            let error = drawn.energy.0 / truth - 1.0;
            assert!(error.abs() < 0.01, "{name}: off by {:.2} %: {drawn:?}", 100.0 * error);
        }
    }
}

#[test]
fn the_stated_uncertainty_covers_the_truth() {
    for (name, seed) in LOADS.iter().zip(11..) {
        let found = windows(name, 100, seed, |random| 5.0 + 55.0 * random.unit());
        let covered = found
            .iter()
            .filter(|(drawn, truth)| (drawn.energy.0 - truth).abs() <= drawn.uncertainty.0)
            .count();
        assert!(covered >= 95, "{name}: {covered} of 100");
        // It is no excuse either.
        let worst = found.iter().map(|(drawn, _)| drawn.uncertainty.0 / drawn.energy.0).fold(0.0, f64::max);
        let mean = found.iter().map(|(drawn, _)| drawn.uncertainty.0 / drawn.energy.0).sum::<f64>() / 100.0;
        println!(
            "{name}: {covered} of 100, uncertainty {:.2} % on average, {:.2} % at most",
            100.0 * mean,
            100.0 * worst
        );
        assert!(mean < 0.02, "{name}: {:.2} %", 100.0 * mean);
    }
}

#[test]
fn the_refresh_and_the_step_are_found() {
    for (drawn, _) in windows("steady", 20, 21, |_| 20.0) {
        let refresh = drawn.refresh.unwrap().as_f64() / 1e9;
        assert!((refresh - TX2.refresh).abs() < 0.05 * TX2.refresh, "{refresh}");
        let step = drawn.step.unwrap().0;
        assert!((70.0..90.0).contains(&step), "{step}");
    }
}

#[test]
fn a_meter_that_is_faster_than_its_reader_is_sampled() {
    let fast = Sensor { refresh: 0.0066, poll: 0.02, ..TX2 };
    let mut random = SplitMix64::new(31);
    let mut covered = 0;
    for _ in 0..100 {
        let length = 5.0 + 20.0 * random.unit();
        // What a converter that is not averaged shows.
        let load = load("frames", &mut random);
        let curve = Curve::new(2.0, length, |time| load(time) + 400.0 * (TAU * 37.3 * time).sin());
        let energy = fast.measure(&curve, length, &BTreeMap::new(), &mut random);
        let drawn = energy.drawn().unwrap_or_else(|| panic!("{length:.1} s: {energy:?}"));
        let truth = curve.energy(0.0, length);
        assert!((drawn.energy.0 / truth - 1.0).abs() < 0.02, "{drawn:?} of {truth}");
        covered += u32::from((drawn.energy.0 - truth).abs() <= drawn.uncertainty.0);
    }
    assert!(covered >= 95, "{covered} of 100");
}

#[test]
fn what_cannot_be_known_is_withheld() {
    let mut random = SplitMix64::new(41);
    let curve = Curve::new(3.0, 30.0, load("frames", &mut random));
    let trace = TX2.read(&curve, 30.0, &mut random);
    let window = |seconds: f64| Nanoseconds((seconds * 1e9) as u64);
    let reason = |trace: &Trace, seconds| {
        Energy::of_window(std::slice::from_ref(trace), &[], window(seconds), &BTreeMap::new())
            .absent_reason()
            .cloned()
    };
    assert_eq!(reason(&trace, 30.0), None);
    assert!(matches!(reason(&trace, 3.0), Some(Absence::WindowTooShort { .. })));
    assert!(matches!(reason(&trace, 40.0), Some(Absence::Gap { .. })), "readings end before the window");
    let none = Trace::of_power("VDD_IN", &[], &[]).unwrap();
    assert!(matches!(reason(&none, 30.0), Some(Absence::TooFewReadings { readings: 0, .. })));
    let times: Vec<i64> = (-50..400).map(|reading| reading * 100_000_000).collect();
    let dead = Trace::of_power("VDD_IN", &times, &[5000; 450]).unwrap();
    assert!(matches!(reason(&dead, 30.0), Some(Absence::RefreshUnknown { .. })));
    let still = Trace::of_counter("package-0", &times, &[7000; 450], None).unwrap();
    assert!(matches!(reason(&still, 30.0), Some(Absence::RefreshUnknown { .. })), "no board draws nothing");

    let gone = Sensor { failing: 1.0, ..TX2 }.read(&curve, 30.0, &mut random);
    assert!(matches!(reason(&gone, 30.0), Some(Absence::TooFewReadings { errors: 100.., .. })));
}

#[test]
fn a_rail_that_vanishes_and_comes_back_is_withheld() {
    let at: Vec<i64> =
        (-80..310).filter(|reading| !(100..120).contains(reading)).map(|n| n * 100_000_000).collect();
    let milliwatts: Vec<i64> = at.iter().map(|at| 5000 + at / 400_000_000 % 3 * 76).collect();
    let trace = Trace::of_power("VDD_IN", &at, &milliwatts)
        .unwrap()
        .with_errors(20, Some("No such device".to_owned()));
    let energy =
        Energy::of_window(std::slice::from_ref(&trace), &[], Nanoseconds(30_000_000_000), &BTreeMap::new());
    let text = energy.absent_reason().unwrap().to_string();
    assert!(
        text.starts_with("VDD_IN gave no reading for 2.10 s; gaps of at most 1.2")
            && text.ends_with("No such device"),
        "{text}"
    );
}

#[test]
fn counters_are_exact_but_for_their_ends() {
    const RANGE: u64 = 65_532_610_987;
    let mut covered = 0;
    let mut random = SplitMix64::new(61);
    for _ in 0..100 {
        let length = 2.0 + 20.0 * random.unit();
        let curve = Curve::new(2.0, length, load("frames", &mut random));
        let begin = (random.unit() * RANGE as f64) as u64;
        let (mut at_ns, mut microjoules) = (Vec::new(), Vec::new());
        let mut time = 1.0 - LEAD;
        loop {
            let stale = time - (time / TICK).rem_euclid(1.0) * TICK;
            let drawn = (1000.0 * curve.energy(-LEAD, stale)) as u64;
            at_ns.push((time * 1e9) as i64);
            microjoules.push(i64::try_from((begin + drawn) % (RANGE + 1)).unwrap());
            if time > length {
                break;
            }
            time += 0.05 * (1.0 + 0.1 * random.unit());
        }
        let trace = Trace::of_counter("package-0", &at_ns, &microjoules, Some(RANGE)).unwrap();
        let energy = Energy::of_window(
            std::slice::from_ref(&trace),
            &[],
            Nanoseconds((length * 1e9) as u64),
            &BTreeMap::new(),
        );
        let (drawn, truth) = (energy.drawn().unwrap(), curve.energy(0.0, length));
        assert!((drawn.energy.0 / truth - 1.0).abs() < 0.01, "{drawn:?} of {truth}");
        covered += u32::from((drawn.energy.0 - truth).abs() <= drawn.uncertainty.0);
    }
    assert!(covered >= 95, "{covered} of 100");
}

#[test]
fn rails_besides_the_total_are_a_breakdown_and_nothing_is_added() {
    let mut random = SplitMix64::new(71);
    let curve = Curve::new(2.0, 20.0, load("steady", &mut random));
    let total = TX2.read(&curve, 20.0, &mut random);
    let alone =
        Energy::of_window(std::slice::from_ref(&total), &[], Nanoseconds(20_000_000_000), &BTreeMap::new());
    let part = TX2.read(&Curve::new(2.0, 20.0, |time| 3000.0 + 300.0 * time.sin()), 20.0, &mut random);
    let both = Energy::of_window(
        std::slice::from_ref(&total),
        &[part],
        Nanoseconds(20_000_000_000),
        &BTreeMap::new(),
    );
    assert_eq!(alone.drawn(), both.drawn());
    let Energy::Measured { breakdown, .. } = both else { panic!("{both:?}") };
    assert!((breakdown["VDD_IN"].mean_power().0 - 3000.0).abs() < 100.0, "{breakdown:?}");
}

#[test]
fn an_even_load_borrows_the_refresh_of_others() {
    let mut random = SplitMix64::new(81);
    let known = TX2.known(&mut random);
    let even = Curve::new(6.0, 20.0, |_| 6000.0);
    let trace = TX2.read(&even, 20.0, &mut random);
    let window = Nanoseconds(20_000_000_000);
    let alone = Energy::of_window(std::slice::from_ref(&trace), &[], window, &BTreeMap::new());
    assert!(matches!(alone.absent_reason(), Some(Absence::RefreshUnknown { .. })), "{alone:?}");
    let energy = Energy::of_window(std::slice::from_ref(&trace), &[], window, &known);
    let drawn = energy.drawn().unwrap();
    assert_eq!(drawn.refresh, known["VDD_IN"].refresh.map(|known| known.period()));
    assert!((drawn.mean_power().0 - 6000.0).abs() <= drawn.power_uncertainty().0, "{drawn:?}");
}

/// A board without a rail that feeds all of it: three rails, one of an engine that is off and never changes.
#[test]
fn a_total_may_be_a_sum_of_rails_and_its_uncertainty_covers_the_truth() {
    const LENGTH: f64 = 20.0;
    let window = Nanoseconds(20_000_000_000);
    let mut random = SplitMix64::new(91);
    let mut covered = 0;
    for _ in 0..100 {
        let curves = [
            Curve::new(2.0, LENGTH, load("steady", &mut random)),
            Curve::new(2.0, LENGTH, |time| 3000.0 + 600.0 * (3.0 * time).sin()),
            Curve::new(2.0, LENGTH, |_| 190.0),
        ];
        let rails: Vec<Trace> = curves.iter().map(|curve| TX2.read(curve, LENGTH, &mut random)).collect();
        let energy = Energy::of_window(&rails, &[], window, &BTreeMap::new());
        let truth: f64 = curves.iter().map(|curve| curve.energy(0.0, LENGTH)).sum();
        let drawn = energy.drawn().unwrap_or_else(|| panic!("{energy:?}"));
        assert!((drawn.energy.0 / truth - 1.0).abs() < 0.02, "{drawn:?} of {truth}");
        covered += u32::from((drawn.energy.0 - truth).abs() <= drawn.uncertainty.0);
    }
    assert!(covered >= 95, "{covered} of 100");
    // One rail of the sum that was not read, and there is no sum.
    let mut rails = vec![TX2.read(&Curve::new(2.0, LENGTH, |_| 900.0), LENGTH, &mut random)];
    rails.push(Trace::of_factors("B", &[], &[], &[], None).unwrap());
    assert!(Energy::of_window(&rails, &[], window, &BTreeMap::new()).drawn().is_none());
}
