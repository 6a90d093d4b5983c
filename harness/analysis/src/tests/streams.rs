//! Figures of streams whose truth is known.

use crate::scenario::Scenario;
use domain::{ReasonCode, Validity};
use protocol::{Distribution, StreamTotals};
use store::{Outcome, Record, fixture};

#[test]
fn figures_are_those_of_the_frames() {
    let mut scenario = Scenario::camera();
    // Each frame completes 25 ms after its arrival, and each hundredth 45 ms after it.
    for trial in scenario.trials() {
        let store::Outcome::Measured(measured) = &mut trial.outcome else { continue };
        let streamed = measured.stream.as_mut().unwrap();
        for (place, since) in streamed.since_arrival_ns.iter_mut().enumerate() {
            *since = if place % 50 == 49 { 45_000_000 } else { 25_000_000 };
        }
    }
    let report = scenario.report();
    let row = &report.rows[0];
    assert_eq!(row.verdict, Validity::Valid, "{:?}", row.reasons);
    let latency = row.latency_ms.unwrap();
    assert_eq!((latency.p50, latency.p90, latency.p99, latency.max), (25.0, 25.0, 45.0, 45.0));
    let intervals = row.latency_ms_intervals.unwrap();
    assert_eq!((intervals.p50.lo, intervals.p50.hi), (Some(25.0), Some(25.0)));
    assert_eq!((intervals.max.lo, intervals.max.hi, intervals.max.frames_needed), (Some(45.0), None, None));
    // 8 of 400 frames of each of three trials are later than 33 ms.
    assert_eq!(row.deadline_misses, Some(24));
    // A camera of 30 frames/s without each tenth frame shows results for 33.3 ms, and one in nine for 66.7 ms.
    let interval = 1000.0 / 30.0;
    let expected = 25.0 + 0.5 * (8.0 * interval * interval + 4.0 * interval * interval) / (10.0 * interval);
    assert!((row.age_ms.unwrap() - expected).abs() < 0.6, "{:?} instead of {expected}", row.age_ms);
    let section = row.stream.as_ref().unwrap();
    assert_eq!((section.arrived, section.dropped_at_queue, section.completed), (1332, 132, 1200));
    assert!(section.source_late_p99_ms.unwrap() < 0.061);
    assert_eq!(row.pipeline_efficiency, None);
    assert!(row.predicted_fps.unwrap() <= 30.0);
}

#[test]
fn a_source_that_was_stopped_voids_the_trial_and_tells() {
    let mut scenario = Scenario::camera();
    let streamed = scenario.measured(0, 1).stream.as_mut().unwrap();
    // The runner was stopped for 2 s.
    for (late, place) in streamed.arrived.late_ns[100..160].iter_mut().zip(0..) {
        *late = 2_000_000_000 - place * 33_333_333;
    }
    let report = scenario.report();
    let row = &report.rows[0];
    assert_eq!((row.trials, row.trials_void), (2, 1));
    let reason = row.reasons.iter().find(|reason| reason.code == ReasonCode::SourceLate).unwrap();
    assert!(
        reason.text.contains("1 of 3 trials is void: the source was delayed by 2000.0 ms"),
        "{}",
        reason.text
    );
    assert!(reason.remedy.contains("SIGSTOP"), "{}", reason.remedy);
}

#[test]
fn a_window_with_more_frames_than_stamps_has_the_quantiles_of_all() {
    let mut scenario = Scenario::camera();
    let measured = scenario.measured(0, 0);
    let streamed = measured.stream.as_mut().unwrap();
    let frames = 20_736_000;
    let closed_ns = 86_400_000_000_000;
    let distribution = |up_to_ns: Vec<u64>, counts: Vec<u64>| Distribution { up_to_ns, counts };
    streamed.rest = Some(StreamTotals {
        arrived: frames + 1000,
        dropped: 1000,
        completed: frames,
        closed_ns,
        since_arrival: distribution(vec![10_000_000, 50_000_000], vec![frames - 1000, 1000]),
        between: distribution(vec![4_166_667], vec![frames]),
        late: distribution(vec![20_000], vec![frames]),
        waiting: vec![frames],
    });
    measured.host.wall_ns = closed_ns;
    let mut scenario = Scenario { start: scenario.start.clone(), ..scenario };
    scenario.records.retain(|record| match record {
        store::Record::Trial(trial) => trial.round == 0,
        _ => true,
    });
    let report = scenario.report();
    let row = &report.rows[0];
    assert_eq!((row.frames, row.deadline_misses), (usize::try_from(frames).unwrap(), Some(1000)));
    assert!((row.throughput_fps.unwrap().point - 240.0).abs() < 1e-9);
    let latency = row.latency_ms.unwrap();
    assert_eq!((latency.p50, latency.p99, latency.max), (10.0, 10.0, 50.0));
    let told = row.reasons.iter().find(|reason| reason.code == ReasonCode::StampsLimited).unwrap();
    assert!(told.text.contains("400 of 20736000 frames have individual time stamps"), "{}", told.text);
}

#[test]
fn counts_without_end_are_survived() {
    let mut scenario = Scenario::camera();
    let endless = || Distribution { up_to_ns: vec![1, u64::MAX], counts: vec![u64::MAX, u64::MAX] };
    for trial in scenario.trials() {
        let store::Outcome::Measured(measured) = &mut trial.outcome else { continue };
        measured.stream.as_mut().unwrap().rest = Some(StreamTotals {
            arrived: u64::MAX,
            dropped: u64::MAX,
            completed: u64::MAX,
            closed_ns: u64::MAX,
            since_arrival: endless(),
            between: endless(),
            late: endless(),
            waiting: vec![u64::MAX; 3],
        });
    }
    let report = scenario.report();
    assert_eq!(report.rows[0].frames, usize::MAX);
    assert!(report.rows.iter().all(|row| row.verdict == Validity::Void), "the source was late for centuries");
}

/// A report on searches in one round: the trials of each schedule are one that is saturated, and streams at these rates, which are
/// sustained or not.
fn searched(streams: &[(f64, bool)]) -> crate::Report {
    let mut scenario = Scenario::small();
    scenario.start.configuration =
        "experiment: { load: { sustained: { max_drops: 20%, deadline_ms: 30 } } }".to_owned();
    let mut records = Vec::new();
    for record in scenario.records {
        let Record::Trial(trial) = record else {
            records.push(record);
            continue;
        };
        records.push(Record::Trial(trial.clone()));
        for (fps, is_sustained) in streams {
            let load = protocol::StreamLoad { fps: *fps, ..fixture::camera() };
            let planned = fixture::planned("resnet18").swap_remove(trial.schedule as usize);
            let mut measured = planned.streamed(1, 400, load);
            let since_ns = if *is_sustained { 25_000_000 } else { 45_000_000 };
            measured.stream.as_mut().unwrap().since_arrival_ns.fill(since_ns);
            let outcome = Outcome::Measured(Box::new(measured));
            records.push(Record::Trial(store::TrialRecord { outcome, ..trial.clone() }));
        }
    }
    Scenario { records, ..scenario }.report()
}

#[test]
fn a_search_has_the_highest_rate_that_most_of_its_trials_sustained() {
    // A trial at 40 frames/s was disturbed, and one at 40.4 was lucky.
    let trials =
        [(39.0, true), (40.0, false), (40.0, true), (40.4, true), (40.4, false), (40.0, true), (40.4, false)];
    let report = searched(&trials);
    let row = &report.rows[0];
    assert_eq!(row.verdict, Validity::Valid, "{:?}", row.reasons);
    let (rate, middle) = (row.sustained_fps.unwrap(), (40.0_f64 * 40.4).sqrt());
    assert!((rate.point - middle).abs() < 1e-9, "{rate:?}");
    // The saturated trial of the round is the one of the scenario.
    let saturated_fps = Scenario::small().report().rows[0].throughput_fps.unwrap().point;
    let share = row.sustained_share.unwrap().point;
    assert!((share * saturated_fps / middle - 1.0).abs() < 1e-9, "{share} of {saturated_fps}");
    let said = |streams: &[(f64, bool)], says: &str| {
        let report = searched(streams);
        let row = &report.rows[0];
        let reason = row.reasons.iter().find(|reason| reason.code == ReasonCode::NothingSustained).unwrap();
        assert!(row.sustained_fps.is_none() && reason.text.contains(says), "{}", reason.text);
    };
    said(&[(40.0, false), (35.0, false)], "the lowest one tried was 35.0 frames/s");
    said(&[(35.0, true), (40.0, false)], "did not end");
    said(
        &[(9_990.0, true), (10_000.0, true)],
        "10000 frames/s were sustained, and the source offers no more",
    );
}
