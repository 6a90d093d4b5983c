//! Predicts the schedules of a network anew in every round, from a profile made just before they are measured.

use crate::compare::ComparedNetwork;
use crate::open::OpenedBoard;
use crate::profile::costs_now;
use crate::trial_order::Slot;
use config::Experiment;
use domain::{Load, Prediction};
use host::exit::Outcome;

/// Predictions of one network in one round.
#[derive(Debug)]
pub(crate) struct RoundPrediction {
    network: usize,
    round: u32,
    /// By schedule; absent for a peer.
    schedules: Vec<Option<Prediction>>,
}

impl RoundPrediction {
    /// Whether an experiment asks for them. A search profiles at its operating points, and the rate of a stream is that of its
    /// arrivals.
    pub(crate) fn is_wanted(experiment: &Experiment) -> bool {
        experiment.profile.every_round && experiment.search.is_none() && experiment.load == Load::Saturating
    }

    /// Of the network of a trial in its round, without any schedule predicted.
    pub(crate) fn none(slot: &Slot) -> Self {
        Self { network: slot.network, round: slot.round, schedules: Vec::new() }
    }

    /// Profiles the network of a trial, and predicts its schedules.
    ///
    /// # Errors
    /// If the runner fails.
    pub(crate) fn make(board: &mut OpenedBoard, network: &ComparedNetwork, slot: &Slot) -> Outcome<Self> {
        let plan = &network.linked.plan;
        let (compiled, links) = (&plan.compiled, &plan.links);
        let processors = board.found.processors.clone();
        let experiment = &board.loaded.experiment;
        let costs = costs_now(&mut board.runner, experiment, compiled, &processors, links)?;
        let predict = |planned| costs.predict(&compiled.network, planned);
        let schedules = plan.schedules.iter().map(|planned| predict(&planned.schedule));
        Ok(Self { schedules: schedules.collect::<Outcome<_>>()?, ..Self::none(slot) })
    }

    /// Whether these are of the network and round of a trial.
    pub(crate) fn is_of(&self, slot: &Slot) -> bool {
        (self.network, self.round) == (slot.network, slot.round)
    }

    /// The prediction of the schedule of a trial.
    pub(crate) fn of(&self, slot: &Slot) -> Option<Prediction> {
        self.schedules.get(slot.schedule).cloned().flatten().filter(|_| self.is_of(slot))
    }
}
