//! Searches for the highest rate of a stream that a schedule sustains.

use crate::stop::Stop;
use crate::trial::frames_per_second;
use domain::sustained::{MOST_FPS, RateSearch};
use domain::{Load, SustainedLoad};
use protocol::Measured;

/// Trials at a rate until one of them is valid.
const ATTEMPTS: u32 = 3;
/// The first rate as a share of the saturated throughput.
const FIRST: f64 = 0.98;

/// Runs trials until the search ends. `trial` returns nothing if it failed, `judge` whether a trial sustained its rate, and
/// nothing if it is void. Returns nothing if no result can be found.
pub(crate) fn search(
    wanted: &SustainedLoad,
    mut trial: impl FnMut(Load) -> Result<Option<Measured>, Stop>,
    judge: impl Fn(&Measured) -> Option<bool>,
) -> Result<Option<RateSearch>, Stop> {
    let saturated = trial(Load::Saturating)?;
    let Some(saturated_fps) = saturated.as_ref().and_then(frames_per_second) else { return Ok(None) };
    let mut search = RateSearch::new(FIRST * saturated_fps, MOST_FPS * f64::from(wanted.streams));
    while let Some(fps) = search.next_fps() {
        let stream = wanted.at(fps);
        let mut verdict = None;
        for _ in 0..ATTEMPTS {
            let Some(measured) = trial(Load::Stream(stream))? else { return Ok(None) };
            verdict = judge(&measured);
            if verdict.is_some() {
                break;
            }
        }
        let Some(is_sustained) = verdict else { return Ok(None) };
        search.record(fps, is_sustained);
    }
    Ok(Some(search))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use store::fixture;

    /// A schedule that sustains 90 frames per second. `void` says which of the trials are void.
    fn searched(void: impl Fn(usize) -> bool) -> (Option<RateSearch>, Vec<Load>) {
        let wanted = SustainedLoad {
            max_drops: 0.001,
            deadline_ms: 50.0,
            streams: 2,
            queue: 2,
            policy: domain::QueuePolicy::DropOldest,
            arrivals: domain::ArrivalTimes::Constant,
        };
        let loads = RefCell::new(Vec::new());
        let trial = |load: Load| {
            loads.borrow_mut().push(load);
            // About 94 frames per second.
            Ok(Some(fixture::planned("resnet18").swap_remove(2).measured(1, 40)))
        };
        let judge = |_: &Measured| {
            let loads = loads.borrow();
            let fps = loads.last().unwrap().stream().unwrap().total_fps();
            (!void(loads.len())).then_some(fps <= 90.0)
        };
        let found = search(&wanted, trial, judge).unwrap_or_else(|_| panic!("no trial stops the run"));
        (found, loads.into_inner())
    }

    #[test]
    fn it_begins_near_the_throughput_and_ends_within_one_percent() {
        let (found, loads) = searched(|_| false);
        let (sustained, failed) = found.unwrap().bracket().unwrap();
        assert!(sustained <= 90.0 && 90.0 < failed && failed <= 1.01 * sustained, "{sustained} {failed}");
        assert_eq!(loads[0], Load::Saturating);
        let first = loads[1].stream().unwrap();
        assert!((first.total_fps() - 0.98 * 93.5).abs() < 1.0 && first.streams == 2, "{first:?}");
        assert!(loads.len() < 12, "{}", loads.len());
    }

    #[test]
    fn a_void_trial_is_repeated_and_a_schedule_without_a_valid_one_has_no_result() {
        let (found, loads) = searched(|number| number == 3);
        assert!(found.unwrap().bracket().is_some());
        assert!(loads[1] != loads[2] && loads[2] == loads[3], "the second rate is tried twice: {loads:?}");
        let (found, loads) = searched(|_| true);
        assert_eq!((found, loads.len()), (None, 1 + ATTEMPTS as usize));
    }
}
