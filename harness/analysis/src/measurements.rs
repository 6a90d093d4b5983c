//! The trials of each schedule of a run, read from the store.

use super::meter::MeterKnown;
use super::reasons;
use super::stored_settings::StoredSettings;
use super::stream;
use super::trial::{Bounds, Trial, observations};
use domain::{
    FramesPerSecond, Metric, Observation, Prediction, Reason, ScheduleKind, Severity, Validity, comparison,
    validity,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use store::{Outcome, ScheduleRecord, Store, StoreError, StoredRun};

/// A schedule with its trials, on the way to a [`Row`].
pub(super) struct Measurements {
    pub(super) record: ScheduleRecord,
    /// Its name in reports: with its operating point, if the run has several.
    pub(super) label: String,
    cpus: Vec<u32>,
    pub(super) uses_gpu: bool,
    /// By round; a trial that was repeated counts as it went the last time.
    pub(super) trials: BTreeMap<u32, Trial>,
    pub(super) failed: BTreeMap<u32, String>,
    /// Trials of searches for the highest sustained rate, by round.
    searched: BTreeMap<u32, Vec<Trial>>,
    pub(super) limits: validity::Limits,
    /// Whether the board has a power meter.
    pub(super) metered: bool,
    /// Of the schedule as a whole.
    pub(super) reasons: Vec<Reason>,
}

pub(super) fn measurements(store: &Store, run: &StoredRun) -> Result<Vec<Measurements>, StoreError> {
    let comparisons = store.comparisons(run)?;
    let settings = StoredSettings::of(&run.start.configuration);
    let min_frames = settings.min_frames;
    let points = store.operating_points(run)?;
    let point_of = |number: u32| points.iter().find(|point| point.number == number);
    let mut schedules: Vec<Measurements> = Vec::new();
    let mut places = HashMap::new();
    for record in store.schedules(run)? {
        let of_schedule = comparisons.iter().filter(|comparison| comparison.schedule == record.place);
        let mut limits = validity::Limits::default();
        let mut reasons = reasons::outputs(&record, of_schedule, &mut limits);
        reasons.extend(reasons::injected(&record, &settings));
        reasons.extend(reasons::emulated(&record, &run.start.processors));
        let processors = &run.start.processors;
        let used = processors
            .iter()
            .filter(|known| record.schedule.processors().any(|processor| processor.as_str() == known.name));
        let uses_gpu = used.clone().any(|processor| processor.kind.is_gpu())
            || record.schedule.as_peer().is_some_and(|peer| peer.gpu.is_some());
        let cpus = if let Some(peer) = record.schedule.as_peer() {
            peer.cpus()
        } else {
            // Each once: a thread that feeds a GPU may share the CPUs of another processor.
            let cpus = used.flat_map(|processor| processor.kind.thread_cpus().iter().copied());
            cpus.collect::<BTreeSet<u32>>().into_iter().collect()
        };
        places.insert(record.place, schedules.len());
        let (trials, failed) = (BTreeMap::new(), BTreeMap::new());
        let metered = false;
        let label = match point_of(record.point) {
            Some(point) => format!("{} @ {}", record.schedule.label(), point.point),
            None => record.schedule.label(),
        };
        schedules.push(Measurements {
            record,
            label,
            cpus,
            uses_gpu,
            trials,
            failed,
            searched: BTreeMap::new(),
            limits,
            metered,
            reasons,
        });
    }
    store.each_brief_trial(run, |trial| {
        let Some(schedule) = places.get(&trial.schedule).map(|place| &mut schedules[*place]) else { return };
        let taken = match trial.outcome {
            Outcome::Measured(measured) => {
                let state = match point_of(schedule.record.point) {
                    Some(point) => point.state.as_ref(),
                    None => run.start.state.as_ref(),
                };
                let Measurements { record, cpus, uses_gpu, limits, .. } = &*schedule;
                let pipeline =
                    Some(&record.schedule).filter(|schedule| schedule.kind() == ScheduleKind::Pipeline);
                let bounds = Bounds { cpus, uses_gpu: *uses_gpu, pipeline, min_frames, limits, state };
                match Trial::new(trial.round, *measured, bounds) {
                    Ok(made) => Ok(Trial { prediction: trial.prediction, ..made }),
                    Err(error) => Err(error.to_string()),
                }
            }
            Outcome::Failed { message, .. } => Err(message),
        };
        match taken {
            Ok(taken) => {
                schedule.failed.remove(&trial.round);
                if settings.load.sustained().is_some() {
                    schedule.searched.entry(trial.round).or_default().push(taken);
                } else {
                    schedule.trials.insert(trial.round, taken);
                }
            }
            Err(message) if !schedule.trials.contains_key(&trial.round) => {
                schedule.failed.insert(trial.round, message);
            }
            Err(_) => {}
        }
    })?;
    if let Some(wanted) = settings.load.sustained() {
        for schedule in &mut schedules {
            for (round, trials) in std::mem::take(&mut schedule.searched) {
                schedule.trials.extend(stream::highest_sustained(trials, wanted).map(|trial| (round, trial)));
            }
        }
    }
    Ok(schedules)
}

/// Energy of each trial, with the properties of the meter from all trials and the idle board.
pub(super) fn add_energy(schedules: &mut [Measurements], idle: Option<&protocol::Idled>) -> MeterKnown {
    let mut known = MeterKnown::default();
    known.learn_idle(idle);
    let trials = schedules.iter().flat_map(|schedule| schedule.trials.values());
    trials.filter_map(|trial| trial.power.as_ref().ok()).for_each(|readings| known.learn(readings));
    for schedule in schedules {
        schedule.metered = idle.is_some();
        for trial in schedule.trials.values_mut() {
            trial.energy = known.energy(&trial.power);
        }
    }
    known
}

impl Measurements {
    pub(super) fn valid(&self) -> impl Iterator<Item = &Trial> {
        self.trials.values().filter(|trial| trial.is_valid())
    }

    /// The median of the predictions in the rounds of these trials, and how much too fast these were. Without any, the prediction
    /// before the first round, and against the median throughput `fps` of the trials. A prediction is at most `offered` frames per
    /// second, because no schedule computes frames that have not arrived.
    pub(super) fn predicted<'t>(
        &self,
        counted: &[&'t Trial],
        fps: Option<FramesPerSecond>,
        offered: f64,
    ) -> (Option<Prediction>, Option<f64>) {
        let limited = |prediction: &Prediction| FramesPerSecond(prediction.throughput.0.min(offered));
        let of_trial = |trial: &&'t Trial| Some((trial.prediction.as_ref()?, trial.throughput));
        let paired: Vec<(&Prediction, FramesPerSecond)> = counted.iter().filter_map(of_trial).collect();
        let median =
            Prediction::median(&paired.iter().map(|(prediction, _)| *prediction).collect::<Vec<_>>());
        let pairs: Vec<_> = if median.is_some() {
            paired.iter().map(|(prediction, measured)| (limited(prediction), *measured)).collect()
        } else {
            self.record.prediction.iter().map(limited).zip(fps).collect()
        };
        let prediction = median.or_else(|| self.record.prediction.clone());
        let prediction = prediction.map(|known| Prediction { throughput: limited(&known), ..known });
        (prediction, comparison::prediction_error(pairs))
    }

    /// The trials the figures are of.
    pub(super) fn counted(&self) -> Vec<&Trial> {
        let valid: Vec<&Trial> = self.valid().collect();
        if valid.is_empty() { self.trials.values().collect() } else { valid }
    }

    /// Throughput of the trials the figures are of.
    pub(super) fn throughputs(&self) -> Vec<Observation> {
        observations(&self.counted(), Metric::Throughput)
    }

    pub(super) fn validity(&self) -> Validity {
        let void = self.reasons.iter().any(|reason| reason.severity == Severity::Void);
        if void || self.valid().next().is_none() { Validity::Void } else { Validity::Valid }
    }
}
