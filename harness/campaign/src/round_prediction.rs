//! Predicts the schedules of a network in every round, from a profile made just before they are measured.

use crate::compare::ComparedNetwork;
use crate::frame_times::ProfileError;
use crate::open::OpenedBoard;
use crate::plan::PlannedSchedule;
use crate::profile::costs_now;
use crate::stop::Stop;
use crate::trial_order::Slot;
use boards::SessionError;
use config::Experiment;
use domain::{Load, Prediction};
use host::exit::Outcome;
use host::progress::Progress;

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

    fn none(slot: &Slot) -> Self {
        Self { network: slot.network, round: slot.round, schedules: Vec::new() }
    }

    /// Profiles the network of a trial, and predicts its schedules. If that fails, `progress` says why, and no schedule is predicted.
    ///
    /// # Errors
    /// If the board is lost, or the user interrupts.
    pub(crate) fn make(
        board: &mut OpenedBoard,
        network: &ComparedNetwork,
        slot: &Slot,
        progress: &Progress,
    ) -> Result<Self, Stop> {
        let plan = &network.linked.plan;
        let (compiled, links) = (&plan.compiled, &plan.links);
        progress.doing(&format!("profiling {}, round {}", plan.name(), slot.round + 1));
        let processors = board.found.processors.clone();
        let experiment = &board.loaded.experiment;
        let costs = match costs_now(&mut board.runner, experiment, compiled, &processors, links) {
            Ok(costs) => costs,
            Err(ProfileError::Session(error @ (SessionError::Interrupted | SessionError::Board(_)))) => {
                return Err(error.into());
            }
            Err(error) => {
                progress.warn(&error.to_string());
                return Ok(Self::none(slot));
            }
        };
        let predict = |planned: &PlannedSchedule| costs.predict(&compiled.network, &planned.schedule);
        let schedules = plan.schedules.iter().map(predict).collect::<Outcome<_>>()?;
        Ok(Self { schedules, ..Self::none(slot) })
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
