//! When frames arrive in a trial, and what was observed of their arrival.

use serde::{Deserialize, Serialize};

/// When frames arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Load {
    /// A frame is admitted as soon as the first stage is free.
    #[default]
    Saturating,
    /// A frame is admitted when the one before it has completed.
    OneAtATime,
    /// Frames arrive at a rate of their own.
    Stream(StreamLoad),
}

impl Load {
    /// The stream, if it is one.
    pub fn stream(&self) -> Option<&StreamLoad> {
        match self {
            Self::Saturating | Self::OneAtATime => None,
            Self::Stream(stream) => Some(stream),
        }
    }
}

/// Frames of one or several cameras, which arrive whether or not a stage is free. They wait in one queue per camera, from
/// which the first stage takes them in turn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamLoad {
    /// Frames per second of each stream.
    pub fps: f64,
    /// Number of streams, 1 to 64.
    pub streams: u32,
    /// Frames of a stream that can wait, 1 to 1024.
    pub queue: u32,
    /// What happens if the queue is full.
    pub policy: QueuePolicy,
    /// Time between arrivals.
    pub arrivals: ArrivalTimes,
    /// Latest time of a result after the scheduled arrival; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ns: Option<u64>,
    /// Seed of random arrivals.
    pub seed: u64,
}

/// What happens to a frame that finds its queue full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueuePolicy {
    /// It takes the place of the oldest frame in the queue, which is dropped.
    DropOldest,
    /// It is dropped.
    DropNewest,
    /// It waits outside of the queue, and so do all later ones.
    Block,
}

/// Time between arrivals of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArrivalTimes {
    /// Equal; the arrivals of several streams take turns at equal distances.
    Constant,
    /// Exponentially distributed, so that arrivals are a Poisson process.
    Poisson,
}

/// What was observed of a stream during the window. Lists have an entry for each event until one of them has
/// [`WindowRule::max_frames`](crate::WindowRule::max_frames) entries; then [`Streamed::rest`] counts all events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Streamed {
    /// The load.
    pub load: StreamLoad,
    /// Arrivals that were scheduled in the window.
    pub arrived: Arrived,
    /// Frames that were dropped at their queue during the window.
    pub dropped: Dropped,
    /// Time of each completed frame of the window from its scheduled arrival, in the order of completion.
    pub since_arrival_ns: Vec<u64>,
    /// Stream of each of them; empty with one stream.
    pub completed_stream: Vec<u32>,
    /// CPU time of the source during the window.
    pub source_cpu_ns: u64,
    /// Whether the source ran on CPUs that no stage uses.
    pub source_apart: bool,
    /// Present if the lists have reached their limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<StreamTotals>,
}

/// Arrivals in order. All lists are equally long, except `stream`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arrived {
    /// When the frame was scheduled to arrive, in ns since the window opened.
    pub scheduled_ns: Vec<u64>,
    /// How much later the source offered it, not counting the time that a full queue blocked the source.
    pub late_ns: Vec<u64>,
    /// Frames of all streams that were waiting when it was offered.
    pub waiting: Vec<u32>,
    /// Its stream; empty with one stream.
    pub stream: Vec<u32>,
}

/// Dropped frames in order. All lists are equally long, except `stream`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropped {
    /// When the frame was dropped, in ns since the window opened.
    pub dropped_ns: Vec<u64>,
    /// How long after its scheduled arrival that was.
    pub since_arrival_ns: Vec<u64>,
    /// Its stream; empty with one stream.
    pub stream: Vec<u32>,
}

/// Everything that happened in a window whose lists are full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamTotals {
    /// Arrivals.
    pub arrived: u64,
    /// Frames dropped.
    pub dropped: u64,
    /// Frames completed.
    pub completed: u64,
    /// Completion of the last one, in ns since the window opened.
    pub closed_ns: u64,
    /// Times from scheduled arrival to completion.
    pub since_arrival: Distribution,
    /// Times between completions.
    pub between: Distribution,
    /// How much later the source offered frames.
    pub late: Distribution,
    /// Number of arrivals that found 0, 1, 2 … frames waiting.
    pub waiting: Vec<u64>,
}

/// Times counted in ranges. A time is at most the limit of its range, and less than 0.2 % below it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    /// Upper limits of ranges that have a time, ascending.
    pub up_to_ns: Vec<u64>,
    /// Number of times in each.
    pub counts: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_a_word_or_a_stream() {
        assert_eq!(serde_json::to_string(&Load::Saturating).unwrap(), "\"saturating\"");
        let stream = StreamLoad {
            fps: 29.97,
            streams: 1,
            queue: 2,
            policy: QueuePolicy::DropOldest,
            arrivals: ArrivalTimes::Constant,
            deadline_ns: None,
            seed: 1,
        };
        let text = r#"{"stream":{"fps":29.97,"streams":1,"queue":2,"policy":"drop_oldest","arrivals":"constant","seed":1}}"#;
        assert_eq!(serde_json::to_string(&Load::Stream(stream)).unwrap(), text);
        assert_eq!(serde_json::from_str::<Load>(text).unwrap().stream(), Some(&stream));
    }
}
