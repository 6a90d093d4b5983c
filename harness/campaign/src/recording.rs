//! Records of the steps before the trials.

use host::exit::Outcome;
use store::{RunRecorder, StoreError};

/// Where the steps before the trials write their records: a run, or nowhere.
pub(crate) struct Recording<'r, 's>(pub(crate) Option<&'r mut RunRecorder<'s>>);

impl<'s> Recording<'_, 's> {
    pub(crate) fn write(
        &mut self,
        write: impl FnOnce(&mut RunRecorder<'s>) -> Result<(), StoreError>,
    ) -> Outcome<()> {
        match &mut self.0 {
            Some(recorder) => Ok(write(recorder)?),
            None => Ok(()),
        }
    }
}
