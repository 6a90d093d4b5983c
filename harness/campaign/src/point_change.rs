//! Before a trial: brings the board to the operating point of its schedule.

use crate::open::OpenedBoard;
use boards::{RemoteError, SessionError};
use protocol::AppliedState;
use store::{OperatingPointRecord, StateRecord};

impl OpenedBoard {
    /// Brings the board to an operating point. Returns the record of the point, if it was not recorded yet.
    ///
    /// # Errors
    /// If the board cannot reach the point, or is lost.
    pub(crate) fn bring_to_point(
        &mut self,
        number: usize,
    ) -> Result<Option<OperatingPointRecord>, SessionError> {
        let points = &mut self.found.points;
        let Some(point) = points.all.get(number).filter(|_| points.all.len() > 1) else { return Ok(None) };
        if points.present != number {
            let applied = match self.runner.bring_to(point.request.clone()) {
                Ok(applied) => applied,
                Err(SessionError::Board(RemoteError::State { message, .. })) => {
                    // The board has undone its changes.
                    points.present = usize::MAX;
                    return Err(SessionError::Point { point: point.settings.to_string(), reason: message });
                }
                Err(error) => return Err(error),
            };
            let AppliedState { leftover: _, found, set } = applied;
            let brought = AppliedState { leftover: None, found, set };
            self.found.state = StateRecord::new(point.request.clone(), brought);
            points.present = number;
        }
        Ok(points.recorded.insert(number).then(|| self.point_record(number)))
    }

    /// The record of the point at which the board is, without idle power.
    pub(crate) fn point_record(&self, number: usize) -> OperatingPointRecord {
        OperatingPointRecord {
            number: u32::try_from(number).unwrap_or(u32::MAX),
            point: self.found.points.all[number].settings.clone(),
            state: self.found.state.clone(),
            idle: None,
        }
    }
}
