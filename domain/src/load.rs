//! When frames arrive in a trial: as fast as the schedule takes them, or at the rate of a camera.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// When frames arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Load {
    /// The next frame enters as soon as the first stage is free.
    #[default]
    Saturating,
    /// The next frame enters when the previous one has completed, so that no frame waits for another.
    OneAtATime,
    /// Frames arrive at a given rate, like those of a camera.
    Stream(StreamLoad),
    /// A search for the highest rate of a stream that a schedule sustains.
    Sustained(SustainedLoad),
}

impl Load {
    /// Whether it is the default.
    pub fn is_saturating(&self) -> bool {
        *self == Self::Saturating
    }

    /// The stream, if its rate is known.
    pub fn stream(&self) -> Option<&StreamLoad> {
        match self {
            Self::Saturating | Self::OneAtATime | Self::Sustained(_) => None,
            Self::Stream(stream) => Some(stream),
        }
    }

    /// The requirements of a sustained rate.
    pub fn sustained(&self) -> Option<&SustainedLoad> {
        match self {
            Self::Saturating | Self::OneAtATime | Self::Stream(_) => None,
            Self::Sustained(sustained) => Some(sustained),
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saturating => out.write_str("saturating"),
            Self::OneAtATime => out.write_str("one frame at a time"),
            Self::Stream(stream) => stream.fmt(out),
            Self::Sustained(sustained) => sustained.fmt(out),
        }
    }
}

/// Frames of one or several cameras, which wait until the first stage is free, in one queue per camera.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamLoad {
    /// Frames per second of each stream.
    #[schemars(range(min = 0.001, max = 10_000))]
    pub fps: f64,
    /// Number of streams, which take turns. Default: 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(min = 1, max = 64))]
    pub streams: u32,
    /// Frames of a stream that can wait for the first stage, or `auto`: as many as the planner chooses for each schedule.
    /// Default: 2.
    #[serde(default)]
    pub queue: QueueLength,
    /// What happens to a frame that finds its queue full. Default: `drop_oldest`.
    #[serde(default)]
    pub policy: QueuePolicy,
    /// Latest time of a result after the scheduled arrival of its frame, in ms. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.001, max = 1e6))]
    pub deadline_ms: Option<f64>,
    /// Time between arrivals of a stream. Default: `constant`.
    #[serde(default, skip_serializing_if = "ArrivalTimes::is_constant")]
    pub arrivals: ArrivalTimes,
}

/// What a rate must meet to be sustained.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SustainedLoad {
    /// Maximum share of frames that are dropped, such as `0.1%`.
    #[serde(with = "percent")]
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)? ?%$"))]
    pub max_drops: f64,
    /// Maximum 99th percentile of the latency from the scheduled arrival, in ms.
    #[schemars(range(min = 0.001, max = 1e6))]
    pub deadline_ms: f64,
    /// Number of streams, which take turns and share the rate. Default: 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(min = 1, max = 64))]
    pub streams: u32,
    /// Frames of a stream that can wait for the first stage. Default: 2.
    #[serde(default = "two")]
    #[schemars(
        range(min = 1, max = 1024),
        extend("x-without-auto" = "`auto` needs a fixed rate: `load: { stream: { fps: … } }`")
    )]
    pub queue: u32,
    /// What happens to a frame that finds its queue full. Default: `drop_oldest`.
    #[serde(default)]
    pub policy: QueuePolicy,
    /// Time between arrivals of a stream. Default: `constant`.
    #[serde(default, skip_serializing_if = "ArrivalTimes::is_constant")]
    pub arrivals: ArrivalTimes,
}

impl SustainedLoad {
    /// A stream with this many frames per second of all streams together.
    pub fn at(&self, total_fps: f64) -> StreamLoad {
        let Self { deadline_ms, streams, queue, policy, arrivals, .. } = *self;
        let (fps, queue) = (total_fps / f64::from(streams), QueueLength::Places(queue));
        StreamLoad { fps, streams, queue, policy, deadline_ms: Some(deadline_ms), arrivals }
    }
}

impl fmt::Display for SustainedLoad {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { max_drops, deadline_ms, streams, queue, policy, arrivals } = self;
        let drops = percent::text(*max_drops);
        write!(out, "the highest rate with at most {drops} dropped and p99 within {deadline_ms} ms")?;
        if *streams > 1 {
            write!(out, ", {streams} streams")?;
        }
        if !arrivals.is_constant() {
            out.write_str(", Poisson arrivals")?;
        }
        write!(out, ", queue of {queue}, {policy}")
    }
}

/// A share of one, written as a percentage: 0.001 is `0.1%`.
mod percent {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn text(share: f64) -> String {
        // Rounded, since 100 × 0.07 is not 7.
        format!("{}%", (share * 1e8).round() / 1e6)
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference to the field")]
    pub(super) fn serialize<S: Serializer>(share: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*share))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = text.trim_end_matches('%').trim_end();
        Ok(number.parse::<f64>().map_err(D::Error::custom)? / 100.0)
    }
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference to the field")]
fn is_one(streams: &u32) -> bool {
    *streams == 1
}

fn two() -> u32 {
    QueueLength::DEFAULT
}

/// How many frames can wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub enum QueueLength {
    /// As many as the planner chooses ([`queue_plan`](crate::queue_plan)).
    Auto,
    /// A number of frames.
    Places(u32),
}

impl QueueLength {
    /// Places of a queue by default.
    pub const DEFAULT: u32 = 2;

    /// Its places, unless the planner chooses them.
    pub fn places(self) -> Option<u32> {
        match self {
            Self::Auto => None,
            Self::Places(places) => Some(places),
        }
    }
}

impl Default for QueueLength {
    fn default() -> Self {
        Self::Places(Self::DEFAULT)
    }
}

impl fmt::Display for QueueLength {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => out.write_str("queue auto"),
            Self::Places(places) => write!(out, "queue of {places}"),
        }
    }
}

/// A length as written in a file: a word or a number.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    /// The word.
    Auto(Auto),
    /// The number.
    Places(u32),
}

/// The word `auto`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Auto {
    /// Chosen by the planner.
    Auto,
}

impl From<Written> for QueueLength {
    fn from(written: Written) -> Self {
        match written {
            Written::Auto(Auto::Auto) => Self::Auto,
            Written::Places(places) => Self::Places(places),
        }
    }
}

impl From<QueueLength> for Written {
    fn from(length: QueueLength) -> Self {
        match length {
            QueueLength::Auto => Self::Auto(Auto::Auto),
            QueueLength::Places(places) => Self::Places(places),
        }
    }
}

impl JsonSchema for QueueLength {
    fn schema_name() -> Cow<'static, str> {
        "QueueLength".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How many frames can wait: a number, or `auto`.",
            "oneOf": [
                { "const": "auto", "type": "string", "description": "As many as the planner chooses." },
                { "type": "integer", "format": "uint32", "minimum": 1, "maximum": 1024, "description": "A number of frames." }
            ]
        })
    }
}

impl StreamLoad {
    /// Frames per second of all streams together.
    pub fn total_fps(&self) -> f64 {
        self.fps * f64::from(self.streams)
    }

    /// Mean time between arrivals of all streams together, in ns.
    pub fn interval_ns(&self) -> f64 {
        1e9 / self.total_fps()
    }
}

impl fmt::Display for StreamLoad {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fps, streams, queue, policy, deadline_ms, arrivals } = self;
        if *streams > 1 {
            write!(out, "{streams} streams of {fps} frames/s each")?;
        } else {
            write!(out, "a stream of {fps} frames/s")?;
        }
        if !arrivals.is_constant() {
            out.write_str(" with Poisson arrivals")?;
        }
        write!(out, ", {queue}, {policy}")?;
        deadline_ms.map_or(Ok(()), |deadline| write!(out, ", deadline {deadline} ms"))
    }
}

/// What happens to a frame that finds its queue full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueuePolicy {
    /// It takes the place of the oldest frame in the queue, which is dropped.
    #[default]
    DropOldest,
    /// It is dropped.
    DropNewest,
    /// It waits outside of the queue, and all later ones behind it. No frame is dropped.
    Block,
}

impl fmt::Display for QueuePolicy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::DropOldest => "drop_oldest",
            Self::DropNewest => "drop_newest",
            Self::Block => "block",
        })
    }
}

/// Time between arrivals of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ArrivalTimes {
    /// Constant, like those of a camera.
    #[default]
    Constant,
    /// Random: a Poisson process, like the requests of many independent users.
    Poisson,
}

impl ArrivalTimes {
    /// Whether all are equal.
    pub fn is_constant(&self) -> bool {
        *self == Self::Constant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_shown_with_all_that_differs_from_the_defaults() {
        let read = |text: &str| -> Load { serde_json::from_str(text).unwrap() };
        let check = |text: &str, shown: &str| assert_eq!(read(text).to_string(), shown);
        check("\"saturating\"", "saturating");
        check("\"one_at_a_time\"", "one frame at a time");
        check(r#"{"stream":{"fps":29.97}}"#, "a stream of 29.97 frames/s, queue of 2, drop_oldest");
        check(
            r#"{"stream":{"fps":30,"streams":4,"queue":1,"policy":"block","deadline_ms":50,"arrivals":"poisson"}}"#,
            "4 streams of 30 frames/s each with Poisson arrivals, queue of 1, block, deadline 50 ms",
        );
        let chosen = "a stream of 30 frames/s, queue auto, drop_oldest";
        check(r#"{"stream":{"fps":30,"queue":"auto"}}"#, chosen);
        let length = |text: &str| serde_json::from_str::<QueueLength>(text);
        assert_eq!(
            serde_json::to_string(&[QueueLength::Auto, QueueLength::Places(4)]).unwrap(),
            r#"["auto",4]"#
        );
        assert!(length("\"four\"").is_err() && length("-1").is_err() && length("2.5").is_err());
        check(
            r#"{"sustained":{"max_drops":"0.1%","deadline_ms":50}}"#,
            "the highest rate with at most 0.1% dropped and p99 within 50 ms, queue of 2, drop_oldest",
        );
        let sustained =
            *read(r#"{"sustained":{"max_drops":"0.1%","deadline_ms":50,"streams":4}}"#).sustained().unwrap();
        let probe = sustained.at(120.0);
        assert!((probe.fps - 30.0).abs() < 1e-9 && probe.deadline_ms == Some(50.0), "{probe:?}");
        assert!(
            serde_json::to_string(&Load::Sustained(sustained)).unwrap().contains(r#""max_drops":"0.1%""#)
        );
        let stream = *read(r#"{"stream":{"fps":30,"streams":4}}"#).stream().unwrap();
        assert!(
            (stream.total_fps() - 120.0).abs() < 1e-9 && (stream.interval_ns() * 120.0 - 1e9).abs() < 1e-3
        );
        assert_eq!(
            serde_json::to_string(&Load::Stream(StreamLoad { streams: 1, ..stream })).unwrap(),
            r#"{"stream":{"fps":30.0,"queue":2,"policy":"drop_oldest"}}"#
        );
    }
}
