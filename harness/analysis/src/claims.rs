//! The statements of the paper as tests of measured runs.
//!
//! Velasco-Montero et al. 2023 (doi:10.1109/ACCESS.2023.3264828) report from a Jetson TX2: pipelines process 14 % to 150 %
//! more frames per second than a single processor, over all tested networks, and power-efficient configurations need over
//! 10 % less energy per frame. Each claim is tested on each network, by trials of the same round: it holds if the whole
//! interval lies above what the claim requires, does not hold if the whole interval lies below, and is inconclusive otherwise.

use super::energy::{frames_per_joule, uncertainty, widened};
use super::measurements::{Measurements, add_energy, measurements};
use super::rows::Interval;
use super::stored_settings::StoredSettings;
use domain::{Absence, Confidence, Observation, ScheduleKind, Severity, Validity, comparison};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use store::{Store, StoreError, StoredRun};

/// Version of the JSON. It rises if a field changes its meaning or is removed, not if one is added.
const SCHEMA: u32 = 1;

/// The source of the claims.
const SOURCE: &str =
    "Velasco-Montero et al. 2023, doi:10.1109/ACCESS.2023.3264828, published for a Jetson TX2";

/// Whether the claims hold in some runs.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "Result of edgepipe verify-claims")]
pub struct Claims {
    /// Version of this format.
    pub schema: u32,
    /// Where the claims are from.
    pub source: String,
    /// The runs.
    pub runs: Vec<ClaimRun>,
    /// Probability with which an interval contains the true value.
    pub confidence: f64,
    /// The claims.
    pub claims: Vec<Claim>,
    /// Trials that failed and did not succeed when they were repeated.
    pub trials_failed: usize,
}

/// A run that the claims are tested in.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ClaimRun {
    /// Its name.
    pub id: String,
    /// The board.
    pub board: String,
    /// The experiment.
    pub experiment: String,
    /// `running` (or killed), `complete`, `interrupted` or `failed`.
    pub status: String,
}

/// A claim.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Claim {
    /// Which one.
    pub claim: ClaimKind,
    /// The claim as a sentence.
    pub text: String,
    /// The figure that the claim requires, as a share: 0.14 is 14 %.
    pub required: f64,
    /// `holds` if it holds on every network, `does_not_hold` if there is a network on which it does not hold.
    pub verdict: ClaimVerdict,
    /// By network, in the order of the runs.
    pub networks: Vec<ClaimOnNetwork>,
}

/// The claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClaimKind {
    /// The fastest pipeline processes more frames per second than every single processor.
    Faster,
    /// The fastest pipeline processes at least 14 % more frames per second than the fastest single processor.
    Gain,
    /// The pipeline with the least energy per frame needs over 10 % less than the single processor with the least.
    Energy,
}

/// The verdict on a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClaimVerdict {
    /// The whole interval lies above the required figure.
    Holds,
    /// The whole interval lies below the required figure.
    DoesNotHold,
    /// The interval includes the required figure, or there is no interval.
    Inconclusive,
}

/// A claim on a network.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ClaimOnNetwork {
    /// The network.
    pub network: String,
    /// The run.
    pub run: String,
    /// The verdict by the comparisons that decide.
    pub verdict: ClaimVerdict,
    /// Why the verdict is inconclusive; otherwise absent.
    pub reason: Option<String>,
    /// Whether no pipeline or no single processor has a valid trial. Then fix what made them void or fail, or measure more.
    pub not_measured: bool,
    /// The pipeline that is compared. Absent if there is none to compare.
    pub pipeline: Option<String>,
    /// With each baseline.
    pub comparisons: Vec<ClaimComparison>,
}

/// The comparison of a pipeline with a baseline.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ClaimComparison {
    /// The baseline: a single processor, or a peer.
    pub baseline: String,
    /// `single` or `peer`.
    #[schemars(with = "String")]
    pub kind: ScheduleKind,
    /// Whether it is the best single processor: the fastest one, or the one with the least energy per frame.
    pub is_best_single: bool,
    /// Whether the verdict depends on it. Peers are shown, but the paper claims nothing about them.
    pub decides: bool,
    /// More frames per second, or less energy per frame, as a share of the baseline's: 0.14 is 14 %. Absent if no round
    /// has a valid trial of both.
    pub figure: Option<Interval>,
    /// The verdict on the claim by this comparison alone.
    pub verdict: ClaimVerdict,
    /// Why the verdict is inconclusive; otherwise absent.
    pub reason: Option<String>,
}

impl ClaimKind {
    const ALL: [Self; 3] = [Self::Faster, Self::Gain, Self::Energy];

    /// Short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Faster => "faster",
            Self::Gain => "gain",
            Self::Energy => "energy",
        }
    }

    /// What a figure is a share of.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Faster | Self::Gain => "more frames/s",
            Self::Energy => "energy saved",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Faster => "a pipeline processes more frames/s than every single processor",
            Self::Gain => {
                "a pipeline processes at least 14 % more frames/s than the fastest single processor (published: 14 % to 150 %)"
            }
            Self::Energy => {
                "a pipeline needs over 10 % less energy per frame than the most efficient single processor"
            }
        }
    }

    fn required(self) -> f64 {
        match self {
            Self::Faster => 0.0,
            Self::Gain => 0.14,
            Self::Energy => 0.10,
        }
    }

    /// What is compared, so that more is better, and by which share every trial may be off in itself.
    fn observed(self, schedule: &Measurements) -> (Vec<Observation>, f64) {
        match self {
            Self::Faster | Self::Gain => (schedule.throughputs(), 0.0),
            Self::Energy => {
                let trials = schedule.counted();
                (frames_per_joule(&trials), uncertainty(&trials))
            }
        }
    }

    /// The figure of the claim for pipeline over baseline.
    fn figure(self, ratio: f64) -> f64 {
        match self {
            Self::Faster | Self::Gain => ratio - 1.0,
            Self::Energy => 1.0 - 1.0 / ratio,
        }
    }
}

impl ClaimVerdict {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::DoesNotHold => "does not hold",
            Self::Inconclusive => "inconclusive",
        }
    }

    /// Of several, all of which are to hold.
    fn of_all(verdicts: impl Iterator<Item = Self>) -> Self {
        let verdicts: Vec<Self> = verdicts.collect();
        if verdicts.contains(&Self::DoesNotHold) {
            Self::DoesNotHold
        } else if verdicts.is_empty() || verdicts.contains(&Self::Inconclusive) {
            Self::Inconclusive
        } else {
            Self::Holds
        }
    }
}

impl Claims {
    /// Tests the claims in these runs.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn build(store: &Store, runs: &[StoredRun]) -> Result<Self, StoreError> {
        let mut by_claim: BTreeMap<usize, Vec<ClaimOnNetwork>> = BTreeMap::new();
        let mut trials_failed = 0;
        for run in runs {
            let mut schedules = measurements(store, run)?;
            add_energy(&mut schedules, store.idle_power(run)?.as_ref());
            trials_failed += schedules.iter().map(|schedule| schedule.failed.len()).sum::<usize>();
            for record in store.networks(run)? {
                let network = record.network.name();
                let of_network: Vec<&Measurements> =
                    schedules.iter().filter(|schedule| schedule.record.network == network).collect();
                for (place, kind) in ClaimKind::ALL.into_iter().enumerate() {
                    by_claim.entry(place).or_default().push(on_network(kind, run, network, &of_network));
                }
            }
        }
        let claim = |(place, kind): (usize, ClaimKind)| {
            let networks = by_claim.remove(&place).unwrap_or_default();
            Claim {
                claim: kind,
                text: kind.text().to_owned(),
                required: kind.required(),
                verdict: ClaimVerdict::of_all(networks.iter().map(|network| network.verdict)),
                networks,
            }
        };
        Ok(Self {
            schema: SCHEMA,
            source: SOURCE.to_owned(),
            runs: runs
                .iter()
                .map(|run| ClaimRun {
                    id: run.start.id.to_string(),
                    board: run.start.board.clone(),
                    experiment: run.start.experiment.clone(),
                    status: run.status.to_string(),
                })
                .collect(),
            confidence: Confidence::P95.probability(),
            claims: ClaimKind::ALL.into_iter().enumerate().map(claim).collect(),
            trials_failed,
        })
    }

    /// Whether a claim does not hold.
    pub fn any_fails(&self) -> bool {
        self.claims.iter().any(|claim| claim.verdict == ClaimVerdict::DoesNotHold)
    }

    /// Whether something that a claim needs was not measured: trials failed, or a network has no valid pipeline or single
    /// processor.
    pub fn is_incomplete(&self) -> bool {
        let not_measured = |claim: &Claim| claim.networks.iter().any(|network| network.not_measured);
        self.trials_failed > 0
            || self.claims.iter().any(|claim| claim.networks.is_empty() || not_measured(claim))
    }
}

fn on_network(
    kind: ClaimKind,
    run: &StoredRun,
    network: &str,
    schedules: &[&Measurements],
) -> ClaimOnNetwork {
    let result = |reason: Option<String>, not_measured| ClaimOnNetwork {
        network: network.to_owned(),
        run: run.start.id.to_string(),
        verdict: ClaimVerdict::Inconclusive,
        reason,
        not_measured,
        pipeline: None,
        comparisons: Vec::new(),
    };
    let settings = StoredSettings::of(&run.start.configuration);
    if let Some((processor, percent)) = &settings.slow_down {
        return result(Some(format!("the run made {processor} {percent} % slower on purpose")), false);
    }
    let (pipelines, singles) = match (
        measured(schedules, ScheduleKind::Pipeline, "pipeline"),
        measured(schedules, ScheduleKind::Single, "single processor"),
    ) {
        (Ok(pipelines), Ok(singles)) => (pipelines, singles),
        (Err(reason), _) | (_, Err(reason)) => return result(Some(reason), true),
    };
    let observed: Vec<Vec<Observation>> =
        pipelines.iter().map(|schedule| kind.observed(schedule).0).collect();
    let places: Vec<&[Observation]> = observed.iter().map(Vec::as_slice).collect();
    let Some(best) = comparison::best(&places) else {
        return result(Some(energy_absent(&pipelines)), false);
    };
    let of_singles: Vec<Vec<Observation>> =
        singles.iter().map(|schedule| kind.observed(schedule).0).collect();
    let places: Vec<&[Observation]> = of_singles.iter().map(Vec::as_slice).collect();
    let Some(best_single) = comparison::best(&places) else {
        return result(Some(energy_absent(&singles)), false);
    };
    let pipeline = pipelines[best];
    let peers = schedules.iter().copied().filter(|schedule| {
        schedule.record.schedule.kind() == ScheduleKind::Peer && schedule.validity() == Validity::Valid
    });
    let comparisons: Vec<ClaimComparison> = singles
        .iter()
        .enumerate()
        .map(|(place, single)| (*single, place == best_single))
        .chain(peers.map(|peer| (peer, false)))
        .map(|(baseline, is_best)| compared(kind, run, pipeline, baseline, is_best))
        .collect();
    let deciding = || comparisons.iter().filter(|comparison| comparison.decides);
    let verdict = ClaimVerdict::of_all(deciding().map(|comparison| comparison.verdict));
    let reason = deciding()
        .find(|comparison| comparison.verdict == ClaimVerdict::Inconclusive)
        .filter(|_| verdict == ClaimVerdict::Inconclusive)
        .and_then(|comparison| {
            Some(format!("over {}: {}", comparison.baseline, comparison.reason.as_ref()?))
        });
    ClaimOnNetwork { verdict, pipeline: Some(pipeline.label.clone()), comparisons, ..result(reason, false) }
}

/// The valid schedules of a kind, or why there are none.
fn measured<'a>(
    schedules: &[&'a Measurements],
    kind: ScheduleKind,
    name: &str,
) -> Result<Vec<&'a Measurements>, String> {
    let of_kind = || schedules.iter().copied().filter(|schedule| schedule.record.schedule.kind() == kind);
    let valid: Vec<&Measurements> =
        of_kind().filter(|schedule| schedule.validity() == Validity::Valid).collect();
    if !valid.is_empty() {
        return Ok(valid);
    }
    let Some(example) = of_kind().next() else { return Err(format!("the run measured no {name}")) };
    let of_trials = example.trials.values().flat_map(|trial| &trial.reasons);
    let void = example.reasons.iter().chain(of_trials).find(|reason| reason.severity == Severity::Void);
    let why = void
        .map(|reason| reason.text.clone())
        .or_else(|| example.failed.values().next().cloned())
        .map(|why| format!(": {why}"))
        .unwrap_or_default();
    Err(format!("no {name} has a valid trial{why}"))
}

/// Why none of these schedules has energy.
fn energy_absent(schedules: &[&Measurements]) -> String {
    let otherwise =
        if schedules.iter().any(|schedule| schedule.metered) { Absence::NotRead } else { Absence::NoMeter };
    let trials = schedules.iter().flat_map(|schedule| schedule.trials.values());
    let mut reasons = trials.filter_map(|trial| trial.energy.absent_reason());
    reasons.find(|reason| **reason != Absence::NotRead).unwrap_or(&otherwise).to_string()
}

fn compared(
    kind: ClaimKind,
    run: &StoredRun,
    pipeline: &Measurements,
    baseline: &Measurements,
    is_best_single: bool,
) -> ClaimComparison {
    let (left, left_share) = kind.observed(pipeline);
    let (right, right_share) = kind.observed(baseline);
    let of_kind = baseline.record.schedule.kind();
    let figure = if right.is_empty() {
        Err(energy_absent(&[baseline]))
    } else {
        comparison::compare(&left, &right, Confidence::P95).map_err(|error| error.to_string()).map(
            |compared| {
                let ratio = match kind {
                    ClaimKind::Faster | ClaimKind::Gain => compared.ratio.into(),
                    ClaimKind::Energy => widened(compared.ratio, &[left_share, right_share]),
                };
                let rounds = compared.ratio.count;
                let figure = |ratio: Option<f64>| ratio.map(|ratio| kind.figure(ratio));
                // Without the ends between trials, the meter's own uncertainty would stand for all noise.
                let ends = if rounds > 1 { (ratio.lo, ratio.hi) } else { (None, None) };
                Interval { point: kind.figure(ratio.point), lo: figure(ends.0), hi: figure(ends.1) }
            },
        )
    };
    let (verdict, reason) = match &figure {
        Err(why) => (ClaimVerdict::Inconclusive, Some(why.clone())),
        Ok(figure) => judged(kind, figure),
    };
    let emulated = [pipeline, baseline].into_iter().find_map(|schedule| emulated(run, schedule));
    let (verdict, reason) = match emulated {
        Some(why) => (ClaimVerdict::Inconclusive, Some(why)),
        None => (verdict, reason),
    };
    ClaimComparison {
        baseline: baseline.label.clone(),
        kind: of_kind,
        is_best_single,
        decides: of_kind == ScheduleKind::Single && (kind == ClaimKind::Faster || is_best_single),
        figure: figure.ok(),
        verdict,
        reason,
    }
}

fn judged(kind: ClaimKind, figure: &Interval) -> (ClaimVerdict, Option<String>) {
    let required = kind.required();
    match figure.lo.zip(figure.hi) {
        Some((lo, _)) if lo > required => (ClaimVerdict::Holds, None),
        Some((_, hi)) if hi < required => (ClaimVerdict::DoesNotHold, None),
        Some(_) => {
            let why =
                format!("the interval includes the required {:.0} %; measure more trials", 100.0 * required);
            (ClaimVerdict::Inconclusive, Some(why))
        }
        None => {
            let why = "a single round gives no interval; measure more trials".to_owned();
            (ClaimVerdict::Inconclusive, Some(why))
        }
    }
}

/// Figures of a GPU that is emulated on CPUs say nothing about a real GPU.
fn emulated(run: &StoredRun, schedule: &Measurements) -> Option<String> {
    let name = schedule.record.schedule.processors().find(|name| {
        let mut known = run.start.processors.iter();
        known.any(|known| known.name == name.as_str() && known.is_emulated())
    })?;
    Some(format!("{name} is emulated on CPUs, so its figures are not those of a GPU"))
}
