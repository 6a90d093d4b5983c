//! `plan`: profiles and plans, without trials.

use crate::output::{after_closing, print};
use crate::selection::Selection;
use campaign::{Paths, open};
use clap::Args;
use domain::{Prediction, ProcessorName, QueueLength, QueuePolicy, StreamLoad};
use host::exit::{Ending as _, Exit, Outcome};
use host::interrupt::Interrupt;
use std::fmt::Write as _;

/// Options of `plan`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    selection: Selection,
}

/// # Errors
/// With the exit code of the failure.
pub(crate) fn run(paths: Paths, arguments: &Arguments) -> Outcome<Exit> {
    let interrupt = Interrupt::listen().ending(Exit::Bug)?;
    let loaded = arguments.selection.load(&paths)?;
    let mut board = open::open(loaded, paths, interrupt)?;
    let experiment = &board.loaded().experiment;
    let (stream, queue_depth) = (experiment.load.stream().copied(), experiment.queue_depth);
    let gpus: Vec<ProcessorName> = board
        .processors()
        .iter()
        .filter(|processor| processor.kind.is_gpu())
        .map(|processor| processor.name.clone())
        .collect();
    let networks = campaign::plan(&mut board);
    let (networks, closed) = board.close(networks)?;
    let mut text = String::new();
    for network in &networks {
        let units = network.unit_names();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} ({} units)", network.name(), units.len());
        for planned in &network.schedules {
            let label = planned.schedule.label();
            let _ = match &planned.prediction {
                Some(Prediction { throughput, .. }) => {
                    writeln!(text, "  {label:<44} {:>9.2} frames/s expected", throughput.0)
                }
                None => writeln!(text, "  {label:<44} measured only"),
            };
            if let Some(queues) = &planned.queues {
                let _ = writeln!(text, "    {queues}");
            }
            let Some(prediction) = &planned.prediction else { continue };
            let has_replicas = planned.schedule.replicas().any(|replicas| replicas.len() > 1);
            if let Some(stream) = stream.filter(|_| !has_replicas) {
                // A GPU starts a frame before it has finished the one before.
                let stages = planned.schedule.stages().iter();
                let overlapping = stages.filter(|stage| gpus.contains(&stage.processor)).count();
                let overlapping = u32::try_from(overlapping).unwrap_or(u32::MAX);
                let chosen = planned.queues.map(|queues| (queues.before, queues.between));
                let given = |length: QueueLength| length.places().unwrap_or(QueueLength::DEFAULT);
                let (before, between) = chosen.unwrap_or((given(stream.queue), given(queue_depth)));
                text += &latencies(prediction, &stream, (before, between), overlapping);
            }
            if planned.schedule.kind() != domain::ScheduleKind::Pipeline {
                continue;
            }
            for (stage, ns) in planned.schedule.stages().iter().zip(&prediction.stage_ns) {
                let (first, last) = (units.get(stage.first), units.get(stage.end - 1));
                let _ = writeln!(
                    text,
                    "    {:<12} {:>8.2} ms  {} … {}",
                    stage.processor.as_str(),
                    ns / 1e6,
                    first.unwrap_or(&"?"),
                    last.unwrap_or(&"?")
                );
            }
        }
    }
    after_closing(closed, print(&text).map(|()| Exit::Fine))
}

/// What the queues of a stream mean for the latency of a schedule, with this many places before the first stage for each
/// stream, and between two stages.
fn latencies(
    prediction: &Prediction,
    stream: &StreamLoad,
    (before, between): (u32, u32),
    overlapping: u32,
) -> String {
    let before = before.saturating_mul(stream.streams);
    let (alone, most) = prediction.latency_ns(before, between, overlapping);
    let (alone_ms, most_ms) = (alone / 1e6, most / 1e6);
    let places = if prediction.stage_ns.len() > 1 {
        format!("{before} before the first stage, {between} between stages")
    } else {
        format!("{before} before it")
    };
    let fps = stream.total_fps();
    let late = |ms: f64| stream.deadline_ms.is_some_and(|deadline| ms > deadline);
    let mut text = format!("    latency {alone_ms:.2} ms if no frame waits");
    if stream.policy == QueuePolicy::Block {
        text += ", without limit if the stream is faster than the schedule";
    } else {
        let _ = write!(text, ", at most {most_ms:.2} ms with full queues ({places})");
    }
    text += "\n";
    if prediction.throughput.0 < fps {
        let _ = writeln!(text, "    too slow for {fps} frames/s");
    } else if late(alone_ms) {
        text += "    every frame is expected to miss its deadline\n";
    } else if late(most_ms) && stream.policy != QueuePolicy::Block && stream.queue != QueueLength::Auto {
        text += "    frames that wait in full queues may miss the deadline; `queue: auto` and `queue_depth: auto` choose other lengths\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{ArrivalTimes, FramesPerSecond};

    #[test]
    fn queues_are_part_of_the_plan() {
        let prediction = Prediction { stage_ns: vec![4e6, 5e6], throughput: FramesPerSecond(200.0) };
        let check = |fps: f64, policy: QueuePolicy, deadline_ms: Option<f64>, says: &[&str]| {
            let arrivals = ArrivalTimes::Constant;
            let queue = QueueLength::Places(1);
            let stream = StreamLoad { fps, streams: 2, queue, policy, deadline_ms, arrivals };
            let text = latencies(&prediction, &stream, (1, 3), 0);
            assert!(says.iter().all(|part| text.contains(part)), "{text}");
        };
        let full = "latency 9.00 ms if no frame waits, at most 39.00 ms with full queues (2 before the first stage, 3 between stages)";
        check(50.0, QueuePolicy::DropOldest, None, &[full]);
        check(
            50.0,
            QueuePolicy::DropOldest,
            Some(30.0),
            &["may miss the deadline; `queue: auto` and `queue_depth: auto`"],
        );
        check(50.0, QueuePolicy::DropNewest, Some(8.0), &["every frame is expected to miss its deadline"]);
        check(200.0, QueuePolicy::DropNewest, None, &["too slow for 400 frames/s"]);
        let stream = StreamLoad {
            fps: 50.0,
            streams: 1,
            queue: QueueLength::Places(1),
            policy: QueuePolicy::DropOldest,
            deadline_ms: None,
            arrivals: ArrivalTimes::Constant,
        };
        assert!(
            latencies(&prediction, &stream, (1, 3), 1).contains("at most 39.00 ms"),
            "a GPU has another frame"
        );
        check(200.0, QueuePolicy::Block, None, &["without limit if the stream is faster", "too slow"]);
    }
}
