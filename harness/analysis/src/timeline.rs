//! The path of single frames through the stages, which the runner records for the first frames of a window.

use super::rows::{Report, Row, Timeline};
use domain::Validity;
use store::{Outcome, Store, StoreError};

/// Timelines that a report shows at most. A page of nineteen networks with three pipelines each stays within it; the
/// others are written by `report --trace`.
const MOST: usize = 60;

impl Report {
    /// Reads a timeline of each schedule of several stages: that of its typical trial. If there are too many, the
    /// fastest schedules of each network come first. Also reads the queues of streams.
    pub fn read_timelines(&mut self, store: &Store) -> Result<(), StoreError> {
        let run = store.run(&self.run.id)?;
        let mut wanted: Vec<(usize, &Row)> = Vec::new();
        for network in &self.networks {
            let of_network = self.rows.iter().filter(|row| row.network == network.name);
            let mut rows: Vec<&Row> = of_network.filter(|row| row.stages.len() > 1).collect();
            rows.sort_by(|a, b| speed(b).total_cmp(&speed(a)));
            wanted.extend(rows.into_iter().enumerate());
        }
        wanted.sort_by_key(|(rank, _)| *rank);
        let mut timelines = Vec::new();
        for (_, row) in wanted.into_iter().take(MOST) {
            let Some(round) = row.typical_round else { continue };
            let trial = store.last_trial(&run, row.place, round)?;
            let Some(Outcome::Measured(measured)) = trial.map(|trial| trial.outcome) else { continue };
            let mut spans = measured.timeline;
            spans.sort_by_key(|span| (span.begin_ns, span.frame));
            if !spans.is_empty() {
                timelines.push(Timeline { place: row.place, round, spans });
            }
        }
        self.timelines = timelines;
        self.read_streams(store)
    }
}

/// Frames a second by which rows are ordered: what does not count comes last.
pub fn speed(row: &Row) -> f64 {
    match (row.verdict, row.throughput_fps) {
        (Validity::Valid, Some(fps)) => fps.point,
        _ => f64::NEG_INFINITY,
    }
}
