//! The verdict on each claim, from databases that the real store wrote.

use crate::scenario::Scenario;
use crate::{Claim, ClaimKind, ClaimOnNetwork, ClaimVerdict, Claims};
use domain::{Peer, Schedule, ScheduleKind};
use protocol::Measured;
use store::fixture;
use store::{Outcome, Record};

/// One network, five trials each: singles at 49.5 and 48.5 frames/s, a pipeline at 93.4 and a replicate.
fn unmetered() -> Scenario {
    Scenario { records: fixture::records("resnet18", 5), ..Scenario::small() }
}

/// With a meter: the singles draw 4 W and 3 W, and the pipeline `pipeline_mw`.
fn metered(pipeline_mw: f64) -> Scenario {
    unmetered().metered(1500.0, |place, _: &Measured| match place {
        0 => 4000.0,
        1 => 3000.0,
        _ => pipeline_mw,
    })
}

fn claims(scenario: &Scenario) -> Claims {
    let (_, store, _place) = scenario.stored();
    let run = store.run(scenario.start.id.as_str()).unwrap();
    Claims::build(&store, &[run]).unwrap()
}

fn claim(claims: &Claims, kind: ClaimKind) -> &Claim {
    claims.claims.iter().find(|claim| claim.claim == kind).unwrap()
}

fn only(claims: &Claims, kind: ClaimKind) -> &ClaimOnNetwork {
    let [network] = claim(claims, kind).networks.as_slice() else { panic!("one network: {claims:?}") };
    network
}

/// A pipeline that is so much faster than the fixture's.
fn with_pipeline(factor: f64) -> Scenario {
    let mut scenario = unmetered();
    scenario.slow_down(2, 1.0 / factor);
    scenario
}

#[test]
fn a_pipeline_that_is_faster_by_enough_makes_the_claims_hold() {
    let claims = claims(&metered(4500.0));
    for kind in [ClaimKind::Faster, ClaimKind::Gain, ClaimKind::Energy] {
        assert_eq!(claim(&claims, kind).verdict, ClaimVerdict::Holds, "{claims:?}");
        assert_eq!(only(&claims, kind).reason, None);
        assert_eq!(only(&claims, kind).pipeline.as_deref(), Some("cpu0[0..2] > cpu1[2..4]"));
    }
    assert!(!claims.any_fails() && !claims.is_incomplete());
    // cpu0 is the faster one; cpu1 needs less energy.
    let best = |kind| {
        let comparisons = &only(&claims, kind).comparisons;
        assert_eq!(comparisons.len(), 2);
        comparisons.iter().find(|comparison| comparison.is_best_single).unwrap()
    };
    let (gain, saved) = (best(ClaimKind::Gain), best(ClaimKind::Energy));
    assert_eq!((gain.baseline.as_str(), saved.baseline.as_str()), ("cpu0", "cpu1"));
    assert!((gain.figure.unwrap().point - (20.0 / 10.6 - 1.0)).abs() < 0.01, "{gain:?}");
    // 4.5 W for a frame of 10.6 ms instead of 3 W for one of 20.4 ms.
    let expected = 1.0 - 4.5 * 10.6 / (3.0 * 20.4);
    assert!((saved.figure.unwrap().point - expected).abs() < 0.01, "{saved:?}, not {expected}");
    // That each single is beaten decides the first claim, and the best one alone the others.
    let deciding = |kind| only(&claims, kind).comparisons.iter().filter(|one| one.decides).count();
    assert_eq!([ClaimKind::Faster, ClaimKind::Gain, ClaimKind::Energy].map(deciding), [2, 1, 1]);
}

#[test]
fn a_gain_below_the_published_one_does_not_hold_while_faster_does() {
    // 20 ms over 18.4 ms is 8.7 %.
    let claims = claims(&with_pipeline(10.6 / 18.4));
    assert_eq!(claim(&claims, ClaimKind::Faster).verdict, ClaimVerdict::Holds, "{claims:?}");
    assert_eq!(claim(&claims, ClaimKind::Gain).verdict, ClaimVerdict::DoesNotHold, "{claims:?}");
    assert!(claims.any_fails());
}

#[test]
fn a_slower_pipeline_is_not_faster() {
    let claims = claims(&with_pipeline(10.6 / 24.0));
    let faster = only(&claims, ClaimKind::Faster);
    assert_eq!(faster.verdict, ClaimVerdict::DoesNotHold, "{claims:?}");
    assert!(faster.comparisons.iter().all(|one| one.verdict == ClaimVerdict::DoesNotHold), "{faster:?}");
}

#[test]
fn an_interval_around_the_required_figure_is_inconclusive() {
    let mut scenario = unmetered();
    // Gains of 5 % to 25 % in turn.
    for (round, frame_ns) in
        [19_000_000, 16_000_000, 18_500_000, 16_500_000, 17_500_000].into_iter().enumerate()
    {
        let planned = fixture::Planned { frame_ns, ..fixture::planned("resnet18").swap_remove(2) };
        *scenario.measured(2, u32::try_from(round).unwrap()) = planned.measured(round as u64 + 1, 40);
    }
    let claims = claims(&scenario);
    let gain = only(&claims, ClaimKind::Gain);
    assert_eq!((gain.verdict, gain.not_measured), (ClaimVerdict::Inconclusive, false), "{gain:?}");
    let reason = "over cpu0: the interval includes the required 14 %; measure more trials";
    assert_eq!(gain.reason.as_deref(), Some(reason));
    assert!(!claims.any_fails() && !claims.is_incomplete());
}

#[test]
fn more_energy_does_not_hold_and_without_a_meter_it_is_inconclusive() {
    // 10 W for half the time is more than 3 W.
    let wasteful = claims(&metered(10_000.0));
    assert_eq!(claim(&wasteful, ClaimKind::Energy).verdict, ClaimVerdict::DoesNotHold, "{wasteful:?}");
    let plain = claims(&unmetered());
    let energy = only(&plain, ClaimKind::Energy);
    assert_eq!(energy.verdict, ClaimVerdict::Inconclusive);
    assert_eq!(energy.reason.as_deref(), Some("the board has no power meter configured"));
    // A board without a meter is no failure.
    assert!(!energy.not_measured && !plain.is_incomplete());
}

#[test]
fn what_was_not_measured_makes_a_result_incomplete() {
    let check = |scenario: &Scenario, wanted: &str| {
        let claims = claims(scenario);
        let faster = only(&claims, ClaimKind::Faster);
        assert_eq!((faster.verdict, faster.not_measured), (ClaimVerdict::Inconclusive, true), "{claims:?}");
        assert!(faster.reason.as_ref().unwrap().starts_with(wanted), "{faster:?}");
        assert!(claims.is_incomplete() && !claims.any_fails());
    };
    let mut scenario = unmetered();
    scenario.records.push(Record::Comparison(fixture::comparison(2, 0, 0.5)));
    check(&scenario, "no pipeline has a valid trial: output `logits` differs");
    let mut scenario = unmetered();
    scenario.records.retain(|record| match record {
        Record::Schedule(schedule) => schedule.place != 2,
        Record::Trial(trial) => trial.schedule != 2,
        Record::Comparison(comparison) => comparison.schedule != 2,
        _ => true,
    });
    check(&scenario, "the run measured no pipeline");
    // Failed trials of a schedule that has others.
    let mut scenario = unmetered();
    let message = "the runner was killed".to_owned();
    scenario.trial(2, 0).outcome = Outcome::Failed { fault: None, message };
    let claims = claims(&scenario);
    assert_eq!((claims.trials_failed, claim(&claims, ClaimKind::Gain).verdict), (1, ClaimVerdict::Holds));
    assert!(claims.is_incomplete());
}

#[test]
fn one_round_an_emulated_gpu_and_a_slowdown_on_purpose_are_inconclusive() {
    let check = |scenario: &Scenario, wanted: &str| {
        let claims = claims(scenario);
        let faster = only(&claims, ClaimKind::Faster);
        assert_eq!((faster.verdict, faster.not_measured), (ClaimVerdict::Inconclusive, false), "{claims:?}");
        assert!(faster.reason.as_ref().unwrap().contains(wanted), "{faster:?}");
    };
    check(&Scenario::small(), "a single round gives no interval");
    let mut scenario = unmetered();
    scenario.start.processors[1] = store::ProcessorRecord { name: "cpu1".to_owned(), ..fixture::gpu() };
    check(&scenario, "cpu1 is emulated on CPUs");
    let mut scenario = unmetered();
    scenario.start.configuration =
        "experiment:\n  inject: { slow_down: { processor: cpu1, percent: 5 } }\n".to_owned();
    check(&scenario, "the run made cpu1 5 % slower on purpose");
}

#[test]
fn a_claim_holds_only_if_it_does_on_every_network() {
    let mut scenario = Scenario::sound();
    assert_eq!(claim(&claims(&scenario), ClaimKind::Gain).verdict, ClaimVerdict::Holds);
    // Of the first network alone.
    scenario.slow_down(2, 1.8);
    let claims = claims(&scenario);
    let gain = claim(&claims, ClaimKind::Gain);
    let verdicts: Vec<ClaimVerdict> = gain.networks.iter().map(|network| network.verdict).collect();
    assert_eq!(verdicts, [ClaimVerdict::DoesNotHold, ClaimVerdict::Holds], "{gain:?}");
    assert_eq!(gain.verdict, ClaimVerdict::DoesNotHold);
}

#[test]
fn a_peer_is_compared_and_decides_nothing() {
    let mut scenario = unmetered();
    let network = fixture::network("resnet18").network;
    let peer = Peer {
        engine: "onnxruntime".to_owned(),
        version: "1.23.2".to_owned(),
        threads: 2,
        sessions: vec![vec![0, 1]],
        gpu: None,
    };
    scenario.schedule(3).schedule = Schedule::peer(&network, peer).unwrap();
    scenario.schedule(3).prediction = None;
    for round in 0..5 {
        let planned =
            fixture::Planned { frame_ns: 12_000_000, ..fixture::planned("resnet18").swap_remove(0) };
        *scenario.measured(3, round) = planned.measured(u64::from(round) + 1, 40);
    }
    let claims = claims(&scenario);
    let gain = only(&claims, ClaimKind::Gain);
    let [_, _, over] = gain.comparisons.as_slice() else { panic!("two singles and a peer: {gain:?}") };
    assert_eq!((over.kind, over.is_best_single, over.decides), (ScheduleKind::Peer, false, false));
    // 12 ms over 10.6 ms is 13.2 %.
    assert!((over.figure.unwrap().point - (12.0 / 10.6 - 1.0)).abs() < 0.01, "{over:?}");
    assert_eq!((over.verdict, gain.verdict), (ClaimVerdict::DoesNotHold, ClaimVerdict::Holds), "{gain:?}");
}

#[test]
fn baselines_at_several_operating_points_are_told_apart() {
    let claims = claims(&super::optimization::at_two_points());
    let faster = only(&claims, ClaimKind::Faster);
    let baselines: Vec<&str> =
        faster.comparisons.iter().map(|comparison| comparison.baseline.as_str()).collect();
    assert_eq!(baselines, ["cpu0 @ cpu0 2000 cpu1 2000 MHz", "cpu1 @ cpu0 2000 cpu1 1200 MHz"]);
    assert_eq!(faster.pipeline.as_deref(), Some("cpu0[0..2] > cpu1[2..4] @ cpu0 2000 cpu1 2000 MHz"));
}
