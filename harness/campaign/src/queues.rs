//! Chooses how many frames of a stream can wait, for each schedule, from the profiles.

use crate::processors::Processor;
use crate::profile::ProfileRecords;
use config::Experiment;
use domain::queue_model::{Line, StageModel};
use domain::{Prediction, ProcessorName, QueueLength, QueuePlan, Schedule, ScheduleKind, plan_queues};
use host::progress;

/// Plans the queues of a schedule of a network, if the experiment leaves any of them to the planner.
pub(crate) fn plan(
    experiment: &Experiment,
    network: &str,
    records: &ProfileRecords,
    processors: &[Processor],
    (schedule, prediction): (&Schedule, Option<&Prediction>),
) -> Option<QueuePlan> {
    let stream = experiment.load.stream()?;
    if ![stream.queue, experiment.queue_depth].contains(&QueueLength::Auto) {
        return None;
    }
    // The model has no stages whose replicas keep the order of the frames.
    let is_modelled =
        schedule.kind() != ScheduleKind::Pipeline || schedule.replicas().all(|replicas| replicas.len() == 1);
    let prediction = prediction.filter(|_| is_modelled);
    let line = prediction.map(|prediction| line(network, records, processors, schedule, prediction));
    let queues = plan_queues(line.as_ref(), stream, experiment.queue_depth);
    progress::say("plan", &format!("{network} on {}: {queues}", schedule.label()));
    Some(queues)
}

/// The schedule as the model has it.
fn line(
    network: &str,
    records: &ProfileRecords,
    processors: &[Processor],
    schedule: &Schedule,
    prediction: &Prediction,
) -> Line {
    let kind = schedule.kind();
    let contended = matches!(kind, ScheduleKind::Pipeline | ScheduleKind::Replicate);
    let stages = schedule.stages().iter().zip(&prediction.stage_ns).map(|(stage, ns)| {
        let mut known = processors.iter().filter(|known| known.name == stage.processor);
        StageModel {
            ns: *ns,
            spread: spread(network, records, &stage.processor, contended),
            overlaps: known.any(|known| known.kind.is_gpu()),
        }
    });
    Line { stages: stages.collect(), side_by_side: kind == ScheduleKind::Replicate }
}

/// Times of the profiled frames over their median; while all processors were busy if `contended` and measured.
fn spread(network: &str, records: &ProfileRecords, processor: &ProcessorName, contended: bool) -> Vec<f64> {
    let of = |contended: bool| {
        records.profiles.iter().find(|known| {
            known.network == network
                && known.point == 0
                && known.processor == processor.as_str()
                && known.contended == contended
        })
    };
    let frames = Some(contended).filter(|contended| *contended).and_then(of).or_else(|| of(false));
    let frame_ns = frames.map_or(&[][..], |record| &record.profiled.frame_ns);
    let mut sorted: Vec<f64> = frame_ns.iter().map(|ns| *ns as f64).collect();
    let Some(median) = domain::median_in_place(&mut sorted).filter(|median| *median > 0.0) else {
        return Vec::new();
    };
    frame_ns.iter().map(|ns| *ns as f64 / median).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::fixture;

    fn records(contended: &[bool]) -> ProfileRecords {
        let profiles = contended.iter().map(|contended| {
            let mut record = fixture::profile("resnet18", "cpu0", 10_000_000);
            record.contended = *contended;
            record.profiled.frame_ns = if *contended { vec![20, 10, 10] } else { vec![10, 12, 10, 10] };
            record
        });
        ProfileRecords { profiles: profiles.collect(), transfers: Vec::new() }
    }

    #[test]
    fn times_vary_as_in_the_profile_of_busy_processors_if_there_is_one() {
        let cpu: ProcessorName = "cpu0".into();
        let of = |records: &ProfileRecords, contended| spread("resnet18", records, &cpu, contended);
        let both = records(&[false, true]);
        assert_eq!(of(&both, true), [2.0, 1.0, 1.0]);
        assert_eq!(of(&both, false), [1.0, 1.2, 1.0, 1.0]);
        assert_eq!(of(&records(&[false]), true), [1.0, 1.2, 1.0, 1.0]);
        assert!(spread("other", &both, &cpu, true).is_empty());
    }

    #[test]
    fn a_schedule_becomes_the_stages_of_the_model() {
        let network = fixture::network("resnet18").network;
        let prediction = |stages: usize| Prediction {
            stage_ns: vec![1e7; stages],
            throughput: domain::FramesPerSecond(100.0),
        };
        let of = |schedule: &Schedule| {
            line("resnet18", &records(&[false, true]), &[], schedule, &prediction(schedule.stages().len()))
        };
        let single = of(&Schedule::single(&network, "cpu0".into()));
        assert_eq!((single.side_by_side, single.stages.len()), (false, 1));
        assert_eq!((single.stages[0].ns, single.stages[0].spread.len()), (1e7, 4));
        let replicate = Schedule::replicate(&network, vec!["cpu0".into(), "cpu1".into()]).unwrap();
        let replicate = of(&replicate);
        assert!(replicate.side_by_side);
        let spreads: Vec<usize> = replicate.stages.iter().map(|stage| stage.spread.len()).collect();
        assert_eq!(spreads, [3, 0], "cpu1 has no profile here");
    }
}
