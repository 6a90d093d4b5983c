//! Compares a schedule with itself, or with itself made slower, to measure the error rates of the gate.

use crate::link::LinkedSchedule;
use crate::open::OpenedBoard;
use crate::run;
use crate::trial;
use boards::SessionError;
use config::Experiment;
use domain::gate::Evidence;
use domain::{Confidence, Observation, SplitMix64, precision};
use host::exit::{Exit, Failure, Outcome};
use host::progress;
use protocol::Processor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Instant;

/// How comparisons are measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pairing {
    /// Number of comparisons.
    pub comparisons: u32,
    /// Number of earlier comparisons; the order of trials continues after theirs.
    pub earlier: usize,
    /// How much slower the candidate's first stage is made, in thousandths.
    pub slow_down_per_mille: u32,
    /// Whether all trials of the baseline run first and then all of the candidate, each with its own runner, as in two runs;
    /// otherwise interleaved.
    pub apart: bool,
}

/// One measured comparison.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// Frames per second of the unchanged schedule, by round, without void trials.
    pub baseline: Vec<(u32, f64)>,
    /// Frames per second of the candidate, likewise.
    pub candidate: Vec<(u32, f64)>,
    /// Number of void and failed trials.
    pub void: u32,
    /// Duration in seconds.
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

/// Compares the experiment's first schedule with itself, and calls `take` with the schedule's name and each result.
/// Nothing is recorded.
///
/// # Errors
/// As [`run::plan`]; if most trials are void, if the user interrupts, or if `take` fails.
pub fn compare_with_itself(
    board: &mut OpenedBoard,
    pairing: Pairing,
    mut take: impl FnMut(&str, Pair) -> Outcome<()>,
) -> Outcome<()> {
    let networks = run::link_without_recording(board)?;
    let found = networks.into_iter().next().and_then(|network| {
        let name = network.plan.name().to_owned();
        Some((name, network.schedules.into_iter().next()?))
    });
    let Some((network, schedule)) = found else {
        return Err(Failure::new(Exit::Usage, "failed to find a schedule to compare with itself"));
    };
    let label = format!("{network} on {}", schedule.planned.schedule.label());
    let baseline = LinkedSchedule { slow_down_per_mille: Vec::new(), ..schedule };
    let slow_down_per_mille = vec![pairing.slow_down_per_mille];
    let candidate = LinkedSchedule { slow_down_per_mille, ..baseline.clone() };
    let experiment = board.loaded.experiment.clone();
    let mut random = SplitMix64::new(experiment.seed.wrapping_add(pairing.earlier as u64));
    let mut comparison = Comparison { board, experiment, network, sides: [baseline, candidate] };
    for _ in 0..pairing.comparisons {
        let pair = if pairing.apart { comparison.apart()? } else { comparison.interleaved(&mut random)? };
        take(&label, pair)?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Baseline,
    Candidate,
}

struct Comparison<'b> {
    board: &'b mut OpenedBoard,
    experiment: Experiment,
    network: String,
    /// Baseline and candidate.
    sides: [LinkedSchedule; 2],
}

impl Comparison<'_> {
    fn apart(&mut self) -> Outcome<Pair> {
        let (start, mut pair) = (Instant::now(), Pair::default());
        for side in [Side::Baseline, Side::Candidate] {
            self.board.runner.end();
            for round in 0..self.experiment.trials {
                self.trial(side, round, &mut pair)?;
            }
        }
        pair.seconds = start.elapsed().as_secs_f64();
        Ok(pair)
    }

    fn interleaved(&mut self, random: &mut SplitMix64) -> Outcome<Pair> {
        let (start, mut pair) = (Instant::now(), Pair::default());
        for round in 0.. {
            let order = if random.unit() < 0.5 {
                [Side::Candidate, Side::Baseline]
            } else {
                [Side::Baseline, Side::Candidate]
            };
            for side in order {
                self.trial(side, round, &mut pair)?;
            }
            let rounds = round + 1;
            let is_precise = self.experiment.precision.is_none_or(|wanted| {
                let [baseline, candidate] = pair.observed();
                let ratio = Evidence::Paired { candidate, baseline }.ratio(Confidence::P95);
                precision::is_reached(rounds, [ratio.ok().and_then(|ratio| ratio.precision())], wanted)
            });
            let is_done = rounds >= self.experiment.trials && is_precise;
            if is_done || start.elapsed() >= self.experiment.max_time {
                break;
            }
        }
        pair.seconds = start.elapsed().as_secs_f64();
        Ok(pair)
    }

    fn trial(&mut self, side: Side, round: u32, pair: &mut Pair) -> Outcome<()> {
        let schedule = &self.sides[side as usize];
        let cpus = schedule.message.stages.iter().flat_map(|stage| stage.processor.cpus().iter().copied());
        // Each once: a thread that feeds a GPU may share the CPUs of another processor.
        let cpus: Vec<u32> = cpus.collect::<BTreeSet<u32>>().into_iter().collect();
        let uses_gpu =
            schedule.message.stages.iter().any(|stage| matches!(stage.processor, Processor::Cuda(_)));
        let seed = self.experiment.seed.wrapping_add(round.into());
        match trial::run(&mut self.board.runner, &self.experiment, &self.network, schedule, None, seed) {
            Ok(measured) => match analysis::valid_throughput(measured, &cpus, uses_gpu) {
                Some(fps) => {
                    let trials = match side {
                        Side::Baseline => &mut pair.baseline,
                        Side::Candidate => &mut pair.candidate,
                    };
                    trials.push((round, fps));
                }
                None => pair.void += 1,
            },
            Err(error @ SessionError::Interrupted) => return Err(error.into()),
            Err(error) => {
                progress::say("warning", &error.to_string());
                pair.void += 1;
            }
        }
        // A schedule that always fails would be tried forever.
        if pair.void > 20 + 4 * self.experiment.trials {
            let message =
                "failed to compare: most trials were void or failed; stop other programs on this machine";
            return Err(Failure::new(Exit::Trial, message));
        }
        Ok(())
    }
}
