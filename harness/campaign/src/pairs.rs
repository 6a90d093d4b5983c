//! A schedule against itself, or against itself made slower: what the gate's own rates are measured with.

use super::Campaign;
use super::before::Before;
use super::trials::{self, Ready};
use boards::session::SessionError;
use domain::gate::Evidence;
use domain::{Confidence, Observation, SplitMix64, precision};
use host::exit::{Exit, Failure, Outcome};
use host::progress;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// How comparisons are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pairing {
    /// How many.
    pub comparisons: u32,
    /// How many there were before, whose order is not to be taken again.
    pub before: usize,
    /// By how many thousandths the candidate's first stage is made slower; 0: not at all.
    pub slow_down_per_mille: u32,
    /// All trials of the one first and then all of the other, each with a runner of its own, as in two runs; else
    /// interleaved.
    pub apart: bool,
}

/// One comparison as it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// Frames a second of the schedule as it is, by round; void trials are not among them.
    pub baseline: Vec<(u32, f64)>,
    /// Of the one that is compared with it.
    pub candidate: Vec<(u32, f64)>,
    /// Trials that were disturbed or failed.
    pub void: u32,
    /// Time all of it took, in seconds.
    pub seconds: f64,
}

impl Pair {
    /// Observations of the baseline, then of the candidate.
    pub fn observed(&self) -> [Vec<Observation>; 2] {
        let observed = |trials: &[(u32, f64)]| {
            trials.iter().map(|&(round, value)| Observation { round, value }).collect()
        };
        [observed(&self.baseline), observed(&self.candidate)]
    }
}

impl Campaign {
    /// The board's machine in words.
    pub fn machine(&self) -> String {
        let cpus = self.machine.allowed_cpus.len();
        let cpu = self.machine.cpu_model.as_deref().unwrap_or(&self.machine.arch);
        format!("{cpus} CPUs of {cpu}, kernel {}", self.machine.kernel)
    }

    /// Measures comparisons of the experiment's first schedule with itself, and hands on each with the schedule's name.
    /// Trials are those of a bench; nothing is recorded, because they are of no use to anybody else.
    ///
    /// # Errors
    /// As [`Campaign::plan`]; where the user interrupts; and those of `take`.
    pub fn pairs(
        &mut self,
        pairing: Pairing,
        mut take: impl FnMut(&str, Pair) -> Outcome<()>,
    ) -> Outcome<()> {
        let networks = self.plan(None, &Before::default())?;
        let found = networks.first().and_then(|network| Some((network, network.planned.first()?)));
        let Some((network, planned)) = found else {
            return Err(Failure::new(Exit::Usage, "failed to find a schedule to compare with itself"));
        };
        let mut ready = self.ready(&network.prepared, std::slice::from_ref(planned))?;
        let Some(same) = ready.pop() else {
            return Err(Failure::new(Exit::Bug, "a schedule was not made ready"));
        };
        let same = Ready { slow_down_per_mille: Vec::new(), ..same };
        let slow_down_per_mille = vec![pairing.slow_down_per_mille];
        let other = Ready { slow_down_per_mille, ..same.clone() };
        let name = network.prepared.name.clone();
        let what = format!("{name} on {}", planned.schedule.label());
        let mut numbers = SplitMix64::new(self.loaded.experiment.seed.wrapping_add(pairing.before as u64));
        for _ in 0..pairing.comparisons {
            take(&what, self.pair(&name, &same, &other, pairing, &mut numbers)?)?;
        }
        Ok(())
    }

    fn pair(
        &mut self,
        name: &str,
        same: &Ready,
        other: &Ready,
        pairing: Pairing,
        numbers: &mut SplitMix64,
    ) -> Outcome<Pair> {
        let experiment = self.loaded.experiment.clone();
        let begun = Instant::now();
        let mut pair = Pair { baseline: vec![], candidate: vec![], void: 0, seconds: 0.0 };
        if pairing.apart {
            for (candidate, ready) in [(false, same), (true, other)] {
                self.link.end();
                for round in 0..experiment.trials {
                    self.one(name, ready, candidate, round, &mut pair)?;
                }
            }
        } else {
            for round in 0.. {
                let first = numbers.unit() < 0.5;
                for candidate in [first, !first] {
                    self.one(name, if candidate { other } else { same }, candidate, round, &mut pair)?;
                }
                let rounds = round + 1;
                let done = match experiment.precision {
                    None => rounds >= experiment.trials,
                    Some(wanted) => {
                        let [baseline, candidate] = pair.observed();
                        let ratio = Evidence::Paired { candidate, baseline }.ratio(Confidence::P95);
                        rounds >= experiment.trials
                            && precision::is_reached(
                                rounds,
                                [ratio.ok().and_then(|ratio| ratio.precision())],
                                wanted,
                            )
                    }
                };
                if done || begun.elapsed() >= experiment.max_time {
                    break;
                }
            }
        }
        pair.seconds = begun.elapsed().as_secs_f64();
        Ok(pair)
    }

    fn one(
        &mut self,
        name: &str,
        ready: &Ready,
        candidate: bool,
        round: u32,
        pair: &mut Pair,
    ) -> Outcome<()> {
        let experiment = self.loaded.experiment.clone();
        let cpus: Vec<u32> =
            ready.wire.stages.iter().flat_map(|stage| stage.processor.cpus().iter().copied()).collect();
        match trials::measure(&mut self.link, &experiment, name, ready, None) {
            Ok(measured) => match analysis::valid_throughput(measured, &cpus) {
                Some(fps) => {
                    let side = if candidate { &mut pair.candidate } else { &mut pair.baseline };
                    side.push((round, fps));
                }
                None => pair.void += 1,
            },
            Err(error @ SessionError::Interrupted) => return Err(error.into()),
            Err(error) => {
                progress::say("warning", &error.to_string());
                pair.void += 1;
            }
        }
        // What failed at once would be tried over and over.
        if pair.void > 20 + 4 * experiment.trials {
            let message =
                "failed to compare: most trials are disturbed or fail; stop what else runs on this machine";
            return Err(Failure::new(Exit::Trial, message));
        }
        Ok(())
    }
}
